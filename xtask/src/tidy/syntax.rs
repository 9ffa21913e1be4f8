//! Rules on tokens, so that they reach into macros too: module docs, the homes of `unsafe` with
//! their SAFETY lines, no `allow`, no ignored tests.
use proc_macro2::{Delimiter, Group, Ident, TokenStream, TokenTree};

use super::Violation;
use super::source::Source;

/// The only places where `unsafe` may stand: the XDP programs, the module that talks to the
/// kernel, and the promise that the types between the two are plain bytes.
const UNSAFE_HOMES: [&str; 3] = [
    "lb-ebpf/src/program",
    "lb-ebpf/src/pod.rs",
    "lb-userspace/src/dataplane",
];

pub(super) fn violations(sources: &[Source]) -> Vec<Violation> {
    sources
        .iter()
        .flat_map(|source| module_doc(source).into_iter().chain(tokens(source)))
        .collect()
}

fn module_doc(source: &Source) -> Option<Violation> {
    let first = source.lines.first().map_or("", String::as_str);
    (!first.starts_with("//! "))
        .then(|| Violation::file(&source.path, "does not begin with a `//!` module doc"))
}

fn tokens(source: &Source) -> Vec<Violation> {
    let mut found = Found {
        source,
        violations: Vec::new(),
    };
    found.walk(source.tokens.clone());
    found.violations
}

struct Found<'a> {
    source: &'a Source,
    violations: Vec<Violation>,
}

impl Found<'_> {
    fn walk(&mut self, stream: TokenStream) {
        let mut tokens = stream.into_iter().peekable();
        let mut after_hash = false;
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Ident(ident) if ident == "unsafe" => {
                    self.unsafe_word(&ident, tokens.peek());
                }
                TokenTree::Group(group) => {
                    if after_hash && group.delimiter() == Delimiter::Bracket {
                        self.attribute(&group);
                    }
                    self.walk(group.stream());
                    after_hash = false;
                }
                // `#[…]` and `#![…]`.
                TokenTree::Punct(mark) => {
                    after_hash = mark.as_char() == '#' || (after_hash && mark.as_char() == '!');
                }
                _ => after_hash = false,
            }
        }
    }

    fn unsafe_word(&mut self, word: &Ident, next: Option<&TokenTree>) {
        let line = word.span().start().line;
        if !UNSAFE_HOMES
            .iter()
            .any(|home| self.source.path.starts_with(home))
        {
            let what = format!(
                "`unsafe` outside of its homes ({})",
                UNSAFE_HOMES.join(", ")
            );
            self.add(line, what);
        }
        let promises = match next {
            Some(TokenTree::Group(block)) => block.delimiter() == Delimiter::Brace,
            Some(TokenTree::Ident(item)) => item == "impl",
            _ => false,
        };
        if promises && !has_safety_comment(&self.source.lines, line) {
            self.add(line, "`unsafe` without a SAFETY comment".to_owned());
        }
    }

    fn attribute(&mut self, group: &Group) {
        let line = group.span().start().line;
        let tokens: Vec<TokenTree> = group.stream().into_iter().collect();
        if names(&tokens, "allow") {
            self.add(
                line,
                "`allow` attribute; use `expect` with a reason".to_owned(),
            );
        }
        if matches!(tokens.first(), Some(TokenTree::Ident(ident)) if ident == "ignore") {
            self.add(line, "ignored test; mend it or take it out".to_owned());
        }
    }

    fn add(&mut self, line: usize, what: String) {
        self.violations
            .push(Violation::at(&self.source.path, line, what));
    }
}

/// True for `name(…)` at any depth, as in `cfg_attr(test, name(…))`.
fn names(tokens: &[TokenTree], name: &str) -> bool {
    tokens.iter().enumerate().any(|(index, token)| match token {
        TokenTree::Ident(ident) => {
            ident == name && matches!(tokens.get(index + 1), Some(TokenTree::Group(_)))
        }
        TokenTree::Group(group) => names(&group.stream().into_iter().collect::<Vec<_>>(), name),
        _ => false,
    })
}

/// Looks for the comment on the line itself and upwards: over comments, attributes and the
/// earlier lines of the same statement.
fn has_safety_comment(lines: &[String], line: usize) -> bool {
    let above = lines[..line].iter().rev().map(|line| line.trim());
    for (distance, text) in above.enumerate() {
        if text.contains("SAFETY:") {
            return true;
        }
        let is_passed_over = text.starts_with("//") || text.starts_with('#');
        let ends_statement = text.is_empty() || text.ends_with([';', '{', '}', ',']);
        if distance > 0 && ends_statement && !is_passed_over {
            return false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::lines;

    fn judge(path: &str, text: &str) -> Vec<String> {
        lines(&violations(&[Source::parse(path, text).unwrap()]))
    }

    const HOME: &str = "lb-userspace/src/dataplane/mmap.rs";

    #[test]
    fn a_module_doc_comes_first() {
        let complaint = "x.rs: does not begin with a `//!` module doc";
        assert_eq!(judge("x.rs", "//! What this is.\n"), [""; 0]);
        assert_eq!(
            judge(
                "x.rs",
                "use std::fs;\n//! Late.\n".replace("//!", "//").as_str()
            ),
            [complaint]
        );
        assert_eq!(judge("x.rs", "//!\nconst A: u8 = 1;\n"), [complaint]);
        assert_eq!(judge("x.rs", ""), [complaint]);
    }

    #[test]
    fn unsafe_stays_at_home() {
        let text = "//! Doc.\n// SAFETY: reason.\nunsafe impl Pod for T {}\n";
        assert_eq!(judge(HOME, text), [""; 0]);
        assert_eq!(judge("lb-ebpf/src/pod.rs", text), [""; 0]);
        let expected = "gateway/src/lib.rs:3: `unsafe` outside of its homes";
        assert!(judge("gateway/src/lib.rs", text)[0].starts_with(expected));
    }

    #[test]
    fn unsafe_is_justified() {
        let complaint =
            |line: usize| vec![format!("{HOME}:{line}: `unsafe` without a SAFETY comment")];
        let cases = [
            (
                "comment above",
                "// SAFETY: reason.\nlet a = unsafe { f() };",
                vec![],
            ),
            (
                "comment of two lines",
                "// SAFETY: long\n// reason.\nunsafe { f() }",
                vec![],
            ),
            (
                "same line",
                "let a = unsafe { f() }; // SAFETY: reason.",
                vec![],
            ),
            (
                "inside a statement",
                "// SAFETY: reason.\nlet a =\n    unsafe { f() };",
                vec![],
            ),
            ("no comment", "let a = unsafe { f() };", complaint(3)),
            (
                "another comment",
                "// Fast.\nlet a = unsafe { f() };",
                complaint(4),
            ),
            (
                "of another statement",
                "// SAFETY: reason.\nf();\nunsafe { g() };",
                complaint(5),
            ),
            ("in a macro", "assert!(unsafe { f() });", complaint(3)),
            (
                "a word in a string",
                "let a = \"unsafe { }\"; // unsafe {",
                vec![],
            ),
        ];
        for (description, body, expected) in cases {
            let text = format!("//! Doc.\nfn f() {{\n{body}\n}}\n");
            assert_eq!(judge(HOME, &text), expected, "{description}");
        }
    }

    #[test]
    fn unsafe_functions_and_attributes_need_a_home_only() {
        let text = "//! Doc.\n#[unsafe(no_mangle)]\nstatic A: u8 = 1;\nunsafe fn f() {}\n";
        assert_eq!(judge("lb-ebpf/src/program/maps.rs", text), [""; 0]);
        assert_eq!(judge("lb-ebpf/src/parse.rs", text).len(), 2);
    }

    #[test]
    fn attributes_that_silence() {
        let allow = ["x.rs:2: `allow` attribute; use `expect` with a reason"];
        let cases = [
            ("#[allow(dead_code)]\nfn f() {}", &allow[..]),
            ("#![allow(dead_code)]", &allow),
            ("#[cfg_attr(test, allow(dead_code))]\nfn f() {}", &allow),
            (
                "#[expect(dead_code, reason = \"allow(x)\")]\nfn f() {}",
                &[],
            ),
            (
                "#[ignore]\n#[test]\nfn f() {}",
                &["x.rs:2: ignored test; mend it or take it out"],
            ),
            (
                "#[ignore = \"slow\"]\nfn f() {}",
                &["x.rs:2: ignored test; mend it or take it out"],
            ),
            ("fn allow() {}\nfn f() { let a = [allow()]; }", &[]),
        ];
        for (text, expected) in cases {
            assert_eq!(
                judge("x.rs", &format!("//! Doc.\n{text}\n")),
                expected,
                "{text}"
            );
        }
    }
}
