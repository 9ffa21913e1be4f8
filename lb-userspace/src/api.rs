//! The control API: HTTP and JSON on the agent's Unix socket, every path under `/v1/`.
//!
//! `types` is what travels; `client` is the command line's half, `server` the agent's.

pub mod client;
pub mod server;
pub mod types;
