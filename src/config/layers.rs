//! Layers: preset < built in < file < environment < `-X`. Each layer is kept separately with its locations; figment
//! merges them. A table of settings is merged key by key; the value of a setting is replaced whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use figment::Figment;
use figment::value::Dict;

use super::tree::ConfigNode;

pub(super) const SHIPPED: &str = include_str!("../../config/hookstream.toml");

/// Where a setting was made. Problems are listed in this order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SettingLocation {
    /// In a file, at a line from 1; 0 for the file as a whole.
    File(PathBuf, usize),
    /// In an environment variable of this name.
    Variable(String),
    /// On the command line: `-X key`.
    Set(String),
    /// In the configuration that the binary contains.
    BuiltIn,
    /// At no particular location.
    Nowhere,
}

impl SettingLocation {
    /// A line of this layer; the layer itself if it has no lines.
    pub(super) fn at(&self, line: usize) -> Self {
        match self {
            Self::File(path, _) => Self::File(path.clone(), line),
            place => place.clone(),
        }
    }
}

impl fmt::Display for SettingLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, 0) => write!(f, "{}", path.display()),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Set(key) => write!(f, "-X {key}"),
            Self::BuiltIn => f.write_str("built in"),
            Self::Nowhere => Ok(()),
        }
    }
}

pub(super) struct Layer {
    /// The location of the complete layer.
    pub(super) place: SettingLocation,
    pub(super) root: ConfigNode,
}

impl Layer {
    /// The layer's precedence: equal for all variables, and for all `-X`.
    pub(super) fn rank(&self) -> usize {
        match self.place {
            SettingLocation::BuiltIn | SettingLocation::Nowhere => 0,
            SettingLocation::File(..) => 1,
            SettingLocation::Variable(_) => 2,
            SettingLocation::Set(_) => 3,
        }
    }

    /// Whether both write parts of one value: each variable, and each `-X`, has a single text.
    pub(super) fn joins(&self, other: &Self) -> bool {
        matches!(
            (&self.place, &other.place),
            (SettingLocation::Variable(_), SettingLocation::Variable(_))
                | (SettingLocation::Set(_), SettingLocation::Set(_))
        )
    }
}

/// The lowest precedence first. `Debug` hides the values: one may be a secret that was written in the wrong place.
#[derive(Default)]
pub(super) struct Layers(pub(super) Vec<Layer>);

impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Layers({})", self.0.len())
    }
}

impl Layers {
    pub(super) fn push(&mut self, place: SettingLocation, root: ConfigNode) {
        self.0.push(Layer { place, root });
    }

    /// Removes tables from all layers except the built-in one; returns their locations.
    pub(super) fn ignore(&mut self, tables: &[&str]) -> Vec<String> {
        let mut ignored = Vec::new();
        for layer in self.0.iter_mut().filter(|layer| layer.rank() > 0) {
            for table in tables {
                if let Some(node) = layer.root.remove(&[table]) {
                    let place = layer.place.at(node.line);
                    ignored.push(match layer.place {
                        SettingLocation::File(..) => format!("{place}: [{table}]"),
                        _ => place.to_string(),
                    });
                }
            }
        }
        ignored
    }

    /// Where the key was set last; if it was not set, where its nearest table is.
    pub(super) fn place(&self, key: &str) -> SettingLocation {
        let mut candidate = Some(key);
        while let Some(key) = candidate.filter(|key| !key.is_empty()) {
            for layer in self.0.iter().rev() {
                if let Some(node) = layer.root.find(key) {
                    return layer.place.at(node.line);
                }
            }
            candidate = key.rsplit_once('.').map(|(table, _)| table);
        }
        SettingLocation::Nowhere
    }

    /// Whether the file, the environment or `-X` configures the source.
    pub(super) fn is_user_defined(&self, source: &str) -> bool {
        self.0.iter().any(|layer| layer.rank() > 0 && layer.root.get(&["source", source]).is_some())
    }

    /// All layers merged, as they were read.
    pub(super) fn merged(&self) -> Dict {
        self.figment().extract().unwrap_or_default()
    }

    pub(super) fn figment(&self) -> Figment {
        self.0.iter().fold(Figment::new(), |merged, layer| merged.merge(&layer.root))
    }

    pub(super) fn sources(&self) -> BTreeSet<String> {
        let tables = self.0.iter().filter_map(|layer| layer.root.get(&["source"])?.table());
        tables.flat_map(BTreeMap::keys).cloned().collect()
    }

    pub(super) fn find(&self, path: &[&str]) -> Option<&ConfigNode> {
        self.0.iter().rev().find_map(|layer| layer.root.get(path))
    }
}
