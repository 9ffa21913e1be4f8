//! The demo as a whole: it holds, it ends by itself, and it leaves nothing behind however it ends.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::{cleanup, wait};

const BUILD_LIMIT: Duration = Duration::from_secs(60);

#[test]
fn the_demo_holds_and_sums_up_in_its_last_line() {
    if !crate::balancer_granted() {
        return;
    }
    let output = demo().output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{talk}");
    let last = said.lines().last().unwrap();
    for part in [
        "requests sent",
        "failed",
        "gateway-1",
        "gateway-2",
        "instance",
        "gateway",
    ] {
        assert!(last.contains(part), "{last}");
    }
}

#[test]
fn an_interrupted_demo_leaves_nothing() {
    if !crate::balancer_granted() {
        return;
    }
    let mut demo = started();
    kill(pid(&demo), Signal::SIGTERM).unwrap();
    let status = demo.wait().unwrap();
    assert_eq!(status.code(), Some(130));
    assert_eq!(left_by(demo.id()), Vec::<String>::new());
}

#[test]
fn what_a_killed_demo_leaves_is_swept_by_the_next_test_bed() {
    if !crate::balancer_granted() {
        return;
    }
    let mut demo = started();
    demo.kill().unwrap();
    demo.wait().unwrap();

    cleanup::sweep();

    assert_eq!(left_by(demo.id()), Vec::<String>::new());
}

fn demo() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
    command.arg("--check").stdin(Stdio::null());
    command
}

/// A demo that has begun to build its hosts.
fn started() -> Child {
    let child = demo().stdout(Stdio::null()).spawn().unwrap();
    let built = || (left_by(child.id()).len() > 5).then_some(());
    wait::until("the demo's first hosts", BUILD_LIMIT, built).unwrap();
    child
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().unwrap())
}

/// Namespaces and directories of a process of ours.
fn left_by(pid: u32) -> Vec<String> {
    let prefix = format!("{}{pid}-", cleanup::NAME_PREFIX);
    let places = [
        Path::new(cleanup::NAMESPACE_DIRECTORY).to_owned(),
        std::env::temp_dir(),
    ];
    let entries = places
        .iter()
        .filter_map(|place| fs::read_dir(place).ok())
        .flatten();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| name.starts_with(&prefix)).collect()
}
