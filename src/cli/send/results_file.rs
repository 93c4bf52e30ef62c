//! The file of `--ids`: the result of each delivery, to compare with the topics.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::load::SendResult;

/// Writes lines of id, status and outcome, separated by tabs.
pub(super) struct Ids(Option<(PathBuf, BufWriter<File>)>);

impl Ids {
    /// Creates the file and replaces an existing one. Without a path, nothing is written.
    ///
    /// # Errors
    /// The file cannot be created.
    pub(super) fn create(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else { return Ok(Self(None)) };
        let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(Some((path.to_owned(), BufWriter::new(file)))))
    }

    /// Adds a line.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn add(&mut self, ended: &SendResult) -> anyhow::Result<()> {
        let Some((path, file)) = &mut self.0 else { return Ok(()) };
        writeln!(file, "{}", line(ended)).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Flushes the buffer.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn finish(&mut self) -> anyhow::Result<()> {
        let Some((path, file)) = &mut self.0 else { return Ok(()) };
        file.flush().with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Ids contain no tabs or line ends: the service uses the digest for an id with control characters.
fn line(ended: &SendResult) -> String {
    let id = ended.id.as_deref().unwrap_or("-");
    match &ended.result {
        Ok(answer) => format!("{id}\t{}\t{}", answer.status, answer.word().unwrap_or("-")),
        Err(none) => format!("{id}\t-\t{}", none.word),
    }
}
