//! The form of dependencies: versions in the root manifest alone, members say `workspace = true`,
//! and nothing is listed that no code names.
use std::collections::BTreeSet;

use proc_macro2::{TokenStream, TokenTree};
use toml::{Table, Value};

use super::crates::Crates;
use super::source::Source;
use super::{TrackedFile, Violation};

const ROOT: &str = "Cargo.toml";
const KINDS: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

pub(super) fn violations(
    files: &[TrackedFile],
    sources: &[Source],
    crates: &Crates,
) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut used = BTreeSet::new();
    let mut root = None;
    for file in files.iter().filter(|file| is_manifest(&file.path)) {
        let manifest: Table = match String::from_utf8_lossy(&file.bytes).parse() {
            Ok(manifest) => manifest,
            Err(error) => {
                violations.push(Violation::file(&file.path, format!("is not TOML: {error}")));
                continue;
            }
        };
        if file.path == ROOT {
            root = Some(manifest);
            continue;
        }
        let words = words_of_member(&file.path, sources);
        for (name, value) in dependencies(&manifest) {
            violations.extend(member_form(&file.path, &name, &value));
            if !words.contains(&crates.library(&name)) {
                let what = format!("dependency `{name}` is named by no code of this member");
                violations.push(Violation::file(&file.path, what));
            }
            used.insert(name);
        }
    }
    violations.extend(root.iter().flat_map(|root| shared_form(root, &used)));
    violations
}

fn is_manifest(path: &str) -> bool {
    path == ROOT || path.ends_with("/Cargo.toml")
}

/// All dependencies of a member, those of `[target.…]` included.
fn dependencies(manifest: &Table) -> Vec<(String, Value)> {
    let targets = manifest.get("target").and_then(Value::as_table);
    let targets = targets
        .into_iter()
        .flat_map(Table::values)
        .filter_map(Value::as_table);
    std::iter::once(manifest)
        .chain(targets)
        .flat_map(|table| KINDS.iter().filter_map(|kind| table.get(*kind)?.as_table()))
        .flat_map(|table| {
            table
                .iter()
                .map(|(name, value)| (name.clone(), value.clone()))
        })
        .collect()
}

fn member_form(path: &str, name: &str, value: &Value) -> Option<Violation> {
    let is_shared = value.get("workspace").and_then(Value::as_bool) == Some(true);
    (!is_shared).then(|| {
        let what = format!("dependency `{name}` must be `{{ workspace = true }}`");
        Violation::file(path, what)
    })
}

/// Ours by path, others by version from the registry, all of them used.
fn shared_form(root: &Table, used: &BTreeSet<String>) -> Vec<Violation> {
    let shared = root
        .get("workspace")
        .and_then(|workspace| workspace.get("dependencies"));
    let Some(shared) = shared.and_then(Value::as_table) else {
        return Vec::new();
    };
    let mut violations = Vec::new();
    for (name, value) in shared {
        let has = |key: &str| value.get(key).is_some();
        let version = value.as_str().or_else(|| value.get("version")?.as_str());
        let complaint = match version {
            _ if has("git") || has("registry") => "comes from the public registry or from here",
            Some("*") => "needs a version",
            None if !has("path") => "needs a version, or a path if it is ours",
            Some(_) if has("path") => "is ours: a path and no version",
            _ if !used.contains(name) => "is used by no member",
            _ => continue,
        };
        violations.push(Violation::file(
            ROOT,
            format!("dependency `{name}`: {complaint}"),
        ));
    }
    violations
}

/// Every identifier in a member's code.
fn words_of_member(manifest: &str, sources: &[Source]) -> BTreeSet<String> {
    let folder = manifest.strip_suffix("Cargo.toml").unwrap_or(manifest);
    let mut words = BTreeSet::new();
    for source in sources
        .iter()
        .filter(|source| source.path.starts_with(folder))
    {
        collect_words(source.tokens.clone(), &mut words);
    }
    words
}

fn collect_words(tokens: TokenStream, words: &mut BTreeSet<String>) {
    for token in tokens {
        match token {
            TokenTree::Ident(ident) => {
                words.insert(ident.to_string());
            }
            TokenTree::Group(group) => collect_words(group.stream(), words),
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::{lines, tracked};

    const CODE: &str = "//! Doc.\nuse serde_json::Value;\nuse aya_ebpf::x;\nuse insta::y;\n";

    fn judge(root: &str, member: &str) -> Vec<String> {
        let files = [tracked(ROOT, root), tracked("a/Cargo.toml", member)];
        let sources = [Source::parse("a/src/lib.rs", CODE).unwrap()];
        lines(&violations(&files, &sources, &Crates::default()))
    }

    #[test]
    fn members_share_the_roots_versions() {
        let root = "[workspace.dependencies]\nserde_json = '1'\naya-ebpf = '1'\ninsta = '1'\n";
        let cases = [
            (
                "shared",
                "[dependencies]\nserde_json = { workspace = true }\n",
                "",
            ),
            (
                "dotted",
                "[dependencies]\nserde_json.workspace = true\n",
                "",
            ),
            (
                "own version",
                "[dependencies]\nserde_json = '1'\n",
                "a/Cargo.toml: dependency `serde_json` must be `{ workspace = true }`",
            ),
            (
                "for one target",
                "[target.'cfg(unix)'.dependencies]\nserde_json = { version = '1' }\n",
                "a/Cargo.toml: dependency `serde_json` must be `{ workspace = true }`",
            ),
            (
                "by path",
                "[dev-dependencies]\nserde_json = { path = '../b' }\n",
                "a/Cargo.toml: dependency `serde_json` must be `{ workspace = true }`",
            ),
        ];
        for (description, member, expected) in cases {
            let others =
                "[build-dependencies]\naya-ebpf.workspace = true\ninsta.workspace = true\n";
            assert_eq!(
                judge(root, &[member, others].concat()).join("\n"),
                expected,
                "{description}"
            );
        }
    }

    #[test]
    fn what_no_code_names_is_reported() {
        let root = "[workspace.dependencies]\nclap = '4'\n";
        assert_eq!(
            judge(root, "[dependencies]\nclap = { workspace = true }\n"),
            ["a/Cargo.toml: dependency `clap` is named by no code of this member"]
        );
    }

    #[test]
    fn shared_dependencies_have_one_form() {
        let cases = [
            ("serde_json = '1'", ""),
            ("serde_json = { path = 'b' }", ""),
            (
                "serde_json = '*'",
                "Cargo.toml: dependency `serde_json`: needs a version",
            ),
            (
                "serde_json = { features = ['std'] }",
                "Cargo.toml: dependency `serde_json`: needs a version, or a path if it is ours",
            ),
            (
                "serde_json = { path = 'b', version = '1' }",
                "Cargo.toml: dependency `serde_json`: is ours: a path and no version",
            ),
            (
                "serde_json = { git = 'https://example.com/x' }",
                "Cargo.toml: dependency `serde_json`: comes from the public registry or from here",
            ),
            (
                "serde_json = '1'\nclap = '4'",
                "Cargo.toml: dependency `clap`: is used by no member",
            ),
        ];
        for (entry, expected) in cases {
            let root = format!("[workspace.dependencies]\n{entry}\n");
            let found = judge(&root, "[dependencies]\nserde_json.workspace = true\n");
            assert_eq!(found.join("\n"), expected, "{entry}");
        }
    }
}
