//! Random worlds.

use std::hash::{BuildHasher, RandomState};
use std::io::{Write, stderr};
use std::sync::LazyLock;

use lb_ebpf::track::Event;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::setup::{BACKENDS_MAX, Setup, VIPS};
use crate::window::{Changes, Tally, Window};
use crate::world::{Edit, Step, World};

/// Sequences of each test, unless the environment says how many (`PROPTEST_CASES`).
const SEQUENCES: u32 = 64;

/// Where the sequences begin: anywhere, unless the environment says where (`PROPTEST_RNG_SEED`).
static SEED: LazyLock<u64> = LazyLock::new(|| {
    let seed = match ProptestConfig::default().rng_seed {
        RngSeed::Random => RandomState::new().hash_one(()) >> 32,
        RngSeed::Fixed(seed) => seed,
    };
    // What tests print is held back while they run; a run that somebody stops is to be repeated too.
    let _ = writeln!(stderr(), "{}", again(seed));
    seed
});

/// How to repeat what a seed has found.
fn again(seed: u64) -> String {
    format!("again: PROPTEST_RNG_SEED={seed} cargo test -p tests --test model")
}

/// Who reads about a failure reads which seed repeats it.
fn config(cases: u32) -> ProptestConfig {
    eprintln!("{}", again(*SEED));
    ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(*SEED),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Sequences with thousands of flows.
const CROWDS: u32 = 3;

/// Steps of a sequence, at most.
const STEPS_MAX: usize = 60;

/// What may happen to well-behaved clients of a balancer with room.
fn planned_and_unplanned() -> impl Strategy<Value = Step> {
    let target = || (0..VIPS.len(), 1..=BACKENDS_MAX);
    let edit = prop_oneof![
        3 => (1_u16..200).prop_map(Edit::Add),
        2 => Just(Edit::Remove),
        3 => any::<bool>().prop_map(Edit::Drain),
        2 => (0_u16..300).prop_map(Edit::Weight),
    ];
    prop_oneof![
        10 => (target(), edit).prop_map(|((vip, backend), change)| Step::Change { vip, backend, change }),
        3 => target().prop_map(|(vip, backend)| Step::Fail { vip, backend }),
        3 => target().prop_map(|(vip, backend)| Step::Return { vip, backend }),
        1 => (0..VIPS.len(), any::<bool>()).prop_map(|(vip, from)| Step::CutOff { vip, from }),
        2 => (0_u32..40, 0_u32..20).prop_map(|(write, down_s)| Step::Crash { write, down_s }),
        5 => (1_u32..30).prop_map(|seconds| Step::Wait { seconds }),
        2 => Just(Step::Grace),
        4 => (1_u32..200).prop_map(|count| Step::Packets { count }),
        4 => (1_u32..100).prop_map(|percent| Step::Open { percent }),
        2 => (1_u32..60).prop_map(|percent| Step::Close { percent }),
    ]
}

/// Everything that may happen at all.
pub(crate) fn anything() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => planned_and_unplanned(),
        2 => (1_u32..20, any::<bool>())
            .prop_map(|(count, answer_lost)| Step::Again { count, answer_lost }),
        1 => (1_u32..5).prop_map(|count| Step::Forge { count }),
        1 => (0..VIPS.len(), 1_u32..300).prop_map(|(vip, count)| Step::Flood { vip, count }),
        1 => (0_u32..30).prop_map(|write| Step::Refuse { write }),
        1 => (0..VIPS.len(), any::<bool>()).prop_map(|(vip, large)| Step::Resize { vip, large }),
        1 => (0..VIPS.len(), 0..3_usize).prop_map(|(vip, by)| Step::Track { vip, by }),
    ]
}

fn wild_setup() -> impl Strategy<Value = Setup> {
    let sizes = (16_u32..256, 16_u32..256, 5_u32..100, 0_u32..40);
    (any::<u64>(), 1_u32..40, 20_u16..90, sizes).prop_map(
        |(seed, every_s, settle_deadline_s, (exceptions, flows, inserts_per_second, lost_of))| {
            Setup {
                every_s,
                settle_deadline_s,
                exceptions,
                flows,
                inserts_per_second,
                lost_of,
                syns_again: true,
                ..Setup::calm(seed)
            }
        },
    )
}

/// Lets `steps` happen; the world afterwards, or what should not have happened.
pub(crate) fn live_through(setup: &Setup, steps: &[Step]) -> Result<World, TestCaseError> {
    let mut world = World::new(setup);
    world.step(&Step::Open { percent: 90 });
    for (number, step) in steps.iter().enumerate() {
        world.step(step);
        if let Some(failure) = world.failure() {
            let text = format!("step {number}, {step:?}: {failure}");
            return Err(TestCaseError::fail(text));
        }
    }
    Ok(world)
}

/// Nothing may be doomed but what `expected` names, what was in flight at the wrong moment, and who came
/// back while a backend went and came within a second.
fn only(tally: &Changes, expected: Window) -> bool {
    let mut doomed = tally.doomed.keys();
    doomed.all(|window| [expected, Window::Straggler, Window::Mistaken].contains(window))
}

/// The bounds of the windows, in flows. What sets the others' bounds is how long clients are silent
/// and slots move, which the model checks flow by flow.
pub(crate) fn within_bounds(world: &World) -> bool {
    let tally = &world.wire.tally;
    let faults = &world.wire.faults;
    let forgotten = [
        Event::OverBudget,
        Event::InsertFailed,
        Event::Evict,
        Event::FlowInsertFailed,
        Event::FlowEvict,
    ];
    let forgotten = forgotten.map(|event| world.wire.memory.count_of(event));
    let inserts = world.wire.memory.count_of(Event::Insert);
    let live = world.wire.clients.len() as u64 + tally.untimely;
    let bounds = [
        (Window::Unseen, tally.untimely),
        (Window::Forgotten, forgotten.iter().sum()),
        (Window::Straggler, tally.stragglers),
        (Window::Mistaken, inserts),
        (Window::Reopened, tally.forged),
        (Window::Handshake, tally.syns_again),
        (
            Window::Undone,
            tally.untimely * u64::from(faults.takings_back),
        ),
        (Window::Reconfigured, tally.reconfigured * live),
    ];
    let kept = bounds
        .iter()
        .all(|(window, bound)| tally.doomed(*window) <= *bound);
    let broken = |changes: &Changes| {
        let mut broken = changes.broken.iter();
        broken.all(|(window, broken)| *broken <= changes.doomed[window])
    };
    kept && broken(&tally.tcp) && broken(&tally.udp)
}

proptest! {
    #![proptest_config(config(SEQUENCES))]

    #[test]
    fn nothing_breaks_while_there_is_room_and_clients_behave(
        seed in any::<u64>(),
        steps in prop::collection::vec(planned_and_unplanned(), 1..STEPS_MAX),
    ) {
        let world = live_through(&Setup::calm(seed), &steps)?;
        let Tally { tcp, udp, .. } = &world.wire.tally;
        prop_assert!(only(tcp, Window::Untracked), "{tcp:?} {:#?}", world.wire.story);
        // A client that uses its ports again is the earlier flow to us, which counted as ended.
        prop_assert!(only(udp, Window::Unseen), "{udp:?} {:#?}", world.wire.story);
        prop_assert!(within_bounds(&world), "{:?}", world.wire.tally);
    }

    #[test]
    fn whatever_breaks_does_so_in_a_window_within_its_bound(
        setup in wild_setup(),
        steps in prop::collection::vec(anything(), 1..STEPS_MAX),
    ) {
        let world = live_through(&setup, &steps)?;
        prop_assert!(within_bounds(&world), "{:?}", world.wire.tally);
    }
}

proptest! {
    #![proptest_config(config(CROWDS))]

    #[test]
    fn thousands_of_flows_are_as_safe_as_few(
        seed in any::<u64>(),
        steps in prop::collection::vec(planned_and_unplanned(), STEPS_MAX),
    ) {
        let setup = Setup {
            clients: 1_000,
            exceptions: 1 << 14,
            flows: 1 << 14,
            ..Setup::calm(seed)
        };
        let world = live_through(&setup, &steps)?;
        let Tally { tcp, udp, .. } = &world.wire.tally;
        prop_assert!(only(tcp, Window::Untracked), "{tcp:?} {:#?}", world.wire.story);
        prop_assert!(only(udp, Window::Unseen), "{udp:?} {:#?}", world.wire.story);
        prop_assert!(within_bounds(&world), "{:?}", world.wire.tally);
    }
}
