//! Failpoints: deliberate bugs that `tests/chaos` must find, to prove that its checks can fail.
//!
//! They exist only with the feature `failpoints`, which no release is built with. Only the failpoint named by
//! `$HOOKSTREAM_FAILPOINT` is active.

/// A deliberate bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failpoint {
    /// 200 as soon as librdkafka has the record in its queue.
    AnswerBeforeAck,
    /// The drain deletes a row when it hands the record to librdkafka.
    RowDroppedBeforeAck,
    /// SQLite with `synchronous=OFF`: 202 without a sync.
    NoSync,
    /// The spool's writer thread panics at its first store.
    SpoolWriterPanics,
}

impl Failpoint {
    /// Its value in `$HOOKSTREAM_FAILPOINT`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AnswerBeforeAck => "answer-before-ack",
            Self::RowDroppedBeforeAck => "row-dropped-before-ack",
            Self::NoSync => "no-sync",
            Self::SpoolWriterPanics => "spool-writer-panics",
        }
    }
}

/// Before the name of a background task that panics, in `$HOOKSTREAM_FAILPOINT`.
pub const TASK_PANICS: &str = "task-panics:";

/// The failpoint that is active in this process.
#[cfg(feature = "failpoints")]
fn active() -> Option<&'static str> {
    static ACTIVE: std::sync::LazyLock<Option<String>> =
        std::sync::LazyLock::new(|| std::env::var("HOOKSTREAM_FAILPOINT").ok());
    ACTIVE.as_deref()
}

/// Whether the failpoint is active in this process.
#[cfg(feature = "failpoints")]
pub fn is_active(failpoint: Failpoint) -> bool {
    active() == Some(failpoint.name())
}

/// Never: this build has no failpoints.
#[cfg(not(feature = "failpoints"))]
pub const fn is_active(_: Failpoint) -> bool {
    false
}

/// Panics if `task` is the background task of `task-panics:TASK`, once, and half a second after its start: by then the
/// ports are open and the task is at work.
#[cfg(feature = "failpoints")]
#[allow(clippy::panic, reason = "this is the deliberate bug")]
pub(crate) async fn task_panics(task: &str) {
    use std::sync::atomic::{AtomicBool, Ordering};

    const DELAY: std::time::Duration = std::time::Duration::from_millis(500);
    static DONE: AtomicBool = AtomicBool::new(false);
    if active().and_then(|active| active.strip_prefix(TASK_PANICS)) == Some(task) {
        tokio::time::sleep(DELAY).await;
        if !DONE.swap(true, Ordering::Relaxed) {
            panic!("failpoint");
        }
    }
    std::future::pending().await
}

/// Never: this build has no failpoints.
#[cfg(not(feature = "failpoints"))]
pub(crate) fn task_panics(_: &str) -> std::future::Pending<()> {
    std::future::pending()
}

/// Panics if `failpoint` is active.
#[cfg(feature = "failpoints")]
#[allow(clippy::panic, reason = "this is the deliberate bug")]
pub(crate) fn panic_if_active(failpoint: Failpoint) {
    if is_active(failpoint) {
        panic!("failpoint");
    }
}

/// Never: this build has no failpoints.
#[cfg(not(feature = "failpoints"))]
pub(crate) const fn panic_if_active(_: Failpoint) {}
