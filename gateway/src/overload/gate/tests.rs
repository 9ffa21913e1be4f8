//! Gates under one thread and under several, in virtual time where time matters.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use super::*;

fn policy(in_flight_max: u32, queue_max: usize) -> Policy {
    Policy {
        queue_max,
        queue_timeout: Duration::from_secs(1),
        sheddable_percent: 80,
        ..Policy::fixed(in_flight_max)
    }
}

fn state(gate: &Gate) -> (u32, u32) {
    let reading = gate.reading();
    (reading.in_flight, reading.waiting)
}

/// Looks once at a future.
fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

async fn admitted(gate: &Arc<Gate>, class: Class, count: usize) -> Vec<Permit> {
    let mut permits = Vec::new();
    for _ in 0..count {
        permits.push(gate.enter(class).await.unwrap());
    }
    permits
}

#[tokio::test]
async fn at_the_limit_and_one_over() {
    let gate = Gate::new(Policy::fixed(2), None);
    let permits = admitted(&gate, Class::Default, 2).await;
    for class in Class::ALL {
        assert_eq!(gate.enter(class).await.unwrap_err(), Refused::Full);
        assert_eq!(gate.refused(class, Refused::Full), 1);
    }
    drop(permits);
    assert_eq!(state(&gate), (0, 0));
    admitted(&gate, Class::Default, 1).await;
}

#[tokio::test]
async fn sheddable_requests_leave_room_for_others() {
    let gate = Gate::new(policy(10, 0), None);
    let held = admitted(&gate, Class::Sheddable, 8).await;
    let refused = gate.enter(Class::Sheddable).await.unwrap_err();
    assert_eq!(refused, Refused::Full);
    let others = admitted(&gate, Class::Default, 2).await;
    drop((held, others));
    // At least one may always pass.
    let gate = Gate::new(policy(1, 0), None);
    admitted(&gate, Class::Sheddable, 1).await;
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_is_next_by_class() {
    let gate = Gate::new(policy(1, 3), None);
    let permit = gate.enter(Class::Default).await.unwrap();
    let mut default = pin!(gate.enter(Class::Default));
    let mut critical = pin!(gate.enter(Class::Critical));
    assert!(poll(default.as_mut()).is_pending());
    assert!(poll(critical.as_mut()).is_pending());
    assert_eq!(state(&gate), (1, 2));

    drop(permit);
    assert_eq!(state(&gate), (1, 1), "the place is taken for who waits");
    assert!(poll(default.as_mut()).is_pending());
    let Poll::Ready(Ok(permit)) = poll(critical.as_mut()) else {
        panic!("the critical one is first");
    };
    // Nobody overtakes who waits.
    let mut later = pin!(gate.enter(Class::Default));
    assert!(poll(later.as_mut()).is_pending());
    drop(permit);
    assert!(
        poll(default.as_mut()).is_ready(),
        "and its permit is dropped"
    );
    assert!(poll(later.as_mut()).is_ready());
    assert_eq!(state(&gate), (0, 0));
    assert_eq!(gate.reading().queued, 3);
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_at_its_deadline() {
    let gate = Gate::new(policy(1, 1), None);
    let _permit = gate.enter(Class::Default).await.unwrap();
    let start = Instant::now();
    let refused = gate.enter(Class::Default).await.unwrap_err();
    assert_eq!(refused, Refused::TimedOut);
    assert_eq!(start.elapsed(), Duration::from_secs(1));
    assert_eq!(state(&gate), (1, 0));
    assert_eq!(gate.refused(Class::Default, Refused::TimedOut), 1);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_and_a_higher_class_displaces() {
    let gate = Gate::new(policy(1, 1), None);
    let permit = gate.enter(Class::Default).await.unwrap();
    let mut sheddable = pin!(gate.enter(Class::Sheddable));
    assert!(poll(sheddable.as_mut()).is_pending());
    assert_eq!(
        gate.enter(Class::Sheddable).await.unwrap_err(),
        Refused::Full
    );

    let mut critical = pin!(gate.enter(Class::Critical));
    assert!(poll(critical.as_mut()).is_pending());
    let Poll::Ready(Err(refused)) = poll(sheddable.as_mut()) else {
        panic!("it had to leave");
    };
    assert_eq!(refused, Refused::Displaced);
    assert_eq!(gate.refused(Class::Sheddable, Refused::Displaced), 1);
    drop(permit);
    assert!(poll(critical.as_mut()).is_ready());
    assert_eq!(state(&gate), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn want_of_memory_ends_a_wait() {
    let gate = Gate::new(policy(1, 2), None);
    let permit = gate.enter(Class::Default).await.unwrap();
    let mut default = pin!(gate.enter(Class::Default));
    let mut critical = pin!(gate.enter(Class::Critical));
    assert!(poll(default.as_mut()).is_pending());
    assert!(poll(critical.as_mut()).is_pending());
    gate.shed_waiting(Class::Default);
    let Poll::Ready(Err(refused)) = poll(default.as_mut()) else {
        panic!("it had to leave");
    };
    assert_eq!(refused, Refused::Memory);
    drop(permit);
    assert!(poll(critical.as_mut()).is_ready());
    assert_eq!(state(&gate), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_makes_room_and_loses_no_place() {
    let gate = Gate::new(policy(1, 1), None);
    let permit = gate.enter(Class::Default).await.unwrap();
    {
        let mut waiting = pin!(gate.enter(Class::Default));
        assert!(poll(waiting.as_mut()).is_pending());
        assert_eq!(state(&gate), (1, 1));
    }
    assert_eq!(state(&gate), (1, 0));
    {
        let mut waiting = pin!(gate.enter(Class::Default));
        assert!(poll(waiting.as_mut()).is_pending());
        // The place is given to it, but it leaves before it looks.
        drop(permit);
        assert_eq!(state(&gate), (1, 0));
    }
    assert_eq!(state(&gate), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_higher_limit_lets_waiting_requests_in() {
    let adaptive = AdaptivePolicy {
        in_flight_min: 1,
        in_flight_start: 1,
        latency_tolerance: 1.5,
        probe_every: Duration::from_secs(60),
    };
    let policy = Policy {
        adaptive: Some(adaptive),
        ..policy(100, 1)
    };
    let gate = Gate::new(policy, None);
    assert!(gate.is_adaptive());
    let _permit = gate.enter(Class::Default).await.unwrap();
    let waiting = gate.enter(Class::Default);
    let answers = async {
        while gate.reading().limit == 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            gate.observe(Outcome::Answered(Duration::from_millis(10)));
        }
    };
    let (granted, ()) = tokio::join!(waiting, answers);
    granted.unwrap();
    assert_eq!(gate.reading().queued, 1);
    assert!(gate.reading().baseline_us.is_some());
}

#[test]
fn a_gate_stays_while_its_policy_does() {
    let gate = Gate::new(Policy::fixed(2), None);
    assert!(Arc::ptr_eq(
        &gate,
        &Gate::new(Policy::fixed(2), Some(&gate))
    ));
    assert!(!Arc::ptr_eq(
        &gate,
        &Gate::new(Policy::fixed(3), Some(&gate))
    ));
}

#[test]
fn places_are_never_lost_among_threads() {
    const THREADS: u32 = 4;
    const ROUNDS: u32 = 2000;
    let gate = Gate::new(policy(2, 64), None);
    let one = |number: u32| {
        let gate = Arc::clone(&gate);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.enable_all().build().unwrap();
            runtime.block_on(async {
                let class = Class::ALL[number as usize % 3];
                for _ in 0..ROUNDS {
                    let permit = gate.enter(class).await.unwrap();
                    assert!(gate.reading().in_flight <= 2);
                    tokio::task::yield_now().await;
                    drop(permit);
                }
            });
        })
    };
    let threads: Vec<_> = (0..THREADS).map(one).collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(state(&gate), (0, 0));
}
