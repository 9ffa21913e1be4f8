//! Services and their instances: which one takes a request, and over which connection.
//!
//! What every worker must agree on, whether an instance may be used and how much of it is, is shared
//! as atomics (`availability`, `permits`).
//! Everything else, connections above all, belongs to one worker alone, so the request path takes no
//! lock. A worker has one `cluster::Cluster` per service, which
//! chooses by its `lineup` and `balance`.

pub(crate) mod availability;
pub(crate) mod balance;
pub(crate) mod breaker;
pub(crate) mod budget;
pub(crate) mod cluster;
pub(crate) mod endpoint;
pub(crate) mod faults;
pub mod health;
pub(crate) mod instance;
mod lineup;
pub(crate) mod link;
pub(crate) mod outlier;
pub(crate) mod permits;
pub(crate) mod pool;
pub(crate) mod service;
pub(crate) mod spare;
mod sticky;
mod stream;
pub(crate) mod tls;
pub(crate) mod transport;
pub(crate) mod wire;
