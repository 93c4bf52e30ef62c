//! The spool's errors, each one sentence with what to do. None of them holds a payload.

use std::path::{Path, PathBuf};

/// Why the spool does not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has the spool open.
    #[error("the spool {} is in use by {}; stop that process or give this one another [spool] dir", dir.display(), process(*.holder))]
    Locked {
        /// The spool's directory.
        dir: PathBuf,
        /// The process id, if it could be read.
        holder: Option<u32>,
    },
    /// A newer hookstream wrote the file.
    #[error(
        "{} has format version {found}, this hookstream knows up to version {}; run the newer hookstream, or drain the spool with it first (serve --drain-only)",
        path.display(), super::VERSION
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The file's format version.
        found: i64,
    },
    /// The file belongs to another program.
    #[error("{} is a database, but no hookstream spool; give [spool] dir a directory of its own", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file system does not support the shared memory that SQLite's log needs.
    #[error("{} cannot be written ahead (WAL); put [spool] dir on a local file system", path.display())]
    NoWal {
        /// The file.
        path: PathBuf,
    },
    /// The file is damaged, also after a salvage.
    #[error("{} is damaged and was not salvaged: {cause}; keep the spool's files, and give [spool] dir another directory", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The damage that was found.
        cause: String,
    },
    /// The operating system refused an operation.
    #[error("{what} {}: {cause}; check [spool] dir, its owner and its free space", path.display())]
    Io {
        /// The operation.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        cause: std::io::Error,
    },
    /// SQLite refused an operation.
    #[error("{what} {}: {cause}; check [spool] dir, its owner and its free space", path.display())]
    Sql {
        /// The operation.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// SQLite's error.
        cause: rusqlite::Error,
    },
}

fn process(pid: Option<u32>) -> String {
    pid.map_or_else(|| String::from("another process"), |pid| format!("process {pid}"))
}

impl OpenError {
    pub(super) fn io(what: &'static str, path: &Path, cause: std::io::Error) -> Self {
        Self::Io { what, path: path.to_owned(), cause }
    }

    pub(super) fn sql(what: &'static str, path: &Path, cause: rusqlite::Error) -> Self {
        Self::Sql { what, path: path.to_owned(), cause }
    }
}

/// A bound of the spool that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bound {
    /// `max_rows`.
    Rows,
    /// `max_bytes`.
    Bytes,
    /// `source_rows` or `source_bytes`: other sources still have room.
    Share,
    /// `max_wal`: another program keeps a read transaction open.
    Wal,
    /// `min_free`, or a full disk.
    Disk,
}

impl Bound {
    /// The name in log, metric and status.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Bytes => "bytes",
            Self::Share => "the source's share",
            Self::Wal => "wal",
            Self::Disk => "disk",
        }
    }
}

/// Why records were not stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A bound is reached.
    #[error("the spool is full ({})", .0.label())]
    Full(Bound),
    /// The queue to the disk is full.
    #[error("the spool's disk is too slow: too much waits to be written")]
    Busy,
    /// The file cannot be written.
    #[error("{0}")]
    Error(SpoolError),
}

impl StoreError {
    pub(super) fn closed() -> Self {
        Self::Error(SpoolError::closed())
    }
}

/// A failure of the spool: one sentence with what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SpoolError(String);

impl SpoolError {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(super) fn closed() -> Self {
        Self::new("the spool is closed")
    }

    pub(super) fn thread_ended(thread: &str) -> Self {
        Self(thread_ended(thread))
    }

    pub(super) fn sql(what: &str, cause: &rusqlite::Error) -> Self {
        Self(format!("cannot {what} the spool: {cause}"))
    }
}

/// What to answer and report after one of the spool's threads has ended. It is not started again: the panic that ended
/// it may have left the ledger and the file apart, which a restart sorts out.
pub(super) fn thread_ended(thread: &str) -> String {
    format!("the spool's {thread} thread has ended; restart hookstream")
}
