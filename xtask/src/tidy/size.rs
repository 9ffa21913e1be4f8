//! One idea per file, one screen per function.
use super::Violation;
use super::source::Source;

/// Lines of a file, without inline tests.
const FILE_LINES_MAX: usize = 600;
const FILE_LINES_USUAL: usize = 400;
/// Lines of a function, from `fn` to the closing brace. Tests may be tables of any length.
const FUNCTION_LINES_MAX: usize = 70;
const FUNCTION_LINES_USUAL: usize = 35;
/// Percent of files and functions that stay under what is usual.
const USUAL_PERCENT_MIN: usize = 90;

pub(super) fn violations(sources: &[Source]) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut file_lines = Vec::new();
    let mut function_lines = Vec::new();
    for source in sources {
        let length = source.length();
        file_lines.push(length);
        if length > FILE_LINES_MAX {
            let what = format!("{length} lines without tests; at most {FILE_LINES_MAX}");
            violations.push(Violation::file(&source.path, what));
        }
        for function in source.functions() {
            function_lines.push(function.length);
            if function.length > FUNCTION_LINES_MAX {
                let (name, length) = (function.name, function.length);
                let what = format!("`{name}` has {length} lines; at most {FUNCTION_LINES_MAX}");
                violations.push(Violation::at(&source.path, function.line, what));
            }
        }
    }
    violations.extend(unusual("files", &file_lines, FILE_LINES_USUAL));
    violations.extend(unusual("functions", &function_lines, FUNCTION_LINES_USUAL));
    violations
}

/// A violation of the whole tree, if too few of `lengths` are under `usual`.
fn unusual(what: &str, lengths: &[usize], usual: usize) -> Option<Violation> {
    let under = lengths.iter().filter(|&&length| length < usual).count();
    if under * 100 >= lengths.len() * USUAL_PERCENT_MIN {
        return None;
    }
    let all = lengths.len();
    let text = format!(
        "{under} of {all} {what} have under {usual} lines; at least {USUAL_PERCENT_MIN} % should"
    );
    Some(Violation::file("the tree", text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::lines;

    fn source(text: &str) -> Source {
        Source::parse("x.rs", text).unwrap()
    }

    /// A file with one function of `length` lines after one line of documentation.
    fn one_function(length: usize) -> Source {
        source(&format!(
            "//! Doc.\nfn f() {{\n{}}}\n",
            "    g();\n".repeat(length - 2)
        ))
    }

    fn short() -> Source {
        source("//! Doc.\nfn f() {}\n")
    }

    fn among_short(long: Source) -> Vec<Source> {
        std::iter::once(long)
            .chain((0..9).map(|_| short()))
            .collect()
    }

    #[test]
    fn functions_at_the_limit() {
        assert_eq!(lines(&violations(&among_short(one_function(70)))), [""; 0]);
        assert_eq!(
            lines(&violations(&among_short(one_function(71)))),
            ["x.rs:2: `f` has 71 lines; at most 70"]
        );
    }

    #[test]
    fn files_at_the_limit() {
        let file = |lines: usize| {
            source(&format!(
                "//! Doc.\n{}",
                "const A: u8 = 1;\n".repeat(lines - 1)
            ))
        };
        assert_eq!(lines(&violations(&among_short(file(600)))), [""; 0]);
        assert_eq!(
            lines(&violations(&among_short(file(601)))),
            ["x.rs: 601 lines without tests; at most 600"]
        );
    }

    #[test]
    fn most_must_be_short() {
        assert_eq!(
            unusual("files", &[400, 1, 1, 1, 1, 1, 1, 1, 1, 1], 400),
            None
        );
        let found = unusual("files", &[400, 1, 1, 1, 1, 1, 1, 1, 1], 400);
        assert_eq!(
            found.unwrap().to_string(),
            "the tree: 8 of 9 files have under 400 lines; at least 90 % should"
        );
        assert_eq!(unusual("files", &[], 400), None);
    }
}
