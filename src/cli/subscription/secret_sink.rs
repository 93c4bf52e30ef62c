//! The secret that is shown once: kept before anything else is said.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};

use crate::cli::output;
use crate::config::SecretText;
use crate::files;

/// A place for the secret, made before there is one.
pub(super) enum SecretSink {
    /// Standard output, as its first line and its only one that is no JSON.
    Print,
    /// In the JSON that is printed.
    InJson,
    /// A new file.
    File(PathBuf, File),
}

impl SecretSink {
    /// Makes the file: for its owner alone, and never one that is there already.
    pub(super) fn file(path: &Path) -> anyhow::Result<Self> {
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let file = made.with_context(|| cannot(path))?;
        Ok(Self::File(path.to_owned(), file))
    }

    /// Keeps the secret, synced to the disk.
    pub(super) fn keep(&mut self, secret: &SecretText) -> anyhow::Result<()> {
        match self {
            // Not as a cause: a reader that has left must not pass for a good end here.
            Self::Print => output::print_exact(secret.expose()).map_err(|error| {
                anyhow!("standard output did not take the secret ({error}): delete the webhook")
            }),
            Self::InJson => Ok(()),
            Self::File(path, file) => write(path, file, secret).with_context(|| {
                format!(
                    "the secret is lost, since {} could not be written: delete the webhook",
                    path.display()
                )
            }),
        }
    }

    /// Takes the file away that no secret came for.
    pub(super) fn give_up(self) {
        if let Self::File(path, _) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// What [`Keeper::file`] would say, without making it.
pub(super) fn look(path: &Path) -> anyhow::Result<()> {
    match path.symlink_metadata() {
        Ok(_) => Err(io::Error::from(io::ErrorKind::AlreadyExists)).with_context(|| cannot(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| cannot(path)),
    }
}

fn cannot(path: &Path) -> String {
    format!(
        "cannot make {} for the secret, so no webhook was made; name a new file by --secret-file",
        path.display()
    )
}

fn write(path: &Path, file: &mut File, secret: &SecretText) -> io::Result<()> {
    file.write_all(secret.expose().as_bytes())?;
    file.sync_all()?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    files::sync_directory(parent.unwrap_or(Path::new(".")))
}
