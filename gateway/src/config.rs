//! The configuration: one TOML file, in two stages.
//!
//! [`mod@file`] is the file as typed: every value keeps its place, unknown keys are errors.
//! [`model`] is what it means: names resolved, units read, keys loaded, routes compiled. A wrong
//! file gives an [`Error`] with every problem found, each with file, line, column and a hint.

pub(crate) mod compile;
pub mod error;
pub mod file;
pub mod fingerprint;
pub mod model;
pub mod sections;
pub mod units;

use std::path::Path;

pub use error::Error;
pub use file::File;
pub use model::*;

use self::error::Problem;
use self::sections::Cut;

/// How a configuration that did not come from a file is called in errors.
const NO_FILE: &str = "configuration";

/// Bytes of a configuration file at most.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Reads and validates the configuration file at `path`. Paths in it are relative to its folder.
pub fn load(path: &Path) -> Result<Config, Error> {
    read(path).map(|(_, config)| config)
}

/// Like [`load`], for a gateway that serves by `previous`: limits and authentications that have
/// not changed are taken over with all they remember, so that a reload hands no sender a new
/// burst and no token needs to be verified again.
///
/// `None`: nothing has changed, neither the file nor one it refers to.
pub fn reload(path: &Path, previous: &Config) -> Result<Option<Config>, Error> {
    let (name, text) = read_named(path)?;
    if previous.fingerprint.is_current(&text) {
        return Ok(None);
    }
    if let Some(config) = parse_changes(&text, folder(path), previous) {
        return Ok(Some(config));
    }
    let (_, config) = parse(&text, &name, folder(path), Some(previous))?;
    Ok(Some(config))
}

/// Whether `config` is what the file at `path` says now. A file that cannot be read says nothing
/// else.
pub fn is_current(path: &Path, config: &Config) -> bool {
    read_text(path).map_or(true, |text| config.fingerprint.is_current(&text))
}

/// Like [`load`], with the file as typed beside what it means.
pub fn read(path: &Path) -> Result<(File, Config), Error> {
    let (name, text) = read_named(path)?;
    parse(&text, &name, folder(path), None)
}

/// What errors call the file, and its text.
fn read_named(path: &Path) -> Result<(String, String), Error> {
    let name = path.display().to_string();
    let text = read_text(path).map_err(|problem| Error::unreadable(&name, problem))?;
    Ok((name, text))
}

/// What paths in the file are relative to.
fn folder(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

fn read_text(path: &Path) -> Result<String, Problem> {
    let unreadable = |error: std::io::Error| {
        Problem::whole(format!("the configuration cannot be read: {error}"))
            .hint("name it with `--config FILE`")
    };
    let bytes = std::fs::metadata(path).map_err(unreadable)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(Problem::whole(format!(
            "{bytes} bytes are too many for a configuration"
        )));
    }
    std::fs::read_to_string(path).map_err(unreadable)
}

/// Both stages; `name` is what errors call the file.
fn parse(
    text: &str,
    name: &str,
    base_dir: &Path,
    previous: Option<&Config>,
) -> Result<(File, Config), Error> {
    let refuse = |(problems, sources)| Error::new(name, text, problems).with_sources(sources);
    let file: File = toml::from_str(text)
        .map_err(|error| refuse((vec![Problem::from_toml(&error)], Vec::new())))?;
    let mut config = compile::compile(&file, base_dir, previous, &[]).map_err(refuse)?;
    config.fingerprint.note_text(text);
    if let Some(cut) = Cut::new(text) {
        config.note_sections(&cut);
    }
    Ok((file, config))
}

/// Both stages for what has changed since `previous`, which gives the same as both for all of it.
/// Nothing where that is not certain, or something is wrong: what is said about it needs the whole.
fn parse_changes(text: &str, base_dir: &Path, previous: &Config) -> Option<Config> {
    let cut = Cut::new(text)?;
    let changed = cut.since(&previous.sections);
    if changed.kept.is_empty() {
        return None;
    }
    let file: File = toml::from_str(&changed.text).ok()?;
    let mut config = compile::compile(&file, base_dir, Some(previous), &changed.kept).ok()?;
    config.fingerprint.note_text(text);
    config.note_sections(&cut);
    Some(config)
}

impl Config {
    /// Validates a configuration given as text; paths in it are relative to `base_dir`.
    pub fn parse(text: &str, base_dir: &Path) -> Result<Self, Error> {
        parse(text, NO_FILE, base_dir, None).map(|(_, config)| config)
    }

    /// The same after `previous`, as [`reload`] does it.
    #[cfg(test)]
    fn parse_after(text: &str, previous: &Self) -> Result<Self, Error> {
        match parse_changes(text, Path::new(""), previous) {
            Some(config) => Ok(config),
            None => parse(text, NO_FILE, Path::new(""), Some(previous)).map(|(_, config)| config),
        }
    }

    /// Notes the sections this was made from, but for those of routes that hold what other files
    /// say.
    fn note_sections(&mut self, cut: &Cut<'_>) {
        self.sections = cut.sections(|name| self.made_from_files.contains(name));
    }
}

#[cfg(test)]
mod tests;
