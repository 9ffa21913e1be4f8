//! Licences and sources of everything we link, against `deny.toml`.
//!
//! cargo-deny reads the same file, but would first have to be compiled, which takes minutes on two
//! cores; what we ask of it fits here.
use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use spdx::{Expression, ParseMode};

use crate::{output, workspace};

/// Every registry dependency comes from here, whatever mirror serves it.
const SOURCE_ALLOWED: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Fails when a dependency, for whatever platform, has a licence or a source that is not allowed.
pub(super) fn check() -> Result<()> {
    let path = workspace::root().join("deny.toml");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let allowed = allowed(&text)?;
    let metadata = workspace::metadata()?;
    let complaints = complaints(&metadata, &allowed)?;
    for complaint in &complaints {
        output::say(complaint);
    }
    ensure!(
        complaints.is_empty(),
        "{} dependencies are not allowed",
        complaints.len()
    );
    Ok(())
}

/// `licenses.allow` of deny.toml, each entry one licence (with its exception, if any).
fn allowed(deny: &str) -> Result<BTreeSet<String>> {
    let deny: toml::Table = deny.parse().context("deny.toml")?;
    let list = deny
        .get("licenses")
        .and_then(|licenses| licenses.get("allow"));
    let list = list
        .and_then(toml::Value::as_array)
        .context("deny.toml has no licenses.allow")?;
    let entries = list.iter().map(|entry| entry.as_str().map(str::to_owned));
    entries
        .collect::<Option<_>>()
        .context("deny.toml: licenses.allow holds more than strings")
}

fn complaints(metadata: &Value, allowed: &BTreeSet<String>) -> Result<Vec<String>> {
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata lists no packages")?;
    let mut complaints = Vec::new();
    for package in packages {
        // Members of the workspace have no source; their licence is ours.
        let Some(source) = package["source"].as_str() else {
            continue;
        };
        let name = format!("{} {}", text(package, "name"), text(package, "version"));
        if source != SOURCE_ALLOWED {
            complaints.push(format!("{name}: comes from {source}"));
        }
        if let Err(reason) = permitted(text(package, "license"), allowed) {
            complaints.push(format!("{name}: {reason:#}"));
        }
    }
    Ok(complaints)
}

fn text<'a>(package: &'a Value, key: &str) -> &'a str {
    package[key].as_str().unwrap_or_default()
}

/// An expression is permitted if it can be met with allowed licences alone.
fn permitted(licence: &str, allowed: &BTreeSet<String>) -> Result<()> {
    ensure!(!licence.is_empty(), "names no licence");
    // Lax: old manifests write `MIT/Apache-2.0`.
    let expression = Expression::parse_mode(licence, ParseMode::LAX)
        .with_context(|| format!("licence `{licence}`"))?;
    if !expression.evaluate(|requirement| allowed.contains(&requirement.to_string())) {
        bail!("licence `{licence}` is not in deny.toml's allow list");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn allow_list() -> BTreeSet<String> {
        let deny = "[licenses]\nallow = ['MIT', 'Apache-2.0', 'Apache-2.0 WITH LLVM-exception']";
        allowed(deny).unwrap()
    }

    #[test]
    fn expressions() {
        let cases = [
            ("MIT", true),
            ("MIT OR GPL-3.0-only", true),
            ("MIT AND GPL-3.0-only", false),
            ("(MIT OR EUPL-1.2) AND Apache-2.0", true),
            ("MIT/Apache-2.0", true),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("MIT WITH LLVM-exception", false),
            ("EUPL-1.2", false),
            ("Our Own Licence", false),
            ("", false),
        ];
        for (licence, expected) in cases {
            assert_eq!(
                permitted(licence, &allow_list()).is_ok(),
                expected,
                "{licence}"
            );
        }
    }

    #[test]
    fn only_foreign_packages_are_judged() {
        let package = |source: Value, licence: Value| {
            let (name, version) = ("x", "1.0.0");
            json!({ "name": name, "version": version, "source": source, "license": licence })
        };
        let cases = [
            ("ours", package(Value::Null, Value::Null), vec![]),
            (
                "allowed",
                package(SOURCE_ALLOWED.into(), "MIT".into()),
                vec![],
            ),
            (
                "from git",
                package("git+https://example.com/x".into(), "MIT".into()),
                vec!["x 1.0.0: comes from git+https://example.com/x"],
            ),
            (
                "licence only in a file",
                package(SOURCE_ALLOWED.into(), Value::Null),
                vec!["x 1.0.0: names no licence"],
            ),
        ];
        for (description, package, expected) in cases {
            let found = complaints(&json!({ "packages": [package] }), &allow_list()).unwrap();
            assert_eq!(found, expected, "{description}");
        }
    }

    #[test]
    fn an_allow_list_must_be_there() {
        assert!(allowed("[licenses]\n").is_err());
        assert!(allowed("[licenses]\nallow = [1]\n").is_err());
    }
}
