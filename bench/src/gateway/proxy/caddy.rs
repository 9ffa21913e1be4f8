//! Caddy: as many threads of Go as CPUs, no automatic certificates, no access log, no admin.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use serde_json::{Value, json};

use super::{Setup, write};

pub(super) fn command(program: &Path, setup: &Setup) -> Result<Command> {
    let path = write(setup, "caddy.json", &configuration(setup).to_string())?;
    let mut command = Command::new(program);
    command.args(["run", "--config"]).arg(path);
    command.env("GOMAXPROCS", setup.cpus.len().to_string());
    // Nothing of the user's is touched.
    for variable in ["HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"] {
        command.env(variable, &setup.directory);
    }
    Ok(command)
}

fn configuration(setup: &Setup) -> Value {
    let handler = json!({
        "handler": "reverse_proxy",
        "upstreams": [{ "dial": setup.origin.to_string() }],
        "transport": { "protocol": "http", "keep_alive": { "max_idle_conns_per_host": 256 } },
    });
    let routes: Vec<Value> = match setup.routes {
        0 => vec![json!({ "handle": [handler] })],
        routes => (0..routes)
            .map(|route| {
                json!({
                    "match": [{ "path": [format!("/r/{route}/*")] }],
                    "handle": [handler],
                    "terminal": true,
                })
            })
            .collect(),
    };
    let server = |listen: String, tls: Value| {
        json!({
            "listen": [listen],
            "routes": routes,
            "automatic_https": { "disable": true },
            "tls_connection_policies": tls,
        })
    };
    json!({
        "admin": { "disabled": true, "config": { "persist": false } },
        "logging": { "logs": { "default": { "level": "ERROR" } } },
        "apps": {
            "http": { "servers": {
                "plain": server(setup.plain.to_string(), json!(null)),
                "tls": server(setup.tls.to_string(), json!([{}])),
            } },
            "tls": { "certificates": { "load_files": [{
                "certificate": setup.certificate, "key": setup.certificate,
            }] } },
        },
    })
}
