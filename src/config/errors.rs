//! Configuration errors: all of them at once, each with its location.

use std::fmt;
use std::sync::Arc;

use super::layers::{Layers, SettingLocation};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct ConfigError {
    place: SettingLocation,
    key: String,
    message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place != SettingLocation::Nowhere {
            write!(f, "{}: ", self.place)?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// Collects problems, so that the user can fix all of them at once. Every room that compiles a part of the
/// configuration adds its own. Messages contain no values: a bad value could be a secret.
///
/// `Display` writes a headline with the count, then one problem per line, indented, ordered by file, line, variable and
/// `-X`.
#[derive(Clone, Default)]
pub struct ConfigErrors {
    layers: Arc<Layers>,
    list: Vec<ConfigError>,
}

impl ConfigErrors {
    /// A collector that looks up the locations of keys in `layers`.
    pub(super) fn with_layers(layers: Arc<Layers>) -> Self {
        Self { layers, list: Vec::new() }
    }

    /// These problems, with the layers in which the keys of further problems are looked up.
    pub(super) fn on(self, layers: Arc<Layers>) -> Self {
        Self { layers, ..self }
    }

    /// Adds a problem. `key` is the setting's dotted name (`source.datagrid.signature.signed`) and may be empty;
    /// `message` is one sentence with the mistake and its remedy. If the key was set in a file, in a variable or by
    /// `-X`, the problem is listed with that location.
    pub fn add(&mut self, key: impl Into<String>, message: impl Into<String>) {
        let key = key.into();
        let place = self.layers.place(&key);
        self.add_at(place, key, message);
    }

    pub(super) fn add_at(
        &mut self,
        place: SettingLocation,
        key: impl Into<String>,
        message: impl Into<String>,
    ) {
        let problem = ConfigError { place, key: key.into(), message: message.into() };
        if !self.list.contains(&problem) {
            self.list.push(problem);
        }
    }

    /// Adds a contradiction of two settings; it is listed at the first one that the user has set.
    pub(super) fn add_between(&mut self, keys: [&str; 2], message: impl Into<String>) {
        let is_set = |key: &&str| {
            !matches!(self.layers.place(key), SettingLocation::BuiltIn | SettingLocation::Nowhere)
        };
        let [first, _] = keys;
        let key = keys.into_iter().find(is_set).unwrap_or(first);
        self.add(key, message);
    }

    /// Whether there is a problem with `key` or a key below it.
    pub(super) fn contains_key_or_below(&self, key: &str) -> bool {
        let is_at_or_below = |rest: &str| rest.is_empty() || rest.starts_with('.');
        self.list.iter().any(|problem| problem.key.strip_prefix(key).is_some_and(is_at_or_below))
    }

    /// Whether the configuration file itself could not be read, so that nothing else was checked.
    pub fn unread(&self) -> bool {
        let is_unread_file = |problem: &ConfigError| {
            matches!(problem.place, SettingLocation::File(_, 0)) && problem.key.is_empty()
        };
        self.list.iter().any(is_unread_file)
    }

    /// Whether there are no problems.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The number of problems.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// `value`, if there are no problems.
    ///
    /// # Errors
    /// The collected problems.
    pub fn or<T>(self, value: T) -> Result<T, Self> {
        if self.is_empty() { Ok(value) } else { Err(self) }
    }

    /// One line per problem, in the order of `Display`, without the headline.
    pub fn lines(&self) -> Vec<String> {
        let mut list: Vec<_> = self.list.iter().collect();
        list.sort();
        list.into_iter().map(|problem| one_line(problem.to_string())).collect()
    }
}

/// A quoted key may contain any character. Escaped, it can neither break the line nor control the terminal.
fn one_line(text: String) -> String {
    if !text.contains(char::is_control) {
        return text;
    }
    let mut line = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            c if c.is_control() => line.extend(c.escape_default()),
            c => line.push(c),
        }
    }
    line
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.len() {
            1 => f.write_str("1 problem in the configuration:")?,
            count => write!(f, "{count} problems in the configuration:")?,
        }
        self.lines().iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

/// As `Display`: the layers may contain a secret that was written in the wrong place.
impl fmt::Debug for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for ConfigErrors {}

/// The name in `known` that the user probably meant by `name`.
pub fn suggestion<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let max_distance = (name.len() / 3).clamp(1, 3);
    known
        .into_iter()
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .filter(|(distance, _)| *distance <= max_distance)
        .min()
        .map(|(_, known)| known)
}

/// `; did you mean ...?`, or else the list of known names.
pub(super) fn hint<'k>(name: &str, known: impl IntoIterator<Item = &'k str> + Clone) -> String {
    match suggestion(name, known.clone()) {
        Some(known) => format!("; did you mean `{known}`?"),
        None => format!("; known names: {}", known.into_iter().collect::<Vec<_>>().join(", ")),
    }
}
