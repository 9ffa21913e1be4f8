//! Ours: one worker, no access log.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::{CONNECTIONS_MAX, Setup, write};

/// The fields that the other proxies add too.
const ADDED: &str = "added_headers = [\"x-forwarded-for\", \"x-forwarded-proto\"]\n";

/// Longer than the origin takes, and the client until its next request.
const BUSY_POLL: &str = "busy_poll = \"50us\"\n";

/// Nobody is to be waited for at the end: a gateway that is killed has not written what it counted,
/// where it is being trained.
const DRAIN: &str = "[drain]\ndelay = \"0s\"\nidle_grace = \"0s\"\ndeadline = \"1s\"\n";

pub(super) fn command(program: &Path, setup: &Setup) -> Result<Command> {
    let path = write(setup, "gateway.toml", &configuration(setup))?;
    let mut command = Command::new(program);
    command.args(["run", "--config"]).arg(path);
    Ok(command)
}

fn configuration(setup: &Setup) -> String {
    let Setup {
        certificate,
        origin,
        plain,
        tls,
        cpus,
        routes,
        busy_poll,
        chain,
        ..
    } = setup;
    let workers = cpus.len();
    let log = "[access_log]\nto = \"off\"\n";
    let (sections, used) = match chain {
        None => (log, String::new()),
        Some(chain) => (chain.sections.as_str(), format!("use = {}\n", chain.used)),
    };
    let busy_poll = if *busy_poll { BUSY_POLL } else { "" };
    let mut text = format!(
        "[server]\nworkers = {workers}\nconnections_max = {CONNECTIONS_MAX}\n{busy_poll}\n\
         [listeners.plain]\nbind = \"{plain}\"\n{ADDED}\n\
         [listeners.tls]\nbind = \"{tls}\"\ntls = {{ certificates = [{certificate:?}] }}\n{ADDED}\n\
         [services.origin]\nendpoints = [\"{origin}\"]\n\n\
         {DRAIN}\n{sections}\n"
    );
    if *routes == 0 {
        let _ = write!(
            text,
            "[routes.all]\nmatch = {{}}\n{used}service = \"origin\"\n"
        );
    }
    for route in 0..*routes {
        let _ = write!(
            text,
            "[routes.r{route}]\nmatch = {{ path = \"/r/{route}/{{*rest}}\" }}\n\
             {used}service = \"origin\"\n\n"
        );
    }
    text
}
