//! From what is wanted to what the kernel has.
//!
//! ```text
//! config + runtime changes + health + next hops
//!        │  state: what each VIP should be          (pure)
//!        ▼
//!      Wanted ──plan──▶ Plan ──apply──▶ maps         plan is pure; apply is all or nothing
//!        ▲               │
//!        └── Published ◀─┘                           what the kernel has now
//! ```
//!
//! Nothing here waits, listens or sends; `agent` does, and calls in.

pub mod alloc;
pub mod apply;
pub mod plan;
pub mod published;
pub mod runtime;
pub mod slots;
pub mod state;
