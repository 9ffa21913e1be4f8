//! `weir status`: the agent at a glance.

use std::time::Duration;

use lb_userspace::api::client::Client;
use lb_userspace::api::types::{Interface, Status};

use super::failure::Failure;
use super::output::{Column, Output, pairs, sections, table};
use super::vip;

pub(super) async fn run(client: &Client, output: Output) -> Result<(), Failure> {
    output.show(&client.status().await?, text)
}

fn text(status: &Status) -> String {
    let up = humantime::format_duration(Duration::from_secs(status.uptime_s));
    let maps = if status.adopted {
        "taken over from an earlier run"
    } else {
        "made by this run"
    };
    let head = pairs(&[
        (
            "agent",
            format!("weir {}, pid {}, up {up}", status.version, status.pid),
        ),
        ("config", status.config.clone()),
        ("maps", maps.to_owned()),
        ("packets", status.packets.to_string()),
        (
            "serving",
            format!(
                "{} of {} backends",
                status.backends_serving, status.backends_total
            ),
        ),
    ]);
    sections([
        head,
        interfaces(&status.interfaces),
        vip::list(&status.vips),
    ])
}

fn interfaces(interfaces: &[Interface]) -> String {
    let columns = [
        Column::Text("INTERFACE"),
        Column::Text("XDP MODE"),
        Column::Number("PROGRAM"),
    ];
    let rows = interfaces.iter().map(|interface| {
        [
            interface.name.clone(),
            interface.mode.to_string(),
            interface.program_id.to_string(),
        ]
    });
    table(columns, rows)
}

#[cfg(test)]
mod tests {
    use lb_userspace::config::XdpMode;

    use super::*;

    #[test]
    fn reads_at_a_glance() {
        let status = Status {
            version: "0.1.0".to_owned(),
            pid: 4711,
            uptime_s: 3723,
            config: "/etc/weir/weir.toml".to_owned(),
            adopted: true,
            interfaces: vec![Interface {
                name: "eth0".to_owned(),
                index: 2,
                mode: XdpMode::Native,
                program_id: 17,
            }],
            backends_serving: 1,
            backends_total: 2,
            vips: vec![vip::tests::web()],
            packets: 12345,
        };
        insta::assert_snapshot!(text(&status), @r#"
        agent    weir 0.1.0, pid 4711, up 1h 2m 3s
        config   /etc/weir/weir.toml
        maps     taken over from an earlier run
        packets  12345
        serving  1 of 2 backends

        INTERFACE  XDP MODE  PROGRAM
        eth0       native         17

        VIP  ADDRESS               FORWARD  HASH        TRACKING  SLOTS  SERVING
        web  203.0.113.10:443/tcp  ipip     five-tuple  moving    65537  1 of 2
        "#);
    }
}
