//! What is refused at which stage, and which connections end.

use std::os::fd::AsFd;

use super::*;

fn strain() -> Strain {
    Strain::new(Arc::new(Pressure::new(1, 1 << 20)), 0)
}

fn refusals(strain: &Strain) -> [Option<Reject>; 3] {
    Class::ALL.map(|class| strain.refusal(class))
}

#[test]
fn the_lower_classes_go_first() {
    use Stage::{All, Closed, Cut, Default, Normal, Relief, Sheddable};
    let memory = Some(Reject::MemoryShort);
    let busy = Some(Reject::GatewayBusy);
    // Stage, lag level, refusals of sheddable, default and critical requests.
    let table = [
        (Normal, 0, [None, None, None]),
        (Relief, 0, [None, None, None]),
        (Sheddable, 0, [memory.clone(), None, None]),
        (Default, 0, [memory.clone(), memory.clone(), None]),
        (All, 0, [memory.clone(), memory.clone(), memory.clone()]),
        (Closed, 0, [memory.clone(), memory.clone(), memory.clone()]),
        (Cut, 0, [memory.clone(), memory.clone(), memory.clone()]),
        (Normal, 1, [busy.clone(), None, None]),
        (Normal, 2, [busy.clone(), busy.clone(), None]),
        (Normal, 3, [busy.clone(), busy.clone(), busy.clone()]),
        (Sheddable, 2, [memory, busy, None]),
    ];
    for (stage, lag, expected) in table {
        let strain = strain();
        strain.process.publish(1, 2, stage);
        strain.lag.set(LagLevel(lag));
        assert_eq!(refusals(&strain), expected, "{stage:?} {lag}");
        let shed: u64 = strain.process.reading().shed.iter().flatten().sum();
        let refused = expected.iter().flatten().count();
        assert_eq!(shed, refused as u64, "{stage:?} {lag}");
    }
}

#[test]
fn lag_levels_begin_at_multiples_and_end_at_half() {
    let max = Duration::from_millis(100);
    // Milliseconds late, look by look; the level after each.
    let table: [(&[u64], &[u8]); 3] = [
        (&[99, 100, 199, 200, 399, 400], &[0, 1, 1, 2, 2, 3]),
        (&[400, 200, 199, 100, 99, 50, 49], &[3, 3, 2, 2, 1, 1, 0]),
        (&[1000, 0], &[3, 0]),
    ];
    for (late, expected) in table {
        let mut level = LagLevel::default();
        let levels = late.iter().map(|millis| {
            level = level.after(Duration::from_millis(*millis), max);
            level.0
        });
        assert_eq!(levels.collect::<Vec<_>>(), expected, "{late:?}");
    }
}

#[test]
fn resident_memory_is_read() {
    assert_eq!(
        vm_rss("VmPeak:\t 9 kB\nVmRSS:\t   1234 kB\nVm: 1 kB\n"),
        Some(1_263_616)
    );
    for text in [
        "",
        "VmRSS: many kB",
        "VmRSS: 7",
        "VmRSS: 99999999999999999999 kB",
    ] {
        assert_eq!(vm_rss(text), None, "{text:?}");
    }
    let status = File::open("/proc/self/status").unwrap();
    let read = resident(&status).unwrap().unwrap();
    assert!(read > 1 << 20, "{read}");
}

#[test]
fn connections_are_turned_away_for_memory_and_descriptors() {
    let file = File::open("/dev/null").unwrap();
    let strain = strain();
    assert!(!strain.turns_away(file.as_fd(), 10));
    strain.process.publish(1, 2, Stage::All);
    assert!(!strain.turns_away(file.as_fd(), 10));
    strain.process.publish(1, 2, Stage::Closed);
    assert!(strain.turns_away(file.as_fd(), 10));
    assert_eq!(strain.process.reading().turned, [1, 0]);

    // A limit of so few descriptors that this one is within the reserve.
    let strain = Strain::new(Arc::new(Pressure::new(1, 2)), 0);
    assert!(strain.turns_away(file.as_fd(), 50));
    assert_eq!(strain.process.reading().turned, [0, 1]);
}

#[test]
fn connections_end_when_idle_and_are_cut_only_at_the_last_stage() {
    let strain = strain();
    // As many as one is cut of.
    let relieve = |idle| {
        let all = (0..CUT_ONE_IN).map(|_| strain.relief(idle));
        let all: Vec<Relief> = all.collect();
        [Relief::None, Relief::Close, Relief::Cut]
            .map(|one| all.iter().filter(|relief| **relief == one).count())
    };
    let table = [
        ("busy, closed", Stage::Closed, false, [8, 0, 0], [0, 0, 0]),
        ("busy, cut", Stage::Cut, false, [7, 0, 1], [0, 1, 0]),
        ("idle", Stage::Cut, true, [0, 8, 0], [8, 1, 0]),
    ];
    for (what, stage, idle, expected, counted) in table {
        strain.process.publish(1, 2, stage);
        assert_eq!(relieve(idle), expected, "{what}");
        assert_eq!(strain.process.reading().closed, counted, "{what}");
    }
}

#[test]
fn tunnels_are_cut_at_the_last_stage_or_when_nothing_else_gives_way() {
    let (strain, start) = (strain(), Instant::now());
    let cut_at = |stage, seconds: u64, count| {
        strain.process.publish(1, 2, stage);
        assert_eq!(strain.is_short_of_all(), stage >= Stage::All);
        strain.tunnels_to_cut(count, start + Duration::from_secs(seconds))
    };
    // Stage, seconds, tunnels, how many of them are cut.
    let table = [
        (Stage::Cut, 0, 8, 1),
        (Stage::Cut, 1, 9, 2),
        (Stage::Cut, 2, 0, 0),
        (Stage::All, 3, 1000, 0),
        (Stage::Closed, 4, 1000, 0),
        (Stage::All, 5, 1000, 16),
        (Stage::All, 6, 1, 1),
        // It was not so for a while: the wait begins anew.
        (Stage::All, 60, 1000, 0),
        (Stage::All, 64, 1000, 0),
        (Stage::All, 65, 1000, 16),
    ];
    for (stage, seconds, count, expected) in table {
        assert_eq!(cut_at(stage, seconds, count), expected, "at {seconds} s");
    }
    assert_eq!(strain.process.reading().closed, [0, 0, 36]);
}
