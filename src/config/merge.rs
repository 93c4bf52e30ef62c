//! Merges and reads the layers. A setting that does not fit is reported and removed from its layer, and all layers are
//! read again: so one run finds every mistake and attributes it to the layer that made it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use figment::error::{Actual, Kind as Mistake};

use super::errors::{ConfigErrors, hint, suggestion};
use super::layers::{Layer, Layers, SHIPPED, SettingLocation};
use super::presets::{FACTS, PRESETS};
use super::secret::Environment;
use super::tree::{ConfigNode, NodeKind};
use super::{Config, properties};
use crate::names;

/// Each round removes one mistake. A file with more mistakes than this is not a configuration.
const ROUNDS: usize = 500;

impl Layers {
    pub(super) fn shipped(problems: &mut ConfigErrors) -> Self {
        let mut layers = Self::default();
        layers.add_toml(SettingLocation::BuiltIn, SHIPPED, problems);
        layers
    }

    pub(super) fn add_toml(&mut self, place: SettingLocation, text: &str, problems: &mut ConfigErrors) {
        match ConfigNode::parse(text) {
            Ok(root) => self.push(place, root),
            Err(syntax) => {
                let at = place.at(syntax.line);
                problems.add_at(at, "", format!("column {}: {}", syntax.column, syntax.message));
            }
        }
    }

    /// `HOOKSTREAM_` + path with `__` between levels. Names without `__` are ignored: Kubernetes sets
    /// `HOOKSTREAM_PORT=tcp://...` for a Service called hookstream.
    pub(super) fn add_environment(&mut self, environment: &Environment, problems: &mut ConfigErrors) {
        const PREFIX: &str = "HOOKSTREAM_";
        for (name, value) in environment.iter() {
            let Some(name) = name.to_str() else { continue };
            let Some((prefix, path)) = name.split_at_checked(PREFIX.len()) else { continue };
            if !prefix.eq_ignore_ascii_case(PREFIX) || !path.contains("__") {
                continue;
            }
            let (place, path) = (SettingLocation::Variable(name.to_owned()), path.to_ascii_lowercase());
            match value.to_str() {
                Some(value) => self.push(place, ConfigNode::nested(path.split("__"), value)),
                None => problems.add_at(place, path.replace("__", "."), "is not valid UTF-8"),
            }
        }
    }

    /// `-X key=value`, the key with dots between levels.
    pub(super) fn add_sets(&mut self, sets: &[String], problems: &mut ConfigErrors) {
        for set in sets {
            match set.split_once('=') {
                Some((key, value)) => {
                    let key = key.trim();
                    self.push(
                        SettingLocation::Set(key.to_owned()),
                        ConfigNode::nested(key.split('.'), value),
                    );
                }
                // The message omits the argument: without a key, it is the value alone.
                None => problems.add_at(SettingLocation::Nowhere, "-X", "has no `=`; write -X key=value"),
            }
        }
    }

    /// Merges and reads all layers. `None` if nothing could be read. A configuration returned together with problems
    /// lacks the settings that they report.
    pub(super) fn read(&mut self, problems: &mut ConfigErrors) -> Option<Config> {
        for Layer { place, root } in &mut self.0 {
            properties::flatten(root, problems, |line| place.at(line));
        }
        self.reject_unknown_sources(problems);
        let mut broken = self.add_presets(problems);
        self.replace_settings();
        let mut config = self.extract(&mut broken, problems)?;
        config.source.retain(|name, _| !broken.contains(name));
        Some(config)
    }

    /// Removes the tables that a higher layer replaces. figment would merge them key by key, and for the value of a
    /// setting the result is neither of the two: `unsigned = true` would pass from one header to another. A lower value
    /// that is not a table remains, since figment replaces it, and a mistake in it is reported if the higher one has one
    /// as well; that of a removed table is not.
    pub(super) fn replace_settings(&mut self) {
        for above in 1..self.0.len() {
            let (lower, rest) = self.0.split_at_mut(above);
            let Some(layer) = rest.first() else { return };
            for path in layer.root.settings() {
                for lower in lower.iter_mut().filter(|lower| !lower.joins(layer)) {
                    if lower.root.get(&path).is_some_and(|node| node.table().is_some()) {
                        lower.root.remove(&path);
                    }
                }
            }
        }
    }

    /// Rejects sources with an invalid name, and sources without any rules: most often a misspelt name in a variable.
    fn reject_unknown_sources(&mut self, problems: &mut ConfigErrors) {
        let sources = self.sources();
        let has_rules = |source: &&String| {
            let keys = ["preset", "types", "signature", "envelope"];
            keys.iter().any(|key| self.find(&["source", source, key]).is_some())
        };
        let (ruled, unknown): (Vec<_>, Vec<_>) = sources.iter().partition(has_rules);
        let misnamed = ruled.iter().filter(|source| !names::is_source(source)).map(|source| {
            let form = "a source name has 1 to 64 characters a-z, 0-9, _ and -, and starts with a letter";
            ((*source).clone(), format!("{form}, and not `dead_letter`; rename it"))
        });
        let unknown = unknown.into_iter().filter(|source| {
            // `source.x = 5` is reported as a type error.
            self.find(&["source", source]).is_some_and(|node| node.table().is_some())
        });
        let unknown = unknown.map(|source| {
            let hint = hint(source, ruled.iter().map(|ruled| ruled.as_str()));
            let rules = "set its types, signature and envelope, or a preset";
            (source.clone(), format!("this source has no rules: {rules}{hint}"))
        });
        for (source, message) in misnamed.chain(unknown).collect::<Vec<_>>() {
            let key = format!("source.{source}");
            problems.add_at(self.place(&key), key, message);
            for layer in &mut self.0 {
                layer.root.remove(&["source", &source]);
            }
        }
    }

    /// Puts the preset of each source below all layers. Returns the sources whose preset does not exist.
    fn add_presets(&mut self, problems: &mut ConfigErrors) -> BTreeSet<String> {
        let mut broken = BTreeSet::new();
        for source in self.sources() {
            let Some(node) = self.find(&["source", &source, "preset"]) else { continue };
            let preset = node.text().unwrap_or_default();
            if let Some((_, text)) = PRESETS.iter().find(|(name, _)| *name == preset) {
                let mut shipped = Self::default();
                shipped.add_toml(SettingLocation::BuiltIn, text, problems);
                for Layer { mut root, .. } in shipped.0 {
                    FACTS.iter().for_each(|facts| drop(root.remove(&[facts])));
                    let root = root.under(&["source", &source]);
                    self.0.insert(0, Layer { place: SettingLocation::BuiltIn, root });
                }
                continue;
            }
            if node.text().is_some() {
                let key = format!("source.{source}.preset");
                let hint = match suggestion(preset, PRESETS.iter().map(|(name, _)| *name)) {
                    Some(known) => format!("did you mean `{known}`?"),
                    None => "`hookstream providers` lists them".to_owned(),
                };
                problems.add_at(self.place(&key), key, format!("unknown preset; {hint}"));
            }
            broken.insert(source);
        }
        broken
    }

    fn extract(&mut self, broken: &mut BTreeSet<String>, problems: &mut ConfigErrors) -> Option<Config> {
        let mut mistaken: Vec<Vec<String>> = Vec::new();
        let without_preset = broken.clone();
        for _ in 0..ROUNDS {
            let error = match self.figment().extract::<Config>() {
                Ok(config) => return Some(config),
                Err(error) => error,
            };
            let mut path = error.path.clone();
            if let Mistake::MissingField(field) = &error.kind {
                let layer = self.0.iter().rev().find(|layer| layer.root.get(&path).is_some());
                let table = layer.map_or_else(|| path.clone(), |layer| layer.root.written(&path));
                let key = table.join(".");
                let node = layer.and_then(|layer| Some((layer, layer.root.get(&path)?)));
                let place = node.map_or_else(|| self.place(&key), |(layer, node)| layer.place.at(node.line));
                path.push(field.clone().into_owned());
                self.fill(&path, broken)?;
                path = [table.as_slice(), &[field.clone().into_owned()]].concat();
                // A missing field whose cause was already reported is not reported again.
                let reported = mistaken.iter().any(|mistaken| path.starts_with(mistaken))
                    || matches!(path.as_slice(), [source, name, ..] if source == "source" && without_preset.contains(name));
                if !reported {
                    problems.add_at(place, key, format!("lacks `{field}`; add it"));
                }
            } else {
                let layer = self.0.iter_mut().rev().find(|layer| layer.root.get(&path).is_some())?;
                let written = layer.root.written(&path);
                let node = layer.root.remove(&path)?;
                path = written;
                // A table may be invalid only because a wrong key was removed from it; one report is enough.
                if !mistaken.iter().any(|mistaken| mistaken.len() > path.len() && mistaken.starts_with(&path))
                {
                    problems.add_at(layer.place.at(node.line), path.join("."), describe(&error.kind));
                }
            }
            mistaken.push(path);
        }
        None
    }

    /// Makes a missing field harmless, so that the search can continue. In a source, a placeholder is set and the
    /// source is marked as broken. Elsewhere the table is removed, and in a list the entry: a placeholder in another
    /// layer would not be merged into it, because the highest layer's list replaces the others.
    fn fill(&mut self, path: &[String], broken: &mut BTreeSet<String>) -> Option<()> {
        let (field, table) = path.split_last()?;
        for layer in self.0.iter_mut().rev() {
            if let Some(entry) = layer.root.entry_on(table) {
                if let [source, name, ..] = table
                    && source == "source"
                {
                    broken.insert(name.clone());
                }
                return layer.root.remove(entry).map(drop);
            }
        }
        match table {
            [source, name, ..] if source == "source" => {
                broken.insert(name.clone());
                let placeholder = match field.as_str() {
                    "signature" | "envelope" => ConfigNode::default(),
                    _ => ConfigNode::nested([], ""),
                };
                let path: Vec<&str> = path.iter().map(String::as_str).collect();
                self.0.insert(0, Layer { place: SettingLocation::BuiltIn, root: placeholder.under(&path) });
            }
            [] => return None,
            table => self.0.iter_mut().for_each(|layer| drop(layer.root.remove(table))),
        }
        Some(())
    }
}

/// The mistake as one sentence, without the value.
fn describe(mistake: &Mistake) -> String {
    let expected = |expected: &str| match expected {
        "a string" | "path string" => Cow::from("text"),
        "a boolean" => Cow::from("true or false"),
        _ if expected.starts_with("struct ") || expected == "a map" => Cow::from("a table"),
        _ => Cow::from(expected.to_owned()),
    };
    match mistake {
        Mistake::Message(message) => message.clone(),
        Mistake::UnknownField(name, known) => format!("unknown key{}", hint(name, known.iter().copied())),
        Mistake::UnknownVariant(_, known) => format!("expected one of {}", known.join(", ")),
        Mistake::InvalidType(found, wanted) => {
            format!("expected {}, found {}", expected(wanted), shape(found))
        }
        Mistake::InvalidValue(_, wanted) | Mistake::InvalidLength(_, wanted) => {
            format!("expected {}", expected(wanted))
        }
        _ => "cannot be read; see the shipped config/hookstream.toml for the format".to_owned(),
    }
}

fn shape(found: &Actual) -> &'static str {
    match found {
        Actual::Bool(_) => "true or false",
        Actual::Unsigned(_) | Actual::Signed(_) | Actual::Float(_) => "a number",
        Actual::Char(_) | Actual::Str(_) => "text",
        Actual::Seq => "a list",
        Actual::Map => "a table",
        _ => "something else",
    }
}

impl ConfigNode {
    /// Wraps this node in tables, so that it is at the end of `path`.
    fn under(self, path: &[&str]) -> Self {
        path.iter().rev().fold(self, |node, key| Self {
            line: 0,
            kind: NodeKind::Table(BTreeMap::from([((*key).to_owned(), node)])),
        })
    }
}
