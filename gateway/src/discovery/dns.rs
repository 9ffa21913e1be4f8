//! Instances by DNS: the addresses of a name, or the SRV records of a service (RFC 2782).

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::RData;

use super::Outcome;
use crate::config::EndpointConfig;

/// For one question to one name server.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Questions until it counts as unanswered.
const ATTEMPTS: usize = 2;
/// Hosts of one service name that are looked up.
const HOSTS_MAX: usize = 256;

/// Who is asked for names.
pub(super) struct Names(Result<TokioResolver, NetError>);

impl Names {
    /// Asks these name servers, or those of the system if there are none.
    pub(super) fn new(servers: &[SocketAddr]) -> Self {
        let builder = if servers.is_empty() {
            TokioResolver::builder_tokio()
        } else {
            let servers = servers.iter().map(name_server).collect();
            let config = ResolverConfig::from_name_servers(servers);
            let provider = TokioRuntimeProvider::default();
            Ok(TokioResolver::builder_with_config(config, provider))
        };
        Self(builder.and_then(|mut builder| {
            let options = builder.options_mut();
            options.timeout = ANSWER_TIMEOUT;
            options.attempts = ATTEMPTS;
            options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
            // What is remembered, and for how long, is decided here.
            options.cache_size = 0;
            builder.build()
        }))
    }

    /// The addresses of a name.
    pub(super) async fn addresses(&self, name: &str, port: u16) -> Outcome {
        match self.lookup(name).await {
            Ok((addresses, valid)) => {
                let endpoint = |ip| EndpointConfig::new(SocketAddr::new(ip, port));
                Outcome::Found(addresses.into_iter().map(endpoint).collect(), valid)
            }
            Err(none) => none,
        }
    }

    /// The addresses of the hosts of a service name. A host that has none is left out, unless all
    /// have none.
    pub(super) async fn services(&self, name: &str) -> Outcome {
        let records = match &self.0 {
            Ok(resolver) => resolver.srv_lookup(name).await,
            Err(error) => return unanswered(error),
        };
        let records = match records {
            Ok(records) => records,
            Err(error) => return unanswered(&error),
        };
        let mut valid = left(records.valid_until());
        let services = records
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                // A single dot: the service is decidedly not offered (RFC 2782).
                RData::SRV(service) if !service.target.is_root() => Some(service),
                _ => None,
            });
        let (mut endpoints, mut worst) = (Vec::new(), Outcome::Nothing(Some(valid)));
        for service in services.take(HOSTS_MAX) {
            match self.lookup(&service.target.to_string()).await {
                Ok((addresses, host_valid)) => {
                    valid = valid.min(host_valid);
                    endpoints.extend(addresses.into_iter().map(|ip| EndpointConfig {
                        // The weight 0 means "hardly any" here, and "none" to the balancer.
                        weight: service.weight.max(1),
                        priority: service.priority,
                        ..EndpointConfig::new(SocketAddr::new(ip, service.port))
                    }));
                }
                Err(failed @ Outcome::Failed(_)) => worst = failed,
                Err(_) => {}
            }
        }
        // Half an answer would take instances out that are only hard to ask for just now.
        match (worst, endpoints.is_empty()) {
            (worst @ Outcome::Failed(_), _) | (worst, true) => worst,
            (_, false) => Outcome::Found(endpoints, valid),
        }
    }

    async fn lookup(&self, name: &str) -> Result<(Vec<IpAddr>, Duration), Outcome> {
        let resolver = self.0.as_ref().map_err(unanswered)?;
        let found = resolver.lookup_ip(name).await;
        let found = found.map_err(|error| unanswered(&error))?;
        Ok((found.iter().collect(), left(found.valid_until())))
    }
}

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
    for connection in &mut connections {
        connection.port = address.port();
    }
    NameServerConfig::new(address.ip(), true, connections)
}

fn left(valid_until: Instant) -> Duration {
    valid_until.saturating_duration_since(Instant::now())
}

/// That there is nothing is an answer (NXDOMAIN, or no records of the kind); all else is none.
fn unanswered(error: &NetError) -> Outcome {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none))
            if matches!(
                none.response_code,
                ResponseCode::NXDomain | ResponseCode::NoError
            ) =>
        {
            let valid = none.negative_ttl.map(u64::from);
            Outcome::Nothing(valid.map(Duration::from_secs))
        }
        error => Outcome::Failed(error.to_string()),
    }
}
