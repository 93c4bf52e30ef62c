//! Bugs on purpose, for the test of the oracle in `tests/chaos`: it must find each of them.
//!
//! They are there only with the feature `planted`, which no release is built with, and then only
//! the one that `$HOOKSTREAM_PLANTED` names.

/// A bug that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// 200 as soon as librdkafka has the record in its queue.
    AnswerBeforeAck,
    /// A row of the spool is dropped when it is handed to librdkafka.
    RowDroppedBeforeAck,
    /// SQLite with `synchronous=OFF`: 202 without a sync.
    NoSync,
}

impl Bug {
    /// What `$HOOKSTREAM_PLANTED` says for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AnswerBeforeAck => "answer-before-ack",
            Self::RowDroppedBeforeAck => "row-dropped-before-ack",
            Self::NoSync => "no-sync",
        }
    }
}

/// Whether the bug is planted in this process.
#[cfg(feature = "planted")]
pub fn has(bug: Bug) -> bool {
    static PLANTED: std::sync::LazyLock<Option<String>> =
        std::sync::LazyLock::new(|| std::env::var("HOOKSTREAM_PLANTED").ok());
    PLANTED.as_deref() == Some(bug.name())
}

/// Never: this build has no bug on purpose.
#[cfg(not(feature = "planted"))]
pub const fn has(_: Bug) -> bool {
    false
}
