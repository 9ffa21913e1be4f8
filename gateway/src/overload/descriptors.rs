//! File descriptors: a connection to an instance needs one too, so clients must not take all.
//!
//! The kernel gives every new descriptor the lowest free number (POSIX `open`, "the lowest
//! numbered file descriptor not open"). So the number of a connection just accepted says how many
//! are in use, without counting and without a lock: a number within the reserve means that
//! everything below is taken.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the limit of open descriptors to what the process may have at most, as a server should:
/// the usual soft limit of 1024 is meant for programs that use `select`. Returns the limit.
pub(crate) fn raise_limit() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        // Cannot fail for this process and resource; without a limit nothing is kept back.
        return u64::MAX;
    };
    if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() {
        tracing::info!(from = soft, to = hard, "limit of open files raised");
        return hard;
    }
    soft
}

/// The first descriptor number that clients do not get.
pub(crate) fn client_end(limit: u64, reserve_percent: u32) -> u64 {
    let reserve = u128::from(limit) * u128::from(reserve_percent) / 100;
    limit - u64::try_from(reserve).unwrap_or(0)
}

/// Whether this descriptor, just opened, is one that clients do not get.
pub(crate) fn is_reserved(descriptor: BorrowedFd<'_>, client_end: u64) -> bool {
    u64::try_from(descriptor.as_raw_fd()).is_ok_and(|number| number >= client_end)
}

/// Whether an error says that this process, or the whole machine, has no descriptor left.
pub(crate) fn are_used_up(error: &io::Error) -> bool {
    let number = error.raw_os_error().map(Errno::from_raw);
    matches!(number, Some(Errno::EMFILE | Errno::ENFILE))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn the_reserve_is_a_part_of_the_limit() {
        let table = [
            (1024, 10, 922),
            (1024, 0, 1024),
            (20_000, 10, 18_000),
            (8, 10, 8),
            (u64::MAX, 10, u64::MAX - u64::MAX / 10),
        ];
        for (limit, percent, expected) in table {
            assert_eq!(client_end(limit, percent), expected, "{limit} {percent}");
        }
    }

    #[test]
    fn only_a_want_of_descriptors_is_one() {
        let table = [
            (Errno::EMFILE, true),
            (Errno::ENFILE, true),
            (Errno::ECONNREFUSED, false),
        ];
        for (number, expected) in table {
            let error = io::Error::from_raw_os_error(number as i32);
            assert_eq!(are_used_up(&error), expected, "{number}");
        }
    }

    #[test]
    fn a_descriptor_at_the_end_is_reserved_and_one_below_is_not() {
        let file = File::open("/dev/null").unwrap();
        let number = u64::try_from(file.as_raw_fd()).unwrap();
        assert!(is_reserved(file.as_fd(), number));
        assert!(!is_reserved(file.as_fd(), number + 1));
    }
}
