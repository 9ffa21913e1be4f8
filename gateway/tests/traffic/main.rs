//! Traffic through the real `weir-gateway` process: real sockets on loopback, real origin servers.
//!
//! Needs no rights. Each module is one behaviour; [`support`] holds the gateway process, origin
//! servers and clients.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on should panic where it stands"
)]

mod abuse;
mod access_log;
mod balance;
mod busy_poll;
mod ceilings;
mod client_certificates;
mod discovery;
mod drain;
mod failover;
mod failure;
mod framing;
mod gateway_api;
mod handover;
mod headers;
mod health;
mod hedge;
mod hostile;
mod http2;
mod kept;
mod limits;
mod metrics;
mod mirror;
mod origins;
mod overload;
mod policy;
mod reading;
mod reload;
mod retry;
mod routing;
mod service_tls;
mod split;
mod streaming;
mod support;
mod tls;
mod together;
mod trace;
mod tunnels;
mod upgrade;
mod websocket;
