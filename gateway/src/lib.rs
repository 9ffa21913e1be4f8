//! The API gateway of Weir.
//!
//! # Life of a request
//!
//! 1. [`listen`] accepts a connection, finishes TLS, and hands on a byte stream.
//! 2. [`serve`] speaks HTTP/1.1 or HTTP/2 over it, within the limits of the configuration.
//! 3. [`normalise`] settles what others could read differently, or refuses it.
//! 4. [`route`] picks the most specific route for host, path, method and headers.
//! 5. [`filter`] authenticates the sender and counts the request against its limits.
//! 6. [`overload`] lets it on, makes it wait or refuses it, where there is too much.
//! 7. [`upstream`] picks an instance of the route's service and a connection to it.
//! 8. [`forward`] sends the request on and streams the answer back.
//! 9. [`telemetry`] counts and logs what became of it.
//!
//! Beside that path: [`config`] turns the file into what the steps above need, [`server`] starts
//! the workers, [`admin`] answers probes, scrapes and commands, [`reload`] takes on a new
//! configuration, [`upgrade`] a new binary, [`drain`] ends it all without losing a request, and
//! [`cli`] is the command line.

#![forbid(unsafe_code)]

pub mod admin;
pub mod cli;
pub mod config;
mod discovery;
pub mod drain;
pub mod filter;
pub mod forward;
pub mod listen;
pub mod normalise;
mod notify;
pub mod overload;
pub mod reload;
pub mod route;
pub mod serve;
pub mod server;
mod signals;
mod socket;
pub mod telemetry;
pub mod upgrade;
pub mod upstream;
mod watch;
