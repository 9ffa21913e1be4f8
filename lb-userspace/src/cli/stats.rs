//! `weir stats`: the counters of the data plane.

use lb_userspace::api::client::Client;
use lb_userspace::api::types::{FlowTableStats, ReasonStats, Stats, TrackStats, VipStats};

use super::failure::Failure;
use super::output::{Column, Output, sections, table};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Show reasons that no packet had, too
    #[arg(long)]
    all: bool,
}

pub(super) async fn run(args: &Args, client: &Client, output: Output) -> Result<(), Failure> {
    output.show(&client.stats().await?, |stats| text(stats, args.all))
}

fn text(stats: &Stats, all: bool) -> String {
    sections([
        format!("{} packets received", stats.packets),
        vips(&stats.vips),
        backends(&stats.vips),
        reasons(&stats.reasons, all),
        tracking(&stats.tracking, all),
        flow_tables(&stats.flow_tables),
    ])
}

fn vips(vips: &[VipStats]) -> String {
    let columns = [
        Column::Text("VIP"),
        Column::Text("ADDRESS"),
        Column::Number("PACKETS"),
        Column::Number("BYTES"),
        Column::Number("SLOTS MOVING"),
        Column::Number("DEFERRED"),
    ];
    let rows = vips.iter().map(|vip| {
        [
            vip.name.clone(),
            vip.address.clone(),
            vip.packets.to_string(),
            vip.bytes.to_string(),
            vip.slots_moving.to_string(),
            vip.slots_deferred.to_string(),
        ]
    });
    table(columns, rows)
}

fn backends(vips: &[VipStats]) -> String {
    let columns = [
        Column::Text("VIP"),
        Column::Text("BACKEND"),
        Column::Text("HEALTHY"),
        Column::Number("WEIGHT"),
        Column::Number("SLOTS"),
        Column::Number("PACKETS"),
        Column::Number("BYTES"),
    ];
    let rows = vips.iter().flat_map(|vip| {
        vip.backends.iter().map(|backend| {
            [
                vip.name.clone(),
                backend.name.clone(),
                if backend.healthy { "yes" } else { "no" }.to_owned(),
                backend.weight.to_string(),
                backend.slots.to_string(),
                backend.packets.to_string(),
                backend.bytes.to_string(),
            ]
        })
    });
    table(columns, rows)
}

fn reasons(reasons: &[ReasonStats], all: bool) -> String {
    let columns = [
        Column::Text("REASON"),
        Column::Text("ACTION"),
        Column::Number("PACKETS"),
        Column::Text("MEANING"),
    ];
    let shown = reasons.iter().filter(|reason| all || reason.packets > 0);
    let rows = shown.map(|reason| {
        [
            reason.name.clone(),
            reason.action.clone(),
            reason.packets.to_string(),
            reason.description.clone(),
        ]
    });
    table(columns, rows)
}

/// Silent while nothing has ever moved or been tracked.
fn tracking(tracking: &[TrackStats], all: bool) -> String {
    let shown: Vec<_> = tracking
        .iter()
        .filter(|event| all || event.count > 0)
        .collect();
    if shown.is_empty() {
        return String::new();
    }
    let columns = [
        Column::Text("TRACKING"),
        Column::Number("COUNT"),
        Column::Text("MEANING"),
    ];
    let rows = shown.into_iter().map(|event| {
        [
            event.name.clone(),
            event.count.to_string(),
            event.description.clone(),
        ]
    });
    table(columns, rows)
}

fn flow_tables(tables: &[FlowTableStats]) -> String {
    if tables.is_empty() {
        return String::new();
    }
    let columns = [
        Column::Text("FLOW TABLE"),
        Column::Number("LIVE FLOWS"),
        Column::Number("LIMIT"),
        Column::Number("BYTES"),
    ];
    let rows = tables.iter().map(|one| {
        [
            one.name.clone(),
            one.live.to_string(),
            one.limit.to_string(),
            one.bytes.to_string(),
        ]
    });
    table(columns, rows)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use lb_userspace::api::types::BackendStats;

    use super::*;

    fn stats() -> Stats {
        let reason = |name: &str, action: &str, packets| ReasonStats {
            name: name.to_owned(),
            action: action.to_owned(),
            packets,
            description: format!("The frame was {name}."),
        };
        Stats {
            packets: 1_000_005,
            vips: vec![VipStats {
                name: "web".to_owned(),
                address: "203.0.113.10:443/tcp".to_owned(),
                packets: 1_000_000,
                bytes: 64_000_000,
                slots_moving: 21_846,
                slots_deferred: 655,
                backends: vec![BackendStats {
                    name: "gateway-1".to_owned(),
                    address: Ipv4Addr::new(10, 0, 0, 11).into(),
                    healthy: true,
                    weight: 100,
                    slots: 65_537,
                    packets: 1_000_000,
                    bytes: 64_000_000,
                }],
            }],
            tracking: vec![TrackStats {
                name: "hit".to_owned(),
                count: 12,
                description: "An exception was found.".to_owned(),
            }],
            flow_tables: vec![FlowTableStats {
                name: "exceptions".to_owned(),
                live: 7_000,
                limit: 524_288,
                bytes: 16_777_216,
            }],
            reasons: vec![
                reason("forwarded", "forward", 1_000_000),
                reason("truncated", "drop", 5),
                reason("fragment", "drop", 0),
            ],
        }
    }

    #[test]
    fn reasons_without_packets_show_only_on_demand() {
        assert!(!text(&stats(), false).contains("fragment"));
        assert!(text(&stats(), true).contains("fragment"));
    }

    #[test]
    fn counters_read_as_tables() {
        insta::assert_snapshot!(text(&stats(), false), @r#"
        1000005 packets received

        VIP  ADDRESS               PACKETS     BYTES  SLOTS MOVING  DEFERRED
        web  203.0.113.10:443/tcp  1000000  64000000         21846       655

        VIP  BACKEND    HEALTHY  WEIGHT  SLOTS  PACKETS     BYTES
        web  gateway-1  yes         100  65537  1000000  64000000

        REASON     ACTION   PACKETS  MEANING
        forwarded  forward  1000000  The frame was forwarded.
        truncated  drop           5  The frame was truncated.

        TRACKING  COUNT  MEANING
        hit          12  An exception was found.

        FLOW TABLE  LIVE FLOWS   LIMIT     BYTES
        exceptions        7000  524288  16777216
        "#);
    }
}
