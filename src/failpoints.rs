//! Failpoints: deliberate bugs that `tests/chaos` must find, to prove that its checks can fail.
//!
//! They exist only with the feature `failpoints`, which no release is built with, and then only the one that
//! `$HOOKSTREAM_FAILPOINT` names is active.

/// A deliberate bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failpoint {
    /// 200 as soon as librdkafka has the record in its queue.
    AnswerBeforeAck,
    /// A row of the spool is dropped when it is handed to librdkafka.
    RowDroppedBeforeAck,
    /// SQLite with `synchronous=OFF`: 202 without a sync.
    NoSync,
}

impl Failpoint {
    /// Its value in `$HOOKSTREAM_FAILPOINT`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AnswerBeforeAck => "answer-before-ack",
            Self::RowDroppedBeforeAck => "row-dropped-before-ack",
            Self::NoSync => "no-sync",
        }
    }
}

/// Whether the failpoint is active in this process.
#[cfg(feature = "failpoints")]
pub fn is_active(failpoint: Failpoint) -> bool {
    static ACTIVE: std::sync::LazyLock<Option<String>> =
        std::sync::LazyLock::new(|| std::env::var("HOOKSTREAM_FAILPOINT").ok());
    ACTIVE.as_deref() == Some(failpoint.name())
}

/// Never: this build has no failpoints.
#[cfg(not(feature = "failpoints"))]
pub const fn is_active(_: Failpoint) -> bool {
    false
}
