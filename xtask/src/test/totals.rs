//! What all test binaries of one run add up to, read from their output.
use std::fmt;

/// How a suite begins the one line that it prints when it lacks the rights to run.
const SKIP_PREFIX: &str = "SKIP ";

/// Tests over all binaries of a run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    passed: u64,
    failed: u64,
    /// Ignored or filtered tests, and suites that printed a `SKIP` line.
    skipped: u64,
}

impl Totals {
    /// Takes one line of output into account.
    pub(super) fn add(&mut self, line: &str) {
        // With one test thread, libtest has already begun the line with the test's name.
        let own = line.split_once(" ... ").map_or(line, |(_, rest)| rest);
        if line.starts_with(SKIP_PREFIX) || own.starts_with(SKIP_PREFIX) {
            self.skipped += 1;
        }
        let Some(result) = line.strip_prefix("test result: ") else {
            return;
        };
        let (_, counts) = result.split_once(". ").unwrap_or_default();
        for count in counts.split(';') {
            let Some((number, what)) = count.trim().split_once(' ') else {
                continue;
            };
            let Ok(number) = number.parse::<u64>() else {
                continue;
            };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" | "filtered out" => self.skipped += number,
                _ => {}
            }
        }
    }

    /// What is wrong with the run as a whole; nothing if all tests ran and passed.
    pub(super) fn complaint(&self, exit_was_success: bool) -> Option<&'static str> {
        if self.failed > 0 {
            Some("tests failed")
        } else if !exit_was_success {
            Some("a test did not compile, or a test binary ended without a result")
        } else if self.skipped > 0 {
            Some("tests were skipped, and here nothing may be")
        } else if self.passed == 0 {
            Some("no test ran")
        } else {
            None
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(output: &str) -> Totals {
        let mut totals = Totals::default();
        output.lines().for_each(|line| totals.add(line));
        totals
    }

    const PASSED: &str = "test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; \
                          0 filtered out; finished in 0.01s\n";
    const FAILED: &str = "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; \
                          0 filtered out; finished in 1.20s\n";
    const IGNORED: &str = "test result: ok. 1 passed; 0 failed; 4 ignored; 0 measured; \
                           5 filtered out; finished in 0.00s\n";

    #[test]
    fn binaries_add_up() {
        let sum = totals(&[PASSED, "running 5 tests\n", FAILED, IGNORED].concat());
        assert_eq!(sum.to_string(), "16 passed, 2 failed, 9 skipped");
    }

    #[test]
    fn a_suite_that_says_skip_counts() {
        let cases = [
            ("SKIP datapath: needs CAP_BPF", 1),
            ("test forward ... SKIP netns: needs root", 1),
            ("test not SKIP here ... ok", 0),
        ];
        for (line, expected) in cases {
            assert_eq!(totals(line).skipped, expected, "{line}");
        }
    }

    #[test]
    fn anything_but_a_full_pass_is_a_complaint() {
        let cases = [
            ("all passed", PASSED, true, None),
            ("one failed", FAILED, false, Some("tests failed")),
            ("crashed", PASSED, false, Some("a test did not compile, or")),
            ("ignored", IGNORED, true, Some("tests were skipped")),
            ("nothing", "", true, Some("no test ran")),
        ];
        for (description, output, success, expected) in cases {
            let complaint = totals(output).complaint(success);
            assert_eq!(complaint.is_some(), expected.is_some(), "{description}");
            let said = complaint.unwrap_or_default();
            assert!(
                said.starts_with(expected.unwrap_or_default()),
                "{description}: {said}"
            );
        }
    }
}
