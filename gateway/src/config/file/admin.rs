//! `[admin]` and `[drain]` as typed: how operators reach the process, and how it ends.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Placed;
use crate::config::units::Duration;

/// `[admin]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// Address and port for `/livez`, `/readyz` and `/metrics`, in plain HTTP; left out: not
    /// served over TCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bind: Option<Placed<String>>,
    /// Path of the control socket, for `weir-gateway status`, `reload`, `upgrade` and `drain`;
    /// left out: none. Whoever may open it may do everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<Placed<String>>,
    /// Permissions of the control socket, in octal.
    #[serde(default = "Admin::socket_mode_default")]
    pub socket_mode: Placed<String>,
}

impl Admin {
    fn socket_mode_default() -> Placed<String> {
        Placed::absent("0600".to_owned())
    }
}

/// `[drain]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Drain {
    /// From "not ready" until listeners close: time for the balancer to notice. Left out when a
    /// new process has taken the listeners over.
    pub delay: Placed<Duration>,
    /// From closing the listeners until idle HTTP/1.1 connections are closed. A request that
    /// comes meanwhile is served, and told that its connection ends.
    pub idle_grace: Placed<Duration>,
    /// From closing the listeners until what is still open is cut.
    pub deadline: Placed<Duration>,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            delay: Placed::absent(Duration::from_secs(5)),
            idle_grace: Placed::absent(Duration::from_secs(5)),
            deadline: Placed::absent(Duration::from_secs(30)),
        }
    }
}
