//! A gateway's host: the configuration of `weir-gateway`, and the process.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::binaries;
use crate::client::{Client, inside};
use crate::host::Host;
use crate::process::Process;

/// Where every gateway of the test bed serves `/readyz` and metrics.
pub const ADMIN_PORT: u16 = 9901;

/// How long a gateway may take from its start until it is ready.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A host that runs `weir-gateway run`.
#[derive(Debug)]
pub struct Gateway {
    host: Host,
    configuration: PathBuf,
    process: Process,
}

/// What all gateways of one test bed share: files on disk, and the services behind them.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// PEM file with certificate and key for `api.example.com`.
    pub certificate: PathBuf,
    /// The JWK set of the token issuer.
    pub jwks: PathBuf,
    /// The issuer's name.
    pub issuer: String,
    /// The audience tokens must name.
    pub audience: String,
    /// Each service with its instances.
    pub services: Vec<(String, Vec<SocketAddr>)>,
    /// Services whose routes are limited, by user: five requests per second.
    pub limited: Vec<String>,
}

impl Gateway {
    /// Starts a gateway on `host` and waits until it says that it is ready.
    ///
    /// # Errors
    ///
    /// With its last words, when it does not get ready.
    pub fn start(host: Host, configuration: &Path) -> Result<Self> {
        let process = start_process(&host, configuration)?;
        Ok(Self {
            host,
            configuration: configuration.to_owned(),
            process,
        })
    }

    /// The host.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Starts a gateway again that has ended.
    ///
    /// # Errors
    ///
    /// As [`Gateway::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.process = start_process(&self.host, &self.configuration)?;
        Ok(())
    }
}

fn start_process(host: &Host, configuration: &Path) -> Result<Process> {
    let mut command = Command::new(binaries::path("weir-gateway")?);
    command.arg("run").arg("--config").arg(configuration);
    let mut process = host.start("weir-gateway", command)?;
    let admin = SocketAddr::new(host.addresses().v4.into(), ADMIN_PORT);
    let client = Client::new(admin, "localhost").with_timeout(Duration::from_secs(1));
    process.wait_ready("the gateway to be ready", START_LIMIT, || {
        let reply = inside(host, || client.once("/readyz")).ok()?;
        reply.status.is_success().then_some(())
    })?;
    Ok(process)
}

impl GatewayConfig {
    /// Writes the configuration to `path`.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        std::fs::write(path, self.text()).with_context(|| format!("writing {}", path.display()))
    }

    /// The configuration as text, for a person to read.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = self.fixed_part();
        for (service, endpoints) in &self.services {
            let endpoints: Vec<String> = endpoints.iter().map(ToString::to_string).collect();
            let limit = if self.limited.contains(service) {
                ", \"per-user\""
            } else {
                ""
            };
            let _ = write!(
                text,
                "\n[services.{service}]\n\
                 endpoints = {endpoints:?}\n\
                 health = {{ path = \"/healthz\", every = \"200ms\", timeout = \"200ms\", \
                 fall = 3, rise = 2 }}\n\
                 \n\
                 [routes.{service}]\n\
                 match = {{ host = \"api.example.com\", path = \"/{service}/{{*rest}}\" }}\n\
                 use = [\"users\"{limit}]\n\
                 service = \"{service}\"\n\
                 timeout = \"2s\"\n"
            );
        }
        text
    }

    fn fixed_part(&self) -> String {
        let Self {
            certificate,
            jwks,
            issuer,
            audience,
            ..
        } = self;
        format!(
            "[listeners.public-v4]\n\
             bind = \"0.0.0.0:443\"\n\
             tls = {{ certificates = [{certificate:?}] }}\n\
             \n\
             [listeners.public-v6]\n\
             bind = \"[::]:443\"\n\
             tls = {{ certificates = [{certificate:?}] }}\n\
             \n\
             [admin]\n\
             bind = \"0.0.0.0:{ADMIN_PORT}\"\n\
             \n\
             [drain]\n\
             delay = \"1s\"\n\
             deadline = \"10s\"\n\
             \n\
             [auth.users]\n\
             type = \"jwt\"\n\
             issuer = {issuer:?}\n\
             audience = [{audience:?}]\n\
             jwks = {{ file = {jwks:?} }}\n\
             \n\
             [limits.per-user]\n\
             rate = \"5/s\"\n\
             key = \"jwt.sub\"\n"
        )
    }
}
