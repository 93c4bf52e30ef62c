//! Saves the webhook's secret, which is shown only once, before anything is printed.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::config::SecretText;
use crate::files;

/// The new file for the secret, made before the webhook is created.
pub(super) struct SecretFile(PathBuf, File);

impl SecretFile {
    /// Creates the file, readable only by its owner. Refuses an existing file.
    pub(super) fn new(path: &Path) -> anyhow::Result<Self> {
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let file = made.with_context(|| {
            format!(
                "cannot create {} for the secret, so no webhook was created: name a new file with --secret-file",
                path.display()
            )
        })?;
        Ok(Self(path.to_owned(), file))
    }

    /// Saves the secret and syncs it to disk.
    pub(super) fn keep(mut self, secret: &SecretText) -> anyhow::Result<()> {
        self.write(secret).with_context(|| {
            let path = self.0.display();
            format!("the secret is lost, since {path} could not be written: delete the webhook")
        })
    }

    fn write(&mut self, secret: &SecretText) -> io::Result<()> {
        self.1.write_all(secret.expose().as_bytes())?;
        self.1.sync_all()?;
        let parent = self.0.parent().filter(|parent| !parent.as_os_str().is_empty());
        files::sync_directory(parent.unwrap_or(Path::new(".")))
    }

    /// Removes the file if there is no secret for it.
    pub(super) fn give_up(self) {
        let _ = std::fs::remove_file(self.0);
    }
}
