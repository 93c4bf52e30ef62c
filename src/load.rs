//! Load: requests on a schedule, with a limit of those in progress, and a tally of their answers. `hookstream send`, the
//! benchmarks, the oracle and the honest clients of the hostile tests share it.

mod answer;
mod tally;

use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt as _, stream};
use tokio::sync::mpsc;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

pub use answer::{Answer, NoAnswer, post};
pub use tally::{AnswerKind, Tally};

/// How many deliveries, and how fast.
#[derive(Clone, Copy, Debug)]
pub struct LoadPlan {
    pub count: u64,
    /// Deliveries in progress at the same time.
    pub concurrency: usize,
    /// Deliveries per second; `None` for the next one after each answer.
    pub rate: Option<f64>,
}

/// Calls `send` for each delivery, with its number and the time at which it is due, and yields the results as they end.
/// Each delivery runs in a task of its own, so that signing uses all processors. Once `stop` is cancelled, none begins;
/// the stream ends after those in progress.
///
/// The latency of a delivery counts from when it was due, even if it starts later because the concurrency was exhausted.
/// Otherwise a service that stalls would slow down the sender and look fast.
pub fn run<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    plan: LoadPlan,
    stop: CancellationToken,
    mut send: impl FnMut(u64, Instant) -> F,
) -> impl Stream<Item = Result<T, JoinError>> {
    let due = match plan.rate {
        Some(rate) => schedule(plan.count, rate).left_stream(),
        None => stream::iter(0..plan.count).map(|n| (n, Instant::now())).right_stream(),
    };
    due.take_until(stop.cancelled_owned())
        .map(move |(n, due)| tokio::spawn(send(n, due)))
        .buffer_unordered(plan.concurrency)
}

/// The number of each delivery and the time at which it is due, at that time. A thread sleeps until then: it wakes about
/// 0.1 ms late, whereas a timer of tokio is up to 1 ms late, as long as a fast service takes to answer.
fn schedule(count: u64, rate: f64) -> impl Stream<Item = (u64, Instant)> {
    let (sender, mut receiver) = mpsc::channel(1);
    let start = Instant::now();
    std::thread::spawn(move || {
        for n in 0..count {
            let due = start + Duration::from_secs_f64(n as f64 / rate);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            // The stream was dropped before its last delivery.
            if sender.blocking_send((n, due)).is_err() {
                break;
            }
        }
    });
    stream::poll_fn(move |context| receiver.poll_recv(context))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_rate_is_never_exceeded() {
        let plan = LoadPlan { count: 21, concurrency: 4, rate: Some(100.0) };
        let start = Instant::now();
        let ended: Vec<_> = run(plan, CancellationToken::new(), async |n, _| n).collect().await;
        assert_eq!(ended.len(), 21);
        assert!(start.elapsed() >= Duration::from_millis(200), "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn the_time_of_a_late_delivery_counts_from_when_it_was_due() {
        let plan = LoadPlan { count: 5, concurrency: 1, rate: Some(1000.0) };
        let took = run(plan, CancellationToken::new(), |_, due| async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            due.elapsed()
        });
        let took: Vec<Duration> = took.map(Result::unwrap).collect().await;
        // One after the other: the last one ends after 100 ms and was due after 4.
        assert!(took[4] >= Duration::from_millis(96), "{took:?}");
    }

    #[tokio::test]
    async fn a_stopped_load_ends_after_the_deliveries_in_progress() {
        let (stop, begun) = (CancellationToken::new(), AtomicU64::new(0));
        let plan = LoadPlan { count: u64::MAX, concurrency: 3, rate: None };
        let ended = run(plan, stop.clone(), |n, _| {
            begun.fetch_add(1, Ordering::Relaxed);
            if n == 9 {
                stop.cancel();
            }
            tokio::task::yield_now()
        });
        let ended = ended.count().await as u64;
        assert!(ended >= 10 && ended == begun.load(Ordering::Relaxed), "{ended} {begun:?}");
    }
}
