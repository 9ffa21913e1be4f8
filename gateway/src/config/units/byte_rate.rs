//! Bytes per second.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::{Size, UnitError};

/// A number of bytes in each second such as `"240B/s"` or `"1MiB/s"`; zero means no demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRate(pub Size);

impl ByteRate {
    pub(super) const HINT: &str = r#"write bytes per second: "240B/s", "16KiB/s"; "0B/s" for none"#;

    /// Whole bytes in a length of time.
    #[must_use]
    pub fn bytes_in(self, time: Duration) -> u64 {
        let bytes = u128::from(self.0.0) * time.as_millis() / 1000;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

impl FromStr for ByteRate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let size = text.trim_end().strip_suffix('s').and_then(|rest| {
            let size = rest.trim_end().strip_suffix('/')?;
            size.trim_end().parse().ok()
        });
        size.map(Self).ok_or_else(|| UnitError {
            message: format!("invalid rate of bytes `{text}`"),
            hint: Self::HINT,
        })
    }
}

impl fmt::Display for ByteRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_rates_are_read_and_written_back() {
        let second = Duration::from_secs(1);
        let cases = [
            ("240B/s", 240, "240B/s"),
            ("16 KiB / s", 16_384, "16KiB/s"),
            ("0B/s", 0, "0B/s"),
        ];
        for (text, bytes, written) in cases {
            let rate: ByteRate = text.parse().unwrap();
            assert_eq!(rate.bytes_in(second), bytes, "{text}");
            assert_eq!(rate.to_string(), written);
        }
        for text in [
            "", "240", "240B", "240/s", "B/s", "240B/m", "-1B/s", "1B/ss",
        ] {
            assert!(text.parse::<ByteRate>().is_err(), "{text}");
        }
        let rate = ByteRate(Size(3));
        assert_eq!(rate.bytes_in(Duration::from_millis(500)), 1);
    }
}
