//! Configuration of the agent: as typed (`file`) → as meant (`model`) → list of changes (`diff`).
//!
//! Text enters through [`Config::load`] or [`Config::parse`] and is either accepted whole or refused
//! whole, with every mistake's place, reason and hint. After this border nobody checks again: a
//! [`Config`] in hand is valid.

pub mod diff;
mod model;

pub use model::{
    Agent, Backend, Config, Forward, HashBy, HealthCheck, Limits, Probe, Protocol, Secret, Vip,
    VipAddress, XdpMode,
};
