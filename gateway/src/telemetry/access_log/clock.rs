//! Times as text: the date is made once a second, not once a line.

use std::cell::RefCell;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// The texts of the last second that was written.
#[derive(Debug, Default)]
pub(super) struct Clock(RefCell<Option<Second>>);

#[derive(Debug)]
struct Second {
    /// Since 1970.
    number: i64,
    /// `2026-11-21T08:30:00`
    rfc3339: Box<str>,
    /// `21/Nov/2026:08:30:00 +0000`, as in the Common Log Format.
    common: Box<str>,
}

impl Clock {
    /// Adds `2026-11-21T08:30:00.250000Z`.
    pub(super) fn rfc3339(&self, out: &mut Vec<u8>, time: Timestamp) {
        self.within(time, |second| {
            out.extend_from_slice(second.rfc3339.as_bytes());
        });
        out.push(b'.');
        digits::<6>(out, time.subsec_nanosecond().unsigned_abs() / 1000);
        out.push(b'Z');
    }

    /// Adds `21/Nov/2026:08:30:00 +0000`.
    pub(super) fn common(&self, out: &mut Vec<u8>, time: Timestamp) {
        self.within(time, |second| {
            out.extend_from_slice(second.common.as_bytes());
        });
    }

    /// Adds `1795249800.250`.
    pub(super) fn unix(out: &mut Vec<u8>, time: Timestamp) {
        out.extend_from_slice(itoa::Buffer::new().format(time.as_second()).as_bytes());
        out.push(b'.');
        digits::<3>(out, time.subsec_nanosecond().unsigned_abs() / 1_000_000);
    }

    fn within(&self, time: Timestamp, write: impl FnOnce(&Second)) {
        let mut last = self.0.borrow_mut();
        let number = time.as_second();
        if last.as_ref().is_none_or(|second| second.number != number) {
            let zoned = time.to_zoned(TimeZone::UTC);
            *last = Some(Second {
                number,
                rfc3339: zoned.strftime("%Y-%m-%dT%H:%M:%S").to_string().into(),
                common: zoned.strftime("%d/%b/%Y:%H:%M:%S +0000").to_string().into(),
            });
        }
        write(
            last.as_ref()
                .expect("it was made just now where it was not there"),
        );
    }
}

/// The last `N` digits of a number, with leading zeros.
pub(super) fn digits<const N: usize>(out: &mut Vec<u8>, mut number: u32) {
    let mut text = [b'0'; N];
    for digit in text.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
    out.extend_from_slice(&text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_second_has_its_text() {
        let clock = Clock::default();
        let table = [
            (
                "2026-11-21T08:30:00.25Z",
                "2026-11-21T08:30:00.250000Z",
                "21/Nov/2026:08:30:00 +0000",
                "1795249800.250",
            ),
            (
                "2026-11-21T08:30:00.000009Z",
                "2026-11-21T08:30:00.000009Z",
                "21/Nov/2026:08:30:00 +0000",
                "1795249800.000",
            ),
            (
                "2026-11-21T08:30:01Z",
                "2026-11-21T08:30:01.000000Z",
                "21/Nov/2026:08:30:01 +0000",
                "1795249801.000",
            ),
        ];
        for (time, rfc3339, common, unix) in table {
            let time: Timestamp = time.parse().unwrap();
            let text = |write: &dyn Fn(&mut Vec<u8>)| {
                let mut out = Vec::new();
                write(&mut out);
                String::from_utf8(out).unwrap()
            };
            assert_eq!(text(&|out| clock.rfc3339(out, time)), rfc3339);
            assert_eq!(text(&|out| clock.common(out, time)), common);
            assert_eq!(text(&|out| Clock::unix(out, time)), unix);
        }
    }
}
