//! Changes over a small configuration: one VIP `web` with backends `a` and `b`.

use super::*;

fn config() -> Config {
    let text = r#"
        [agent]
        interfaces = ["eth0"]

        [vips.web]
        address = "203.0.113.10:443/tcp"
        forward = "l2"

        [vips.web.backends]
        a = { address = "10.0.0.1" }
        b = { address = "10.0.0.2", weight = 50 }
    "#;
    Config::parse(text, Path::new("weir.toml")).unwrap()
}

fn add(last: u8, weight: Option<u16>) -> Change {
    let address = IpAddr::from([10, 0, 0, last]);
    Change::Add { address, weight }
}

/// Backends as `name=last byte of address*weight`, `!` for draining.
fn show(runtime: &Runtime, config: &Config) -> String {
    let (effective, _) = runtime.over(config);
    let backends = effective.config.vips["web"].backends.values();
    let shown = backends.map(|b| {
        let drains = effective
            .draining
            .contains(&("web".to_owned(), b.name.clone()));
        let last = b.address.to_string().rsplit('.').next().unwrap().to_owned();
        format!(
            "{}={last}*{}{}",
            b.name,
            b.weight,
            if drains { "!" } else { "" }
        )
    });
    shown.collect::<Vec<_>>().join(" ")
}

#[test]
fn changes_add_up() {
    let config = config();
    let mut runtime = Runtime::default();
    let steps = [
        ("a", Change::Weight(7), "a=1*7 b=2*50"),
        ("b", Change::Drain(true), "a=1*7 b=2*50!"),
        ("c", add(3, None), "a=1*7 b=2*50! c=3*100"),
        ("c", Change::Weight(9), "a=1*7 b=2*50! c=3*9"),
        ("c", Change::Drain(true), "a=1*7 b=2*50! c=3*9!"),
        ("b", Change::Drain(false), "a=1*7 b=2*50 c=3*9!"),
        ("a", Change::Remove, "b=2*50 c=3*9!"),
        ("c", Change::Remove, "b=2*50"),
        ("a", add(1, None), "a=1*100 b=2*50"),
        ("b", Change::Remove, "a=1*100"),
        ("b", add(4, Some(5)), "a=1*100 b=4*5"),
    ];
    for (backend, change, expected) in steps {
        runtime = runtime.with(&config, "web", backend, &change).unwrap();
        assert_eq!(show(&runtime, &config), expected, "{backend} {change:?}");
    }
    let text = serde_json::to_string(&runtime).unwrap();
    assert_eq!(serde_json::from_str::<Runtime>(&text).unwrap(), runtime);
}

#[test]
fn changes_that_make_no_sense_are_refused_and_change_nothing() {
    let config = config();
    let v6 = Change::Add {
        address: "2001:db8::1".parse().unwrap(),
        weight: None,
    };
    let cases = [
        ("mail", "a", Change::Remove, "there is no VIP `mail`"),
        ("web", "x", Change::Remove, "VIP `web` has no backend `x`"),
        (
            "web",
            "x",
            Change::Drain(true),
            "VIP `web` has no backend `x`",
        ),
        (
            "web",
            "a",
            add(9, None),
            "VIP `web` already has a backend `a`",
        ),
        (
            "web",
            "c",
            add(2, None),
            "backend `c` has the same address as `b`: 10.0.0.2",
        ),
        (
            "web",
            "c",
            v6,
            "backend `c` is of another address family than its VIP 203.0.113.10",
        ),
    ];
    for (vip, backend, change, expected) in cases {
        let error = Runtime::default()
            .with(&config, vip, backend, &change)
            .unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn a_reload_keeps_changes_that_the_file_has_not_overtaken() {
    let old = config();
    let mut runtime = Runtime::default();
    for (backend, change) in [
        ("a", Change::Drain(true)),
        ("b", Change::Weight(1)),
        ("c", add(3, None)),
        ("d", add(4, None)),
    ] {
        runtime = runtime.with(&old, "web", backend, &change).unwrap();
    }
    let mut new = old.clone();
    new.remove_backend("web", "b").unwrap();
    new.add_backend("web", "c", [10, 0, 0, 33].into(), 10)
        .unwrap();
    assert_eq!(show(&runtime, &new), "a=1*100! c=33*10 d=4*100");
    let (_, kept) = runtime.over(&new);
    assert_eq!(
        show(&kept, &old),
        "a=1*100! b=2*50 d=4*100",
        "what was overtaken is forgotten"
    );
}

#[test]
fn the_file_survives_and_a_broken_one_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = path(&directory.path().join("weir.sock"));
    assert_eq!(path.file_name().unwrap(), "weir.runtime.json");
    assert_eq!(load(&path).unwrap(), Runtime::default());
    let runtime = Runtime::default()
        .with(&config(), "web", "a", &Change::Drain(true))
        .unwrap();
    save(&path, &runtime).unwrap();
    assert_eq!(load(&path).unwrap(), runtime);
    fs::write(&path, "{\"vips\":{\"web\":{\"a\":{\"drained\":true}}}}").unwrap();
    assert!(load(&path).unwrap_err().to_string().contains("drained"));
}
