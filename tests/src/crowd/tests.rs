//! The crowd against real servers on the loopback interface, good ones and odd ones.

use tokio::net::TcpListener;

use super::*;
use crate::echo;

const PACE: Duration = Duration::from_millis(5);

/// Long enough for several messages of everybody, however busy the machine is.
const WAIT_LIMIT: Duration = Duration::from_secs(20);

/// Opens `number` connections to `to`, lets them talk until `enough`, ends them, and returns all
/// reports in order.
async fn crowd(
    number: usize,
    to: SocketAddr,
    enough: impl Fn(&Report) -> bool,
) -> (Vec<Named>, Vec<Report>) {
    let (commands, received) = commands::unbounded_channel();
    let asking = async move {
        let opening = Opening {
            group: Group::Tested,
            number,
            to,
            sources: vec!["127.0.0.1".parse().unwrap(), "127.0.0.2".parse().unwrap()],
            pace: PACE,
        };
        let names = ask(&commands, |reply| Command::Open(opening, reply)).await;
        let mut reports = Vec::new();
        let deadline = Instant::now() + WAIT_LIMIT;
        while !reports.iter().any(&enough) {
            assert!(Instant::now() < deadline, "{reports:?}");
            tokio::time::sleep(PACE).await;
            reports.push(ask(&commands, Command::Report).await);
        }
        reports.push(ask(&commands, Command::Close).await);
        (names, reports)
    };
    let local = LocalSet::new();
    let (result, ()) = local
        .run_until(async { tokio::join!(asking, obey(received)) })
        .await;
    result
}

async fn ask<T>(
    commands: &commands::UnboundedSender<Command>,
    command: impl FnOnce(mpsc::Sender<T>) -> Command,
) -> T {
    let (reply, answer) = mpsc::channel();
    commands.send(command(reply)).unwrap();
    loop {
        match answer.try_recv() {
            Ok(answer) => return answer,
            Err(mpsc::TryRecvError::Empty) => tokio::task::yield_now().await,
            Err(gone) => panic!("{gone}"),
        }
    }
}

/// What an odd server does to bytes before it sends them back.
type Treat = fn(&mut Vec<u8>);

/// A server that says its name and then treats what comes by `treat`.
async fn server(treat: Treat) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                stream.write_all(b"odd\n").await.unwrap();
                let mut bytes = vec![0; 4096];
                while let Ok(length @ 1..) = stream.read(&mut bytes).await {
                    let mut answer = bytes[..length].to_vec();
                    treat(&mut answer);
                    if answer.is_empty() || stream.write_all(&answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn everybody_talks_and_ends_in_good_order() {
    let (tcp, udp) = echo::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let to = tcp.local_addr().unwrap();
    tokio::spawn(echo::serve(tcp, udp, "backend-1".to_owned()));
    let (names, reports) = crowd(20, to, |report| report.silent.is_empty()).await;
    assert_eq!(names, vec![Ok("backend-1".to_owned()); 20]);
    let last = reports.last().unwrap();
    assert_eq!(last.alive, BTreeMap::from([("backend-1".to_owned(), 20)]));
    assert!(reports.iter().all(|report| report.broken.is_empty()));
    assert!(reports.iter().any(|report| report.exchanges > 0));
}

#[tokio::test]
async fn a_changed_byte_and_an_end_are_seen() {
    let cases: [(Treat, &str); 2] = [
        (|bytes| bytes[0] ^= 1, "other bytes came back"),
        (Vec::clear, "early eof"),
    ];
    for (treat, why) in cases {
        let to = server(treat).await;
        let (_, reports) = crowd(1, to, |report| !report.broken.is_empty()).await;
        let broken: Vec<_> = reports.iter().flat_map(|report| &report.broken).collect();
        assert_eq!(broken.len(), 1, "{why}");
        assert_eq!(broken[0].server, "odd");
        assert!(broken[0].why.starts_with(why), "{}", broken[0].why);
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_an_error() {
    // Bound, and so nobody else's, but not listening.
    let gone = TcpSocket::new_v4().unwrap();
    gone.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let to = gone.local_addr().unwrap();
    let (names, _) = crowd(1, to, |_| true).await;
    let error = names[0].as_ref().unwrap_err();
    assert!(error.contains("refused"), "{error}");
}
