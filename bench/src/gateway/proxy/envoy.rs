//! Envoy: workers as CPUs, circuit breakers out of the way, no access log, no admin.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use serde_json::{Value, json};

use super::{CONNECTIONS_MAX, Setup, write};

pub(super) fn command(program: &Path, setup: &Setup) -> Result<Command> {
    let path = write(setup, "envoy.json", &configuration(setup).to_string())?;
    let mut command = Command::new(program);
    command.args(["--log-level", "error", "--disable-hot-restart"]);
    command.args(["--concurrency", &setup.cpus.len().to_string()]);
    command.arg("-c").arg(path);
    Ok(command)
}

fn configuration(setup: &Setup) -> Value {
    let certificate = json!({ "filename": setup.certificate });
    let tls = json!({
        "name": "tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_certificates": [{ "certificate_chain": certificate, "private_key": certificate }],
            },
        },
    });
    let limits = json!({
        "max_connections": CONNECTIONS_MAX, "max_pending_requests": CONNECTIONS_MAX,
        "max_requests": CONNECTIONS_MAX,
    });
    json!({
        "static_resources": {
            "listeners": [
                listener("plain", setup.plain, setup.routes, None),
                listener("tls", setup.tls, setup.routes, Some(tls)),
            ],
            "clusters": [{
                "name": "origin",
                "connect_timeout": "5s",
                "type": "STATIC",
                "circuit_breakers": { "thresholds": [limits] },
                "load_assignment": {
                    "cluster_name": "origin",
                    "endpoints": [{ "lb_endpoints": [{
                        "endpoint": { "address": address(setup.origin) },
                    }] }],
                },
            }],
        },
    })
}

fn listener(
    name: &str,
    bind: std::net::SocketAddr,
    routes: usize,
    transport: Option<Value>,
) -> Value {
    let prefixes: Vec<String> = match routes {
        0 => vec!["/".to_owned()],
        _ => (0..routes).map(|route| format!("/r/{route}/")).collect(),
    };
    let routes: Vec<Value> = prefixes
        .iter()
        .map(|prefix| {
            json!({ "match": { "prefix": prefix }, "route": { "cluster": "origin", "timeout": "30s" } })
        })
        .collect();
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "codec_type": "AUTO",
        "use_remote_address": true,
        "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": routes }] },
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
        }],
    });
    let filter =
        json!({ "name": "envoy.filters.network.http_connection_manager", "typed_config": manager });
    let mut chain = json!({ "filters": [filter] });
    if let Some(transport) = transport {
        chain["transport_socket"] = transport;
    }
    json!({ "name": name, "address": address(bind), "filter_chains": [chain] })
}

fn address(address: std::net::SocketAddr) -> Value {
    json!({ "socket_address": {
        "address": address.ip().to_string(), "port_value": address.port(),
    } })
}
