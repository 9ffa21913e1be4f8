//! `weir-gateway status`, `reload`, `upgrade`, `drain`, `reopen-logs` and `log-level`: what operators ask of a running gateway,
//! over its control socket.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::{Failure, output};
use crate::admin::client::{Client, Error};
use crate::admin::types::{Phase, Reason, Status};

/// Where the control socket is looked for when no other place is named.
const SOCKET_DEFAULT: &str = "/run/weir/gateway.sock";

/// The option all of them share.
#[derive(Debug, clap::Args)]
pub(super) struct Socket {
    /// Control socket of the gateway, as `[admin]` names it
    #[arg(short, long, value_name = "PATH", env = "WEIR_GATEWAY_SOCKET")]
    #[arg(default_value = SOCKET_DEFAULT)]
    socket: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(super) struct StatusArguments {
    #[command(flatten)]
    socket: Socket,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct LevelArguments {
    #[command(flatten)]
    socket: Socket,
    /// `error`, `warn`, `info`, `debug`, `trace`, or by module as in `info,gateway::upstream=debug`
    #[arg(value_parser = level)]
    level: String,
}

/// What can stand in a request target as it is.
fn level(text: &str) -> Result<String, &'static str> {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || ",=:_-".contains(letter);
    match text.chars().all(fits) {
        true => Ok(text.to_owned()),
        false => Err("only levels and modules can be named here"),
    }
}

pub(super) fn status(arguments: &StatusArguments) -> Result<(), Failure> {
    let status = ask(&arguments.socket, async |client| client.status().await)?;
    if arguments.json {
        output::json(&status)
    } else {
        output::text(&shown(&status))
    }
}

pub(super) fn reload(socket: &Socket) -> Result<(), Failure> {
    let reloaded = ask(socket, async |client| client.reload().await)?;
    output::text(&format!(
        "reloaded: {} routes, {} services; read in {:.1} ms, in effect {:.1} ms later",
        reloaded.routes,
        reloaded.services,
        reloaded.load_us as f64 / 1e3,
        reloaded.effect_us as f64 / 1e3,
    ))
}

pub(super) fn upgrade(socket: &Socket) -> Result<(), Failure> {
    let upgraded = ask(socket, async |client| client.upgrade().await)?;
    output::text(&format!(
        "upgraded: process {} with version {} serves, the old one drains",
        upgraded.pid, upgraded.version
    ))
}

pub(super) fn drain(socket: &Socket) -> Result<(), Failure> {
    let draining = ask(socket, async |client| client.drain().await)?;
    output::text(&format!("draining: process {} will end", draining.pid))
}

pub(super) fn reopen_logs(socket: &Socket) -> Result<(), Failure> {
    let reopened = ask(socket, async |client| client.reopen_logs().await)?;
    output::text(&format!("{} access logs are opened again", reopened.logs))
}

pub(super) fn log_level(arguments: &LevelArguments) -> Result<(), Failure> {
    let level = &arguments.level;
    let level = ask(&arguments.socket, async |client| {
        client.log_level(level).await
    })?;
    output::text(&format!("the error log says from now on: {}", level.level))
}

fn ask<T>(
    socket: &Socket,
    question: impl AsyncFnOnce(Client) -> Result<T, Error>,
) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)?;
    let client = Client::new(&socket.socket);
    runtime.block_on(question(client)).map_err(|error| {
        let hint = error.hint();
        match error {
            Error::Refused(problem) if problem.reason == Reason::RefusedConfiguration => {
                Failure::RefusedByGateway(problem.detail)
            }
            error => Failure::Other(error.into(), hint),
        }
    })
}

fn shown(status: &Status) -> String {
    let configuration = &status.configuration;
    let phase = match status.phase {
        Phase::Serving => "serving",
        Phase::Unready => "about to drain",
        Phase::Draining => "draining",
    };
    let mut text = format!(
        "weir-gateway {}, process {}: {phase}\n",
        status.version, status.pid
    );
    if let Some(successor) = status.successor {
        let _ = writeln!(text, "process {successor} has taken over");
    }
    let uptime = humantime::format_duration(std::time::Duration::from_secs(status.uptime_seconds));
    let _ = writeln!(
        text,
        "up {uptime}, {} workers, {} connections, {} of them upgraded, {} requests under way",
        status.workers, status.connections_open, status.tunnels_open, status.requests_in_flight
    );
    let _ = writeln!(
        text,
        "\n{}: {} routes, {} services, loaded {}, {} reloads",
        configuration.file.display(),
        configuration.routes,
        configuration.services,
        configuration.loaded,
        configuration.reloads
    );
    for listener in &status.listeners {
        let spoken = if listener.tls { "https" } else { "http" };
        let _ = writeln!(
            text,
            "listener {}: {spoken} on {}",
            listener.name, listener.address
        );
    }
    if let Some(refused) = &configuration.refused {
        let _ = writeln!(
            text,
            "\nthe last reload was refused, {}:\n{}",
            refused.at, refused.reason
        );
    }
    text
}
