//! The agent and command line of Weir.
//!
//! Desired state (`config`, the control API in `api`) → plan → maps. `health` says which backends
//! live, `maglev` turns those into a ring.

pub mod agent;
pub mod api;
pub mod config;
pub mod control;
pub mod dataplane;
pub mod doctor;
pub mod explain;
pub mod health;
pub mod maglev;
pub mod metrics;
pub mod net;
pub mod shutdown;
