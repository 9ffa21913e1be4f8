//! The agent and command line of Weir.
//!
//! [`agent`] is the one task that owns everything: it takes the configuration ([`config`]), what probes
//! say ([`health`]) and what the kernel knows of the network ([`net`]), has [`control`] work out what
//! the maps should hold ([`maglev`] builds the rings), and has [`dataplane`] write it. [`api`] is how the
//! command line speaks with it; [`explain`], [`doctor`] and [`metrics`] look and change nothing.

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
