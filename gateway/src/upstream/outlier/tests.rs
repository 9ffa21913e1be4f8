//! Ejection by virtual time.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn config() -> OutlierConfig {
    OutlierConfig {
        consecutive_failures: 3,
        consecutive_5xx: None,
        failure_percent: None,
        success_deviations: None,
        requests_min: 100,
        instances_min: 5,
        every: 10 * SECOND,
        ejection: 30 * SECOND,
        ejection_max: 100 * SECOND,
        ejected_percent_max: 50,
    }
}

fn outliers(count: u16, config: OutlierConfig, epoch: Instant) -> Outliers {
    let instance = |port| {
        let address = ([127, 0, 0, 1], port).into();
        Arc::new(Instance::new(address, epoch, Arc::default()))
    };
    Outliers::new("app".into(), config, (1..=count).map(instance).collect())
}

/// Which are out, as their positions.
fn out(outliers: &Outliers, now: Instant) -> Vec<usize> {
    let instances = outliers.instances.iter().enumerate();
    instances
        .filter(|(_, one)| one.availability.is_barred(Bar::Ejected, now))
        .map(|(index, _)| index)
        .collect()
}

fn observe(outliers: &Outliers, index: usize, outcomes: &str, now: Instant) {
    for outcome in outcomes.chars() {
        let outcome = match outcome {
            '+' => Outcome::Good,
            '5' => Outcome::ServerError,
            _ => Outcome::Failure,
        };
        outliers.observe(&outliers.instances[index], outcome, now);
    }
}

#[test]
fn failures_in_a_row_eject() {
    // `+` good, `5` an error of the server, `-` a failure.
    let table = [
        ("---", None, true),
        ("--", None, false),
        ("--+--", None, false),
        ("--5--", None, false),
        ("--+---", None, true),
        ("5555555", None, false),
        ("5555", Some(4), true),
        ("55-5", Some(4), true),
        ("555+555", Some(4), false),
    ];
    for (outcomes, consecutive_5xx, ejected) in table {
        let now = Instant::now();
        let config = OutlierConfig {
            consecutive_5xx,
            ..config()
        };
        let outliers = outliers(4, config, now);
        observe(&outliers, 2, outcomes, now);
        let expected = if ejected { vec![2] } else { vec![] };
        assert_eq!(out(&outliers, now), expected, "{outcomes}");
    }
}

#[test]
fn ejections_grow_and_shrink_again() {
    let start = Instant::now();
    let outliers = outliers(4, config(), start);
    let mut now = start;
    for seconds in [30, 60, 90, 100, 100] {
        observe(&outliers, 0, "---", now);
        let end = now + seconds * SECOND;
        assert_eq!(out(&outliers, end - SECOND), [0], "{seconds}");
        now = end + SECOND;
        assert!(out(&outliers, now).is_empty(), "{seconds}");
    }
    // Four quiet intervals take four steps back: the next is as long as the second was.
    for _ in 0..4 {
        now += 10 * SECOND;
        outliers.interval(now);
    }
    observe(&outliers, 0, "---", now);
    assert_eq!(out(&outliers, now + 59 * SECOND), [0]);
    assert!(out(&outliers, now + 61 * SECOND).is_empty());
    assert_eq!(outliers.instances[0].tally.ejections(), 6);
}

#[test]
fn too_many_are_never_out() {
    // Instances, percent, how many may be out.
    let table = [
        (0, 50, 0),
        (1, 100, 0),
        (2, 50, 1),
        (2, 10, 1),
        (2, 100, 1),
        (3, 50, 1),
        (10, 10, 1),
        (10, 50, 5),
        (10, 100, 9),
        (1000, 33, 330),
    ];
    for (count, percent, expected) in table {
        assert_eq!(
            ejected_max(count, percent),
            expected,
            "{percent} % of {count}"
        );
    }

    let now = Instant::now();
    let outliers = outliers(4, config(), now);
    for index in 0..4 {
        observe(&outliers, index, "---", now);
    }
    assert_eq!(out(&outliers, now), [0, 1]);
    let later = now + 31 * SECOND;
    observe(&outliers, 3, "-", later);
    assert_eq!(out(&outliers, later), [3], "its turn once others are back");
}

#[test]
fn rates_eject_whom_they_should() {
    use Cause::{FailurePercent, SuccessRate};
    let by_percent = OutlierConfig {
        failure_percent: Some(80),
        ..config()
    };
    let by_deviation = OutlierConfig {
        success_deviations: Some(1.9),
        ..config()
    };
    // Requests and failures of each instance.
    type Case<'a> = (
        &'a str,
        &'a OutlierConfig,
        &'a [(u32, u32)],
        &'a [(usize, Cause)],
    );
    let table: [Case<'_>; 7] = [
        (
            "at the share",
            &by_percent,
            &[(100, 80), (100, 79)],
            &[(0, FailurePercent)],
        ),
        ("too few requests", &by_percent, &[(99, 99), (100, 0)], &[]),
        ("not configured", &config(), &[(100, 100), (100, 0)], &[]),
        (
            "one far below",
            &by_deviation,
            &[(100, 2), (100, 0), (100, 1), (100, 0), (100, 40)],
            &[(4, SuccessRate)],
        ),
        (
            "too few instances",
            &by_deviation,
            &[(100, 0), (100, 0), (100, 0), (100, 40), (99, 0)],
            &[],
        ),
        ("all alike", &by_deviation, &[(100, 50); 6], &[]),
        ("none", &by_deviation, &[], &[]),
    ];
    for (what, config, counts, expected) in table {
        let counts: Vec<Counts> = counts
            .iter()
            .map(|(requests, failed)| Counts {
                requests: *requests,
                failed: *failed,
            })
            .collect();
        assert_eq!(by_rates(&counts, config), expected, "{what}");
    }
}

#[test]
fn an_interval_takes_what_was_counted_in_it() {
    let now = Instant::now();
    let config = OutlierConfig {
        consecutive_failures: 1000,
        failure_percent: Some(50),
        requests_min: 4,
        ..config()
    };
    let outliers = outliers(2, config, now);
    observe(&outliers, 1, "-+-", now);
    outliers.interval(now);
    observe(&outliers, 1, "-++", now);
    outliers.interval(now);
    assert!(
        out(&outliers, now).is_empty(),
        "three at a time are too few"
    );
    observe(&outliers, 1, "-+-+", now);
    outliers.broke_off(&outliers.instances[0]);
    outliers.interval(now);
    assert_eq!(out(&outliers, now), [1]);

    let later = now + 31 * SECOND;
    observe(&outliers, 0, "++++", later);
    (0..2).for_each(|_| outliers.broke_off(&outliers.instances[0]));
    outliers.interval(later);
    assert_eq!(
        out(&outliers, later),
        [0],
        "answers that break off count too"
    );
}
