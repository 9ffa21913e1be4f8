//! A model of the balancer and everything around it: connections survive.
//!
//! The agent's own core (configuration, plan, publish, adoption) writes into plain arrays, from which
//! the data path's own code forwards real frames of simulated clients; time is simulated. Packets come
//! between any two writes of the agent, some of them having read a part of the tables before. The
//! agent dies in the middle of what it does, and comes back.
//!
//! - `memory`: the maps as arrays, and readers that may be held up;
//! - `wire`, `seen`, `client`, `store`: packets, their ends, and the agent's writes between them;
//! - `agent`, `setup`, `world`: the agent's core, what there is, and the things that happen;
//! - `judge`, `window`: the invariant, and the windows in which it may be broken;
//! - `property`, `directed`, `found`: random worlds, one for each window, and those that once broke;
//! - `twins`: two balancers of different pasts.

mod agent;
mod client;
mod directed;
mod found;
mod judge;
mod memory;
mod property;
mod random;
mod seen;
mod setup;
mod store;
mod twins;
mod window;
mod wire;
mod world;
