//! `weir vip`: VIPs and what stands behind them.

use std::net::SocketAddr;

use lb_userspace::api::client::Client;
use lb_userspace::api::types::Vip;

use super::backend;
use super::failure::Failure;
use super::output::{Column, Output, pairs, sections, table};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List all VIPs
    List,
    /// Show one VIP and its backends
    Show {
        /// Name of the VIP
        vip: String,
    },
}

pub(super) async fn run(command: Command, client: &Client, output: Output) -> Result<(), Failure> {
    match command {
        Command::List => output.show(client.vips().await?.as_slice(), list),
        Command::Show { vip } => output.show(&client.vip(&vip).await?, show),
    }
}

/// One line per VIP.
pub(super) fn list(vips: &[Vip]) -> String {
    let columns = [
        Column::Text("VIP"),
        Column::Text("ADDRESS"),
        Column::Text("FORWARD"),
        Column::Text("HASH"),
        Column::Text("TRACKING"),
        Column::Number("SLOTS"),
        Column::Text("SERVING"),
    ];
    let rows = vips.iter().map(|vip| {
        let serving = vip
            .backends
            .iter()
            .filter(|backend| backend.slots > 0)
            .count();
        [
            vip.name.clone(),
            address(vip),
            vip.forward.to_string(),
            vip.hash.to_string(),
            vip.tracking.to_string(),
            vip.ring_size.to_string(),
            format!("{serving} of {}", vip.backends.len()),
        ]
    });
    table(columns, rows)
}

fn show(vip: &Vip) -> String {
    let head = pairs(&[
        ("vip", vip.name.clone()),
        ("address", address(vip)),
        ("forward", vip.forward.to_string()),
        ("hash", vip.hash.to_string()),
        ("table", vip.table.to_string()),
        ("tracking", vip.tracking.to_string()),
        (
            "ring",
            format!(
                "{} slots{}, generation {}",
                vip.ring_size,
                moving(vip),
                vip.generation
            ),
        ),
    ]);
    let rows = vip.backends.iter().map(|backend| (vip, backend));
    sections([head, backend::list(rows)])
}

/// Says so while live flows of some slots belong to an earlier owner.
fn moving(vip: &Vip) -> String {
    match (vip.slots_moving, vip.slots_deferred) {
        (0, _) => String::new(),
        (slots, 0) => format!(" ({slots} moving)"),
        (slots, waiting) => format!(" ({slots} moving, {waiting} of them to move again)"),
    }
}

fn address(vip: &Vip) -> String {
    format!(
        "{}/{}",
        SocketAddr::new(vip.address, vip.port),
        vip.protocol
    )
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::Ipv4Addr;

    use lb_userspace::api::types::{Backend, Health, NextHop};
    use lb_userspace::config::{Forward, HashBy, Protocol, Tracking};
    use lb_userspace::table::Table;

    use super::*;

    /// A VIP of two backends, one of them down.
    pub(in crate::cli) fn web() -> Vip {
        let backend = |last: u8, weight, slots, health, reason: &str, mac: Option<&str>| Backend {
            name: format!("gateway-{last}"),
            address: Ipv4Addr::new(10, 0, 0, 10 + last).into(),
            weight,
            slots,
            health,
            health_reason: reason.to_owned(),
            draining: false,
            next_hop: mac.map(|mac| NextHop {
                interface: "eth0".to_owned(),
                address: Ipv4Addr::new(10, 0, 0, 10 + last).into(),
                mac: Some(mac.to_owned()),
            }),
        };
        Vip {
            name: "web".to_owned(),
            address: Ipv4Addr::new(203, 0, 113, 10).into(),
            port: 443,
            protocol: Protocol::Tcp,
            forward: Forward::Ipip,
            hash: HashBy::FiveTuple,
            table: Table::Maglev,
            tracking: Tracking::Moving,
            ring_size: 65_537,
            generation: 3,
            slots_moving: 0,
            slots_deferred: 0,
            backends: vec![
                backend(
                    1,
                    100,
                    65_537,
                    Health::Up,
                    "HTTP status 200",
                    Some("02:00:00:00:00:01"),
                ),
                backend(2, 50, 0, Health::Down, "no answer within 500ms", None),
            ],
        }
    }

    #[test]
    fn lists_vips() {
        insta::assert_snapshot!(list(&[web()]), @r#"
        VIP  ADDRESS               FORWARD  HASH        TRACKING  SLOTS  SERVING
        web  203.0.113.10:443/tcp  ipip     five-tuple  moving    65537  1 of 2
        "#);
    }

    #[test]
    fn slots_that_move_are_told() {
        for (moving, deferred, told) in [
            (0, 0, ""),
            (7, 0, " (7 moving)"),
            (7, 2, " (7 moving, 2 of them to move again)"),
        ] {
            let vip = Vip {
                slots_moving: moving,
                slots_deferred: deferred,
                ..web()
            };
            assert_eq!(super::moving(&vip), told);
        }
    }

    #[test]
    fn shows_one_vip() {
        insta::assert_snapshot!(show(&web()), @r#"
        vip       web
        address   203.0.113.10:443/tcp
        forward   ipip
        hash      five-tuple
        table     maglev
        tracking  moving
        ring      65537 slots, generation 3

        VIP  BACKEND    ADDRESS    WEIGHT   SHARE  STATE    NEXT HOP                   LAST CHANGE
        web  gateway-1  10.0.0.11     100  100.0%  serving  02:00:00:00:00:01 on eth0  HTTP status 200
        web  gateway-2  10.0.0.12      50    0.0%  down     -                          no answer within 500ms
        "#);
    }
}
