//! The file of `--ids`: what became of each event, to be compared with the topics.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::load::SendResult;

/// Lines of id, status and outcome, with tabs between.
pub(super) struct Ids(Option<(PathBuf, BufWriter<File>)>);

impl Ids {
    /// Nothing without a path. What stands in the file is lost.
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

    /// Writes what is still kept back.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn finish(&mut self) -> anyhow::Result<()> {
        let Some((path, file)) = &mut self.0 else { return Ok(()) };
        file.flush().with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Ids hold no control characters: the service takes none as an id, and the digest stands in.
fn line(ended: &SendResult) -> String {
    let id = ended.id.as_deref().unwrap_or("-");
    match &ended.result {
        Ok(answer) => {
            let known = answer.known.as_ref();
            format!("{id}\t{}\t{}", answer.status, known.map_or("-", |known| known.word()))
        }
        Err(none) => format!("{id}\t-\t{}", none.word),
    }
}
