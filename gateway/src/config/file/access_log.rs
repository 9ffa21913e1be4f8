//! `[access_log]` and `[access_logs.NAME]` as typed.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Placed;
use crate::config::units::Duration;

/// `[access_log]`, or one of `[access_logs]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AccessLog {
    /// Where the log goes.
    pub to: LogTarget,
    /// The file to append to, for `to = "file"`. Opened again on SIGUSR1, and when it was moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<Placed<String>>,
    /// The server, for `to = "syslog"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syslog: Option<Syslog>,
    /// `json`, `common`, `combined`, or text with fields in braces, as in
    /// `"{client} {method} {path} {status}"`.
    pub format: Placed<String>,
    /// The fields of a JSON line, in order; left out: the usual ones. Headers are
    /// `request.NAME` and `response.NAME`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fields: Option<Vec<Placed<String>>>,
    /// Other keys for fields of a JSON line.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rename: BTreeMap<Placed<String>, Placed<String>>,
    /// Query parameters whose values are not shown.
    pub redact: Vec<Placed<String>>,
    /// Only requests that meet one of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only: Option<Condition>,
    /// The share of requests that have a line, such as `"1%"`.
    pub sample: Placed<String>,
    /// Requests that have a line whatever `sample` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub always: Option<Condition>,
}

impl Default for AccessLog {
    fn default() -> Self {
        let redact = [
            "access_token",
            "api_key",
            "apikey",
            "client_secret",
            "code",
            "id_token",
            "password",
            "refresh_token",
            "secret",
            "sig",
            "signature",
            "token",
        ];
        Self {
            to: LogTarget::Stdout,
            path: None,
            syslog: None,
            format: Placed::absent("json".to_owned()),
            fields: None,
            rename: BTreeMap::new(),
            redact: redact.map(|name| Placed::absent(name.to_owned())).into(),
            only: None,
            sample: Placed::absent("100%".to_owned()),
            always: None,
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
    /// The server in `syslog`.
    Syslog,
}

/// A syslog server.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Syslog {
    /// `unix:PATH`, `udp:ADDRESS:PORT` or `tcp:ADDRESS:PORT`.
    pub address: Placed<String>,
    /// `user`, `daemon`, `local0` to `local7`, or another of RFC 5424.
    pub facility: Placed<String>,
    /// What the gateway calls itself there.
    pub app_name: Placed<String>,
}

impl Default for Syslog {
    fn default() -> Self {
        Self {
            address: Placed::absent("unix:/dev/log".to_owned()),
            facility: Placed::absent("local0".to_owned()),
            app_name: Placed::absent("weir-gateway".to_owned()),
        }
    }
}

/// Met by a request when one of its parts is.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Condition {
    /// Statuses such as `"404"`, and classes such as `"5xx"`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub status: Vec<Placed<String>>,
    /// It took longer than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slower_than: Option<Placed<Duration>>,
    /// It was refused by the gateway, or broke off.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub failed: bool,
    /// It took one of these routes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Placed<String>>,
}
