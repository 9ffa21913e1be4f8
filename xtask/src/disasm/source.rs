//! Which line of the source an instruction was made for, as the linker notes it for the kernel
//! (`.BTF.ext`; Linux, `Documentation/bpf/btf.rst`, 4.2).
//!
//! The line is the innermost one: of inlined code, where it was written, not where it was called.
use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result};

use super::instruction::SLOT_BYTES;
use crate::workspace;

/// A line of the source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Line {
    /// From the root of the checkout, of the crate or of Rust's library.
    pub(super) file: String,
    pub(super) number: u32,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.number)
    }
}

/// The lines of each section: the slot of the section at which instructions begin to be a line's.
pub(super) fn lines(btf: &[u8], extension: &[u8]) -> Result<BTreeMap<String, Vec<(usize, Line)>>> {
    sections(btf, extension).context("the line table (.BTF.ext) is cut off")
}

fn sections(btf: &[u8], extension: &[u8]) -> Option<BTreeMap<String, Vec<(usize, Line)>>> {
    // Headers: magic, version and flags, their own length, then pairs of offset and length behind
    // them: types and strings here, functions and lines there.
    let strings = part(btf, 16)?;
    let mut words = Words(part(extension, 16)?);
    let record_bytes = words.next()? as usize;
    let mut sections = BTreeMap::new();
    while !words.0.is_empty() {
        let (section, count) = (text(strings, words.next()?)?, words.next()?);
        let mut lines = Vec::new();
        for _ in 0..count {
            let (record, rest) = words.0.split_at_checked(record_bytes)?;
            words.0 = rest;
            let mut fields = Words(record);
            let (offset, file) = (fields.next()?, fields.next()?);
            // The third field is a copy of the line's text; the fourth is line and column.
            let (_, position) = (fields.next()?, fields.next()?);
            let line = Line {
                file: shortened(text(strings, file)?),
                number: position >> 10,
            };
            lines.push((offset as usize / SLOT_BYTES, line));
        }
        sections.insert(section.to_owned(), lines);
    }
    Some(sections)
}

/// The part whose offset and length stand at `at` of the header.
fn part(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let header_bytes = Words(bytes.get(4..)?).next()? as usize;
    let mut words = Words(bytes.get(at..)?);
    let (offset, length) = (words.next()? as usize, words.next()? as usize);
    bytes.get(header_bytes + offset..)?.get(..length)
}

fn text(strings: &[u8], at: u32) -> Option<&str> {
    let text = strings
        .get(at as usize..)?
        .split(|byte| *byte == 0)
        .next()?;
    std::str::from_utf8(text).ok()
}

/// A path without what differs between machines.
fn shortened(path: &str) -> String {
    let root = workspace::root().display().to_string();
    let ours = path
        .strip_prefix(&root)
        .map(|rest| rest.trim_start_matches('/'));
    let library = || path.split_once("/library/").map(|(_, rest)| rest);
    let registry = || {
        path.split_once("/registry/src/")?
            .1
            .split_once('/')
            .map(|(_, rest)| rest)
    };
    ours.or_else(library)
        .or_else(registry)
        .unwrap_or(path)
        .to_owned()
}

/// Little-endian 32-bit words.
struct Words<'a>(&'a [u8]);

impl Words<'_> {
    fn next(&mut self) -> Option<u32> {
        let (word, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn records_are_read_section_by_section() {
        let strings = b"\0xdp\0/x/library/core/src/cmp.rs\0";
        let mut btf = words(&[0, 24, 0, 0, 0, strings.len() as u32]);
        btf.extend(strings);
        let records = [16, 1, 2, 0, 5, 0, 7 << 10 | 3, 24, 5, 0, 9 << 10];
        let mut extension = words(&[0, 24, 0, 0, 0, records.len() as u32 * 4]);
        extension.extend(words(&records));
        let line = |number| Line {
            file: "core/src/cmp.rs".to_owned(),
            number,
        };
        let expected = BTreeMap::from([("xdp".to_owned(), vec![(0, line(7)), (3, line(9))])]);
        assert_eq!(lines(&btf, &extension).unwrap(), expected);
        assert_eq!(line(7).to_string(), "core/src/cmp.rs:7");

        for end in [0, 4, 20, extension.len() - 1] {
            let error = lines(&btf, &extension[..end]).unwrap_err();
            assert_eq!(error.to_string(), "the line table (.BTF.ext) is cut off");
        }
    }

    #[test]
    fn paths_do_not_depend_on_the_machine() {
        let ours = workspace::root().join("lb-ebpf/src/hash.rs");
        let cases = [
            (ours.to_str().unwrap(), "lb-ebpf/src/hash.rs"),
            (
                "/usr/lib/rustlib/src/rust/library/core/src/bool.rs",
                "core/src/bool.rs",
            ),
            (
                "/r/registry/src/index-1/aya-ebpf-0.2.1/src/lib.rs",
                "aya-ebpf-0.2.1/src/lib.rs",
            ),
            ("elsewhere.c", "elsewhere.c"),
        ];
        for (path, expected) in cases {
            assert_eq!(shortened(path), expected, "{path}");
        }
    }
}
