//! Confluent's compatibility levels.

use std::fmt;

use serde::Deserialize;

/// What a new version of a schema must be able to do. `Transitive`: towards each earlier version, else
/// towards the latest only. The names are Confluent's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CompatibilityLevel {
    /// Nothing.
    None,
    /// Its readers read what was written with the latest. What a registry has without a word.
    #[default]
    Backward,
    /// Its readers read what was written with any.
    BackwardTransitive,
    /// Readers of the latest read what is written with it.
    Forward,
    /// Readers of any read what is written with it.
    ForwardTransitive,
    /// Both.
    Full,
    /// Both, with any: ours, unless the configuration says another. `BACKWARD` would let us drop a field
    /// that old readers need.
    FullTransitive,
}

impl CompatibilityLevel {
    /// All.
    pub const ALL: [Self; 7] = [
        Self::None,
        Self::Backward,
        Self::BackwardTransitive,
        Self::Forward,
        Self::ForwardTransitive,
        Self::Full,
        Self::FullTransitive,
    ];

    /// The level of this name, in either case.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str().eq_ignore_ascii_case(name))
    }

    /// Its name.
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

    /// Whether all versions count, and not the latest only.
    pub const fn transitive(self) -> bool {
        matches!(self, Self::BackwardTransitive | Self::ForwardTransitive | Self::FullTransitive)
    }

    /// A reader of the new schema must read the old records.
    pub const fn backward(self) -> bool {
        matches!(self, Self::Backward | Self::BackwardTransitive | Self::Full | Self::FullTransitive)
    }

    /// A reader of the old schema must read the new records.
    pub const fn forward(self) -> bool {
        matches!(self, Self::Forward | Self::ForwardTransitive | Self::Full | Self::FullTransitive)
    }
}

impl fmt::Display for CompatibilityLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
