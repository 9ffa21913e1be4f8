//! What became of each request: counted in [`metrics`], written in [`access_log`].
//!
//! Both are fed at one place, the end of an `exchange`, so they never disagree.

pub mod access_log;
pub(crate) mod exchange;
pub(crate) mod log;
pub mod metrics;
pub mod rehearsal;
pub(crate) mod trace;
