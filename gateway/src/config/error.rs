//! What is wrong with a configuration, shown the way compilers do: place, line, reason, hint.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

/// Divides reason and hint in an error that has to pass through serde as one text.
pub(super) const HINT_MARK: &str = "\nhint: ";

/// The reason that keeps its line out of what is shown.
pub(super) const SECRET_IN_CLEAR: &str = "a secret stands here only by reference";

/// How alike two names must be for one to be offered instead of the other (Jaro-Winkler, 0 to 1).
const LIKENESS_MIN: f64 = 0.75;

/// Problems shown at most; a file with more of them is better read from the top again.
const PROBLEMS_SHOWN_MAX: usize = 20;

/// Characters of a source line shown at most, so that one long line does not fill the screen.
const SNIPPET_CHARS_MAX: usize = 96;

/// One thing wrong in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Bytes of the file the problem is about; `None`: about the file as a whole.
    pub span: Option<Range<usize>>,
    /// What is wrong, in one line.
    pub message: String,
    /// What to do, in one line.
    pub hint: Option<String>,
    /// Whether the line may hold a secret, and is therefore not shown.
    pub secret: bool,
}

impl Problem {
    /// A problem at a place in the file.
    pub fn at(span: Range<usize>, message: impl Into<String>) -> Self {
        Self {
            span: Some(span),
            message: message.into(),
            hint: None,
            secret: false,
        }
    }

    /// A problem of the file as a whole.
    pub fn whole(message: impl Into<String>) -> Self {
        Self {
            span: None,
            message: message.into(),
            hint: None,
            secret: false,
        }
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Keeps the line out of what is shown.
    #[must_use]
    pub fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// Adds the most similar of `known` as a hint, or all of them if none is similar.
    #[must_use]
    pub fn nearest<'a>(self, wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        match nearest(wrong, known) {
            Some(hint) => self.hint(hint),
            None => self,
        }
    }

    /// Reads an error of the TOML reader: syntax, a wrong type, an unknown key.
    pub(super) fn from_toml(error: &toml::de::Error) -> Self {
        let text = error.message();
        let (message, hint) = match text.split_once(HINT_MARK) {
            Some((message, hint)) => (message.to_owned(), Some(hint.to_owned())),
            None => reword(text),
        };
        Self {
            span: error.span(),
            secret: message == SECRET_IN_CLEAR,
            message: message.replace('\n', ", "),
            hint,
        }
    }
}

/// Rewords serde's `unknown field … expected one of …` into a reason and a hint.
fn reword(text: &str) -> (String, Option<String>) {
    let mut names = text.split('`').skip(1).step_by(2);
    for (prefix, noun) in [("unknown field", "key"), ("unknown variant", "value")] {
        if text.starts_with(prefix) {
            let wrong = names.next().unwrap_or_default();
            return (format!("unknown {noun} `{wrong}`"), nearest(wrong, names));
        }
    }
    if text.starts_with("missing field") {
        let missing = names.next().unwrap_or_default();
        return (
            format!("key `{missing}` is missing"),
            Some(format!("add `{missing} = …` here")),
        );
    }
    let mut text = text.to_owned();
    for number in ["usize", "u64", "u32"] {
        text = text.replace(&format!("expected {number}"), "expected a whole number");
    }
    (text, None)
}

/// `did you mean …?` with the most similar name, or the list of all names, or nothing if there
/// are none.
fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let known: Vec<&str> = known.into_iter().collect();
    let best = known
        .iter()
        .map(|name| (strsim::jaro_winkler(wrong, name), *name))
        .max_by(|a, b| a.0.total_cmp(&b.0))?;
    if best.0 >= LIKENESS_MIN {
        return Some(format!("did you mean `{}`?", best.1));
    }
    let all: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
    Some(format!("known here: {}", all.join(", ")))
}

/// A refused configuration: every problem found in it, at least one.
#[derive(Clone, Debug)]
pub struct Error {
    file: String,
    text: String,
    problems: Vec<Problem>,
    unreadable: bool,
    sources: Vec<PathBuf>,
}

impl Error {
    /// Says that the file could not even be read.
    pub(super) fn unreadable(file: &str, problem: Problem) -> Self {
        Self {
            unreadable: true,
            ..Self::new(file, "", vec![problem])
        }
    }

    /// Whether the file could not be read: then nothing is known of the configuration.
    pub fn is_unreadable(&self) -> bool {
        self.unreadable
    }

    /// Binds problems to the file they are about. `file` is its name as shown to people.
    pub(super) fn new(file: &str, text: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| problem.span.as_ref().map(|span| span.start));
        Self {
            file: file.to_owned(),
            text: text.to_owned(),
            problems,
            unreadable: false,
            sources: Vec::new(),
        }
    }

    /// Adds the files that the configuration refers to.
    pub(super) fn with_sources(self, sources: Vec<PathBuf>) -> Self {
        Self { sources, ..self }
    }

    /// The files that the configuration refers to, as far as it could be read: a change to one of
    /// them may be what makes it valid.
    pub fn sources(&self) -> &[PathBuf] {
        &self.sources
    }

    /// The problems, in the order of their place in the file.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Line and column of a byte of the file, both from 1; columns count characters.
    fn position(&self, at: usize) -> (usize, usize) {
        let before = &self.text[..self.text.floor_char_boundary(at)];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (
            before.matches('\n').count() + 1,
            before[line_start..].chars().count() + 1,
        )
    }

    fn show(&self, problem: &Problem, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = visible(&problem.message);
        match &problem.span {
            Some(span) => {
                let (line, column) = self.position(span.start);
                write!(f, "{}:{line}:{column}: {message}", self.file)?;
                if !problem.secret {
                    self.show_line(span, line, column, f)?;
                }
            }
            None => write!(f, "{}: {message}", self.file)?,
        }
        problem
            .hint
            .iter()
            .try_for_each(|hint| write!(f, "\n\nhint: {hint}"))
    }

    /// The line, cut to what fits, with carets under the place.
    fn show_line(
        &self,
        span: &Range<usize>,
        line: usize,
        column: usize,
        f: &mut fmt::Formatter<'_>,
    ) -> fmt::Result {
        let source = self.text.lines().nth(line - 1).unwrap_or_default();
        let cut = column.saturating_sub(SNIPPET_CHARS_MAX / 2 + 1);
        let cut = if source.chars().count() > SNIPPET_CHARS_MAX {
            cut
        } else {
            0
        };
        // A tab would push the line away from its carets.
        let source = source.replace('\t', " ");
        let shown: String = source.chars().skip(cut).take(SNIPPET_CHARS_MAX).collect();
        let indent = column - 1 - cut;
        let marked = self
            .text
            .get(span.clone())
            .and_then(|text| text.lines().next());
        let carets = marked.map_or(0, |text| text.chars().count());
        let room = shown.chars().count().saturating_sub(indent);
        let carets = "^".repeat(carets.min(room).max(1));
        let margin = " ".repeat(line.to_string().len());
        write!(
            f,
            "\n{margin} |\n{line} | {shown}\n{margin} | {}{carets}",
            " ".repeat(indent)
        )
    }
}

/// Text without control characters, which could move the cursor or break the line.
fn visible(text: &str) -> String {
    let escape = |c: char| {
        if c.is_control() {
            c.escape_default().collect()
        } else {
            c.to_string()
        }
    };
    text.chars().map(escape).collect()
}

/// One block for each problem, with an empty line between two of them.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, problem) in self.problems.iter().take(PROBLEMS_SHOWN_MAX).enumerate() {
            if place > 0 {
                f.write_str("\n\n")?;
            }
            self.show(problem, f)?;
        }
        match self.problems.len().saturating_sub(PROBLEMS_SHOWN_MAX) {
            0 => Ok(()),
            more => write!(f, "\n\n… and {more} more"),
        }
    }
}

impl std::error::Error for Error {}
