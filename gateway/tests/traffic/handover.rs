//! Binary upgrade: a new process takes the listening sockets over and no request is lost; one that
//! does not come up changes nothing.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http_body_util::Empty;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};
use tokio::process::Command;

use crate::support::client::{self, Answer, read_until};
use crate::support::eventually;
use crate::support::gateway::{BASE, Gateway, Successor, route, service};
use crate::support::origin::Origin;

/// Upgrades under load.
const UPGRADES: usize = 100;

fn configuration(origin: &Origin) -> String {
    let service = service("app", &[origin.address], "");
    format!("{BASE}{service}{}", route("all", "/{*rest}", "app", ""))
}

/// A gateway whose program stands under a name of its own, so that it can be replaced.
async fn start_in(folder: &Path, configuration: &str) -> Gateway {
    let program = folder.join("weir-gateway");
    place(&program, Path::new(env!("CARGO_BIN_EXE_weir-gateway")));
    Gateway::start_as(Command::new(program), configuration, &[]).await
}

/// Puts another program in the place of the first, as a package manager does.
fn place(program: &Path, other: &Path) {
    let beside = program.with_extension("new");
    std::os::unix::fs::symlink(other, &beside).unwrap();
    std::fs::rename(&beside, program).unwrap();
}

async fn pid(gateway: &Gateway) -> u32 {
    let pid = gateway.status().await["pid"].as_u64().unwrap();
    u32::try_from(pid).unwrap()
}

async fn upgraded_stream(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let ask =
        b"GET /upgrade HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    stream.write_all(ask).await.unwrap();
    read_until(&mut stream, "\r\n\r\n").await;
    stream
}

#[tokio::test]
async fn what_is_under_way_stays_with_the_old_process_and_the_rest_goes_to_the_new() {
    let origin = Origin::start("one").await;
    let mut gateway = Gateway::start_with(&configuration(&origin), &[]).await;
    let old = pid(&gateway).await;
    assert_eq!(old, gateway.pid());
    let mut tunnel = upgraded_stream(gateway.address()).await;
    let held = tokio::spawn(client::get(gateway.address(), "/hold"));
    origin.holds(1).await;
    let mut idle = client::connect::<Empty<Bytes>>(gateway.address())
        .await
        .unwrap();
    let ask = || client::request("/").body(Empty::new()).unwrap();
    Answer::read(idle.send_request(ask()).await.unwrap())
        .await
        .unwrap();

    let said = gateway.command(&["upgrade"]).await;
    let new = pid(&gateway).await;
    let _new = Successor(new);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert!(
        said.stdout.contains(&format!("process {new} ")),
        "{}",
        said.stdout
    );
    assert_ne!(new, old);

    assert_eq!(gateway.admin("/readyz").await.status, 200);
    assert_eq!(client::get(gateway.address(), "/").await.status, 200);
    let answer = Answer::read(idle.send_request(ask()).await.unwrap())
        .await
        .unwrap();
    assert_eq!(
        answer.status, 200,
        "a request on an old connection is served"
    );
    assert_eq!(
        answer.header("connection"),
        "close",
        "and the last one there"
    );
    origin.release();
    assert_eq!(held.await.unwrap().status, 200);
    tunnel.write_all(b"still here!").await.unwrap();
    read_until(&mut tunnel, "still here!").await;

    drop(tunnel);
    assert_eq!(
        gateway.ended().await.code(),
        Some(0),
        "nothing is left to do"
    );
    assert_eq!(
        pid(&gateway).await,
        new,
        "the control socket is the new one's"
    );
    let reloaded = gateway.command(&["reload"]).await;
    assert_eq!(reloaded.code, Some(0), "{}", reloaded.stderr);
    let drained = gateway.command(&["drain"]).await;
    assert_eq!(
        drained.stdout,
        format!("draining: process {new} will end\n")
    );
    eventually("the socket goes with the last process", async || {
        (!gateway.file("gateway.sock").exists()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_process_that_does_not_come_up_changes_nothing() {
    let origin = Origin::start("one").await;
    let folder = tempfile::TempDir::new().unwrap();
    let good = configuration(&origin);
    let gateway = start_in(folder.path(), &good).await;
    let program = folder.path().join("weir-gateway");
    let mut tunnel = upgraded_stream(gateway.address()).await;
    let this = Path::new(env!("CARGO_BIN_EXE_weir-gateway"));
    let ours = gateway.listener("admin").port();
    let taken = good.replacen("127.0.0.1:0", &format!("192.0.2.1:{ours}"), 1);
    let table = [
        (Path::new("/bin/false"), &good, "ended before it was ready"),
        (Path::new("/nowhere"), &good, "cannot start"),
        (
            this,
            &good.replace("[routes.all]", "[routs.all]"),
            "unknown key `routs`",
        ),
        (this, &taken, "cannot bind"),
    ];
    let old = gateway.pid();
    for (binary, text, reason) in table {
        place(&program, binary);
        std::fs::write(gateway.file("gateway.toml"), text).unwrap();
        let said = gateway.command(&["upgrade"]).await;
        assert_eq!(said.code, Some(1), "{}", said.stdout);
        assert!(
            said.stderr.contains(reason),
            "{} instead of {reason}",
            said.stderr
        );
        assert_eq!(client::get(gateway.address(), "/").await.status, 200);
        assert_eq!(pid(&gateway).await, old);
    }
    place(&program, this);
    std::fs::write(gateway.file("gateway.toml"), &good).unwrap();
    tunnel.write_all(b"still here!").await.unwrap();
    read_until(&mut tunnel, "still here!").await;
    gateway.signal("-USR2").await;
    let new = eventually("SIGUSR2 upgrades too", async || {
        let now = pid(&gateway).await;
        (now != old).then_some(now)
    })
    .await;
    let _new = Successor(new);
    tunnel.write_all(b"and here!").await.unwrap();
    read_until(&mut tunnel, "and here!").await;
}

#[tokio::test]
async fn a_process_started_by_anyone_takes_over_with_more_or_fewer_workers() {
    let origin = Origin::start("one").await;
    let mut gateway = Gateway::start_with(&configuration(&origin), &[]).await;
    let path = gateway.file("gateway.toml");
    let start = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir-gateway"));
        command.args(["run", "--config"]).arg(&path).args(more);
        command.stderr(Stdio::piped()).kill_on_drop(true);
        command
    };
    let refused = start(&[]).output().await.unwrap();
    assert_eq!(
        refused.status.code(),
        Some(1),
        "a second gateway is not wanted"
    );
    let reason = String::from_utf8(refused.stderr).unwrap();
    assert!(reason.contains("another process answers there"), "{reason}");
    let nobody = start(&["--take-over", "/nowhere.sock"])
        .output()
        .await
        .unwrap();
    let reason = String::from_utf8(nobody.stderr).unwrap();
    assert!(reason.contains("nobody to take over from"), "{reason}");

    let socket = gateway.file("gateway.sock");
    let take_over = ["--take-over", socket.to_str().unwrap()];
    let mut processes = Vec::new();
    for workers in [4, 1] {
        let text = configuration(&origin).replace("workers = 2", &format!("workers = {workers}"));
        std::fs::write(&path, text).unwrap();
        let mut new = start(&take_over).stderr(Stdio::null()).spawn().unwrap();
        let id = new.id().unwrap();
        eventually("the new process serves", async || {
            assert!(new.try_wait().unwrap().is_none(), "it ended");
            let status = gateway.status().await;
            (status["pid"] == id).then(|| assert_eq!(status["workers"], workers))
        })
        .await;
        processes.push(new);
        for _ in 0..20 {
            assert_eq!(client::get(gateway.address(), "/").await.status, 200);
        }
    }
    assert_eq!(gateway.ended().await.code(), Some(0));
    let mut first = processes.remove(0);
    assert_eq!(first.wait().await.unwrap().code(), Some(0));
}

/// Sends requests until told to stop, over connections that are kept or new each time. A
/// connection is left when a response says that it ends, and never for another reason.
async fn load(gateway: SocketAddr, keep: bool, stop: Arc<AtomicBool>) -> (u64, Vec<String>) {
    let (mut sent, mut failed) = (0, Vec::new());
    let mut kept = None;
    while !stop.load(Ordering::Relaxed) {
        sent += 1;
        let exchange = async {
            let mut sender = match kept.take() {
                Some(sender) => sender,
                None => client::connect(gateway).await?,
            };
            let request = client::request("/").body(Empty::<Bytes>::new())?;
            let answer = Answer::read(sender.send_request(request).await?).await?;
            let ends = answer.header("connection") == "close";
            if keep && !ends {
                sender.ready().await?;
                kept = Some(sender);
            }
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(answer)
        };
        match exchange.await {
            Ok(answer) if answer.status == 200 => {}
            Ok(answer) => failed.push(answer.text()),
            Err(error) => failed.push(error.to_string()),
        }
    }
    (sent, failed)
}

#[tokio::test]
async fn upgrades_under_load_lose_nothing() {
    let origin = Origin::start("one").await;
    let gateway = Gateway::start_with(&configuration(&origin), &[]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = [true, true, false, false]
        .map(|keep| tokio::spawn(load(gateway.address(), keep, Arc::clone(&stop))))
        .into();
    let mut last = Successor(gateway.pid());
    for round in 0..UPGRADES {
        let said = gateway.command(&["upgrade"]).await;
        assert_eq!(said.code, Some(0), "round {round}: {}", said.stderr);
        let now = pid(&gateway).await;
        assert_ne!(now, last.0, "round {round}");
        // The one before drains by itself.
        last.0 = now;
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        let (sent, failed) = client.await.unwrap();
        assert_eq!(failed, Vec::<String>::new(), "of {sent}");
        assert!(sent > UPGRADES as u64 / 10, "a load of {sent}");
    }
}

#[tokio::test]
async fn a_connection_to_the_control_socket_keeps_no_old_process_alive() {
    let origin = Origin::start("one").await;
    let mut gateway = Gateway::start_with(&configuration(&origin), &[]).await;
    let path = gateway.file("gateway.sock");
    // Accepted before the last command is, and nothing is asked on it.
    let silent = UnixStream::connect(path).await.unwrap();
    let _new = gateway.upgrade().await;
    assert_eq!(gateway.ended().await.code(), Some(0));
    drop(silent);
}
