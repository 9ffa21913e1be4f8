//! Random worlds.

use lb_ebpf::track::Event;
use proptest::prelude::*;

use crate::setup::{BACKENDS_MAX, Setup, VIPS};
use crate::window::{Tally, Window};
use crate::world::{Edit, Step, World};

/// Sequences of each test, unless `PROPTEST_CASES` says how many.
const SEQUENCES: u32 = 64;

fn sequences() -> u32 {
    let told = std::env::var("PROPTEST_CASES").ok();
    told.and_then(|cases| cases.parse().ok())
        .unwrap_or(SEQUENCES)
}

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

/// Lets `steps` happen; what was counted, or the failure.
fn live_through(setup: &Setup, steps: &[Step]) -> Result<(World, Tally), TestCaseError> {
    let mut world = World::new(setup);
    world.step(&Step::Open { percent: 90 });
    for (number, step) in steps.iter().enumerate() {
        world.step(step);
        if let Some(failure) = world.failure() {
            let text = format!("step {number}, {step:?}: {failure}");
            return Err(TestCaseError::fail(text));
        }
    }
    let tally = world.wire.tally.clone();
    Ok((world, tally))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: sequences(),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn nothing_breaks_while_there_is_room_and_clients_behave(
        seed in any::<u64>(),
        steps in prop::collection::vec(planned_and_unplanned(), 1..STEPS_MAX),
    ) {
        let (world, tally) = live_through(&Setup::calm(seed), &steps)?;
        let expected = |window: &Window| *window == Window::Untracked;
        prop_assert!(tally.tcp.doomed.keys().all(expected), "{tally:?} {:#?}", world.wire.story);
        // A client that uses its ports again is the earlier flow to us, which counted as ended.
        prop_assert!(tally.udp.doomed.keys().all(|window| *window == Window::Unseen), "{tally:?}");
        prop_assert!(tally.doomed(Window::Unseen) <= tally.unseen_hits, "{tally:?}");
    }

    #[test]
    fn whatever_breaks_does_so_in_a_window_within_its_bound(
        setup in wild_setup(),
        steps in prop::collection::vec(anything(), 1..STEPS_MAX),
    ) {
        let (world, tally) = live_through(&setup, &steps)?;
        let count = |event| world.wire.memory.count_of(event);
        let forgotten = count(Event::OverBudget) + count(Event::InsertFailed) + count(Event::Evict)
            + count(Event::FlowInsertFailed) + count(Event::FlowEvict);
        prop_assert!(tally.doomed(Window::Forgotten) <= forgotten, "{tally:?}");
        prop_assert!(tally.doomed(Window::Handshake) <= tally.syns_again, "{tally:?}");
        prop_assert!(tally.doomed(Window::Reopened) <= tally.forged, "{tally:?}");
        for changes in [&tally.tcp, &tally.udp] {
            for (window, broken) in &changes.broken {
                prop_assert!(*broken <= changes.doomed[window], "{tally:?}");
            }
        }
    }
}
