//! Two balancers with the same configuration steer alike, whatever their pasts.

use std::net::IpAddr;

use lb_userspace::config::Config;
use lb_userspace::control::runtime::Runtime;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::agent::Files;
use crate::client::Client;
use crate::property;
use crate::random::Random;
use crate::setup::{Setup, VIPS};
use crate::world::World;

/// Pairs of balancers.
const PAIRS: u64 = 4;

/// Flows that each pair is asked for.
const FLOWS: u32 = 100_000;

/// Steps of a past.
const PAST: usize = 40;

/// Backends of each VIP in the end: number and weight. 0 takes no flows.
const BACKENDS: [(u8, u16); 6] = [(2, 100), (3, 50), (5, 0), (7, 100), (8, 1), (9, 300)];

/// The same configuration, written down in any order.
fn text(random: &mut Random) -> String {
    let mut vips = VIPS;
    random.shuffle(&mut vips);
    let mut text = "[agent]\ninterfaces = [\"eth0\"]\nsettle_after = \"12s\"\n".to_owned();
    for (name, door, tracking) in vips {
        let mut lines = [
            format!("address = \"{door}\"\n"),
            format!("tracking = \"{tracking}\"\n"),
            "ring_size = 1021\n".to_owned(),
            "health = { tcp = true, port = 80 }\n".to_owned(),
        ];
        random.shuffle(&mut lines);
        // Names are nobody's business but the operator's.
        let mut backends = BACKENDS;
        random.shuffle(&mut backends);
        let backends = (0..)
            .zip(backends)
            .map(|(name, (number, weight)): (u8, _)| {
                let address = IpAddr::from([10, 0, 0, number]);
                format!("b{name} = {{ address = \"{address}\", weight = {weight} }}\n")
            });
        let mut backends: Vec<String> = backends.collect();
        random.shuffle(&mut backends);
        text += &format!("[vips.{name}]\n{}", lines.concat());
        text += &format!("[vips.{name}.backends]\n{}", backends.concat());
    }
    text
}

/// A balancer with a past of its own that has come to the configuration, and to rest.
fn balancer(seed: u64, runner: &mut TestRunner) -> World {
    let mut world = World::new(&Setup {
        clients: 20,
        ..Setup::calm(seed)
    });
    let steps = prop::collection::vec(property::anything(), PAST);
    let steps = steps.new_tree(runner).expect("a strategy without filters");
    for step in steps.current() {
        world.step(&step);
    }
    let text = text(&mut Random::new(seed));
    world.come_to(Files {
        config: Config::parse(&text, "weir.toml".as_ref()).expect("a valid configuration"),
        runtime: Runtime::default(),
    });
    world
}

/// A random flow to a random VIP.
fn flow(random: &mut Random, world: &World) -> Client {
    let vip = random.below(VIPS.len() as u32) as usize;
    let number = random.below(1 << 26);
    let key = world.wire.memory.settings.hash_key;
    Client::new(vip, &world.wire.doors[vip], number, 1, key)
}

#[test]
fn the_same_configuration_steers_alike_whatever_came_before() {
    let mut runner = TestRunner::deterministic();
    for pair in 0..PAIRS {
        let [one, other] = [2 * pair, 2 * pair + 1].map(|seed| balancer(seed, &mut runner));
        let ids = |world: &World| {
            world
                .wire
                .memory
                .known_backends()
                .into_iter()
                .map(|(id, backend)| (id, IpAddr::from(backend.address)))
                .collect::<Vec<_>>()
        };
        assert_ne!(ids(&one), ids(&other), "their pasts do not differ");
        let mut random = Random::new(pair);
        for _ in 0..FLOWS {
            let flow = flow(&mut random, &one);
            let owner = one.wire.destination(&flow);
            assert!(owner.is_some(), "{flow:?}");
            assert_eq!(owner, other.wire.destination(&flow), "{flow:?}");
        }
    }
}
