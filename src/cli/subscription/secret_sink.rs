//! Saves the webhook's secret, which is shown only once, before anything else is printed.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};

use crate::cli::output;
use crate::config::SecretText;
use crate::files;

/// The place for the secret, prepared before the webhook is created.
pub(super) enum SecretSink {
    /// Standard output, as its only line.
    Print,
    /// The JSON output.
    InJson,
    File(PathBuf, File),
}

impl SecretSink {
    /// Creates the file, readable only by its owner. Refuses an existing file.
    pub(super) fn file(path: &Path) -> anyhow::Result<Self> {
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let file = made.with_context(|| cannot(path))?;
        Ok(Self::File(path.to_owned(), file))
    }

    /// Saves the secret; a file is synced to disk.
    pub(super) fn keep(&mut self, secret: &SecretText) -> anyhow::Result<()> {
        match self {
            // Not attached as a cause: a closed pipe must not count as success here.
            Self::Print => output::print_exact(secret.expose()).map_err(|error| {
                anyhow!("the secret could not be written to standard output ({error}): delete the webhook")
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

    /// Removes the file if there is no secret for it.
    pub(super) fn give_up(self) {
        if let Self::File(path, _) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Checks what [`SecretSink::file`] would check, without creating the file.
pub(super) fn check(path: &Path) -> anyhow::Result<()> {
    match path.symlink_metadata() {
        Ok(_) => Err(io::Error::from(io::ErrorKind::AlreadyExists)).with_context(|| cannot(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| cannot(path)),
    }
}

fn cannot(path: &Path) -> String {
    format!(
        "cannot create {} for the secret, so no webhook was created: name a new file with --secret-file",
        path.display()
    )
}

fn write(path: &Path, file: &mut File, secret: &SecretText) -> io::Result<()> {
    file.write_all(secret.expose().as_bytes())?;
    file.sync_all()?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    files::sync_directory(parent.unwrap_or(Path::new(".")))
}
