//! References to secrets, and reading the secrets.

use std::ffi::OsStr;
use std::fmt;
use std::fs::FileType;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use super::secret::{Binds, Environment, Secret, SecretText, ValidityWindow};
use crate::files::{self, ReadError};

/// Where a secret is stored. `Debug` shows the location, unless it looks like a secret in the wrong place.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// `{ env = "NAME" }`: the variable's value, unchanged.
    Env(String),
    /// `{ file = "/path" }`: the file's content without one newline at its end.
    File(PathBuf),
    /// `{ dir = "/path" }`, for a source only: each file is one secret, named after the file.
    Dir(PathBuf),
}

impl fmt::Debug for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => f.write_str(&shown_variable(name)),
            Self::File(path) => write!(f, "the file at {}", shown_path(path)),
            Self::Dir(path) => write!(f, "the files in {}", shown_path(path)),
        }
    }
}

/// One of a source's `secrets`: `{ name = "2026-11", env = "..." }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretEntry {
    /// Shown in log, metric and record header. Defaults to the variable's or the file's name.
    pub name: Option<String>,
    /// Where the secret is stored.
    pub reference: SecretRef,
    /// When the secret is valid: `not_before` and `not_after`.
    pub window: ValidityWindow,
    /// What a body must contain for the secret to be accepted. It applies to all secrets of a directory.
    pub binds: Option<Arc<Binds>>,
}

/// Why a reference yields no secret. Neither variant contains a value.
pub(super) enum SecretRefError {
    /// The variable with this description is not set.
    Unset(String),
    /// Any other reason, as a message.
    Bad(String),
}

impl SecretRefError {
    pub(super) fn into_message(self) -> String {
        match self {
            Self::Unset(variable) => format!("{variable} is not set; set it"),
            Self::Bad(message) => message,
        }
    }
}

impl SecretEntry {
    /// The referenced secrets: one, or those of a directory, ordered by name.
    pub(super) fn read(&self, environment: &Environment) -> Result<Vec<Secret>, SecretRefError> {
        if let SecretRef::Dir(path) = &self.reference {
            let secrets = read_dir(path).map_err(SecretRefError::Bad)?;
            return Ok(secrets.into_iter().map(|secret| secret.bound(self.binds.clone())).collect());
        }
        let value = self.reference.read(environment)?;
        let name = match (&self.name, &self.reference) {
            (Some(name), _) => name.clone(),
            (None, SecretRef::Env(name)) => name.clone(),
            (None, SecretRef::File(path) | SecretRef::Dir(path)) => file_name(path),
        };
        let secret = Secret::new(name, value).within(self.window).bound(self.binds.clone());
        Ok(vec![secret.read_from(self.reference.shown())])
    }
}

impl SecretRef {
    /// The value of a variable or a file; never empty.
    pub(super) fn read(&self, environment: &Environment) -> Result<Zeroizing<Vec<u8>>, SecretRefError> {
        match self {
            Self::Env(name) => match environment.get(name).map(OsStr::as_encoded_bytes) {
                None => Err(SecretRefError::Unset(shown_variable(name))),
                Some(value) if value.trim_ascii().is_empty() => Err(SecretRefError::Bad(format!(
                    "{} is set but empty; set it to the secret or unset it",
                    shown_variable(name)
                ))),
                Some(value) => Ok(value.to_vec().into()),
            },
            Self::File(path) => read_file(path).map_err(SecretRefError::Bad),
            Self::Dir(_) => {
                Err(SecretRefError::Bad("`dir` is for a source's secrets only; use `file`".to_owned()))
            }
        }
    }

    /// The referenced files; empty for a variable, and for a directory that cannot be read.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        match self {
            Self::Env(_) => Vec::new(),
            Self::File(path) => vec![path.clone()],
            Self::Dir(path) => files_in(path).unwrap_or_default(),
        }
    }

    /// The secret's location, for messages.
    fn shown(&self) -> String {
        match self {
            Self::Env(name) => shown_variable(name),
            Self::File(path) | Self::Dir(path) => shown_path(path),
        }
    }

    /// The same value as text.
    pub(super) fn read_text(&self, environment: &Environment) -> Result<SecretText, String> {
        let value = self.read(environment).map_err(SecretRefError::into_message)?;
        match std::str::from_utf8(&value) {
            Ok(text) if !text.contains('\0') => Ok(SecretText::new(text)),
            _ => Err("the secret is not valid UTF-8".to_owned()),
        }
    }
}

/// The variable's name, unless it looks as if the secret itself was written instead.
fn shown_variable(name: &str) -> String {
    let conventional = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
    if !name.is_empty() && name.len() <= 64 && name.bytes().all(conventional) {
        format!("the variable {name}")
    } else {
        "the variable named here".to_owned()
    }
}

/// The path, with the same exception.
fn shown_path(path: &Path) -> String {
    if path.is_absolute() || path.starts_with(".") || path.starts_with("..") {
        path.display().to_string()
    } else {
        "the path given here".to_owned()
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn unreadable(path: &Path, error: &ReadError) -> String {
    format!("{} cannot be read ({error}); create it, or make it readable for the service", shown_path(path))
}

/// Reads a small file without the newline at its end.
pub(super) fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let value = files::read(path, files::MAX_SECRET).map_err(|error| unreadable(path, &error))?;
    let mut value = Zeroizing::new(value);
    let line = value.strip_suffix(b"\n").map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    if let Some(length) = line.map(<[u8]>::len) {
        value.truncate(length);
    }
    if value.trim_ascii().is_empty() {
        return Err(format!("{} is empty; write the secret to it", shown_path(path)));
    }
    Ok(value)
}

fn files_in(path: &Path) -> Result<Vec<PathBuf>, ReadError> {
    let secret = |(file, kind): &(PathBuf, FileType)| !kind.is_dir() && !file_name(file).starts_with('.');
    Ok(files::list(path)?.into_iter().filter(secret).map(|(file, _)| file).collect())
}

/// Symbolic links are followed: the entries of a mounted Kubernetes Secret are links through
/// `..data`, which itself is skipped as a dot file.
fn read_dir(path: &Path) -> Result<Vec<Secret>, String> {
    let files = files_in(path).map_err(|error| unreadable(path, &error))?;
    if files.is_empty() {
        return Err(format!("{} has no files; put each secret into its own file", shown_path(path)));
    }
    let read =
        |file: &PathBuf| Ok(Secret::new(file_name(file), read_file(file)?).read_from(shown_path(file)));
    files.iter().map(read).collect()
}

/// All keys of a reference. Which of them may be combined is checked after reading them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SecretRefTable {
    name: Option<String>,
    env: Option<String>,
    file: Option<PathBuf>,
    dir: Option<PathBuf>,
    not_before: Option<String>,
    not_after: Option<String>,
    binds: Option<BindsKeys>,
}

/// The keys of `binds`, not checked yet.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BindsKeys {
    pointer: String,
    equals: String,
}

impl BindsKeys {
    fn binds<E: serde::de::Error>(self) -> Result<Arc<Binds>, E> {
        let Self { pointer, equals } = self;
        if !pointer.starts_with('/') {
            return Err(E::custom("`binds.pointer` must be a JSON pointer such as \"/tenant_id\""));
        }
        if equals.is_empty() {
            return Err(E::custom(
                "`binds.equals` is empty; set it to the text that the body must contain there",
            ));
        }
        Ok(Arc::new(Binds { pointer, equals }))
    }
}

const FORM: &str = "a reference to the secret: { env = \"NAME\" } or { file = \"/path\" }";

impl SecretRefTable {
    fn entry<E: serde::de::Error>(self) -> Result<SecretEntry, E> {
        let reference = match (self.env, self.file, self.dir) {
            (Some(name), None, None) => SecretRef::Env(name),
            (None, Some(path), None) => SecretRef::File(path),
            (None, None, Some(path)) => SecretRef::Dir(path),
            (None, None, None) => return Err(E::custom(format!("expected {FORM}"))),
            _ => return Err(E::custom("give exactly one of `env`, `file` and `dir`")),
        };
        let instant = |text: Option<String>| text.map(|text| text.trim().parse()).transpose();
        let (Ok(not_before), Ok(not_after)) = (instant(self.not_before), instant(self.not_after)) else {
            return Err(E::custom(
                "`not_before` and `not_after` expect a time with a time zone, such as \"2027-02-01T00:00:00Z\"",
            ));
        };
        let window = ValidityWindow { not_before, not_after };
        let binds = self.binds.map(BindsKeys::binds).transpose()?;
        if let (Some(from), Some(until)) = (not_before, not_after)
            && from >= until
        {
            return Err(E::custom("`not_before` is not earlier than `not_after`"));
        }
        match (&self.name, &reference) {
            (_, SecretRef::Dir(_)) if window != ValidityWindow::default() => Err(E::custom(
                "`not_before` and `not_after` cannot be combined with `dir`: remove the file instead",
            )),
            (Some(_), SecretRef::Dir(_)) => {
                Err(E::custom("`name` cannot be combined with `dir`: each secret is named after its file"))
            }
            (Some(name), _) if name.trim().is_empty() => Err(E::custom("`name` is empty")),
            _ => Ok(SecretEntry { name: self.name, reference, window, binds }),
        }
    }
}

/// Accepts a table; for anything else, the error describes the expected form without repeating the value.
struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = SecretEntry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(FORM)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<SecretEntry, A::Error> {
        SecretRefTable::deserialize(MapAccessDeserializer::new(map))?.entry()
    }
}

impl<'de> Deserialize<'de> for SecretEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EntryVisitor)
    }
}

impl<'de> Deserialize<'de> for SecretRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let entry = SecretEntry::deserialize(deserializer)?;
        let fail = |message: &str| Err(serde::de::Error::custom(message));
        match entry {
            SecretEntry { name: Some(_), .. } => fail("`name` is for a source's secrets only"),
            SecretEntry { window, .. } if window != ValidityWindow::default() => {
                fail("`not_before` and `not_after` are for a source's secrets only")
            }
            SecretEntry { binds: Some(_), .. } => fail("`binds` is for a source's secrets only"),
            SecretEntry { reference: Self::Dir(_), .. } => {
                fail("`dir` is for a source's secrets only; use `file`")
            }
            SecretEntry { reference, .. } => Ok(reference),
        }
    }
}

/// A list of entries, or a single entry: the environment and `-X` cannot write a list of tables, so
/// `HOOKSTREAM_SOURCE__DATAGRID__SECRETS__FILE=/path` must be accepted.
pub(super) fn entries<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SecretEntry>, D::Error> {
    struct List;
    impl<'de> Visitor<'de> for List {
        type Value = Vec<SecretEntry>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of references to secrets: [{ env = \"NAME\" }] or [{ file = \"/path\" }]")
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            EntryVisitor.visit_map(map).map(|entry| vec![entry])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut entries = Vec::new();
            while let Some(entry) = list.next_element()? {
                entries.push(entry);
            }
            Ok(entries)
        }
    }
    deserializer.deserialize_any(List)
}

#[cfg(test)]
mod tests;
