//! Rules on any file: its place, its size, and words that have no place in a finished tree.
use super::{TrackedFile, Violation};

/// Bytes. Bigger things are generated, or belong elsewhere.
const FILE_BYTES_MAX: usize = 1 << 20;

/// The fixed root: our folders, and files that tools demand there.
const ROOT_ENTRIES: [&str; 18] = [
    ".cargo",
    ".ci",
    ".gitignore",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "bench",
    "clippy.toml",
    "deny.toml",
    "docs",
    "gateway",
    "lb-ebpf",
    "lb-userspace",
    "rustfmt.toml",
    "tests",
    "xtask",
];

/// Words put off for later. Written in pieces, or this file would be its own violation.
const LATER: [&str; 3] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
];

/// Paths of one machine, and mirrors' settings that only work on one network.
const MACHINE: [&str; 5] = [
    concat!("/wo", "rk/"),
    concat!("/fa", "rm/"),
    concat!("/ro", "ot/"),
    concat!("[sou", "rce."),
    concat!("replace", "-with"),
];

pub(super) fn violations(files: &[TrackedFile]) -> Vec<Violation> {
    files.iter().flat_map(judge).collect()
}

fn judge(file: &TrackedFile) -> Vec<Violation> {
    let mut violations = Vec::new();
    let entry = file.path.split('/').next().unwrap_or_default();
    if !ROOT_ENTRIES.contains(&entry) {
        violations.push(Violation::file(&file.path, "the root of the tree is fixed"));
    }
    if file.bytes.len() > FILE_BYTES_MAX {
        let what = format!("{} bytes; at most {FILE_BYTES_MAX}", file.bytes.len());
        violations.push(Violation::file(&file.path, what));
    }
    // Checksums may spell anything; licences are not ours to edit.
    if file.path == "Cargo.lock" || file.path.starts_with("LICENSE") {
        return violations;
    }
    if let Ok(text) = std::str::from_utf8(&file.bytes) {
        for (index, line) in text.lines().enumerate() {
            let complaint = words(line);
            violations.extend(complaint.map(|what| Violation::at(&file.path, index + 1, what)));
        }
    }
    violations
}

fn words(line: &str) -> Option<String> {
    let mut words = line.split(|c: char| !(c.is_alphanumeric() || c == '_'));
    if let Some(word) = words.find(|word| LATER.contains(word)) {
        return Some(format!("`{word}`: do it, or write an issue"));
    }
    let found = MACHINE.iter().find(|path| line.contains(*path))?;
    Some(format!("`{found}` means something on one machine only"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::{lines, tracked};

    fn judge_line(line: &str) -> Vec<String> {
        lines(&violations(&[tracked("gateway/x.md", line)]))
    }

    #[test]
    fn words_put_off() {
        for word in LATER {
            let expected = format!("gateway/x.md:1: `{word}`: do it, or write an issue");
            assert_eq!(judge_line(&format!("// {word}: later")), [expected]);
            assert_eq!(judge_line(&format!("mktemp {word}{word}a")), [""; 0]);
        }
    }

    #[test]
    fn paths_of_one_machine() {
        for path in MACHINE {
            let expected = format!("gateway/x.md:1: `{path}` means something on one machine only");
            assert_eq!(judge_line(&format!("see {path}x")), [expected]);
        }
        assert_eq!(judge_line("the framework/network"), [""; 0]);
    }

    #[test]
    fn the_lock_file_may_spell_anything() {
        assert_eq!(
            lines(&violations(&[tracked("Cargo.lock", LATER[2])])),
            [""; 0]
        );
    }

    #[test]
    fn sizes_at_the_limit() {
        let file = |bytes: usize| {
            [TrackedFile {
                path: "tests/x".into(),
                bytes: vec![0; bytes],
            }]
        };
        assert_eq!(lines(&violations(&file(FILE_BYTES_MAX))), [""; 0]);
        let found = lines(&violations(&file(FILE_BYTES_MAX + 1)));
        assert_eq!(found, ["tests/x: 1048577 bytes; at most 1048576"]);
    }

    #[test]
    fn the_root_is_fixed() {
        let files = [
            "README.md",
            "gateway/src/lib.rs",
            "notes.txt",
            "common/src/lib.rs",
        ];
        let files = files.map(|path| tracked(path, ""));
        assert_eq!(
            lines(&violations(&files)),
            [
                "notes.txt: the root of the tree is fixed",
                "common/src/lib.rs: the root of the tree is fixed",
            ]
        );
    }
}
