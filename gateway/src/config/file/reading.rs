//! `[reading]` as typed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[reading]`: how requests are read that servers read differently. The defaults refuse them;
/// what a service really needs can be let through.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Reading {
    /// `.` and `..` in a path, escaped or not. To resolve `..` above the root, or beside an empty
    /// segment, is refused in any case.
    pub dot_segments: DotSegments,
    /// `//` in a path.
    pub empty_segments: EmptySegments,
    /// `%2F` in a path. Kept, it stays escaped and separates nothing.
    pub encoded_slashes: RefuseOrKeep,
    /// `\` and `%5C` in a path. Kept, it is escaped and separates nothing.
    pub backslashes: RefuseOrKeep,
    /// `;` in a path: some servers cut a segment off there.
    pub parameters: RefuseOrKeep,
    /// Header names with an underscore: many programs take it for a hyphen.
    pub underscore_names: UnderscoreNames,
}

impl Default for Reading {
    fn default() -> Self {
        Self {
            dot_segments: DotSegments::Refuse,
            empty_segments: EmptySegments::Refuse,
            encoded_slashes: RefuseOrKeep::Refuse,
            backslashes: RefuseOrKeep::Refuse,
            parameters: RefuseOrKeep::Keep,
            underscore_names: UnderscoreNames::Refuse,
        }
    }
}

/// What becomes of `.` and `..` in a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DotSegments {
    /// The request is refused.
    Refuse,
    /// They are resolved (RFC 3986 section 5.2.4).
    Resolve,
}

/// What becomes of `//` in a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EmptySegments {
    /// The request is refused.
    Refuse,
    /// Several slashes become one.
    Merge,
    /// They stay, and routes see them.
    Keep,
}

/// What becomes of a spelling that some servers read in another way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RefuseOrKeep {
    /// The request is refused.
    Refuse,
    /// It stays.
    Keep,
}

/// What becomes of header names with an underscore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UnderscoreNames {
    /// The request is refused.
    Refuse,
    /// The fields are left out of what the instance gets, and of what routes and filters see.
    Drop,
    /// They stay.
    Keep,
}
