//! The agent of Weir, and what its command line is made of.
//!
//! ```text
//! config ─┐                                  what should be
//! api    ─┼─▶ control ──▶ dataplane ──▶ kernel
//! health ─┤      │ rings from table          what is
//! net    ─┘      ▼
//!            metrics, explain, doctor        what can be seen of it
//! ```
//!
//! `agent` owns all of it and is the only place where something waits. Decisions (`config`, `control`,
//! `table`, the state of `health`) are pure; `dataplane` alone knows aya, `net` alone knows netlink.

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
pub mod rendezvous;
pub mod shutdown;
pub mod table;
