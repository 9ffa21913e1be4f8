//! The demo: clients, a balancer, two gateways and three services, each host in a namespace of its
//! own, with real requests from end to end.
//!
//! The story, in order: [`topology`] builds the hosts and starts the programs; [`scenes`] sends
//! requests that must be answered in a certain way, and shows how they spread; [`failover`] kills
//! an instance and a gateway under [`load`]; [`report`] prints all of it and sums up.

pub mod failover;
pub mod load;
pub mod report;
pub mod scenes;
pub mod spread;
pub mod topology;

use std::io::BufRead;

use anyhow::{Context, Result};

use crate::output::say;
use crate::{cleanup, object, privilege};
use report::Report;
use topology::World;

/// What keeps the demo from running here, in one sentence that says what to do.
#[must_use]
pub fn missing() -> Option<String> {
    privilege::missing_for_namespaces().or_else(object::missing)
}

/// Runs the demo; true if all held. Unless `check` is set it then stays up for the user to try.
///
/// # Errors
///
/// When a host cannot be built or a program does not start.
pub fn run(check: bool) -> Result<bool> {
    let mut report = Report::new(say);
    report.title("Building the hosts");
    let mut world = World::build().context("building the demo")?;
    report.hosts(&world);
    if let Err(error) = story(&mut world, &mut report) {
        report.last_words(&mut world);
        return Err(error);
    }
    if !check {
        report.title("Everything stays up: try it");
        report.invitation(&world)?;
        wait_for_enter();
    }
    drop(world);
    Ok(report.conclude())
}

fn story(world: &mut World, report: &mut Report) -> Result<()> {
    report.title("Requests through the VIP");
    scenes::answers(world, report)?;
    report.title("Spread over gateways and instances");
    scenes::spread(world, report)?;
    report.title(&format!(
        "Killing the instance {} under load",
        failover::INSTANCE
    ));
    failover::instance(world, report)?;
    report.title(&format!("Killing {} under load", failover::GATEWAY));
    failover::gateway(world, report)?;
    report.title("Killing the balancer's agent");
    failover::agent(world, report)
}

/// Ctrl-C works too: the signal removes everything and ends the program.
fn wait_for_enter() {
    cleanup::set_signal_exit_code(0);
    // An unreadable or closed standard input ends the wait as Enter does.
    let _ = std::io::stdin().lock().read_line(&mut String::new());
}
