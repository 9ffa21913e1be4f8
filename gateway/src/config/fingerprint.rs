//! What a configuration was made from, to tell whether it would come out the same again.
//!
//! A reload is often asked for because a certificate was renewed, or by a tool that does so after
//! every run. Then thousands of routes need not be read and compiled again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

use super::compile::SOURCE_BYTES_MAX;

/// A hash (SHA-256) of a file's content; `None`: it could not be read.
type Content = Option<[u8; SHA256_OUTPUT_LEN]>;

/// The files a configuration was made from, and what they held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint {
    text: Content,
    sources: BTreeMap<PathBuf, Content>,
}

impl Fingerprint {
    /// Notes the configuration file itself.
    pub(super) fn note_text(&mut self, text: &str) {
        self.text = content(text.as_bytes());
    }

    /// Notes a file that the configuration refers to, whether or not it could be read.
    pub(super) fn note(&mut self, path: PathBuf, bytes: Option<&[u8]>) {
        self.sources.insert(path, bytes.and_then(content));
    }

    /// The SHA-256 of the configuration file, as `sha256sum` shows it; `None`: it was no file. Of
    /// the files it refers to nothing is told, since one may hold a secret that could be guessed.
    pub(crate) fn sha256(&self) -> Option<String> {
        let digits = self.text?.into_iter().map(|byte| format!("{byte:02x}"));
        Some(digits.collect())
    }

    /// Every file that the configuration refers to.
    pub fn sources(&self) -> impl Iterator<Item = &Path> {
        self.sources.keys().map(PathBuf::as_path)
    }

    /// Whether the configuration file holds the same as then if it holds `text` now, and the files
    /// it refers to do, too.
    pub(super) fn is_current(&self, text: &str) -> bool {
        let same = |(path, before): (&PathBuf, &Content)| before.is_some() && read(path) == *before;
        self.text.is_some()
            && content(text.as_bytes()) == self.text
            && self.sources.iter().all(same)
    }
}

fn read(path: &Path) -> Content {
    let bytes = std::fs::metadata(path).ok()?.len();
    let fits = bytes <= SOURCE_BYTES_MAX;
    content(&fits.then(|| std::fs::read(path).ok())??)
}

fn content(bytes: &[u8]) -> Content {
    digest(&SHA256, bytes).as_ref().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_change_of_any_file_counts() {
        let folder = tempfile::TempDir::new().unwrap();
        let (key, gone) = (folder.path().join("key"), folder.path().join("gone"));
        std::fs::write(&key, "1").unwrap();
        let mut fingerprint = Fingerprint::default();
        assert!(!fingerprint.is_current(""), "made from nothing");
        fingerprint.note_text("a");
        fingerprint.note(key.clone(), Some(b"1"));
        assert!(fingerprint.is_current("a"));
        assert!(!fingerprint.is_current("b"));
        std::fs::write(&key, "2").unwrap();
        assert!(!fingerprint.is_current("a"));
        std::fs::remove_file(&key).unwrap();
        assert!(!fingerprint.is_current("a"));
        std::fs::write(&key, "1").unwrap();
        assert!(fingerprint.is_current("a"));
        fingerprint.note(gone, None);
        assert!(!fingerprint.is_current("a"), "it may be readable now");
    }
}
