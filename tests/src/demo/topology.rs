//! The hosts of the demo and the programs on them.
//!
//! ```text
//! client ── fabric ── balancer        weir run: XDP on eth0
//!             ├────── gateway-1, -2   weir decap attach, weir-gateway run; the VIP on lo
//!             └────── users-1..3, orders-1..2, payments-1..2   weir-service
//! ```
//!
//! A request travels client → fabric → balancer → (in a tunnel) fabric → gateway → fabric →
//! service; the answer goes from the gateway straight to the client.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rustls::ClientConfig;

use crate::backend::serve_vip;
use crate::balancer::{Balancer, Vip, VipBackend, WEIGHT};
use crate::binaries;
use crate::bpffs::Bpffs;
use crate::certs::Authority;
use crate::client::{Client, inside};
use crate::gateway::{Gateway, GatewayConfig};
use crate::host::Host;
use crate::network::{MTU_EDGE_BYTES, MTU_TUNNEL_BYTES, Network};
use crate::process::Process;
use crate::token::TokenIssuer;

/// The VIP over IPv4 (a documentation address, RFC 5737).
pub const VIP_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);

/// The VIP over IPv6 (a documentation address, RFC 3849).
pub const VIP_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 0x10);

/// The name the API is asked by.
pub const API_HOST: &str = "api.example.com";

/// The service whose route is limited.
const LIMITED_SERVICE: &str = "payments";

/// A path of that service.
pub const LIMITED_PATH: &str = "/payments/whoami";

/// Each service and how many instances it has.
pub const SERVICES: [(&str, usize); 3] = [("users", 3), ("orders", 2), ("payments", 2)];

const GATEWAYS: [&str; 2] = ["gateway-1", "gateway-2"];
const SERVICE_PORT: u16 = 8080;
const ISSUER: &str = "https://id.example.com/";
const AUDIENCE: &str = "api";

/// How long a service may take to answer its first request.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Every host of the demo. Programs are dropped before the network they live in.
pub struct World {
    /// The hosts that run `weir-gateway`.
    pub gateways: Vec<Gateway>,
    /// The hosts that run `weir-service`.
    pub instances: Vec<Instance>,
    /// The host that runs `weir`.
    pub balancer: Balancer,
    /// Where requests come from.
    pub client: Host,
    /// What the client brings along.
    pub credentials: Credentials,
    _bpffs: Bpffs,
    network: Network,
}

/// One instance of a service.
pub struct Instance {
    /// Its host, named after the instance.
    pub host: Host,
    /// The service.
    pub service: &'static str,
    /// The program.
    pub process: Process,
}

/// Keys, tokens and trust.
pub struct Credentials {
    /// A TLS client that trusts the demo's authority.
    pub tls: Arc<ClientConfig>,
    /// The authority's certificate, for curl.
    pub authority_file: PathBuf,
    /// A good token as a header line, for curl.
    pub header_file: PathBuf,
    issuer: TokenIssuer,
    stranger: TokenIssuer,
}

/// Which of the two VIP addresses a client uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl World {
    /// Builds the hosts and starts every program, from the services up to the balancer.
    ///
    /// # Errors
    ///
    /// When a tool refuses or a program does not start.
    pub fn build() -> Result<Self> {
        let mut network = Network::new("")?;
        let bpffs = Bpffs::new(network.directory())?;
        let client = network.attach("client", MTU_EDGE_BYTES)?;
        let balancer_host = network.attach("balancer", MTU_TUNNEL_BYTES)?;
        network.expect_returned_frames(&balancer_host, &bpffs)?;
        network.route_vip(VIP_V4, VIP_V6, &balancer_host)?;

        let instances = start_instances(&mut network)?;
        let (credentials, config) = credentials(&network)?;
        let config = GatewayConfig {
            services: endpoints(&instances),
            ..config
        };
        let gateways = start_gateways(&mut network, &bpffs, &config)?;

        let mut balancer = Balancer::new(balancer_host, network.directory(), &bpffs)?;
        balancer.configure(&vips(&gateways))?;
        balancer.start()?;
        let world = Self {
            gateways,
            instances,
            balancer,
            client,
            credentials,
            _bpffs: bpffs,
            network,
        };
        Ok(world)
    }

    /// The directory with logs, keys and configuration files.
    #[must_use]
    pub fn directory(&self) -> &std::path::Path {
        self.network.directory()
    }

    /// A client that asks the API through the VIP, without a token.
    #[must_use]
    pub fn stranger(&self, family: Family) -> Client {
        let address = SocketAddr::new(family.vip(), 443);
        Client::new(address, API_HOST).with_tls(Arc::clone(&self.credentials.tls))
    }

    /// A client with a good token for `subject`.
    ///
    /// # Errors
    ///
    /// When signing fails.
    pub fn user(&self, family: Family, subject: &str) -> Result<Client> {
        Ok(self
            .stranger(family)
            .with_token(&self.credentials.token(subject)?))
    }

    /// The gateways by their addresses, as services see them.
    #[must_use]
    pub fn gateway_names(&self) -> Arc<HashMap<IpAddr, String>> {
        let hosts = self.gateways.iter().map(Gateway::host);
        let names = hosts.flat_map(|host| {
            let addresses = host.addresses();
            let both = [IpAddr::from(addresses.v4), IpAddr::from(addresses.v6)];
            both.map(|address| (address, host.name().to_owned()))
        });
        Arc::new(names.collect())
    }

    /// The instance called `name`.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn instance(&mut self, name: &str) -> Result<&mut Instance> {
        let mut instances = self.instances.iter_mut();
        instances
            .find(|instance| instance.host.name() == name)
            .with_context(|| format!("the demo has no instance {name}"))
    }

    /// The gateway called `name`.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn gateway(&mut self, name: &str) -> Result<&mut Gateway> {
        let mut gateways = self.gateways.iter_mut();
        gateways
            .find(|gateway| gateway.host().name() == name)
            .with_context(|| format!("the demo has no gateway {name}"))
    }
}

impl Instance {
    /// Starts the program again after it has ended.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn restart(&mut self) -> Result<()> {
        self.process = start_service(&self.host, self.service)?;
        Ok(())
    }
}

impl Credentials {
    /// A good token for `subject`.
    ///
    /// # Errors
    ///
    /// When signing fails.
    pub fn token(&self, subject: &str) -> Result<String> {
        self.issuer.token(subject)
    }

    /// A token that has expired.
    ///
    /// # Errors
    ///
    /// When signing fails.
    pub fn expired_token(&self) -> Result<String> {
        self.issuer.expired_token("mallory")
    }

    /// A token with the right words, signed by somebody else.
    ///
    /// # Errors
    ///
    /// When signing fails.
    pub fn forged_token(&self) -> Result<String> {
        self.stranger.token("mallory")
    }
}

impl Family {
    /// Both of them.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The VIP of this family.
    #[must_use]
    pub fn vip(self) -> IpAddr {
        match self {
            Self::V4 => VIP_V4.into(),
            Self::V6 => VIP_V6.into(),
        }
    }
}

fn start_instances(network: &mut Network) -> Result<Vec<Instance>> {
    let mut instances = Vec::new();
    for (service, count) in SERVICES {
        for number in 1..=count {
            let host = network.attach(&format!("{service}-{number}"), MTU_EDGE_BYTES)?;
            let process = start_service(&host, service)?;
            instances.push(Instance {
                host,
                service,
                process,
            });
        }
    }
    for Instance { host, process, .. } in &mut instances {
        let address = SocketAddr::new(host.addresses().v4.into(), SERVICE_PORT);
        let health = Client::new(address, "localhost");
        process.wait_ready("the first answer", START_LIMIT, || {
            inside(host, || health.once("/healthz")).ok()
        })?;
    }
    Ok(instances)
}

fn start_service(host: &Host, service: &str) -> Result<Process> {
    let mut command = Command::new(binaries::path("weir-service")?);
    command.args(["http", "--service", service, "--instance", host.name()]);
    command.arg("--listen").arg(format!("[::]:{SERVICE_PORT}"));
    host.start("weir-service", command)
}

fn endpoints(instances: &[Instance]) -> Vec<(String, Vec<SocketAddr>)> {
    let addresses = |service| {
        let own = instances
            .iter()
            .filter(move |instance| instance.service == service);
        own.map(|instance| SocketAddr::new(instance.host.addresses().v4.into(), SERVICE_PORT))
    };
    SERVICES
        .map(|(service, _)| (service.to_owned(), addresses(service).collect()))
        .to_vec()
}

/// Makes keys and tokens and writes what programs and curl need of them to files.
fn credentials(network: &Network) -> Result<(Credentials, GatewayConfig)> {
    let authority = Authority::new()?;
    let identity = authority.issue(&[API_HOST])?;
    let issuer = TokenIssuer::new(ISSUER, AUDIENCE)?;
    let write = |name: &str, text: String| {
        let path = network.directory().join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        anyhow::Ok(path)
    };
    let config = GatewayConfig {
        certificate: write("api.pem", identity.certificate_pem + &identity.key_pem)?,
        jwks: write("jwks.json", issuer.jwks())?,
        issuer: ISSUER.to_owned(),
        audience: AUDIENCE.to_owned(),
        services: Vec::new(),
        limited: vec![LIMITED_SERVICE.to_owned()],
    };
    let bearer = format!("Authorization: Bearer {}\n", issuer.token("curl")?);
    let credentials = Credentials {
        tls: authority.client(&["http/1.1"])?,
        authority_file: write("ca.pem", authority.certificate_pem())?,
        header_file: write("token.header", bearer)?,
        issuer,
        stranger: TokenIssuer::new(ISSUER, AUDIENCE)?,
    };
    Ok((credentials, config))
}

fn start_gateways(
    network: &mut Network,
    bpffs: &Bpffs,
    config: &GatewayConfig,
) -> Result<Vec<Gateway>> {
    let path = network.directory().join("gateway.toml");
    config.write(&path)?;
    let mut gateways = Vec::new();
    for name in GATEWAYS {
        let host = network.attach(name, MTU_TUNNEL_BYTES)?;
        serve_vip(&host, bpffs, VIP_V4, VIP_V6)?;
        gateways.push(Gateway::start(host, &path)?);
    }
    Ok(gateways)
}

/// One VIP per family; both use the tunnel to the gateway's IPv4 address, where it is probed too.
fn vips(gateways: &[Gateway]) -> [Vip; 2] {
    let backends: Vec<VipBackend> = gateways.iter().map(|one| backend(one.host())).collect();
    let vip = |name, family: Family| Vip {
        name,
        address: SocketAddr::new(family.vip(), 443),
        protocol: "tcp",
        forward: "ipip",
        health: Some(
            "{ http = \"/readyz\", port = 9901, every = \"200ms\", timeout = \"200ms\", \
             fall = 3, rise = 2 }",
        ),
        backends: backends.clone(),
    };
    [vip("api-v4", Family::V4), vip("api-v6", Family::V6)]
}

fn backend(host: &Host) -> VipBackend {
    VipBackend {
        name: host.name().to_owned(),
        address: host.addresses().v4.into(),
        weight: WEIGHT,
    }
}
