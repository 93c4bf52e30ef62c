//! Clients who send and retry the way the two providers do, and the book of every answer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::deliveries::{self, Delivery, Fate};

/// Grapevine's own time-out; Datagrid's is not published, and is taken to be the same.
pub const PROVIDER_TIMEOUT: Duration = Duration::from_secs(5);

/// The deadline that the service is given, and what its answers may be late of it on a busy machine.
pub const ACK_DEADLINE: Duration = Duration::from_secs(4);
const SLACK: Duration = Duration::from_millis(250);

/// Requests under way at a time: the driver's own bound, above what the load can reach.
const AT_ONCE: usize = 4_000;

/// Of a hundred deliveries that were answered 2xx, those that are sent once more, as if the answer had
/// been lost.
const REPEATED: u8 = 3;

/// Between attempts, in milliseconds. Grapevine's are from its page; Datagrid says only that it may retry.
fn pauses(source: &str) -> &'static [u64] {
    match source {
        "grapevine" => &[500, 1_000, 2_000, 4_000],
        _ => &[1_000, 2_000, 4_000, 8_000, 16_000],
    }
}

/// A delivery that was answered 2xx.
#[derive(Clone, Copy, Debug)]
pub struct Accepted {
    /// Since the start.
    pub at: Duration,
    /// The first such answer.
    pub status: u16,
}

/// The answers received.
#[derive(Clone, Debug)]
pub struct Book {
    /// Deliveries sent at least once.
    pub sent: u64,
    /// Requests.
    pub attempts: u64,
    /// Answers by status, outcome and reason.
    pub answers: BTreeMap<String, u64>,
    /// Requests whose connection broke: no answer.
    pub broken: u64,
    /// Answered 2xx, by number.
    pub accepted: BTreeMap<u64, Accepted>,
    /// Given up after the last attempt.
    pub gave_up: u64,
    /// No answer within the provider's time-out.
    pub late: u64,
    /// Answered later than the deadline and its slack.
    pub slow: u64,
    /// Descriptions of forbidden answers.
    pub wrong: Vec<String>,
    /// Of all answers, in milliseconds.
    pub took: Histogram<u64>,
}

/// Where the next request goes: `http://ADDRESS/hooks`.
pub type Hooks = Box<dyn Fn() -> String + Send + Sync>;

/// Where deliveries go, and how their answers are kept.
pub struct Senders {
    seed: u64,
    start: Instant,
    hooks: Hooks,
    client: reqwest::Client,
    places: Arc<Semaphore>,
    tasks: TaskTracker,
    next: AtomicU64,
    paused: AtomicBool,
    stopped: AtomicBool,
    book: Mutex<Book>,
}

impl Senders {
    /// Creates the senders without sending.
    pub fn new(seed: u64, hooks: Hooks) -> Arc<Self> {
        let client = reqwest::Client::builder().timeout(PROVIDER_TIMEOUT).no_proxy();
        let book = Book {
            sent: 0,
            attempts: 0,
            answers: BTreeMap::new(),
            broken: 0,
            accepted: BTreeMap::new(),
            gave_up: 0,
            late: 0,
            slow: 0,
            wrong: Vec::new(),
            took: Histogram::new(3).expect("three digits"),
        };
        Arc::new(Self {
            seed,
            start: Instant::now(),
            hooks,
            client: client.build().expect("a client"),
            places: Arc::new(Semaphore::new(AT_ONCE)),
            tasks: TaskTracker::new(),
            next: AtomicU64::new(0),
            paused: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            book: Mutex::new(book),
        })
    }

    /// The current book.
    pub fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().expect("nothing panics with it")
    }

    /// Deliveries that were begun.
    pub fn begun(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Answers and their times since the last call, for runs that have phases.
    pub fn phase(&self) -> (BTreeMap<String, u64>, Histogram<u64>) {
        let mut book = self.book();
        let took = book.took.clone();
        book.took.reset();
        (std::mem::take(&mut book.answers), took)
    }

    /// Since the start, as in [`Accepted::at`].
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Sends new deliveries at this rate until [`Senders::stop`], each in a task of its own. Resolves when
    /// each has had its last attempt.
    pub async fn run(self: Arc<Self>, per_second: u32) {
        let mut due = tokio::time::interval(Duration::from_secs(1) / per_second);
        while !self.stopped.load(Ordering::Relaxed) {
            due.tick().await;
            if self.paused.load(Ordering::Relaxed) {
                continue;
            }
            let Ok(place) = self.places.clone().acquire_owned().await else { return };
            let n = self.next.fetch_add(1, Ordering::Relaxed);
            let senders = self.clone();
            self.tasks.spawn(async move {
                senders.deliver(n).await;
                drop(place);
            });
        }
        // Here, where none is begun any more: one begun behind the wait would be answered unseen.
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// No new deliveries, or again.
    pub fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
    }

    /// No new deliveries: [`Senders::run`] comes to its end.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    async fn deliver(&self, n: u64) {
        let delivery = deliveries::make(self.seed, n);
        self.book().sent += 1;
        let mut pauses = pauses(delivery.source).iter();
        loop {
            if self.attempt(n, &delivery).await {
                break;
            }
            let Some(pause) = pauses.next() else {
                self.book().gave_up += 1;
                return;
            };
            tokio::time::sleep(Duration::from_millis(*pause)).await;
        }
        if fastrand::Rng::with_seed(self.seed ^ n).u8(..100) < REPEATED {
            self.attempt(n, &delivery).await;
        }
    }

    /// True if the provider would not retry.
    async fn attempt(&self, n: u64, delivery: &Delivery) -> bool {
        let mut request = self.client.post(format!("{}/{}", (self.hooks)(), delivery.source));
        if let Some((name, value)) = &delivery.header {
            request = request.header(*name, value);
        }
        let start = Instant::now();
        let answer = async {
            let answer = request.body(delivery.body.clone()).send().await?;
            let (status, again) = (answer.status().as_u16(), answer.headers().contains_key("retry-after"));
            Ok::<_, reqwest::Error>((status, again, answer.bytes().await?))
        }
        .await;
        let took = start.elapsed();
        let mut book = self.book();
        book.attempts += 1;
        let (status, again, body) = match answer {
            Ok(answer) => answer,
            Err(error) if error.is_timeout() => {
                book.late += 1;
                return false;
            }
            // Killed meanwhile: the provider sees a broken connection.
            Err(_) => {
                book.broken += 1;
                return false;
            }
        };
        book.took.record(took.as_millis() as u64).expect("it grows");
        book.slow += u64::from(took > ACK_DEADLINE + SLACK);
        let said: Value = serde_json::from_slice(&body).unwrap_or_default();
        let word = |key: &str| said[key].as_str().unwrap_or_default().to_owned();
        let said = format!("{status} {} {}", word("outcome"), word("reason"));
        *book.answers.entry(said.trim_end().to_owned()).or_default() += 1;
        match (status, &delivery.fate) {
            (401, Fate::Forged) => true,
            (200..300, Fate::Event { .. } | Fate::DeadLetter { .. }) => {
                book.accepted.entry(n).or_insert(Accepted { at: self.start.elapsed(), status });
                true
            }
            (503, _) if again => false,
            (_, fate) => {
                let fate = if *fate == Fate::Forged { "forged" } else { "authentic" };
                book.wrong.push(format!("delivery {n}, {fate}, was answered {said}"));
                false
            }
        }
    }
}
