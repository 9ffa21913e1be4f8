//! How odd paths are read, as meant.

pub use crate::config::file::{DotSegments, EmptySegments, RefuseOrKeep, UnderscoreNames};

/// What becomes of the spellings of a path that servers differ on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathRules {
    /// `.` and `..`.
    pub dot_segments: DotSegments,
    /// `//`.
    pub empty_segments: EmptySegments,
    /// `%2F`.
    pub encoded_slashes: RefuseOrKeep,
    /// `\` and `%5C`.
    pub backslashes: RefuseOrKeep,
    /// `;`.
    pub parameters: RefuseOrKeep,
}
