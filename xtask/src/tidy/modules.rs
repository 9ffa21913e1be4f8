//! No dead files: every Rust file is reached from a target by `mod`, and `foo.rs` + `foo/` is the
//! one way to lay out a module.
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use super::Violation;
use super::source::Source;

/// `crate_roots` are the root files of all targets.
pub(super) fn violations(sources: &[Source], crate_roots: &[String]) -> Vec<Violation> {
    let by_path: BTreeMap<&Path, &Source> = sources
        .iter()
        .map(|source| (Path::new(&source.path), source))
        .collect();
    let mut reached: BTreeSet<PathBuf> = BTreeSet::new();
    let mut open: Vec<(PathBuf, bool)> = crate_roots
        .iter()
        .map(|root| (PathBuf::from(root), true))
        .collect();
    while let Some((path, is_root)) = open.pop() {
        let Some(source) = by_path.get(path.as_path()) else {
            continue;
        };
        if reached.insert(path.clone()) {
            let directory = child_directory(&path, is_root);
            let candidates = children(&source.syntax.items, &path, &directory);
            open.extend(candidates.into_iter().map(|child| (child, false)));
        }
    }
    sources
        .iter()
        .filter_map(|source| judge(source, &reached))
        .collect()
}

fn judge(source: &Source, reached: &BTreeSet<PathBuf>) -> Option<Violation> {
    let path = Path::new(&source.path);
    if path.ends_with("mod.rs") {
        return Some(Violation::file(
            &source.path,
            "name it after its folder, beside the folder",
        ));
    }
    (!reached.contains(path))
        .then(|| Violation::file(&source.path, "is reached by no target and no `mod`"))
}

/// Where the children of a file lie: beside a crate's root, else in the folder of the same name.
fn child_directory(path: &Path, is_root: bool) -> PathBuf {
    if is_root || path.ends_with("mod.rs") {
        path.parent().unwrap_or(Path::new("")).to_owned()
    } else {
        path.with_extension("")
    }
}

/// Every path that a `mod name;` among `items` may mean.
fn children(items: &[syn::Item], file: &Path, directory: &Path) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for item in items {
        let syn::Item::Mod(module) = item else {
            continue;
        };
        let name = module.ident.to_string();
        if let Some((_, inline)) = &module.content {
            paths.extend(children(inline, file, &directory.join(&name)));
        } else if let Some(told) = path_attribute(&module.attrs) {
            let beside = file.parent().unwrap_or(Path::new(""));
            paths.push(normal(&beside.join(told)));
        } else {
            paths.push(directory.join(format!("{name}.rs")));
            paths.push(directory.join(name).join("mod.rs"));
        }
    }
    paths
}

/// `#[path = "…"]`.
fn path_attribute(attributes: &[syn::Attribute]) -> Option<String> {
    let attribute = attributes
        .iter()
        .find(|attribute| attribute.path().is_ident("path"))?;
    let value = &attribute.meta.require_name_value().ok()?.value;
    match value {
        syn::Expr::Lit(syn::ExprLit {
            lit: syn::Lit::Str(text),
            ..
        }) => Some(text.value()),
        _ => None,
    }
}

/// Without `.` and `..`, which only `#[path]` brings in.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::lines;

    fn judge_tree(files: &[(&str, &str)], roots: &[&str]) -> Vec<String> {
        let sources: Vec<Source> = files
            .iter()
            .map(|(path, text)| Source::parse(path, text).unwrap())
            .collect();
        let roots: Vec<String> = roots.iter().map(|root| (*root).to_owned()).collect();
        lines(&violations(&sources, &roots))
    }

    #[test]
    fn modules_are_followed_from_the_roots() {
        let files = [
            ("a/src/lib.rs", "mod parse; mod outer { mod inner; }"),
            ("a/src/parse.rs", "#[cfg(test)] mod tests;"),
            ("a/src/parse/tests.rs", ""),
            ("a/src/outer/inner.rs", ""),
            (
                "a/src/program/balancer.rs",
                "mod maps; #[path = \"../shared.rs\"] mod shared;",
            ),
            ("a/src/program/maps.rs", ""),
            ("a/src/shared.rs", ""),
        ];
        assert_eq!(
            judge_tree(&files, &["a/src/lib.rs", "a/src/program/balancer.rs"]),
            [""; 0]
        );
    }

    #[test]
    fn dead_files_are_found() {
        let files = [
            ("a/src/lib.rs", "mod used;"),
            ("a/src/used.rs", ""),
            ("a/src/forgotten.rs", "mod child;"),
            ("a/src/forgotten/child.rs", ""),
            ("a/src/used/stray.rs", ""),
        ];
        assert_eq!(
            judge_tree(&files, &["a/src/lib.rs"]),
            [
                "a/src/forgotten.rs: is reached by no target and no `mod`",
                "a/src/forgotten/child.rs: is reached by no target and no `mod`",
                "a/src/used/stray.rs: is reached by no target and no `mod`",
            ]
        );
    }

    #[test]
    fn mod_rs_is_not_our_way() {
        let files = [("a/src/lib.rs", "mod x;"), ("a/src/x/mod.rs", "")];
        assert_eq!(
            judge_tree(&files, &["a/src/lib.rs"]),
            ["a/src/x/mod.rs: name it after its folder, beside the folder"]
        );
    }
}
