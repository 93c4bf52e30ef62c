//! Sends many deliveries with a bound on those in progress and a schedule, and counts the results.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::{StreamExt as _, stream};
use indicatif::ProgressBar;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::generator::DeliveryGenerator;
use super::post::{SendAnswer, SendClient, SendError};
use super::results_file::Ids;
use super::summary::SendSummary;
use crate::cli::output;
use crate::cli::serve::Signals;

/// The number of deliveries and their rate.
#[derive(Clone, Copy)]
pub(super) struct LoadPlan {
    pub(super) count: u64,
    /// Deliveries in progress at the same time.
    pub(super) concurrency: usize,
    /// Deliveries per second; `None` for the next one after each answer.
    pub(super) rate: Option<f64>,
}

/// The state that all tasks share.
pub(super) struct Sender {
    pub(super) maker: DeliveryGenerator,
    pub(super) client: SendClient,
    pub(super) with_ids: bool,
}

/// The result of one delivery. The id is set if ids are written.
pub(super) struct SendResult {
    pub(super) id: Option<String>,
    pub(super) result: Result<SendAnswer, SendError>,
}

impl Sender {
    /// Makes one delivery and posts it.
    ///
    /// # Errors
    /// The body cannot be signed. A missing answer is a result, not an error.
    pub(super) async fn one(&self, begin: Instant) -> anyhow::Result<SendResult> {
        let signed = self.maker.make()?;
        let id = if self.with_ids { self.maker.id(&signed) } else { None };
        Ok(SendResult { id, result: self.client.post(signed, begin).await })
    }
}

/// Sends all deliveries and waits for their answers. Ctrl-C stops sending and waits for the deliveries in progress; a
/// second Ctrl-C stops waiting.
///
/// # Errors
/// The body cannot be signed, or the file of ids cannot be written.
pub(super) async fn run(post: Arc<Sender>, plan: LoadPlan, ids: &mut Ids) -> anyhow::Result<SendSummary> {
    let mut signals = Signals::new()?;
    let stop = CancellationToken::new();
    let start = Instant::now();
    let in_progress = AtomicU64::new(0);
    let results = stream::iter(0..plan.count)
        .then(|n| wait(start, n, plan.rate))
        .take_until(stop.clone().cancelled_owned())
        .map(|begin| {
            in_progress.fetch_add(1, Ordering::Relaxed);
            spawn(post.clone(), begin)
        })
        .buffer_unordered(plan.concurrency);
    tokio::pin!(results);
    let bar =
        output::progress_bar(plan.count, "{bar:30} {human_pos} of {human_len}  {rate}  {eta} left{msg}");
    let mut tally = SendSummary::new()?;
    loop {
        tokio::select! {
            ended = results.next() => match ended {
                Some(ended) => {
                    let ended = ended.context("a delivery's task failed")??;
                    in_progress.fetch_sub(1, Ordering::Relaxed);
                    ids.add(&ended)?;
                    tally.add(&ended);
                    show(&bar, &tally);
                }
                None => break,
            },
            () = signals.next() => {
                if stop.is_cancelled() {
                    break;
                }
                stop.cancel();
                let text = "stopping: waiting for the deliveries in progress; Ctrl-C again stops waiting";
                bar.suspend(|| writeln!(output::stderr(), "{text}"))?;
            }
        }
    }
    bar.finish_and_clear();
    tally.add_left(in_progress.load(Ordering::Relaxed));
    tally.took = start.elapsed();
    Ok(tally)
}

/// Waits until delivery `n` is due, and returns the start of its latency: the time at which it was due, even if it
/// starts later because the concurrency was exhausted. Otherwise a service that stalls would slow down the sender and
/// look fast.
async fn wait(start: Instant, n: u64, rate: Option<f64>) -> Instant {
    let Some(rate) = rate else { return Instant::now() };
    let due = start + Duration::from_secs_f64(n as f64 / rate);
    if due <= Instant::now() {
        return due;
    }
    tokio::time::sleep_until(due.into()).await;
    // A timer may be 1 ms late, which must not count as latency of the service.
    Instant::now()
}

/// Starts a task for each delivery, so that signing uses all processors.
fn spawn(post: Arc<Sender>, begin: Instant) -> JoinHandle<anyhow::Result<SendResult>> {
    tokio::spawn(async move { post.one(begin).await })
}

fn show(bar: &ProgressBar, tally: &SendSummary) {
    let failed = tally.failed();
    if failed > 0 {
        bar.set_message(format!("  {failed} not 2xx"));
    }
    bar.inc(1);
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::atomic::AtomicUsize;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::super::target::tests::target;
    use super::*;

    /// Answers every tenth request with 503, the others with 200.
    #[derive(Default)]
    struct Service {
        taken: AtomicUsize,
        open: AtomicUsize,
        most: AtomicUsize,
    }

    impl Service {
        async fn serve(self: Arc<Self>, listener: TcpListener) {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(self.clone().answer(stream));
            }
        }

        async fn answer(self: Arc<Self>, mut stream: TcpStream) -> std::io::Result<()> {
            let mut read = Vec::new();
            loop {
                // The sample's only `}}` is at its end.
                while !read.ends_with(b"}}") {
                    if stream.read_buf(&mut read).await? == 0 {
                        return Ok(());
                    }
                }
                read.clear();
                self.most.fetch_max(self.open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                let status = if self.taken.fetch_add(1, Ordering::SeqCst) % 10 == 9 { 503 } else { 200 };
                self.open.fetch_sub(1, Ordering::SeqCst);
                let answer = format!("HTTP/1.1 {status} .\r\ncontent-length: 2\r\n\r\n{{}}");
                stream.write_all(answer.as_bytes()).await?;
            }
        }
    }

    async fn send(plan: LoadPlan) -> (Arc<Service>, SendSummary, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = listener.local_addr().unwrap().to_string();
        let service = Arc::new(Service::default());
        tokio::spawn(service.clone().serve(listener));
        let target = target("datagrid", &[], &[], Some(&url)).unwrap();
        let (_, body) = super::super::sample_of(&target, None).unwrap();
        let post = Sender {
            maker: DeliveryGenerator::new(&target, body.into(), None, true).unwrap(),
            client: SendClient::new(&target.url, Duration::from_secs(10), plan.concurrency).unwrap(),
            with_ids: true,
        };
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut ids = Ids::create(Some(file.path())).unwrap();
        let tally = run(Arc::new(post), plan, &mut ids).await.unwrap();
        ids.finish().unwrap();
        (service, tally, std::fs::read_to_string(file.path()).unwrap())
    }

    #[tokio::test]
    async fn each_delivery_is_a_new_event_and_its_answer_is_written_with_its_id() {
        let (service, tally, ids) = send(LoadPlan { count: 100, concurrency: 4, rate: None }).await;
        assert_eq!((tally.sent(), tally.failed()), (100, 10));
        assert_eq!(service.taken.load(Ordering::SeqCst), 100);
        assert!(service.most.load(Ordering::SeqCst) <= 4);
        let lines: Vec<Vec<&str>> = ids.lines().map(|line| line.split('\t').collect()).collect();
        assert_eq!(lines.iter().map(|line| line[0]).collect::<HashSet<_>>().len(), 100);
        assert_eq!(lines.iter().filter(|line| line[1] == "503").count(), 10);
    }

    #[tokio::test]
    async fn a_rate_is_never_exceeded() {
        let (_, tally, _) = send(LoadPlan { count: 21, concurrency: 4, rate: Some(100.0) }).await;
        assert_eq!(tally.sent(), 21);
        assert!(tally.took >= Duration::from_millis(200), "{:?}", tally.took);
    }

    #[tokio::test]
    async fn a_late_delivery_counts_from_when_it_was_due() {
        let start = Instant::now() - Duration::from_secs(10);
        assert_eq!(wait(start, 3, Some(2.0)).await, start + Duration::from_millis(1500));
        assert!(wait(start, 3, None).await > start + Duration::from_secs(9));
    }
}
