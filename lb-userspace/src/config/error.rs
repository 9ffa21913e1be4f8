//! Why a configuration is refused, shown the way compilers do: place, line, caret, hint.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

use thiserror::Error;

/// Problems that are shown of one file. A file with more of them is not the file that was meant.
pub const PROBLEMS_MAX: usize = 20;

/// Characters of a source line that are shown, so that one long line does not fill the screen.
const SNIPPET_CHARS_MAX: usize = 96;

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum Error {
    /// The file could not be read.
    #[error("cannot read the configuration {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is longer than any configuration.
    #[error("{} is longer than {} bytes: it is not a configuration", .path.display(), super::FILE_BYTES_MAX)]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// The file was read, and says something that cannot be meant.
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// A configuration that was refused as a whole, with every problem found in it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct Refused {
    problems: Vec<Problem>,
    /// Problems beyond [`PROBLEMS_MAX`], which are not listed.
    more: usize,
}

/// One problem, at its place in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Name of the file.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub reason: String,
    /// What to do about it.
    pub hint: Option<String>,
    snippet: Snippet,
}

/// What is wrong and what to do about it, not yet at a place.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{reason}")]
pub struct Mistake {
    /// What is wrong.
    pub reason: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// The line of a problem, cut to what fits, with the place to point at.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Snippet {
    text: String,
    /// Characters before the caret, and carets.
    indent: usize,
    carets: usize,
}

impl Mistake {
    pub(super) fn new(reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            hint: Some(hint.into()),
        }
    }
}

impl Refused {
    /// The problems, in the order of their places.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// How many problems there are beyond [`Self::problems`].
    pub fn more(&self) -> usize {
        self.more
    }

    /// Puts mistakes found at byte ranges of `text` in their places.
    pub(super) fn new(file: &str, text: &str, mut found: Vec<(Range<usize>, Mistake)>) -> Self {
        found.sort_by_key(|(span, _)| span.start);
        let more = found.len().saturating_sub(PROBLEMS_MAX);
        found.truncate(PROBLEMS_MAX);
        let place = |(span, mistake)| Problem::new(file, text, span, mistake);
        Self {
            problems: found.into_iter().map(place).collect(),
            more,
        }
    }
}

impl Problem {
    fn new(file: &str, text: &str, span: Range<usize>, mistake: Mistake) -> Self {
        let start = text.floor_char_boundary(span.start);
        let end = text.floor_char_boundary(span.end).max(start);
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..]
            .find('\n')
            .map_or(text.len(), |newline| start + newline);
        let before = text[line_start..start].chars().count();
        let carets = text[start..end.min(line_end)].chars().count();
        Self {
            file: file.to_owned(),
            line: text[..start].matches('\n').count() + 1,
            column: before + 1,
            reason: mistake.reason,
            hint: mistake.hint,
            snippet: Snippet::cut(&text[line_start..line_end], before, carets),
        }
    }
}

impl Snippet {
    /// A part of `line` that shows the characters from `before` on, `carets` of them marked.
    fn cut(line: &str, before: usize, carets: usize) -> Self {
        // A long line is shown from a little before the place.
        let skipped = if before < SNIPPET_CHARS_MAX / 2 {
            0
        } else {
            before - 20
        };
        let shown = line
            .trim_end()
            .chars()
            .skip(skipped)
            .take(SNIPPET_CHARS_MAX);
        let text: String = shown
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let indent = before - skipped;
        let room = text.chars().count().saturating_sub(indent);
        Self {
            text,
            indent,
            carets: carets.min(room).max(1),
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            let separator = if i == 0 { "" } else { "\n\n" };
            write!(f, "{separator}{problem}")?;
        }
        if self.more > 0 {
            write!(f, "\n\nand {} more", self.more)?;
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            line,
            column,
            reason,
            hint,
            snippet,
        } = self;
        let number = line.to_string();
        let margin = " ".repeat(number.len());
        writeln!(f, "{file}:{line}:{column}: {reason}")?;
        writeln!(f, "{margin} |")?;
        writeln!(f, "{number} | {}", snippet.text)?;
        write!(
            f,
            "{margin} | {}{}",
            " ".repeat(snippet.indent),
            "^".repeat(snippet.carets)
        )?;
        if let Some(hint) = hint {
            write!(f, "\n\nhint: {hint}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str, span: Range<usize>) -> String {
        let mistake = Mistake::new("this is wrong", "make it right");
        Refused::new("weir.toml", text, vec![(span, mistake)]).to_string()
    }

    #[test]
    fn points_at_the_place() {
        let expected =
            "weir.toml:2:5: this is wrong\n  |\n2 | b = 17\n  |     ^^\n\nhint: make it right";
        assert_eq!(refused("a = 1\nb = 17\nc = 3\n", 10..12), expected);
    }

    #[test]
    fn counts_characters_and_not_bytes() {
        let text = "name = \"grün\" # 17";
        let start = text.find("17").unwrap();
        assert!(refused(text, start..start + 2).starts_with("weir.toml:1:17: "));
    }

    #[test]
    fn places_at_the_edges_do_not_panic() {
        for (text, span) in [
            ("", 0..0),
            ("a", 1..1),
            ("a\n", 2..2),
            ("a\nb", 0..3),
            ("ü", 1..1),
        ] {
            assert!(
                refused(text, span.clone()).contains('^'),
                "{text:?} {span:?}"
            );
        }
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let text = format!("{}here{}", "x".repeat(10_000), "y".repeat(10_000));
        let shown = refused(&text, 10_000..10_004);
        assert!(
            shown.contains(&format!("{}here{}", "x".repeat(20), "y".repeat(72))),
            "{shown}"
        );
        assert!(
            shown
                .lines()
                .all(|line| line.len() <= SNIPPET_CHARS_MAX + 4)
        );
    }

    #[test]
    fn at_most_twenty_problems_are_shown() {
        let found = |count| {
            let mistake = || Mistake::new("wrong", "right");
            Refused::new("f", "x", (0..count).map(|_| (0..1, mistake())).collect())
        };
        assert!(!found(PROBLEMS_MAX).to_string().contains("more"));
        let over = found(PROBLEMS_MAX + 1);
        assert_eq!(over.problems().len(), PROBLEMS_MAX);
        assert!(over.to_string().ends_with("\n\nand 1 more"));
    }
}
