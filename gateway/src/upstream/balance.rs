//! Which instance takes a request: pure choice, numbers in and a position out. No sockets, no
//! clock, and no allocation once the tables are built.
//!
//! | method | choice | cost | bound |
//! |---|---|---|---|
//! | `round-robin` | [`Turns`]: in turn, smoothly by weight | O(1), with weights O(log n) | every instance within one request of its share at all times |
//! | `least-request` | the less loaded of [two](two::lighter) | O(1) | |
//! | `peak-ewma` | the quicker of two, by [`PeakEwma`](ewma::PeakEwma) | O(1) | |
//! | `random` | a [`Sampler`] | O(1) | |
//! | `consistent-hash` | a [`Maglev`](maglev::Maglev) table | O(1) expected | with `hash_load_max`: no instance above that share of the mean load |
//!
//! Which instances are chosen from at all, and with what weight, is for [`tiers`] and
//! [`slow_start`].

pub(crate) mod ewma;
pub(crate) mod maglev;
mod random;
mod sample;
pub(crate) mod slow_start;
pub(crate) mod tiers;
mod turns;
pub(crate) mod two;

pub(crate) use self::random::Random;
pub(crate) use self::sample::Sampler;
pub(crate) use self::turns::Turns;
