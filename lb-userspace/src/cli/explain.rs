//! `weir explain`: which backend a packet goes to, and why.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use anyhow::anyhow;
use lb_userspace::api::client::Client;
use lb_userspace::api::types::{ExplainQuery, Explanation, Slot};
use lb_userspace::config::VipAddress;

use super::backend;
use super::failure::Failure;
use super::output::{Output, pairs, sections};

/// Source port when none is given: the first of the ephemeral range (RFC 6335, section 6).
const SOURCE_PORT_DEFAULT: u16 = 49_152;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where the packet comes from: ADDRESS or ADDRESS:PORT
    #[arg(value_name = "SRC[:PORT]")]
    source: Source,
    /// Where it goes: the name of a VIP, or ADDRESS:PORT/PROTOCOL
    vip: String,
    /// Destination port, for a VIP that stands for every port
    #[arg(long)]
    port: Option<u16>,
}

/// Address and port of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Source {
    address: IpAddr,
    port: u16,
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(source) = text.parse::<SocketAddr>() {
            return Ok(Self {
                address: source.ip(),
                port: source.port(),
            });
        }
        match text.parse() {
            Ok(address) => Ok(Self {
                address,
                port: SOURCE_PORT_DEFAULT,
            }),
            Err(_) => Err(
                "write an address like 192.0.2.7, 192.0.2.7:40000 or [2001:db8::7]:40000"
                    .to_owned(),
            ),
        }
    }
}

pub(super) async fn run(args: &Args, client: &Client, output: Output) -> Result<(), Failure> {
    let destination = destination(&args.vip, client).await?;
    let port = match (destination.port, args.port) {
        (0, None) => {
            return Err(Failure::Other {
                error: anyhow!("VIP {} stands for every port", args.vip),
                hint: Some("name one with `--port`".to_owned()),
            });
        }
        (port, None) => port,
        (_, Some(port)) => port,
    };
    let query = ExplainQuery {
        source: args.source.address,
        source_port: args.source.port,
        address: destination.address,
        port,
        protocol: destination.protocol,
    };
    output.show(&client.explain(&query).await?, |explanation| {
        text(&query, explanation)
    })
}

/// An address as such, or that of the VIP of this name.
async fn destination(text: &str, client: &Client) -> Result<VipAddress, Failure> {
    if text.contains('/') {
        return text
            .parse()
            .map_err(|mistake: lb_userspace::config::Mistake| Failure::Other {
                hint: mistake.hint.clone(),
                error: mistake.into(),
            });
    }
    let vip = client.vip(text).await?;
    Ok(VipAddress {
        address: vip.address,
        port: vip.port,
        protocol: vip.protocol,
    })
}

fn text(query: &ExplainQuery, explanation: &Explanation) -> String {
    let from = SocketAddr::new(query.source, query.source_port);
    let to = SocketAddr::new(query.address, query.port);
    let mut lines = vec![
        ("packet", format!("{from} -> {to}/{}", query.protocol)),
        ("action", explanation.action.clone()),
        (
            "reason",
            format!("{}: {}", explanation.reason, explanation.description),
        ),
    ];
    if let Some(vip) = &explanation.vip {
        lines.push(("vip", vip.clone()));
    }
    if let Some(slot) = &explanation.slot {
        lines.push(("slot", describe(slot)));
    }
    if let Some(backend) = &explanation.backend {
        let state = backend::state(backend);
        lines.push((
            "backend",
            format!("{} at {} ({state})", backend.name, backend.address),
        ));
    }
    if let Some(forward) = explanation.forward {
        lines.push(("forward", forward.to_string()));
    }
    let steps = (1..)
        .zip(&explanation.steps)
        .map(|(i, step)| format!("{i}. {step}"));
    sections([pairs(&lines), steps.collect::<Vec<_>>().join("\n")])
}

fn describe(slot: &Slot) -> String {
    let Slot {
        hash,
        index,
        ring_size,
        generation,
        current,
        previous,
    } = slot;
    let mut text = format!("{index} of {ring_size}, generation {generation}, hash {hash}");
    if let Some(previous) = previous
        && current.as_ref() != Some(previous)
    {
        let current = current.as_deref().unwrap_or("nobody");
        text.push_str(&format!(", moving from {previous} to {current}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::vip::tests::web;
    use super::*;

    #[test]
    fn sources_are_addresses_with_or_without_a_port() {
        let source = |text: &str| {
            text.parse::<Source>()
                .map(|s| (s.address.to_string(), s.port))
        };
        let table = [
            ("192.0.2.7", "192.0.2.7", SOURCE_PORT_DEFAULT),
            ("192.0.2.7:40000", "192.0.2.7", 40_000),
            ("2001:db8::7", "2001:db8::7", SOURCE_PORT_DEFAULT),
            ("[2001:db8::7]:40000", "2001:db8::7", 40_000),
        ];
        for (text, address, port) in table {
            assert_eq!(source(text), Ok((address.to_owned(), port)), "{text}");
        }
        for text in ["", "host", "192.0.2.7:", "192.0.2.7:70000", "192.0.2.256"] {
            assert!(source(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_owner_and_reason() {
        let query = ExplainQuery {
            source: "192.0.2.7".parse().unwrap(),
            source_port: 40_000,
            address: "203.0.113.10".parse().unwrap(),
            port: 443,
            protocol: lb_userspace::config::Protocol::Tcp,
        };
        let web = web();
        let explanation = Explanation {
            action: "forward".to_owned(),
            reason: "forwarded".to_owned(),
            description: "Sent to the backend that owns the flow.".to_owned(),
            vip: Some("web".to_owned()),
            slot: Some(Slot {
                hash: "00c0ffee".to_owned(),
                index: 77,
                ring_size: 65_537,
                generation: 3,
                current: Some("gateway-1".to_owned()),
                previous: Some("gateway-2".to_owned()),
            }),
            backend: Some(web.backends[0].clone()),
            forward: Some(web.forward),
            steps: vec!["First.".to_owned(), "Second.".to_owned()],
        };
        insta::assert_snapshot!(text(&query, &explanation), @r#"
        packet   192.0.2.7:40000 -> 203.0.113.10:443/tcp
        action   forward
        reason   forwarded: Sent to the backend that owns the flow.
        vip      web
        slot     77 of 65537, generation 3, hash 00c0ffee, moving from gateway-2 to gateway-1
        backend  gateway-1 at 10.0.0.11 (serving)
        forward  ipip

        1. First.
        2. Second.
        "#);
    }
}
