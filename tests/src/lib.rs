//! The test bed of Weir: whole hosts on one machine, and the real programs running on them.
//!
//! A host is a network namespace; hosts meet in a routed fabric. The load balancer, the gateways
//! and the services run as processes inside their hosts, and clients connect from theirs, so a
//! test or the demo sees what users of a deployment see. Modules, from the ground up:
//!
//! - [`cleanup`]: whatever is made is undone, also after a panic, a signal or a killed run;
//! - [`command`], [`wait`], [`privilege`], [`binaries`]: running tools, waiting with a deadline,
//!   and what this machine lets us do;
//! - [`netns`], [`host`], [`network`]: namespaces, hosts with addresses, the fabric between them;
//! - [`process`]: a program running inside a host;
//! - [`service`], [`echo`]: the servers behind a gateway, or directly behind a balancer;
//! - [`client`], [`certs`], [`token`]: what a user brings along;
//! - [`crowd`], [`flood`]: thousands of live connections, millions of hostile packets;
//! - [`counters`], [`pinned`]: what the kernel counts, attaches and keeps;
//! - [`other_build`]: objects for an upgrade;
//! - [`bpffs`], [`balancer`], [`backend`], [`gateway`]: the programs under test, each on its host;
//! - [`publisher`], [`mixed`]: tables published without an agent, and packets that look at them;
//! - [`demo`]: all of it together, with a story.

pub mod backend;
pub mod balancer;
pub mod binaries;
pub mod bpffs;
pub mod cases;
pub mod certs;
pub mod cleanup;
pub mod client;
pub mod command;
pub mod counters;
pub mod crowd;
pub mod demo;
pub mod echo;
pub mod fixture;
pub mod flood;
pub mod gateway;
pub mod host;
pub mod mixed;
pub mod netns;
pub mod network;
pub mod object;
pub mod other_build;
pub mod output;
pub mod packet;
pub mod pinned;
pub mod privilege;
pub mod process;
pub mod publisher;
pub mod service;
pub mod token;
pub mod wait;
