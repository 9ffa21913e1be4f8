//! The sections of routes in a configuration file, to tell at a reload which of them have changed.
//!
//! A file of thousands of routes takes long to read and to compile, and most reloads change a few
//! lines of routes or services. So the text is cut at their headers, `[routes.NAME]`; a route that
//! stands there as it stood before need be neither read nor compiled again. Only the plain form is
//! cut out: a file in which anything is not plain, or in which anything but routes and services
//! has changed, and any file with a problem, is read as a whole, so that what is accepted and what
//! is said never depends on this.

use std::collections::BTreeMap;
use std::ops::Range;

use aws_lc_rs::digest::{Context, SHA256};

/// What stood somewhere: 128 bits of its SHA-256.
type Content = [u8; 16];

/// What stood in the sections of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sections {
    routes: BTreeMap<Box<str>, Content>,
    /// In all others but services'.
    others: Content,
}

/// A file cut into its routes and everything else.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cut<'t> {
    text: &'t str,
    /// What is neither a route nor a service.
    others: Vec<Range<usize>>,
    services: Vec<Range<usize>>,
    /// The places of each route's text, by name.
    routes: BTreeMap<&'t str, Vec<Range<usize>>>,
}

/// What a file still needs to be read for.
#[derive(Debug)]
pub(super) struct Changed<'t> {
    /// The text without the routes that are as they were.
    pub(super) text: String,
    /// Their names.
    pub(super) kept: Vec<&'t str>,
}

impl<'t> Cut<'t> {
    /// Cuts a text, if all about it is plain.
    pub(super) fn new(text: &'t str) -> Option<Self> {
        // Only strings of several lines can hold what looks like a header.
        if text.contains("\"\"\"") || text.contains("'''") {
            return None;
        }
        let mut cut = Self {
            text,
            others: Vec::new(),
            services: Vec::new(),
            routes: BTreeMap::new(),
        };
        let mut begins = 0;
        let mut section = Section::Other;
        for at in headers(text) {
            cut.note(section, begins..at);
            begins = at;
            let line = text[at..].lines().next().unwrap_or_default();
            section = match section_of(line) {
                Section::Other if line.contains("routes") => return None,
                section => section,
            };
        }
        cut.note(section, begins..text.len());
        Some(cut)
    }

    fn note(&mut self, section: Section<'t>, place: Range<usize>) {
        match section {
            Section::Route(name) => self.routes.entry(name).or_default().push(place),
            Section::Service => self.services.push(place),
            Section::Other => self.others.push(place),
        }
    }

    /// What has changed since `before`.
    pub(super) fn since(&self, before: &Sections) -> Changed<'t> {
        let mut kept = Vec::new();
        let mut places = [&self.others[..], &self.services].concat();
        let same = before.others == self.content(&self.others);
        for (name, route) in &self.routes {
            match before.routes.get(*name) {
                Some(content) if same && *content == self.content(route) => kept.push(*name),
                _ => places.extend(route.iter().cloned()),
            }
        }
        let text = places.into_iter().map(|place| &self.text[place]).collect();
        Changed { text, kept }
    }

    /// What stands in the sections, but for those of routes that are `made` from more than that.
    pub(super) fn sections(&self, made: impl Fn(&str) -> bool) -> Sections {
        let routes = self.routes.iter().filter(|(name, _)| !made(name));
        Sections {
            routes: routes
                .map(|(name, places)| (Box::from(*name), self.content(places)))
                .collect(),
            others: self.content(&self.others),
        }
    }

    fn content(&self, places: &[Range<usize>]) -> Content {
        let mut digest = Context::new(&SHA256);
        for place in places {
            digest.update(self.text[place.clone()].as_bytes());
        }
        let digest = digest.finish();
        *digest
            .as_ref()
            .first_chunk()
            .expect("SHA-256 gives 32 bytes")
    }
}

/// Where lines begin with a bracket, indented or not: headers, or parts of lists.
fn headers(text: &str) -> impl Iterator<Item = usize> {
    text.match_indices('[').filter_map(|(at, _)| {
        let line = text[..at].rfind('\n').map_or(0, |end| end + 1);
        let indent = &text.as_bytes()[line..at];
        indent
            .iter()
            .all(|byte| b" \t".contains(byte))
            .then_some(line)
    })
}

/// What a part of the file is about.
#[derive(Clone, Copy)]
enum Section<'t> {
    Route(&'t str),
    Service,
    Other,
}

/// What a header begins: of a route or a service if it has the plain form, `[routes.NAME]` or
/// `[routes.NAME.match]`.
fn section_of(line: &str) -> Section<'_> {
    let named = || {
        let header = line.trim_start().strip_prefix('[')?;
        let (path, behind) = header.split_once(']')?;
        let plain = |key: &str| {
            let is = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
            !key.is_empty() && key.bytes().all(is)
        };
        let behind = behind.trim();
        let ends = behind.is_empty() || behind.starts_with('#');
        let (kind, path) = path.split_once('.')?;
        let name = path.split('.').next()?;
        (ends && path.split('.').all(plain)).then_some((kind, name))
    };
    match named() {
        Some(("routes", name)) => Section::Route(name),
        Some(("services", _)) => Section::Service,
        _ => Section::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "[server]\n\
        [routes.a]\nmatch = {}\n\
        [services.app]\nendpoints = [\n  \"x\",\n]\n\
        \t[routes.b] # b\nuse = [\"x\"]\n[routes.b.match]\npath = \"/[routes.c]\"\n";

    fn changed(before: &str, after: &str) -> Option<(String, Vec<String>)> {
        let before = Cut::new(before).unwrap().sections(|_| false);
        let changed = Cut::new(after)?.since(&before);
        let kept = changed.kept.iter().map(ToString::to_string);
        Some((changed.text.clone(), kept.collect()))
    }

    #[test]
    fn only_what_has_changed_is_left() {
        let others = "[server]\n[services.app]\nendpoints = [\n  \"x\",\n]\n";
        let a = "[routes.a]\nmatch = {}\n";
        let b = &FILE[FILE.find("\t[routes.b]").unwrap()..];
        let both = vec!["a".to_owned(), "b".to_owned()];
        let cases = [
            (FILE.to_owned(), others.to_owned(), both.clone()),
            (
                FILE.replace("\"x\",", "\"y\","),
                others.replace("\"x\",", "\"y\","),
                both,
            ),
            (
                FILE.replace("match = {}", "match = { }"),
                format!("{others}{}", a.replace("{}", "{ }")),
                vec!["b".to_owned()],
            ),
            (
                FILE.replace("/[routes.c]", "/c"),
                format!("{others}{}", b.replace("/[routes.c]", "/c")),
                vec!["a".to_owned()],
            ),
            (
                format!("{FILE}[routes.c]\n"),
                format!("{others}[routes.c]\n"),
                vec!["a".to_owned(), "b".to_owned()],
            ),
            (FILE.replace(a, ""), others.to_owned(), vec!["b".to_owned()]),
            (
                FILE.replace("[server]", "[server]\nwatch = true"),
                format!("{others}{a}{b}").replace("[server]", "[server]\nwatch = true"),
                Vec::new(),
            ),
        ];
        for (after, text, kept) in cases {
            assert_eq!(changed(FILE, &after), Some((text, kept)), "{after}");
        }
    }

    #[test]
    fn what_is_not_plain_is_not_cut() {
        let table = [
            "[routes.\"a\"]\n",
            "[ routes.a ]\n",
            "[[routes.a]]\n",
            "[\"routes\".a]\n",
            "[routes.a.\"match\"]\n",
            "[routes]\n",
            "a = \"\"\"\n[routes.a]\n\"\"\"\n",
            "a = '''\n[routes.a]\n'''\n",
        ];
        for more in table {
            assert_eq!(changed(FILE, &format!("{FILE}{more}")), None, "{more}");
        }
    }

    #[test]
    fn routes_made_from_more_than_their_text_are_not_remembered() {
        let cut = Cut::new(FILE).unwrap();
        let sections = cut.sections(|name| name == "a");
        assert_eq!(cut.since(&sections).kept, ["b"]);
    }
}
