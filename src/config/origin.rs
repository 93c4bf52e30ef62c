//! What a configuration is read from.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::secret::Environment;

/// The command line's options, and what the command needs.
#[derive(Clone, Default)]
pub struct Overrides {
    /// `-c FILE`
    pub file: Option<PathBuf>,
    /// `-X key=value`, in order; later ones win.
    pub sets: Vec<String>,
    /// Which secrets of the sources are read.
    pub secrets: Secrets,
    /// Ignores `[kafka]` and `[registry]` in all layers except the built-in one: for `dev`, which starts its own broker
    /// and registry.
    pub embedded: bool,
}

/// The kind of the configuration file, which decides how a reload reads it.
#[derive(Debug, Clone, Default)]
pub(super) enum FileKind {
    /// It has not been read yet.
    #[default]
    Unknown,
    /// A regular file, which is read again.
    Regular,
    /// A pipe, such as the shell's `<(command)`, with its text: it can be read only once.
    Pipe(Arc<str>),
}

/// Which secrets of the sources are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Secrets {
    /// All. A source that the user configured without a usable secret is a problem, and so is a public dev secret.
    #[default]
    Required,
    /// All; a source without a secret gets the public dev secret. For `dev`, and for `send` to a loopback address.
    OrDev,
    /// Those of this source only.
    Only(String),
    /// None: for commands that verify and sign nothing.
    Unread,
}

/// What a configuration was read from. `Debug` hides the values: one could be a secret in the wrong place.
pub(super) struct ConfigOrigin {
    pub(super) overrides: Overrides,
    pub(super) environment: Environment,
    pub(super) file: FileKind,
}

impl fmt::Debug for ConfigOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConfigOrigin")
    }
}
