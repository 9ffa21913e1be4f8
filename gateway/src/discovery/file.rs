//! Instances listed in a file: TOML with `endpoints = […]`, or JSON, an array or an object with
//! `endpoints`. Each is an address or a table, as in the configuration.
//!
//! The file is looked at twice a second rather than watched by inotify, which sees neither network
//! file systems nor all the ways of mounting secrets and maps into containers. A new file should be
//! moved into place (`rename`): one that is written in place may be read half written, is then
//! refused, and read again when it has changed further.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::Outcome;
use crate::config::compile::balance::endpoint;
use crate::config::file::Endpoint;

/// Between looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Bytes of the file at most.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// The file with its endpoints.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    endpoints: Vec<Endpoint>,
}

/// What the file was when it was last looked at.
#[derive(Debug, Default)]
pub(super) struct Seen(Option<Stamp>);

/// Device, inode, size, and the times of the last change in seconds and nanoseconds.
type Stamp = (u64, u64, u64, (i64, i64), (i64, i64));

impl Seen {
    /// Completes when the file is another one than at the last call; the first call soon does, since
    /// the file may have changed since it was read.
    pub(super) async fn changed(&mut self, path: &Path) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = stamp(path).await.ok();
            if self.0.is_none() || now != self.0 {
                self.0 = now;
                return;
            }
        }
    }
}

async fn stamp(path: &Path) -> io::Result<Stamp> {
    let file = tokio::fs::metadata(path).await?;
    Ok((
        file.dev(),
        file.ino(),
        file.size(),
        (file.mtime(), file.mtime_nsec()),
        (file.ctime(), file.ctime_nsec()),
    ))
}

/// Reads the file.
pub(super) async fn read(path: &Path) -> Outcome {
    let text = async {
        let bytes = tokio::fs::metadata(path).await?.len();
        if bytes > FILE_BYTES_MAX {
            return Err(io::Error::other(format!("{bytes} bytes are too many")));
        }
        tokio::fs::read_to_string(path).await
    };
    let listed = match text.await {
        Ok(text) => parse(&text, path.extension().is_some_and(|kind| kind == "json")),
        Err(error) => Err(error.to_string()),
    };
    match listed {
        // Valid until it changes.
        Ok(endpoints) => Outcome::Found(endpoints, Duration::MAX),
        Err(reason) => Outcome::Failed(format!("{}: {reason}", path.display())),
    }
}

fn parse(text: &str, json: bool) -> Result<Vec<crate::config::EndpointConfig>, String> {
    let typed = if json && text.trim_start().starts_with('[') {
        serde_json::from_str::<Vec<Endpoint>>(text).map_err(|error| error.to_string())?
    } else if json {
        let listed = serde_json::from_str::<Listed>(text);
        listed.map_err(|error| error.to_string())?.endpoints
    } else {
        let listed = toml::from_str::<Listed>(text);
        listed
            .map_err(|error| error.message().to_owned())?
            .endpoints
    };
    let read = |typed: &Endpoint| endpoint(typed).map_err(|error| error.to_string());
    typed.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn toml_and_json_mean_the_same() {
        let expected = "10.0.0.1:80, 10.0.0.2:80 (weight 3, priority 1, zone b)";
        let table = [
            (
                false,
                "endpoints = [\"10.0.0.1:80\",\n\
                 { address = \"10.0.0.2:80\", weight = 3, priority = 1, zone = \"b\" }]",
            ),
            (
                true,
                r#"["10.0.0.1:80", {"address": "10.0.0.2:80", "weight": 3, "priority": 1, "zone": "b"}]"#,
            ),
            (
                true,
                r#"{"endpoints": ["10.0.0.1:80",
                    {"address": "10.0.0.2:80", "weight": 3, "priority": 1, "zone": "b"}]}"#,
            ),
        ];
        for (json, text) in table {
            let endpoints = parse(text, json).unwrap();
            let endpoints: Vec<String> = endpoints.iter().map(ToString::to_string).collect();
            assert_eq!(endpoints.join(", "), expected, "{text}");
        }
        assert_eq!(parse("endpoints = []", false), Ok(vec![]));
    }

    #[test]
    fn a_bad_file_says_what_is_wrong() {
        let table = [
            (false, "", "missing field `endpoints`"),
            (false, "endpoints = [\"10.0.0.1", "unclosed array"),
            (
                false,
                "endpoints = [\"app:80\"]",
                "`app:80` is no address with port",
            ),
            (false, "endpoints = [\"10.0.0.1:0\"]", "port 0"),
            (false, "endpoints = []\nmore = 1", "unknown field `more`"),
            (true, "", "EOF"),
            (
                true,
                "[{\"address\": \"10.0.0.1:80\", \"weight\": 70000}]",
                "out of range",
            ),
        ];
        for (json, text, expected) in table {
            let error = parse(text, json).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[tokio::test]
    async fn a_file_that_is_too_large_or_not_there_is_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("endpoints.toml");
        assert!(matches!(read(&path).await, Outcome::Failed(_)));
        std::fs::write(&path, " ".repeat(FILE_BYTES_MAX as usize + 1)).unwrap();
        let Outcome::Failed(reason) = read(&path).await else {
            panic!("read");
        };
        assert!(reason.contains("4194305 bytes are too many"), "{reason}");
        std::fs::write(&path, "endpoints = []").unwrap();
        assert_eq!(read(&path).await, Outcome::Found(vec![], Duration::MAX));
    }
}
