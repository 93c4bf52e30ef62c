//! The compatibility levels of Confluent's schema registry.

use std::fmt;

use serde::Deserialize;

/// How a new version of a schema must be compatible. `Transitive` levels compare it with each earlier version, the
/// others with the latest only. The names are Confluent's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CompatibilityLevel {
    /// No requirement.
    None,
    /// Readers with the new schema can read records of the latest version. The registry's default.
    #[default]
    Backward,
    /// Readers with the new schema can read records of every earlier version.
    BackwardTransitive,
    /// Readers with the latest version can read records of the new schema.
    Forward,
    /// Readers with any earlier version can read records of the new schema.
    ForwardTransitive,
    /// Both `Backward` and `Forward`.
    Full,
    /// Both, with every earlier version. hookstream's default: `BACKWARD` would allow dropping a field that old readers
    /// need.
    FullTransitive,
}

impl CompatibilityLevel {
    pub const ALL: [Self; 7] = [
        Self::None,
        Self::Backward,
        Self::BackwardTransitive,
        Self::Forward,
        Self::ForwardTransitive,
        Self::Full,
        Self::FullTransitive,
    ];

    /// The level with this name, in upper or lower case.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str().eq_ignore_ascii_case(name))
    }

    /// The level's name in the registry's API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Backward => "BACKWARD",
            Self::BackwardTransitive => "BACKWARD_TRANSITIVE",
            Self::Forward => "FORWARD",
            Self::ForwardTransitive => "FORWARD_TRANSITIVE",
            Self::Full => "FULL",
            Self::FullTransitive => "FULL_TRANSITIVE",
        }
    }

    /// Whether all versions are compared, not only the latest.
    pub const fn transitive(self) -> bool {
        matches!(self, Self::BackwardTransitive | Self::ForwardTransitive | Self::FullTransitive)
    }

    /// Whether readers with the new schema must be able to read old records.
    pub const fn backward(self) -> bool {
        matches!(self, Self::Backward | Self::BackwardTransitive | Self::Full | Self::FullTransitive)
    }

    /// Whether readers with the old schema must be able to read new records.
    pub const fn forward(self) -> bool {
        matches!(self, Self::Forward | Self::ForwardTransitive | Self::Full | Self::FullTransitive)
    }
}

impl fmt::Display for CompatibilityLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
