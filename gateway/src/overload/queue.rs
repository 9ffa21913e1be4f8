//! Requests that wait for a place: pure, time passed in.
//!
//! A class waits behind all higher ones. Within a class the first come are the first served, as
//! long as the queue is one that empties now and then. A queue that has stood for longer than
//! [`STANDING`] is no burst but overload: who is at its head has waited for most of its time
//! already, and would be served just before it gives up, as would everybody after it. So from then
//! on the last come are served first: many are answered at once and some not at all, instead of
//! all too late ("adaptive LIFO", Maurer, "Fail at Scale", ACM Queue 2015, with the standing queue
//! recognised as CoDel does, Nichols and Jacobson 2012).
//!
//! The queue is bounded. When it is full, whoever matters least leaves: a waiting request of a
//! lower class, and in a standing queue the oldest of the same.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::class::Class;

/// A queue that was not empty for this long is a standing one.
pub(super) const STANDING: Duration = Duration::from_millis(100);

/// What waits, and by which number it is known.
#[derive(Debug)]
struct Waiter<T> {
    number: u64,
    since: Instant,
    value: T,
}

/// Bounded, by class.
#[derive(Debug)]
pub(super) struct Queue<T> {
    /// By class; the longest waiting first.
    waiting: [VecDeque<Waiter<T>>; Class::ALL.len()],
    len: usize,
    max: usize,
    next_number: u64,
    /// When it was empty last.
    empty_at: Instant,
}

/// What became of a request that wants to wait.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pushed<T> {
    /// It waits, under this number; somebody else may have had to leave for it.
    Waiting(u64, Option<T>),
    /// There is no room.
    Full(T),
}

impl<T> Queue<T> {
    /// A queue for at most `max`.
    pub(super) fn new(max: usize, now: Instant) -> Self {
        Self {
            waiting: Default::default(),
            len: 0,
            max,
            next_number: 0,
            empty_at: now,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Waiting requests of this class.
    pub(super) fn len_of(&self, class: Class) -> usize {
        self.waiting[class.index()].len()
    }

    /// The highest class that waits.
    pub(super) fn highest(&self) -> Option<Class> {
        let mut classes = Class::ALL.into_iter().rev();
        classes.find(|class| self.len_of(*class) > 0)
    }

    /// Adds a request.
    pub(super) fn push(&mut self, class: Class, value: T, now: Instant) -> Pushed<T> {
        if self.len == 0 {
            self.empty_at = now;
        }
        let mut displaced = None;
        if self.len >= self.max {
            displaced = self.displace(class, now);
            if displaced.is_none() {
                return Pushed::Full(value);
            }
        }
        let number = self.next_number;
        self.next_number += 1;
        self.len += 1;
        self.waiting[class.index()].push_back(Waiter {
            number,
            since: now,
            value,
        });
        Pushed::Waiting(number, displaced)
    }

    /// The next request of a class, and since when it waited.
    pub(super) fn pop(&mut self, class: Class, now: Instant) -> Option<(T, Instant)> {
        let standing = self.is_standing(now);
        let waiting = &mut self.waiting[class.index()];
        let next = if standing {
            waiting.pop_back()
        } else {
            waiting.pop_front()
        };
        let next = next?;
        self.len -= 1;
        Some((next.value, next.since))
    }

    /// Takes a request out that has given up; false if it was not there any more.
    pub(super) fn remove(&mut self, class: Class, number: u64) -> bool {
        let waiting = &mut self.waiting[class.index()];
        // Numbers only grow from front to back.
        let Ok(position) = waiting.binary_search_by_key(&number, |one| one.number) else {
            return false;
        };
        waiting.remove(position);
        self.len -= 1;
        true
    }

    /// Takes all requests of a class out.
    pub(super) fn clear(&mut self, class: Class) -> Vec<T> {
        let gone = std::mem::take(&mut self.waiting[class.index()]);
        self.len -= gone.len();
        gone.into_iter().map(|one| one.value).collect()
    }

    fn is_standing(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.empty_at) >= STANDING
    }

    /// Who leaves for a request of this class.
    fn displace(&mut self, class: Class, now: Instant) -> Option<T> {
        let lower = Class::ALL.into_iter().take_while(|one| *one < class);
        let mut leaving = lower.filter(|one| self.len_of(*one) > 0);
        let found = leaving.next().or_else(|| {
            let standing = self.is_standing(now) && self.len_of(class) > 0;
            standing.then_some(class)
        })?;
        let oldest = self.waiting[found.index()].pop_front()?;
        self.len -= 1;
        Some(oldest.value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CLASSES: [(char, Class); 3] = [
        ('s', Class::Sheddable),
        ('d', Class::Default),
        ('c', Class::Critical),
    ];

    fn class(letter: char) -> Class {
        let found = CLASSES.iter().find(|(known, _)| *known == letter);
        found.unwrap().1
    }

    /// Pushes what is written as letter and number, 10 ms apart; says who had to leave.
    fn fill(queue: &mut Queue<&'static str>, names: &[&'static str], start: Instant) -> String {
        let mut left = String::new();
        for (index, name) in names.iter().enumerate() {
            let now = start + Duration::from_millis(10) * index as u32;
            let gone = match queue.push(class(name.chars().next().unwrap()), name, now) {
                Pushed::Waiting(_, gone) => gone,
                Pushed::Full(refused) => Some(refused),
            };
            left.extend(gone.map(|name| format!("{name} ")));
        }
        left.trim_end().to_owned()
    }

    fn drain(queue: &mut Queue<&'static str>, now: Instant) -> String {
        let mut order = Vec::new();
        while let Some(class) = queue.highest() {
            order.push(queue.pop(class, now).unwrap().0);
        }
        assert_eq!(queue.len(), 0);
        order.join(" ")
    }

    #[test]
    fn higher_classes_first_then_in_order_and_in_a_standing_queue_the_last_first() {
        let start = Instant::now();
        let names = ["d1", "s1", "c1", "d2", "s2", "c2"];
        let table = [
            (STANDING - Duration::from_millis(1), "c1 c2 d1 d2 s1 s2"),
            (STANDING, "c2 c1 d2 d1 s2 s1"),
        ];
        for (after, order) in table {
            let mut queue = Queue::new(9, start);
            assert_eq!(fill(&mut queue, &names, start), "");
            assert_eq!(drain(&mut queue, start + after), order, "after {after:?}");
        }
    }

    #[test]
    fn a_queue_that_was_empty_is_no_standing_one() {
        let start = Instant::now();
        let mut queue = Queue::new(9, start);
        fill(&mut queue, &["d1"], start);
        drain(&mut queue, start + STANDING * 2);
        let later = start + STANDING * 3;
        fill(&mut queue, &["d1", "d2"], later);
        assert_eq!(drain(&mut queue, later + STANDING / 2), "d1 d2");
    }

    #[test]
    fn a_full_queue_turns_away_whoever_matters_least() {
        let start = Instant::now();
        // What arrives 10 ms apart at a queue for two, who is turned away, who is left.
        let table: [(&[&str], &str, &str); 6] = [
            (&["d1", "d2"], "", "d1 d2"),
            (&["d1", "d2", "d3"], "d3", "d1 d2"),
            (&["s1", "s2", "d1"], "s1", "d1 s2"),
            (&["s1", "d1", "c1", "c2"], "s1 d1", "c1 c2"),
            (&["c1", "c2", "d1", "s1", "c3"], "d1 s1 c3", "c1 c2"),
            (&["d1", "d2", "s1"], "s1", "d1 d2"),
        ];
        for (names, left, order) in table {
            let mut queue = Queue::new(2, start);
            assert_eq!(fill(&mut queue, names, start), left, "{names:?}");
            assert_eq!(drain(&mut queue, start), order, "{names:?}");
        }
    }

    #[test]
    fn in_a_standing_queue_the_oldest_of_the_class_leaves() {
        let start = Instant::now();
        let mut queue = Queue::new(2, start);
        fill(&mut queue, &["d1", "d2"], start);
        assert_eq!(fill(&mut queue, &["d3", "s1"], start + STANDING), "d1 s1");
        assert_eq!(drain(&mut queue, start + STANDING), "d3 d2");
    }

    #[test]
    fn who_gives_up_is_taken_out_once() {
        let start = Instant::now();
        let mut queue = Queue::new(3, start);
        let mut numbers = Vec::new();
        for name in ["a", "b", "c"] {
            let Pushed::Waiting(number, None) = queue.push(Class::Default, name, start) else {
                panic!("there is room for {name}");
            };
            numbers.push(number);
        }
        assert!(queue.remove(Class::Default, numbers[1]));
        assert!(!queue.remove(Class::Default, numbers[1]));
        assert!(!queue.remove(Class::Critical, numbers[0]));
        assert_eq!(drain(&mut queue, start), "a c");
    }

    #[test]
    fn a_class_can_be_taken_out_as_a_whole() {
        let start = Instant::now();
        let mut queue = Queue::new(5, start);
        fill(&mut queue, &["d1", "s1", "c1", "s2"], start);
        assert_eq!(queue.clear(Class::Sheddable), ["s1", "s2"]);
        assert!(queue.clear(Class::Sheddable).is_empty());
        assert_eq!(
            (queue.len(), drain(&mut queue, start).as_str()),
            (2, "c1 d1")
        );
    }

    #[test]
    fn a_queue_for_none_takes_nobody() {
        let start = Instant::now();
        let mut queue = Queue::new(0, start);
        assert_eq!(queue.push(Class::Critical, 1, start), Pushed::Full(1));
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Push(usize),
        Pop,
        Leave(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<(Step, u64)>> {
        let step = prop_oneof![
            4 => (0..3_usize).prop_map(Step::Push),
            2 => Just(Step::Pop),
            1 => (0..20_usize).prop_map(Step::Leave),
        ];
        proptest::collection::vec((step, 0..40_u64), 0..200)
    }

    proptest! {
        /// Whoever comes leaves once: served, refused or by itself. Nobody waits behind a lower
        /// class, and nobody is turned away for one.
        #[test]
        fn everybody_leaves_once_and_in_order_of_class(steps in steps(), max in 0..8_usize) {
            let start = Instant::now();
            let mut now = start;
            let mut queue = Queue::new(max, start);
            let mut waiting: Vec<(Class, u64, usize)> = Vec::new();
            for (name, (step, millis)) in steps.into_iter().enumerate() {
                now += Duration::from_millis(millis);
                match step {
                    Step::Push(class) => {
                        let class = Class::ALL[class];
                        match queue.push(class, name, now) {
                            Pushed::Full(back) => {
                                prop_assert_eq!(back, name);
                                prop_assert_eq!(waiting.len(), max);
                                prop_assert!(waiting.iter().all(|one| one.0 >= class));
                            }
                            Pushed::Waiting(number, displaced) => {
                                if let Some(gone) = displaced {
                                    let at = waiting.iter().position(|one| one.2 == gone);
                                    let (theirs, ..) = waiting.remove(at.unwrap());
                                    prop_assert!(theirs <= class);
                                }
                                waiting.push((class, number, name));
                            }
                        }
                    }
                    Step::Pop => {
                        let highest = waiting.iter().map(|one| one.0).max();
                        prop_assert_eq!(queue.highest(), highest);
                        if let Some(class) = highest {
                            let (served, _) = queue.pop(class, now).unwrap();
                            let at = waiting.iter().position(|one| one.2 == served);
                            prop_assert_eq!(waiting.remove(at.unwrap()).0, class);
                        }
                    }
                    Step::Leave(which) if which < waiting.len() => {
                        let (class, number, _) = waiting.remove(which);
                        prop_assert!(queue.remove(class, number));
                        prop_assert!(!queue.remove(class, number));
                    }
                    Step::Leave(_) => {}
                }
                prop_assert_eq!(queue.len(), waiting.len());
                prop_assert!(queue.len() <= max);
            }
        }
    }
}
