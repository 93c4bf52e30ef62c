//! Topics whose rows have to wait for a cause that Kafka does not refuse them for.

/// Asked by the drain, which knows no sources, before rows of a topic go out.
pub trait Holds: Send + Sync {
    /// Why the rows of this topic have to wait; `None` where they may go.
    fn why(&self, topic: &str) -> Option<&'static str>;

    /// No broker answers: what was known of the topics may be wrong by the time that one does.
    fn outage(&self);
}

/// All may go.
impl Holds for () {
    fn why(&self, _: &str) -> Option<&'static str> {
        None
    }

    fn outage(&self) {}
}
