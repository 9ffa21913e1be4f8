//! Packet logic of Weir, shared by the XDP programs and the host.
//!
//! `no_std`, safe, without I/O: everything is generic over [`frame::Frame`] (packet bytes) and
//! [`steer::Tables`] (maps). The kernel programs under `program/` are thin glue over it; on the
//! host the same code runs in unit tests, property tests, benches and `weir explain`.
//!
//! The modules follow the way of a packet: [`frame`] → [`wire`] → [`parse`] → [`flow`] →
//! [`hash`] → [`steer`] (and, where flows are told apart, [`track`] over a [`flow_table`]) →
//! [`encap`], in the order shown once by [`datapath::run`]. [`abi`] is the contract with user space,
//! [`reason`] the one table of what can happen to a packet.
#![no_std]

pub mod abi;
pub mod address;
pub mod datapath;
pub mod decap;
pub mod encap;
pub mod flow;
pub mod flow_table;
pub mod frame;
pub mod hash;
pub mod parse;
#[cfg(feature = "user")]
mod pod;
pub mod reason;
pub mod steer;
pub mod track;
pub mod vip_table;
pub mod wire;
