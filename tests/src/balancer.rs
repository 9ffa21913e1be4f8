//! The load balancer's host: the agent with its data plane, and the command line to it.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;

use lb_userspace::api::types::{Backend, Stats, Status};

use crate::binaries;
use crate::bpffs::Bpffs;
use crate::command;
use crate::host::Host;
use crate::object;
use crate::pinned::Attachment;
use crate::process::Process;
use crate::wait;

/// How long the agent may take from its start to its first answer: it loads and verifies programs,
/// which takes fourteen seconds where ten others want its processor.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A host that runs `weir run` on its `eth0`.
#[derive(Debug)]
pub struct Balancer {
    host: Host,
    agent: Option<Process>,
    program: PathBuf,
    configuration: PathBuf,
    socket: PathBuf,
    pins: PathBuf,
    settings: &'static str,
    objects: Option<PathBuf>,
}

/// One VIP as it stands in the configuration.
#[derive(Debug, Clone)]
pub struct Vip {
    /// Its name.
    pub name: &'static str,
    /// Address and port; port 0 is every port.
    pub address: SocketAddr,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// `l2` or `ipip`.
    pub forward: &'static str,
    /// The health check as an inline table, such as `{ tcp = true, port = 80 }`.
    pub health: Option<&'static str>,
    /// The backends.
    pub backends: Vec<VipBackend>,
}

/// One backend of a VIP as it stands in the configuration.
#[derive(Debug, Clone)]
pub struct VipBackend {
    /// Its name.
    pub name: String,
    /// Where packets are forwarded to.
    pub address: IpAddr,
    /// Its share of new flows.
    pub weight: u16,
}

/// The weight of a backend that is like any other.
pub const WEIGHT: u16 = 100;

impl Balancer {
    /// Prepares `host`; its files go to `directory` and its pins into `bpffs`.
    ///
    /// # Errors
    ///
    /// When the program is missing, or the directories cannot be made.
    pub fn new(host: Host, directory: &Path, bpffs: &Bpffs) -> Result<Self> {
        Ok(Self {
            program: binaries::path("weir")?,
            configuration: directory.join("weir.toml"),
            socket: directory.join("weir.sock"),
            pins: bpffs.directory(host.name())?,
            host,
            agent: None,
            settings: "",
            objects: None,
        })
    }

    /// Further lines of the configuration's `[agent]`.
    pub fn set(&mut self, settings: &'static str) {
        self.settings = settings;
    }

    /// The directory of the BPF objects that the agent loads from its next start on, instead of its own.
    pub fn load_objects_from(&mut self, directory: &Path) {
        self.objects = Some(directory.to_owned());
    }

    /// The host.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The agent's control socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Where its maps are pinned.
    #[must_use]
    pub fn maps(&self) -> PathBuf {
        self.pins.join("maps")
    }

    /// What is attached to its `eth0`.
    ///
    /// # Errors
    ///
    /// As [`Attachment::read`].
    pub fn attachment(&self) -> Result<Attachment> {
        Attachment::read(&self.pins.join("links/eth0"))
    }

    /// The agent's configuration file.
    #[must_use]
    pub fn configuration(&self) -> &Path {
        &self.configuration
    }

    /// Writes the configuration; a running agent takes it up with `weir reload`.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn configure(&self, vips: &[Vip]) -> Result<()> {
        let text = self.agent_section() + &vips.iter().map(Vip::section).collect::<String>();
        std::fs::write(&self.configuration, text)
            .with_context(|| format!("writing {}", self.configuration.display()))
    }

    /// Starts the agent and waits until it answers.
    ///
    /// # Errors
    ///
    /// With the agent's last words, when it ends or does not answer.
    pub fn start(&mut self) -> Result<()> {
        let mut command = Command::new(&self.program);
        command.arg("run").arg("--config").arg(&self.configuration);
        if let Some(objects) = &self.objects {
            command.env(object::DIRECTORY_VARIABLE, objects);
        }
        let mut agent = self.host.start("weir", command)?;
        agent.wait_ready("the control socket to answer", START_LIMIT, || {
            self.weir(&["status"]).ok()
        })?;
        self.agent = Some(agent);
        Ok(())
    }

    /// Kills the agent as a crash would; the data plane stays.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn crash(&mut self) -> Result<()> {
        self.agent.take().context("the agent does not run")?.crash()
    }

    /// Has the agent end by itself; the data plane stays.
    ///
    /// # Errors
    ///
    /// When it does not run, or not end within the time that it may take to start.
    pub fn stop(&mut self) -> Result<()> {
        let mut agent = self.agent.take().context("the agent does not run")?;
        let status = agent.terminate(START_LIMIT)?;
        ensure!(status.success(), "{status}:\n{}", agent.log_tail());
        Ok(())
    }

    /// Runs a command of `weir` against the agent and returns what it printed.
    ///
    /// # Errors
    ///
    /// When the command fails.
    pub fn weir(&self, arguments: &[&str]) -> Result<String> {
        let program = self.program.to_str().context("the path of weir is UTF-8")?;
        let socket = self
            .socket
            .to_str()
            .context("the control socket's path is UTF-8")?;
        command::run(program, &[&["--socket", socket], arguments].concat())
    }

    /// As [`Balancer::weir`] with `--json`, read as `T`.
    ///
    /// # Errors
    ///
    /// When the command fails or prints no such JSON.
    pub fn weir_json<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T> {
        let text = self.weir(&[arguments, &["--json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("JSON of {arguments:?}: {text}"))
    }

    /// What `weir status` says.
    ///
    /// # Errors
    ///
    /// When the agent does not answer.
    pub fn status(&self) -> Result<Status> {
        self.weir_json(&["status"])
    }

    /// What `weir stats` says.
    ///
    /// # Errors
    ///
    /// When the agent does not answer.
    pub fn stats(&self) -> Result<Stats> {
        self.weir_json(&["stats"])
    }

    /// Waits until exactly the backends of `vip` for which `wanted` holds own slots of its ring.
    ///
    /// # Errors
    ///
    /// With the agent's last words, when that does not happen within `limit`.
    pub fn wait_for_owners(
        &mut self,
        vip: &str,
        limit: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<()> {
        let settled = wait::until("the ring to change hands", limit, || {
            let status = self.status().ok()?;
            let vip = status.vips.iter().find(|one| one.name == vip)?;
            let right = |backend: &Backend| (backend.slots > 0) == wanted(&backend.name);
            vip.backends.iter().all(right).then_some(())
        });
        settled.with_context(|| self.log_tail())
    }

    /// The last lines the agent has printed; empty when it does not run.
    #[must_use]
    pub fn log_tail(&self) -> String {
        self.agent
            .as_ref()
            .map(Process::log_tail)
            .unwrap_or_default()
    }

    fn agent_section(&self) -> String {
        format!(
            "[agent]\n\
             interfaces = [\"eth0\"]\n\
             xdp_mode = \"native\"\n\
             socket = {:?}\n\
             bpffs = {:?}\n\
             metrics = \"127.0.0.1:9100\"\n\
             {}\n",
            self.socket, self.pins, self.settings
        )
    }
}

impl Vip {
    fn section(&self) -> String {
        let Self {
            name,
            address,
            protocol,
            forward,
            ..
        } = self;
        let mut text = format!(
            "\n[vips.{name}]\naddress = \"{address}/{protocol}\"\nforward = \"{forward}\"\n"
        );
        if let Some(health) = self.health {
            let _ = writeln!(text, "health = {health}");
        }
        let _ = writeln!(text, "\n[vips.{name}.backends]");
        for VipBackend {
            name,
            address,
            weight,
        } in &self.backends
        {
            let _ = writeln!(
                text,
                "{name} = {{ address = \"{address}\", weight = {weight} }}"
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vip_is_written_as_the_agent_reads_it() {
        let vip = Vip {
            name: "web",
            address: "[2001:db8::10]:443".parse().unwrap(),
            protocol: "tcp",
            forward: "ipip",
            health: Some("{ http = \"/readyz\", port = 9901 }"),
            backends: vec![VipBackend {
                name: "gateway-1".to_owned(),
                address: "fd00::1".parse().unwrap(),
                weight: 50,
            }],
        };
        let expected = "\n[vips.web]\n\
            address = \"[2001:db8::10]:443/tcp\"\n\
            forward = \"ipip\"\n\
            health = { http = \"/readyz\", port = 9901 }\n\
            \n\
            [vips.web.backends]\n\
            gateway-1 = { address = \"fd00::1\", weight = 50 }\n";
        assert_eq!(vip.section(), expected);
    }
}
