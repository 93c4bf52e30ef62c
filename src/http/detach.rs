//! Work that must finish, even if nothing waits for it any more.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use tokio::runtime::Handle;

/// A future that is polled by its awaiter, and continues in its own task if it is dropped before its end. A task from
/// the start would cost each delivery two more wake-ups, usually of another thread.
pub(super) struct DetachOnDrop<F>(Option<Pin<Box<F>>>)
where
    F: Future<Output: Send> + Send + 'static;

impl<F> DetachOnDrop<F>
where
    F: Future<Output: Send> + Send + 'static,
{
    pub(super) fn new(work: F) -> Self {
        Self(Some(Box::pin(work)))
    }
}

impl<F> Future for DetachOnDrop<F>
where
    F: Future<Output: Send> + Send + 'static,
{
    /// `None` if the work panicked, or if it is polled after its end.
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(work) = &mut self.0 else { return Poll::Ready(None) };
        let mut guarded = AssertUnwindSafe(work.as_mut()).catch_unwind();
        let Poll::Ready(ended) = guarded.poll_unpin(context) else { return Poll::Pending };
        self.0 = None;
        Poll::Ready(ended.ok())
    }
}

impl<F> Drop for DetachOnDrop<F>
where
    F: Future<Output: Send> + Send + 'static,
{
    fn drop(&mut self) {
        // Without a runtime, the process is ending.
        if let (Some(work), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(work);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn the_work_ends_awaited_or_dropped() {
        assert_eq!(DetachOnDrop::new(async { 1 }).await, Some(1));

        let (start, started) = oneshot::channel::<()>();
        let (end, ended) = oneshot::channel();
        let mut work = DetachOnDrop::new(async move {
            let _ = started.await;
            let _ = end.send(2);
        });
        assert!((&mut work).now_or_never().is_none());
        drop(work);
        start.send(()).unwrap();
        assert_eq!(ended.await, Ok(2));
    }

    #[tokio::test]
    async fn a_panic_is_contained() {
        let work = DetachOnDrop::new(async { assert!(std::hint::black_box(false), "on purpose") });
        assert_eq!(work.await, None);
    }
}
