//! The README's code map names files that exist.
use super::{TrackedFile, Violation};

const README: &str = "README.md";
const HEADING: &str = "Code map";
/// Lines of the code map.
const CODE_MAP_LINES_MAX: usize = 60;

pub(super) fn violations(files: &[TrackedFile]) -> Vec<Violation> {
    let Some(readme) = files.iter().find(|file| file.path == README) else {
        return vec![Violation::file(README, "is missing")];
    };
    let text = String::from_utf8_lossy(&readme.bytes);
    let map = code_map(&text);
    if map.is_empty() {
        return vec![Violation::file(
            README,
            format!("has no section `{HEADING}`"),
        )];
    }
    let mut violations = Vec::new();
    if map.len() > CODE_MAP_LINES_MAX {
        let what = format!(
            "the code map has {} lines; at most {CODE_MAP_LINES_MAX}",
            map.len()
        );
        violations.push(Violation::file(README, what));
    }
    for (line, text) in map {
        let named = text
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|name| is_path(name));
        for path in named.flat_map(expanded).filter(|path| !exists(path, files)) {
            violations.push(Violation::at(
                README,
                line,
                format!("`{path}` does not exist"),
            ));
        }
    }
    violations
}

/// The lines of the section, without its heading, with their numbers.
fn code_map(text: &str) -> Vec<(usize, &str)> {
    let is_heading = |line: &str| line.starts_with('#');
    let lines = text
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line));
    lines
        .skip_while(|(_, line)| !(is_heading(line) && line.trim_matches(['#', ' ']) == HEADING))
        .skip(1)
        .take_while(|(_, line)| !is_heading(line))
        .collect()
}

/// What among the quoted is meant as a path: it names a folder or a file, not a command or a type.
fn is_path(quoted: &str) -> bool {
    let endings = [".rs", ".toml", ".md", "/"];
    let is_one_word = !quoted.contains([' ', '<', '*']) && !quoted.starts_with(['/', '-', '.']);
    is_one_word
        && (endings.iter().any(|ending| quoted.ends_with(ending)) || quoted.contains('/'))
        && !quoted.contains("::")
}

/// `wire/{eth,vlan}.rs` as two paths.
fn expanded(path: &str) -> Vec<String> {
    let parts = path.split_once('{').and_then(|(before, rest)| {
        let (choices, after) = rest.split_once('}')?;
        Some((before, choices, after))
    });
    match parts {
        Some((before, choices, after)) => choices
            .split(',')
            .map(|choice| format!("{before}{}{after}", choice.trim()))
            .collect(),
        None => vec![path.to_owned()],
    }
}

/// From the root, or, as the map gives names and not links, from any folder.
fn exists(path: &str, files: &[TrackedFile]) -> bool {
    let wanted = format!("/{}", path.trim_end_matches('/'));
    files.iter().any(|file| {
        let full = format!("/{}", file.path);
        full.ends_with(&wanted) || full.contains(&format!("{wanted}/"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::{lines, tracked};

    fn judge(readme: &str) -> Vec<String> {
        let paths = [
            "lb-ebpf/src/parse.rs",
            "lb-ebpf/src/wire/ipv4.rs",
            "xtask/src/main.rs",
        ];
        let code = paths.into_iter().map(|path| tracked(path, ""));
        let files: Vec<TrackedFile> = code.chain([tracked(README, readme)]).collect();
        lines(&violations(&files))
    }

    #[test]
    fn names_are_looked_up() {
        let cases = [
            ("full path", "`lb-ebpf/src/parse.rs` parses", ""),
            ("name alone", "`parse.rs` and `src/parse.rs`", ""),
            ("folder", "`lb-ebpf/` and `wire/`", ""),
            (
                "choices",
                "`wire/{ipv4,ipv6}.rs`",
                "README.md:3: `wire/ipv6.rs` does not exist",
            ),
            (
                "gone",
                "`steer.rs` steers",
                "README.md:3: `steer.rs` does not exist",
            ),
            (
                "part of a name",
                "`arse.rs`",
                "README.md:3: `arse.rs` does not exist",
            ),
            (
                "no path",
                "`Flow`, `cargo xtask a/b`, `abi::key`, `/metrics`",
                "",
            ),
        ];
        for (description, line, expected) in cases {
            let readme = format!("# Weir\n## Code map\n{line}\n## Later\n`nothing.rs`\n");
            assert_eq!(judge(&readme).join("\n"), expected, "{description}");
        }
    }

    #[test]
    fn the_map_is_there_and_short() {
        assert_eq!(judge("# Weir\n"), ["README.md: has no section `Code map`"]);
        assert_eq!(lines(&violations(&[])), ["README.md: is missing"]);
        let map = |lines: usize| format!("## Code map\n{}", "text\n".repeat(lines));
        assert_eq!(judge(&map(60)), [""; 0]);
        assert_eq!(
            judge(&map(61)),
            ["README.md: the code map has 61 lines; at most 60"]
        );
    }
}
