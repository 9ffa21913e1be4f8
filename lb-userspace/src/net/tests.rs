//! Resolution as a table: one snapshot, small changes, and what follows from each.

use super::neigh::State;
use super::*;

const BACKEND: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));
const ROUTER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 9, 1));
const HOST: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 9)));

/// Interface 3 is up and routes to the backend directly; both neighbours are known.
fn snapshot() -> Snapshot {
    let link = Link {
        name: "eth0".into(),
        mac: Some([1; 6]),
        mtu: 1500,
        up: true,
        veth: false,
        xdp: None,
    };
    let route = Route {
        ifindex: 3,
        gateway: None,
        source: HOST,
        mtu: None,
        local: false,
    };
    let neighbour = |last| Neighbour {
        mac: Some([2, 0, 0, 0, 0, last]),
        state: State::Valid,
    };
    Snapshot {
        links: BTreeMap::from([(3, link)]),
        routes: BTreeMap::from([(BACKEND, route)]),
        neighbours: BTreeMap::from([((3, BACKEND), neighbour(1)), ((3, ROUTER), neighbour(2))]),
    }
}

fn known(last: u8, neighbour: IpAddr, mtu: u32) -> Resolution {
    let hop = Hop::new([2, 0, 0, 0, 0, last].into(), [1; 6].into(), 3);
    Ok(Known {
        hop,
        interface: "eth0".into(),
        neighbour,
        mtu,
        source: HOST,
    })
}

#[test]
fn the_way_follows_from_route_link_and_neighbour() {
    type Edit = fn(&mut Snapshot);
    let eth0 = || "eth0".to_owned();
    let silent = |address| Unknown::Neighbour {
        interface: eth0(),
        ifindex: 3,
        address,
    };
    let cases: Vec<(&str, Edit, Resolution)> = vec![
        ("on the link", |_| {}, known(1, BACKEND, 1500)),
        (
            "behind a router",
            |s| s.routes.get_mut(&BACKEND).unwrap().gateway = Some(ROUTER),
            known(2, ROUTER, 1500),
        ),
        (
            "a route with a smaller MTU",
            |s| s.routes.get_mut(&BACKEND).unwrap().mtu = Some(1400),
            known(1, BACKEND, 1400),
        ),
        (
            "a route with a larger MTU than the link",
            |s| s.routes.get_mut(&BACKEND).unwrap().mtu = Some(9000),
            known(1, BACKEND, 1500),
        ),
        ("no route", |s| s.routes.clear(), Err(Unknown::NoRoute)),
        (
            "an address of this host",
            |s| s.routes.get_mut(&BACKEND).unwrap().local = true,
            Err(Unknown::Local),
        ),
        (
            "link down",
            |s| s.links.get_mut(&3).unwrap().up = false,
            Err(Unknown::LinkDown { interface: eth0() }),
        ),
        (
            "link gone",
            |s| s.links.clear(),
            Err(Unknown::LinkDown {
                interface: "#3".into(),
            }),
        ),
        (
            "a link without MAC addresses",
            |s| s.links.get_mut(&3).unwrap().mac = None,
            Err(Unknown::NotEthernet { interface: eth0() }),
        ),
        (
            "neighbour never heard of",
            |s| s.neighbours.clear(),
            Err(silent(BACKEND)),
        ),
        (
            "neighbour that does not answer",
            |s| s.neighbours.get_mut(&(3, BACKEND)).unwrap().mac = None,
            Err(silent(BACKEND)),
        ),
        (
            "a stale neighbour is still good",
            |s| s.neighbours.get_mut(&(3, BACKEND)).unwrap().state = State::Stale,
            known(1, BACKEND, 1500),
        ),
    ];
    for (name, edit, expected) in cases {
        let mut snapshot = snapshot();
        edit(&mut snapshot);
        assert_eq!(snapshot.resolve(BACKEND), expected, "{name}");
    }
}

#[test]
fn needed_neighbours_are_those_that_packets_are_handed_to() {
    let mut snapshot = snapshot();
    let both = BTreeSet::from([BACKEND, [10, 0, 0, 77].into()]);
    assert_eq!(
        snapshot.needed(&both),
        BTreeSet::from([(3, BACKEND)]),
        "no route, no neighbour"
    );
    snapshot.routes.get_mut(&BACKEND).unwrap().gateway = Some(ROUTER);
    assert_eq!(snapshot.needed(&both), BTreeSet::from([(3, ROUTER)]));
    snapshot.routes.get_mut(&BACKEND).unwrap().local = true;
    assert!(snapshot.needed(&both).is_empty());
}

#[test]
fn mac_addresses_are_written_as_usual() {
    assert_eq!(
        display_mac([0, 0x1b, 0x21, 0xff, 0x0a, 1].into()),
        "00:1b:21:ff:0a:01"
    );
}
