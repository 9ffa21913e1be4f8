//! `[access_log]` as typed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Placed;

/// `[access_log]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccessLog {
    /// Where the log goes.
    pub to: LogTarget,
    /// The file to append to, for `to = "file"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<Placed<String>>,
}

impl Default for AccessLog {
    fn default() -> Self {
        Self {
            to: LogTarget::Stdout,
            path: None,
        }
    }
}

/// Where the access log goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LogTarget {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
    /// The file in `path`.
    File,
}
