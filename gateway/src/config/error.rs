//! What is wrong with a configuration, shown the way compilers do.

/// A refused configuration: every problem found in it.
#[derive(Debug, thiserror::Error)]
#[error("not written yet")]
pub struct Error {}
