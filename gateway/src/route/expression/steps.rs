//! An expression taken apart at the slashes of the paths it matches, so that thousands of them can
//! be looked up as patterns are: by the text that must stand in a segment, and the same piece of
//! many expressions is run once.
//!
//! `/users/[0-9]+/photos` is the literal `users`, a piece `[0-9]+` within a segment, the literal
//! `photos`. `/v[0-9]/.*` is the stem `v` with the piece `[0-9]`, and a tail `.*`, which takes all
//! that is left. An expression of several alternatives has steps for each.

use regex_syntax::hir::{Class, Hir, HirKind, Look, Repetition};

/// How paths are matched by one alternative of an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::route) struct Steps {
    /// The first segments.
    pub(in crate::route) segments: Box<[Step]>,
    /// What becomes of the rest, which begins with a segment; `None`: there is no rest.
    pub(in crate::route) tail: Option<Piece>,
}

/// What one segment must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::route) enum Step {
    /// These bytes.
    Literal(Box<[u8]>),
    /// What a piece matches.
    Piece(Piece),
}

/// A text, and an expression of what follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::route) struct Piece {
    /// Without a slash.
    pub(in crate::route) stem: Box<[u8]>,
    pub(in crate::route) follows: Follows,
}

/// What follows, up to the end of the segment or, in a tail, of the path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::route) enum Follows {
    /// A run of these characters.
    Run(Run),
    /// What this expression matches as a whole.
    Expression(Box<str>),
}

/// Characters of a class, any number of them: most pieces people write are no more than that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::route) struct Run {
    /// A bit for each byte; beyond ASCII all or none.
    bytes: [u64; 4],
    /// Whether there must be one at least.
    some: bool,
}

impl Run {
    /// Whether a text consists of such characters. It must be UTF-8, as paths are.
    pub(in crate::route) fn matches(&self, text: &[u8]) -> bool {
        let is = |byte: &u8| self.bytes[usize::from(byte >> 6)] >> (byte & 63) & 1 == 1;
        !(self.some && text.is_empty()) && text.iter().all(is)
    }

    /// The run an expression is, if it is one.
    fn of(hir: &Hir) -> Option<Self> {
        let HirKind::Repetition(Repetition {
            min: min @ (0 | 1),
            max: None,
            sub,
            ..
        }) = hir.kind()
        else {
            return None;
        };
        let HirKind::Class(class) = sub.kind() else {
            return None;
        };
        let ranges: Vec<(u32, u32)> = match class {
            Class::Unicode(class) => class
                .iter()
                .map(|range| (range.start().into(), range.end().into()))
                .collect(),
            Class::Bytes(class) => class
                .iter()
                .map(|range| (range.start().into(), range.end().into()))
                .collect(),
        };
        let last = match class {
            Class::Unicode(_) => u32::from(char::MAX),
            Class::Bytes(_) => 0xff,
        };
        let mut bytes = [0; 4];
        for (start, end) in ranges {
            for byte in start..=end.min(0x7f) {
                bytes[byte as usize >> 6] |= 1 << (byte & 63);
            }
            match (start, end) {
                (_, ..=0x7f) => {}
                (..=0x80, end) if end == last => bytes[2..].fill(u64::MAX),
                _ => return None,
            }
        }
        Some(Self {
            bytes,
            some: *min == 1,
        })
    }
}

/// The steps of an expression, for each alternative, if it can be taken apart.
pub(super) fn of(hir: &Hir) -> Option<Box<[Steps]>> {
    let plain = plain(hir);
    match plain.kind() {
        HirKind::Alternation(alternatives) => alternatives.iter().map(alternative).collect(),
        _ => Some(Box::new([alternative(&plain)?])),
    }
}

/// The same expression without groups that capture.
fn plain(hir: &Hir) -> Hir {
    match hir.kind() {
        HirKind::Capture(capture) => plain(&capture.sub),
        HirKind::Repetition(repetition) => Hir::repetition(Repetition {
            sub: Box::new(plain(&repetition.sub)),
            ..repetition.clone()
        }),
        HirKind::Concat(subs) => Hir::concat(subs.iter().map(plain).collect()),
        HirKind::Alternation(subs) => Hir::alternation(subs.iter().map(plain).collect()),
        HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) | HirKind::Look(_) => hir.clone(),
    }
}

fn alternative(hir: &Hir) -> Option<Steps> {
    let mut all = match hir.kind() {
        HirKind::Concat(parts) => &parts[..],
        _ => std::slice::from_ref(hir),
    };
    // The whole path is matched anyway.
    while let [first, others @ ..] = all
        && *first.kind() == HirKind::Look(Look::Start)
    {
        all = others;
    }
    while let [others @ .., last] = all
        && *last.kind() == HirKind::Look(Look::End)
    {
        all = others;
    }
    // What looks around itself cannot be cut out of its surroundings.
    if all
        .iter()
        .any(|part| !part.properties().look_set().is_empty())
    {
        return None;
    }
    // Bytes that are part of a character must not be cut off from what follows them.
    let cuts = |part: &Hir| match part.kind() {
        HirKind::Literal(literal) => std::str::from_utf8(&literal.0).is_err(),
        _ => false,
    };
    match all.first()?.kind() {
        HirKind::Literal(literal) if literal.0.starts_with(b"/") && !all.iter().any(cuts) => {}
        _ => return None,
    }
    let mut open = Open::default();
    let mut segments = Vec::new();
    for (at, part) in all.iter().enumerate() {
        match part.kind() {
            HirKind::Literal(literal) => {
                let mut pieces = literal.0.split(|byte| *byte == b'/');
                open.literal(pieces.next().unwrap_or_default());
                for piece in pieces {
                    segments.push(std::mem::take(&mut open).close()?);
                    open.literal(piece);
                }
            }
            _ if can_be_slash(part) => {
                open.rest.extend(all[at..].iter().cloned());
                segments.remove(0);
                let tail = open.piece()?;
                return Some(Steps {
                    segments: segments.into(),
                    tail: Some(tail),
                });
            }
            _ => open.rest.push(part.clone()),
        }
    }
    segments.push(open.close()?);
    // What stood before the first slash is nothing.
    segments.remove(0);
    Some(Steps {
        segments: segments.into(),
        tail: None,
    })
}

/// Whether a match can have a slash in it.
fn can_be_slash(hir: &Hir) -> bool {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => false,
        HirKind::Literal(literal) => literal.0.contains(&b'/'),
        HirKind::Class(Class::Unicode(class)) => class
            .iter()
            .any(|range| (range.start()..=range.end()).contains(&'/')),
        HirKind::Class(Class::Bytes(class)) => class
            .iter()
            .any(|range| (range.start()..=range.end()).contains(&b'/')),
        kind => kind.subs().iter().any(can_be_slash),
    }
}

/// A segment that is not complete yet.
#[derive(Default)]
struct Open {
    stem: Vec<u8>,
    rest: Vec<Hir>,
}

impl Open {
    fn literal(&mut self, text: &[u8]) {
        if self.rest.is_empty() {
            self.stem.extend(text);
        } else {
            self.rest.push(Hir::literal(text));
        }
    }

    fn close(self) -> Option<Step> {
        Some(match self.rest.is_empty() {
            true => Step::Literal(self.stem.into()),
            false => Step::Piece(self.piece()?),
        })
    }

    fn piece(self) -> Option<Piece> {
        let rest = Hir::concat(self.rest);
        let follows = match Run::of(&rest) {
            Some(run) => Follows::Run(run),
            None => {
                let text = rest.to_string();
                // It must mean the same when it is read again, alone.
                let same = super::parsed(&text).is_some_and(|read| read == rest);
                Follows::Expression(same.then_some(text)?.into())
            }
        };
        Some(Piece {
            stem: self.stem.into(),
            follows,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The steps as one text: literals as they are, a piece as its stem and `<what follows>`, `|`
    /// between alternatives, `!` for what cannot be taken apart.
    fn shown(expression: &str) -> String {
        let hir = super::super::parsed(expression).unwrap();
        let piece = |piece: &Piece| {
            let follows = match &piece.follows {
                Follows::Run(run) => format!("run {}", if run.some { "1" } else { "0" }),
                Follows::Expression(text) => text.to_string(),
            };
            format!("{}<{follows}>", String::from_utf8_lossy(&piece.stem))
        };
        let one = |steps: &Steps| {
            let mut text = String::new();
            for step in &steps.segments {
                text += "/";
                text += &match step {
                    Step::Literal(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                    Step::Piece(one) => piece(one),
                };
            }
            if let Some(tail) = &steps.tail {
                text += &format!(" {}", piece(tail));
            }
            text
        };
        let Some(steps) = of(&hir) else {
            return "!".to_owned();
        };
        steps.iter().map(one).collect::<Vec<_>>().join(" | ")
    }

    #[test]
    fn expressions_are_taken_apart_at_slashes() {
        let cases = [
            ("/users/[0-9]+/photos", "/users/<run 1>/photos"),
            ("/users/([^/]*)", "/users/<run 0>"),
            ("^/(?<a>[a-z]+)/x$", "/<run 1>/x"),
            ("/v[0-9]/.*", "/v<[0-9]> <run 0>"),
            ("/a.*", " a<run 0>"),
            ("/x-[a-z]{2}-y/z", "/x-<(?:[a-z]{2})(?:\\-y)>/z"),
            ("/", "/"),
            ("/a/", "/a/"),
            ("/a/x|/b/y", "/a/x | /b/y"),
            ("/(a|bb)/c", "/<(?:(a|(?:bb)))>/c"),
            ("/a(/b)?", " a<((?:/b))?>"),
            (".*", "!"),
            ("", "!"),
            ("x/a", "!"),
            (r"/a\b/b", "!"),
            ("/a($|/.*)", "!"),
        ];
        for (expression, expected) in cases {
            // How groups are written back is not the point.
            let plain = |text: &str| text.replace("(?:", "(").replace(['(', ')'], "");
            assert_eq!(plain(&shown(expression)), plain(expected), "{expression}");
        }
    }

    #[test]
    fn runs_match_what_their_expressions_match() {
        let cases = [
            ("[0-9]+", &["7", "42"][..], &["", "x", "4x", "٣"][..]),
            ("[0-9]*", &["", "42"], &["x"]),
            ("[^/]+", &["a", "ä", "\u{10ffff}"], &["", "/", "a/"]),
            (".*", &["", "a/b", "ä"], &["\n"]),
            ("[a-zA-Z_-]+", &["aZ_-"], &["0", "ä"]),
        ];
        for (expression, matched, other) in cases {
            let hir = super::super::parsed(expression).unwrap();
            let run = Run::of(&hir).expect(expression);
            for text in matched {
                assert!(run.matches(text.as_bytes()), "{expression} on {text:?}");
            }
            for text in other {
                assert!(!run.matches(text.as_bytes()), "{expression} on {text:?}");
            }
        }
        // What is no run of bytes that can be looked at one by one.
        for expression in [
            r"\w+",
            r"\d+",
            "[0-9]{2}",
            "[0-9]{2,}",
            "[0-9]?",
            "a+",
            "[äö]+",
        ] {
            let hir = super::super::parsed(expression).unwrap();
            assert_eq!(Run::of(&hir), None, "{expression}");
        }
    }
}
