//! The settings of one layer, from TOML or from text, as a tree in which each node has its line, so that a problem can
//! name the line after the layers were merged.

use std::collections::BTreeMap;

use figment::value::{Dict, Value};
use serde::de::Error as _;
use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::settings;

/// A node and the line of its key (in a list, of the entry), counted from 1; 0 if the layer has no lines.
#[derive(Clone, Default)]
pub(super) struct ConfigNode {
    pub(super) line: usize,
    pub(super) kind: NodeKind,
}

/// No `Debug`: a leaf may contain a secret that was written in the wrong place.
#[derive(Clone)]
pub(super) enum NodeKind {
    Table(BTreeMap<String, ConfigNode>),
    List(Vec<ConfigNode>),
    Leaf(Leaf),
    /// A removed list entry; it keeps its place, so that messages number the others as they were written.
    Gone,
}

#[derive(Clone)]
pub(super) enum Leaf {
    Text(String),
    Whole(i64),
    /// As written: with a fraction or an exponent, or too large for `i64`.
    Real(String),
    Flag(bool),
}

/// A TOML syntax error. Without an excerpt: the line could contain a secret.
pub(super) struct Syntax {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) message: String,
}

impl Default for NodeKind {
    fn default() -> Self {
        Self::Table(BTreeMap::new())
    }
}

impl Leaf {
    /// The value as text, as librdkafka expects it.
    pub(super) fn into_text(self) -> String {
        match self {
            Self::Text(text) | Self::Real(text) => text,
            Self::Whole(number) => number.to_string(),
            Self::Flag(flag) => flag.to_string(),
        }
    }
}

impl ConfigNode {
    pub(super) fn parse(toml: &str) -> Result<Self, Syntax> {
        let starts: Vec<usize> =
            std::iter::once(0).chain(toml.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let line = |at: usize| starts.partition_point(|start| *start <= at);
        match DeTable::parse(toml) {
            Ok(table) => Ok(Self { line: 0, kind: table_kind(table.into_inner(), &line) }),
            Err(error) => {
                let at = error.span().map_or(0, |span| span.start).min(toml.len());
                let start = starts.get(line(at) - 1).copied().unwrap_or(0);
                let column = toml.get(start..at).map_or(0, |before| before.chars().count()) + 1;
                Err(Syntax { line: line(at), column, message: error.message().to_owned() })
            }
        }
    }

    /// Nested tables along `path`, with `text` at the end.
    pub(super) fn nested<'p>(path: impl IntoIterator<Item = &'p str>, text: &str) -> Self {
        let mut path = path.into_iter();
        let kind = match path.next() {
            Some(key) => NodeKind::Table(BTreeMap::from([(key.to_owned(), Self::nested(path, text))])),
            None => NodeKind::Leaf(Leaf::Text(text.to_owned())),
        };
        Self { line: 0, kind }
    }

    pub(super) fn get<S: AsRef<str>>(&self, path: &[S]) -> Option<&Self> {
        let Some((key, rest)) = path.split_first() else { return Some(self) };
        match &self.kind {
            NodeKind::Table(table) => table.get(key.as_ref())?.get(rest),
            NodeKind::List(list) => list.get(entry(list, key.as_ref())?)?.get(rest),
            NodeKind::Leaf(_) | NodeKind::Gone => None,
        }
    }

    pub(super) fn get_mut<S: AsRef<str>>(&mut self, path: &[S]) -> Option<&mut Self> {
        let Some((key, rest)) = path.split_first() else { return Some(self) };
        match &mut self.kind {
            NodeKind::Table(table) => table.get_mut(key.as_ref())?.get_mut(rest),
            NodeKind::List(list) => {
                let index = entry(list, key.as_ref())?;
                list.get_mut(index)?.get_mut(rest)
            }
            NodeKind::Leaf(_) | NodeKind::Gone => None,
        }
    }

    /// The node with a dotted name; keys that contain dots (`sasl.mechanism`) are found, too.
    pub(super) fn find(&self, dotted: &str) -> Option<&Self> {
        match &self.kind {
            _ if dotted.is_empty() => Some(self),
            NodeKind::Table(table) => {
                table.iter().find_map(|(key, node)| match dotted.strip_prefix(key)? {
                    "" => Some(node),
                    rest => node.find(rest.strip_prefix('.')?),
                })
            }
            NodeKind::List(list) => {
                let (index, rest) = dotted.split_once('.').unwrap_or((dotted, ""));
                list.get(entry(list, index)?)?.find(rest)
            }
            NodeKind::Leaf(_) | NodeKind::Gone => None,
        }
    }

    pub(super) fn remove<S: AsRef<str>>(&mut self, path: &[S]) -> Option<Self> {
        let (key, parents) = path.split_last()?;
        match &mut self.get_mut(parents)?.kind {
            NodeKind::Table(table) => table.remove(key.as_ref()),
            NodeKind::List(list) => {
                let index = entry(list, key.as_ref())?;
                let gone = list.get_mut(index)?;
                Some(std::mem::replace(gone, Self { line: gone.line, kind: NodeKind::Gone }))
            }
            NodeKind::Leaf(_) | NodeKind::Gone => None,
        }
    }

    /// The part of `path` that ends with the first list entry on it.
    pub(super) fn entry_on<'p>(&self, path: &'p [String]) -> Option<&'p [String]> {
        let list = |end: &usize| {
            let node = path.get(..*end).and_then(|list| self.get(list));
            node.is_some_and(|node| matches!(node.kind, NodeKind::List(_)))
        };
        (1..path.len()).find(list).and_then(|end| path.get(..=end))
    }

    /// The path as it was written: list indices include the removed entries.
    pub(super) fn written(&self, path: &[String]) -> Vec<String> {
        let Some((key, rest)) = path.split_first() else { return Vec::new() };
        let (key, node) = match &self.kind {
            NodeKind::Table(table) => (key.clone(), table.get(key)),
            NodeKind::List(list) => match entry(list, key) {
                Some(index) => (index.to_string(), list.get(index)),
                None => (key.clone(), None),
            },
            NodeKind::Leaf(_) | NodeKind::Gone => (key.clone(), None),
        };
        let below = node.map_or_else(|| rest.to_vec(), |node| node.written(rest));
        std::iter::once(key).chain(below).collect()
    }

    pub(super) fn table(&self) -> Option<&BTreeMap<String, Self>> {
        match &self.kind {
            NodeKind::Table(table) => Some(table),
            _ => None,
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match &self.kind {
            NodeKind::Leaf(Leaf::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// Whether the node is a table that refers to a secret: `{ env = ... }`, `{ file = ... }`, `{ dir = ... }`.
    pub(super) fn is_reference(&self) -> bool {
        self.table().is_some_and(|table| {
            let leaf =
                |key: &&str| table.get(*key).is_some_and(|node| matches!(node.kind, NodeKind::Leaf(_)));
            ["env", "file", "dir"].iter().any(leaf)
        })
    }

    /// The paths of the settings that this layer has.
    pub(super) fn settings(&self) -> Vec<Vec<String>> {
        let mut found = Vec::new();
        self.collect_settings(Vec::new(), &mut found);
        found
    }

    fn collect_settings(&self, path: Vec<String>, found: &mut Vec<Vec<String>>) {
        match self.table().filter(|_| settings::is_table(&path)) {
            None => found.push(path),
            Some(table) => table.iter().for_each(|(key, node)| {
                node.collect_settings([path.as_slice(), std::slice::from_ref(key)].concat(), found);
            }),
        }
    }

    pub(super) fn dict(&self) -> Dict {
        let table = self.table().into_iter().flatten();
        table.map(|(key, node)| (key.clone(), node.value())).collect()
    }

    fn is_gone(&self) -> bool {
        matches!(self.kind, NodeKind::Gone)
    }

    fn value(&self) -> Value {
        match &self.kind {
            NodeKind::Table(_) => self.dict().into(),
            NodeKind::List(list) => {
                let present = list.iter().filter(|node| !node.is_gone());
                present.map(Self::value).collect::<Vec<_>>().into()
            }
            NodeKind::Gone => Value::from(Vec::<Value>::new()),
            NodeKind::Leaf(Leaf::Text(text)) => text.clone().into(),
            NodeKind::Leaf(Leaf::Whole(number)) => (*number).into(),
            NodeKind::Leaf(Leaf::Real(text)) => text.parse().unwrap_or(f64::NAN).into(),
            NodeKind::Leaf(Leaf::Flag(flag)) => (*flag).into(),
        }
    }
}

/// The index in `list` of the entry with this number among those that were not removed.
fn entry(list: &[ConfigNode], number: &str) -> Option<usize> {
    let mut present = list.iter().enumerate().filter(|(_, node)| !node.is_gone());
    present.nth(number.parse().ok()?).map(|(index, _)| index)
}

fn table_kind(table: DeTable<'_>, line: &dyn Fn(usize) -> usize) -> NodeKind {
    let node = |(key, value): (Spanned<_>, Spanned<DeValue<'_>>)| {
        let node = ConfigNode { line: line(key.span().start), kind: kind(value.into_inner(), line) };
        (std::borrow::Cow::into_owned(key.into_inner()), node)
    };
    NodeKind::Table(table.into_iter().map(node).collect())
}

fn kind(value: DeValue<'_>, line: &dyn Fn(usize) -> usize) -> NodeKind {
    let leaf = match value {
        DeValue::Table(table) => return table_kind(table, line),
        DeValue::Array(array) => {
            let node = |value: Spanned<DeValue<'_>>| ConfigNode {
                line: line(value.span().start),
                kind: kind(value.into_inner(), line),
            };
            return NodeKind::List(array.into_iter().map(node).collect());
        }
        DeValue::String(text) => Leaf::Text(text.into_owned()),
        DeValue::Integer(number) => whole(&number),
        DeValue::Float(number) => Leaf::Real(number.as_str().to_owned()),
        DeValue::Boolean(flag) => Leaf::Flag(flag),
        DeValue::Datetime(time) => Leaf::Text(time.to_string()),
    };
    NodeKind::Leaf(leaf)
}

fn whole(number: &DeInteger<'_>) -> Leaf {
    match i64::from_str_radix(number.as_str(), number.radix()) {
        Ok(number) => Leaf::Whole(number),
        Err(_) => Leaf::Real(number.as_str().to_owned()),
    }
}

/// Lets figment merge the layers; of each leaf, the highest layer's value remains.
impl figment::Provider for &ConfigNode {
    fn metadata(&self) -> figment::Metadata {
        figment::Metadata::named("a layer of the configuration")
    }

    fn data(&self) -> Result<figment::value::Map<figment::Profile, Dict>, figment::Error> {
        match self.kind {
            NodeKind::Table(_) => Ok(figment::Profile::Default.collect(self.dict())),
            _ => Err(figment::Error::custom("expected a table")),
        }
    }
}
