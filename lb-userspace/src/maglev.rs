//! Maglev.

/// Sizes.
pub const SIZES: [u32; 1] = [65_537];
