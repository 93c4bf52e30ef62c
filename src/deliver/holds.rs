//! Topics whose rows must wait for a reason other than an error of Kafka.

/// Queried by the drain, which does not know sources, before it publishes rows of a topic.
pub trait Holds: Send + Sync {
    /// Why the rows of this topic must wait; `None` if they may be published.
    fn why(&self, topic: &str) -> Option<&'static str>;

    /// Called while no broker is reachable: the known state of the topics may be outdated afterwards.
    fn outage(&self);
}

/// Holds nothing.
impl Holds for () {
    fn why(&self, _: &str) -> Option<&'static str> {
        None
    }

    fn outage(&self) {}
}
