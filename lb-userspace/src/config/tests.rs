//! Configurations: right ones, and a table of wrong ones with what is said about each.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::diff::diff;
use super::*;
use crate::table::Table;

/// What every configuration needs, on one line.
const AGENT: &str = "agent.interfaces = ['eth0']\n";

fn parse(text: &str) -> Result<Config, Refused> {
    Config::parse(text, Path::new("/etc/weir/weir.toml"))
}

/// A configuration with one VIP of these lines.
fn with_vip(lines: &str) -> Config {
    parse(&format!("{AGENT}[vips.web]\n{lines}")).unwrap()
}

#[test]
fn the_example_means_what_its_comments_say() {
    let text = include_str!("../../examples/weir.toml");
    let config = parse(text).unwrap();
    assert_eq!(config.agent.interfaces, ["eth0"]);
    assert_eq!(config.agent.limits, Limits::default());
    let web = &config.vips["web"];
    assert_eq!(web.vip_address().to_string(), "203.0.113.10:443/tcp");
    assert_eq!(
        (web.forward, web.hash, web.ring_size),
        (Forward::Ipip, HashBy::FiveTuple, 65_537)
    );
    let weights: Vec<u16> = web
        .backends
        .values()
        .map(|backend| backend.weight)
        .collect();
    assert_eq!(weights, [100, 50]);
    let health = web.health.as_ref().unwrap();
    assert_eq!(
        health.to_string(),
        "http /healthz 200-299 port 8081 every 1s timeout 500ms fall 3 rise 2"
    );
    assert_eq!(
        config.vips["dns"].health.as_ref().unwrap().probe,
        Probe::Tcp
    );
    assert_eq!(config.backend_count(), 4);
}

#[test]
fn the_examples_comments_show_the_defaults() {
    // Every commented key, taken at its word, means what its absence means (where there is a default).
    let text = include_str!("../../examples/weir.toml");
    let keys = [
        "socket",
        "bpffs",
        "xdp_mode",
        "vips_max",
        "backends_max",
        "ring_slots_max",
        "exceptions_max",
        "flows_max",
        "inserts_per_second_max",
        "settle_after",
        "settle_deadline",
        "forward",
        "hash ",
        "ring_size",
        "table",
        "tracking",
        "status",
    ];
    let uncomment = |line: &str| match line.strip_prefix("# ") {
        Some(rest)
            if keys
                .iter()
                .any(|key| rest.starts_with(key) && rest.contains(" = ")) =>
        {
            rest.to_owned()
        }
        _ => line.to_owned(),
    };
    let uncommented: Vec<String> = text.lines().map(uncomment).collect();
    let changed = uncommented
        .iter()
        .zip(text.lines())
        .filter(|(new, old)| new != old)
        .count();
    assert_eq!(changed, keys.len());
    assert_eq!(parse(&uncommented.join("\n")), parse(text));
}

#[test]
fn what_is_left_out_has_a_default() {
    let config = with_vip("address = '203.0.113.10:53/udp'\nbackends.a.address = '10.0.0.1'");
    let agent = Agent {
        interfaces: vec!["eth0".to_owned()],
        metrics: None,
        socket: "/run/weir.sock".into(),
        bpffs: "/sys/fs/bpf/weir".into(),
        xdp_mode: XdpMode::Auto,
        source_v4: None,
        source_v6: None,
        hash_secret: None,
        settle_after: Duration::from_secs(60),
        settle_deadline: Duration::from_secs(900),
        limits: Limits {
            vips_max: 512,
            backends_max: 4096,
            ring_slots_max: 4_194_368,
            exceptions_max: 524_288,
            flows_max: 1_048_576,
            inserts_per_second_max: 10_000,
        },
    };
    assert_eq!(config.agent, agent);
    let web = &config.vips["web"];
    assert_eq!((web.protocol, web.health.as_ref()), (Protocol::Udp, None));
    assert_eq!((web.table, web.tracking), (Table::Maglev, Tracking::Moving));
    assert_eq!(web.backends["a"].weight, 100);

    let vip = "address = '203.0.113.10:80/tcp'\nhealth.tcp = true";
    let expected = HealthCheck {
        probe: Probe::Tcp,
        port: 80,
        every: Duration::from_secs(1),
        timeout: Duration::from_millis(500),
        fall: 3,
        rise: 2,
    };
    assert_eq!(with_vip(vip).vips["web"].health, Some(expected));
    // A short interval shortens the default timeout with it.
    let brisk = with_vip(&format!("{vip}\nhealth.every = '100ms'"));
    let timeout = brisk.vips["web"].health.as_ref().unwrap().timeout;
    assert_eq!(timeout, Duration::from_millis(100));
}

#[test]
fn secrets_are_references() {
    let secret = |value: &str| {
        let text = format!("[agent]\ninterfaces = ['eth0']\nhash_secret = {value}");
        parse(&text).unwrap().agent.hash_secret.unwrap()
    };
    // A relative path starts at the file that names it.
    assert_eq!(
        secret("{ file = 'key' }"),
        Secret::File(PathBuf::from("/etc/weir/key"))
    );
    assert_eq!(
        secret("{ file = '/run/key' }"),
        Secret::File(PathBuf::from("/run/key"))
    );
    assert_eq!(secret("{ env = 'KEY' }"), Secret::Env("KEY".to_owned()));
}

#[test]
fn tunnels_cross_address_families_and_ports_may_overlap_with_every_port() {
    let text = format!(
        "{AGENT}
        [vips.all]
        address = '203.0.113.10:0/tcp'
        backends = {{ a.address = '2001:db8::1', b.address = '10.0.0.1' }}
        [vips.web]
        address = '203.0.113.10:443/tcp'
        [vips.quic]
        address = '203.0.113.10:443/udp'"
    );
    assert_eq!(parse(&text).unwrap().vips.len(), 3);
}

#[test]
fn limits_hold_at_their_edge() {
    let text = |vips_max, backends_max, ring_slots_max| {
        format!(
            "[agent]
            interfaces = ['eth0']
            limits = {{ vips_max = {vips_max}, backends_max = {backends_max}, \
             ring_slots_max = {ring_slots_max} }}
            [vips.a]
            address = '203.0.113.10:1/tcp'
            ring_size = 251
            backends.a.address = '10.0.0.1'
            [vips.b]
            address = '203.0.113.10:2/tcp'
            ring_size = 509
            backends.a.address = '10.0.0.1'"
        )
    };
    assert!(parse(&text(2, 2, 760)).is_ok());
    let refused = |text: &str| {
        let refused = parse(text).unwrap_err();
        let problem = refused.problems()[0].clone();
        (problem.line, problem.reason)
    };
    // Each is told at the first VIP that is too many.
    for (text, reason) in [
        (text(1, 2, 760), "2 VIPs are more than the limit of 1"),
        (text(2, 1, 760), "2 backends are more than the limit of 1"),
        (
            text(2, 2, 759),
            "760 ring slots are more than the limit of 759",
        ),
    ] {
        assert_eq!(refused(&text), (8, reason.to_owned()));
    }
}

#[test]
fn limits_of_the_flow_tables_hold_at_their_edge() {
    let limit = |key: &str, value: i64| {
        let text = format!("[agent]\ninterfaces = ['eth0']\nlimits.{key} = {value}");
        let limits = parse(&text).map(|config| config.agent.limits);
        limits.map_err(|refused| refused.problems()[0].reason.clone())
    };
    for (key, low, high) in [
        ("exceptions_max", 1024, 33_554_432),
        ("flows_max", 1024, 33_554_432),
        ("inserts_per_second_max", 1, 100_000_000),
    ] {
        assert!(limit(key, low).is_ok() && limit(key, high).is_ok(), "{key}");
        for beyond in [low - 1, high + 1] {
            let reason = format!("{key} {beyond} is out of range");
            assert_eq!(limit(key, beyond), Err(reason));
        }
    }
    let limits = Limits {
        exceptions_max: 1024,
        flows_max: 2048,
        inserts_per_second_max: 3,
        ..Limits::default()
    };
    let text = "[agent]\ninterfaces = ['eth0']\n[agent.limits]\nexceptions_max = 1024\n\
                flows_max = 2048\ninserts_per_second_max = 3";
    assert_eq!(parse(text).unwrap().agent.limits, limits);
}

#[test]
fn a_flow_table_takes_32_to_64_bytes_a_flow() {
    for (flows, bytes) in [
        (1024, 32 << 10),
        (1025, 64 << 10),
        (lb_ebpf::abi::EXCEPTIONS_MAX, 16 << 20),
        (lb_ebpf::abi::FLOWS_MAX, 32 << 20),
        (33_554_432, 1 << 30),
    ] {
        assert_eq!(flow_table_bytes(flows), bytes, "{flows} flows");
    }
}

#[test]
fn a_share_of_one_slot_is_enough() {
    // 250 + 1 shares of 251 slots: one slot each of weight 1.
    let vip = |weight| {
        format!(
            "{AGENT}[vips.web]\naddress = '203.0.113.10:1/tcp'\nring_size = 251\n\
             backends.a = {{ address = '10.0.0.1', weight = {weight} }}\n\
             backends.b = {{ address = '10.0.0.2', weight = 1 }}"
        )
    };
    assert!(parse(&vip(250)).is_ok());
    let refused = parse(&vip(251)).unwrap_err().to_string();
    assert!(
        refused.contains("weight 1 of 252 in all, less than one slot"),
        "{refused}"
    );
    assert!(
        refused.ends_with("hint: use `ring_size = 509` or larger"),
        "{refused}"
    );
}

#[test]
fn every_problem_is_told_at_once() {
    let text = "agent = { interfaces = [], xdp_mode = 'nativ' }
        [vips.web]
        address = '203.0.113.10'
        backends.a = { address = 'ten', weight = -1 }";
    let refused = parse(text).unwrap_err();
    let places: Vec<_> = refused
        .problems()
        .iter()
        .map(|p| (p.line, p.column))
        .collect();
    assert_eq!(
        places,
        [(1, 24), (1, 39), (3, 19), (4, 34), (4, 50)],
        "{refused}"
    );
}

#[test]
fn an_empty_file_lacks_interfaces() {
    let refused = parse("").unwrap_err().to_string();
    assert!(
        refused.starts_with("/etc/weir/weir.toml:1:1: the agent has no interfaces"),
        "{refused}"
    );
}

#[test]
fn the_whole_text_of_a_refusal() {
    let text =
        "[agent]\ninterfaces = [\"eth0\"]\n\n[vips.web]\nadress = \"203.0.113.10:443/tcp\"\n";
    insta::assert_snapshot!(parse(text).unwrap_err().to_string(), @r#"
    /etc/weir/weir.toml:5:1: unknown key `adress`
      |
    5 | adress = "203.0.113.10:443/tcp"
      | ^^^^^^

    hint: did you mean `address`?
    "#);
}

/// `wrong.txt` holds wrong configurations, each followed by all that is said about it. [`AGENT`]
/// stands above those that have no `[agent]`.
#[test]
fn wrong_configurations_are_refused_with_reason_and_hint() {
    let cases = include_str!("wrong.txt").trim_end().split("\n====\n");
    let mut count = 0;
    for case in cases {
        let (wrong, expected) = case
            .split_once("\n----\n")
            .expect("a text and what is said of it");
        let agent = if wrong.contains("[agent]") { "" } else { AGENT };
        let refused = Config::parse(&format!("{agent}{wrong}\n"), Path::new("weir.toml"));
        let said = refused.expect_err(wrong).to_string();
        assert_eq!(said, expected, "about:\n{wrong}\n\nwas said:\n{said}\n\n");
        count += 1;
    }
    assert!(count >= 25);
}

#[test]
fn edits_obey_the_rules_of_the_file() {
    let vip = "address = '203.0.113.10:443/tcp'\nring_size = 251\nforward = 'l2'\n\
               backends.a.address = '10.0.0.1'\nbackends.b = { address = '10.0.0.2', weight = 2 }";
    let mut config = with_vip(vip);
    let before = config.clone();
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    let mut add = |vip: &str, name: &str, at: &str, weight| {
        config
            .add_backend(vip, name, address(at), weight)
            .map_err(|error| error.to_string())
    };
    let refusals = [
        (add("dns", "c", "10.0.0.3", 1), "there is no VIP `dns`"),
        (
            add("web", "a", "10.0.0.3", 1),
            "VIP `web` already has a backend `a`",
        ),
        (
            add("web", "c d", "10.0.0.3", 1),
            "`c d` cannot be the name of a backend",
        ),
        (
            add("web", "c", "10.0.0.1", 1),
            "backend `c` has the same address as `a`: 10.0.0.1",
        ),
        (
            add("web", "c", "203.0.113.10", 1),
            "backend `c` has the address of its own VIP",
        ),
        (
            add("web", "c", "2001:db8::1", 1),
            "backend `c` is of another address family than its VIP 203.0.113.10",
        ),
        (
            add("web", "c", "224.0.0.1", 1),
            "224.0.0.1 is a multicast address",
        ),
        (
            add("web", "c", "10.0.0.3", 65_535),
            "a ring of 251 slots is too small: backend `b` has weight 2 of 65637 in all, less than \
             one slot",
        ),
    ];
    for (result, reason) in refusals {
        assert_eq!(result, Err(reason.to_owned()));
    }
    let unknown = EditError::UnknownBackend {
        vip: "web".to_owned(),
        backend: "c".to_owned(),
    };
    assert_eq!(config.set_weight("web", "c", 1), Err(unknown.clone()));
    assert_eq!(config.remove_backend("web", "c"), Err(unknown));
    assert_eq!(config, before, "a refused edit changes nothing");

    config
        .add_backend("web", "c", address("10.0.0.3"), 7)
        .unwrap();
    config.set_weight("web", "a", 50).unwrap();
    config.remove_backend("web", "b").unwrap();
    let changes: Vec<String> = diff(&before, &config)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        changes,
        [
            "~ backend web/a: weight 100 -> 50",
            "- backend web/b: 10.0.0.2",
            "+ backend web/c: 10.0.0.3, weight 7",
        ]
    );
}

#[test]
fn an_edit_cannot_exceed_the_limits() {
    let text = "[agent]\ninterfaces = ['eth0']\nlimits.backends_max = 1\n[vips.web]\n\
                address = '203.0.113.10:1/tcp'\nbackends.a.address = '10.0.0.1'";
    let mut config = parse(text).unwrap();
    let error = config
        .add_backend("web", "b", "10.0.0.2".parse().unwrap(), 1)
        .unwrap_err();
    assert_eq!(error.to_string(), "2 backends are more than the limit of 1");
    assert!(error.hint().unwrap().contains("backends_max"));
}

#[test]
fn differences_are_listed_in_order() {
    let old = parse(
        "agent = { interfaces = ['eth0'] }
        [vips.a]
        address = '203.0.113.10:1/tcp'
        [vips.b]
        address = '203.0.113.10:2/tcp'
        health.tcp = true",
    );
    let new = parse(
        "agent = { interfaces = ['eth0', 'eth1'], metrics = '127.0.0.1:9100' }
        [vips.b]
        address = '203.0.113.10:3/tcp'
        forward = 'l2'
        [vips.c]
        address = '[2001:db8::1]:0/udp'
        backends.a.address = '10.0.0.1'",
    );
    let (old, new) = (old.unwrap(), new.unwrap());
    let changes: Vec<String> = diff(&old, &new).iter().map(ToString::to_string).collect();
    assert_eq!(
        changes,
        [
            "~ agent: interfaces eth0 -> eth0, eth1 (takes effect at the next start)",
            "~ agent: metrics none -> 127.0.0.1:9100 (takes effect at the next start)",
            "- vip a: 203.0.113.10:1/tcp",
            "~ vip b: address 203.0.113.10:2/tcp -> 203.0.113.10:3/tcp",
            "~ vip b: forward ipip -> l2",
            "~ vip b: health tcp port 2 every 1s timeout 500ms fall 3 rise 2 -> none",
            "+ vip c: [2001:db8::1]:0/udp, backends: 1",
        ]
    );
    assert_eq!(diff(&new, &new), []);
}

#[test]
fn changes_that_cut_connections_say_so() {
    let change = |from: &str, to: &str| {
        let vip = |lines| with_vip(&format!("address = '203.0.113.10:1/tcp'\n{lines}"));
        let changes = diff(&vip(from), &vip(to));
        assert_eq!(changes.len(), 1, "{changes:?}");
        let warning = changes[0].warning().unwrap_or_default();
        assert!(changes[0].to_string().contains(warning));
        warning
    };
    for (from, to, warning) in [
        (
            "ring_size = 251",
            "ring_size = 509",
            "moves the VIP's flows",
        ),
        ("hash = 'source'", "", "moves the VIP's flows"),
        ("tracking = 'full'", "", "full tracking knew is forgotten"),
        ("tracking = 'full'", "tracking = 'none'", "is forgotten"),
        ("", "tracking = 'none'", "settle at once"),
    ] {
        assert!(change(from, to).contains(warning), "{from} -> {to}");
    }
    for (from, to) in [
        ("", "tracking = 'full'"),
        ("table = 'rendezvous'", ""),
        ("", "forward = 'l2'"),
    ] {
        assert_eq!(change(from, to), "", "{from} -> {to}");
    }
}

#[test]
fn files_that_cannot_be_read_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("weir.toml");
    assert!(matches!(Config::load(&path), Err(Error::Read { .. })));
    std::fs::write(&path, [0xff, 0xfe]).unwrap();
    assert!(matches!(Config::load(&path), Err(Error::Read { .. })));

    let mut text = AGENT.to_owned();
    text.push_str(&"#".repeat(FILE_BYTES_MAX as usize - text.len()));
    std::fs::write(&path, &text).unwrap();
    assert!(Config::load(&path).is_ok());
    text.push('#');
    std::fs::write(&path, &text).unwrap();
    assert!(matches!(Config::load(&path), Err(Error::TooLong { .. })));
}

#[test]
fn a_large_configuration_is_read_at_once() {
    // As many backends as the limits can be set to allow; a check of each against each would take
    // minutes.
    let count = 65_535_u32;
    let backend = |i: u32| {
        format!(
            "b{i}.address = '{}'\n",
            std::net::Ipv4Addr::from(0x0a00_0001 + i)
        )
    };
    let backends: String = (0..count).map(backend).collect();
    let text = format!(
        "[agent]\ninterfaces = ['eth0']\nlimits.backends_max = {count}\n[vips.web]\n\
         address = '203.0.113.10:443/tcp'\n[vips.web.backends]\n{backends}"
    );
    assert!((text.len() as u64) < FILE_BYTES_MAX);
    assert_eq!(parse(&text).unwrap().backend_count(), count as usize);
}

proptest! {
    /// Whatever is done to a configuration, it is read or refused, and a refusal points into it.
    #[test]
    fn damaged_configurations_are_refused_at_a_place(
        at in any::<prop::sample::Index>(),
        length in 0..40_usize,
        inserted in "[ -~\n\u{e4}\u{20ac}]{0,8}",
    ) {
        let mut text: Vec<char> = include_str!("../../examples/weir.toml").chars().collect();
        let start = at.index(text.len());
        let end = (start + length).min(text.len());
        text.splice(start..end, inserted.chars());
        let text = String::from_iter(text);
        if let Err(refused) = parse(&text) {
            prop_assert!(!refused.problems().is_empty());
            for problem in refused.problems() {
                // The end of the text may be on a line of its own.
                let line = text.split('\n').nth(problem.line - 1).unwrap_or_default();
                prop_assert!(problem.column <= line.chars().count() + 1, "{}", problem);
                prop_assert!(problem.hint.is_some(), "{}", problem);
            }
        }
    }

    #[test]
    fn vip_addresses_are_written_as_they_are_read(
        address in any::<IpAddr>(),
        port in any::<u16>(),
        udp in any::<bool>(),
    ) {
        let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
        let vip = VipAddress { address, port, protocol };
        match vip.to_string().parse::<VipAddress>() {
            Ok(read) => prop_assert_eq!(read, vip),
            Err(_) => prop_assert!(units::unicast(address).is_err()),
        }
    }
}
