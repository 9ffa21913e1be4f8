//! What `cargo metadata` knows and files do not show: root files of targets, names of libraries.
use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

/// Facts about our crates and those they depend on.
#[derive(Debug, Default)]
pub(super) struct Crates {
    /// The root file of every target of every member, relative to the root of the tree.
    pub(super) roots: Vec<String>,
    /// Package to library, as code names it, where it is not the package's own name.
    libraries: BTreeMap<String, String>,
}

impl Crates {
    /// From the answer of `cargo metadata` about the tree at `root`.
    pub(super) fn from_metadata(metadata: &Value, root: &Path) -> Self {
        let mut crates = Self::default();
        for package in metadata["packages"].as_array().into_iter().flatten() {
            for target in package["targets"].as_array().into_iter().flatten() {
                crates.add(package, target, root);
            }
        }
        crates
    }

    fn add(&mut self, package: &Value, target: &Value, root: &Path) {
        let path = Path::new(target["src_path"].as_str().unwrap_or_default());
        let is_member = package["source"].is_null();
        if let (true, Ok(path)) = (is_member, path.strip_prefix(root)) {
            self.roots.push(path.display().to_string());
        }
        let kinds = target["kind"].as_array().into_iter().flatten();
        let is_library = kinds
            .filter_map(Value::as_str)
            .any(|kind| ["lib", "rlib", "proc-macro"].contains(&kind));
        if let (true, Some(package), Some(library)) = (
            is_library,
            package["name"].as_str(),
            target["name"].as_str(),
        ) {
            let library = library.replace('-', "_");
            if library != package.replace('-', "_") {
                self.libraries.insert(package.to_owned(), library);
            }
        }
    }

    /// How code names the library of `package`.
    pub(super) fn library(&self, package: &str) -> String {
        let other = self.libraries.get(package).cloned();
        other.unwrap_or_else(|| package.replace('-', "_"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn roots_are_ours_and_libraries_may_have_other_names() {
        let metadata = json!({ "packages": [
            {
                "name": "lb-ebpf", "source": null,
                "targets": [
                    { "name": "lb_ebpf", "kind": ["lib"], "src_path": "/tree/lb-ebpf/src/lib.rs" },
                    { "name": "decap", "kind": ["bin"], "src_path": "/tree/lb-ebpf/src/decap.rs" },
                ],
            },
            {
                "name": "rustls-webpki", "source": "registry",
                "targets": [
                    { "name": "webpki", "kind": ["lib"], "src_path": "/cargo/webpki/src/lib.rs" },
                ],
            },
        ]});
        let crates = Crates::from_metadata(&metadata, Path::new("/tree"));
        assert_eq!(crates.roots, ["lb-ebpf/src/lib.rs", "lb-ebpf/src/decap.rs"]);
        assert_eq!(crates.library("lb-ebpf"), "lb_ebpf");
        assert_eq!(crates.library("rustls-webpki"), "webpki");
        assert_eq!(crates.library("serde-json"), "serde_json");
    }
}
