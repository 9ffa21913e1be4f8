//! More work than there is room for: who waits, who is refused, and what keeps the process alive.
//!
//! Three things can run short, each with a guard of its own:
//!
//! - **A service.** A [`gate`] lets so many requests be under way at a time: a fixed number, or
//!   one that follows the measured latency ([`adaptive`]). Those over it wait in a short [`queue`].
//! - **Memory and time of this process.** [`pressure`] watches resident memory ([`memory`]) and,
//!   worker by worker, how late the event loop is ([`lag`]).
//! - **File descriptors.** [`descriptors`] keeps some back for connections to instances.
//!
//! Whatever runs short, the lower [`class`] of requests is refused first. All of it is decided in
//! [`admission`], between the filters of a route and its forwarding; what is not configured costs
//! a request one look at a number that says so.

pub(crate) mod adaptive;
pub(crate) mod admission;
pub(crate) mod class;
pub(crate) mod descriptors;
pub(crate) mod gate;
pub(crate) mod lag;
pub(crate) mod memory;
pub(crate) mod pressure;
pub(crate) mod queue;

pub use self::adaptive::AdaptivePolicy;
pub use self::admission::RoutePolicy;
pub use self::class::{Class, ClassSource};
pub use self::gate::{Gate, Gates, Policy};
pub use self::pressure::OverloadConfig;
