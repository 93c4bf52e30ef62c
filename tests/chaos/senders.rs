//! Clients that send and retry like the two providers, and the ledger of all answers.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use hookstream::load::{self, LoadPlan, Tally};
use tokio_util::sync::CancellationToken;

use crate::deliveries::{self, Delivery, Fate};

/// Grapevine's timeout; Datagrid's is not published, and assumed to be the same.
pub const PROVIDER_TIMEOUT: Duration = Duration::from_secs(5);

/// The service's configured deadline, and how late its answers may be on a busy machine.
pub const ACK_DEADLINE: Duration = Duration::from_secs(4);
const SLACK: Duration = Duration::from_millis(250);

/// The limit of concurrent deliveries, including those that wait for a retry: more than the load reaches.
pub const MAX_CONCURRENT: usize = 4_000;

/// The percentage of deliveries that are sent again after a 2xx answer, as if the answer had been lost.
const REPEATED: u8 = 3;

/// Pauses between attempts in milliseconds. Grapevine's are from its documentation; Datagrid documents only that it may
/// retry.
fn pauses(source: &str) -> &'static [u64] {
    match source {
        "grapevine" => &[500, 1_000, 2_000, 4_000],
        _ => &[1_000, 2_000, 4_000, 8_000, 16_000],
    }
}

/// A delivery that was answered 2xx.
#[derive(Clone, Copy, Debug)]
pub struct Accepted {
    /// The time since the start.
    pub at: Duration,
    /// The status of the first such answer.
    pub status: u16,
}

/// The ledger of deliveries and answers.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// Deliveries sent at least once.
    pub sent: u64,
    /// The answers to all requests.
    pub tally: Tally,
    /// Deliveries that were answered 2xx, by number.
    pub accepted: BTreeMap<u64, Accepted>,
    /// Deliveries that were abandoned after the last attempt.
    pub abandoned: u64,
    /// Requests without an answer within the provider's timeout.
    pub late: u64,
    /// Requests that were answered later than the deadline and its slack.
    pub slow: u64,
    /// Descriptions of forbidden answers.
    pub wrong: Vec<String>,
}

/// Returns the URL for the next request: `http://ADDRESS/hooks`.
pub type Hooks = Box<dyn Fn() -> String + Send + Sync>;

/// The senders and their ledger.
pub struct Senders {
    seed: u64,
    start: Instant,
    hooks: Hooks,
    client: reqwest::Client,
    next: AtomicU64,
    paused: AtomicBool,
    stopped: CancellationToken,
    ledger: Mutex<Ledger>,
}

impl Senders {
    /// Creates the senders without sending.
    pub fn new(seed: u64, hooks: Hooks) -> anyhow::Result<Arc<Self>> {
        let (accepted, wrong) = (BTreeMap::new(), Vec::new());
        let ledger =
            Ledger { sent: 0, tally: Tally::new()?, accepted, abandoned: 0, late: 0, slow: 0, wrong };
        Ok(Arc::new(Self {
            seed,
            start: Instant::now(),
            hooks,
            client: reqwest::Client::builder().timeout(PROVIDER_TIMEOUT).no_proxy().build()?,
            next: AtomicU64::new(0),
            paused: AtomicBool::new(false),
            stopped: CancellationToken::new(),
            ledger: Mutex::new(ledger),
        }))
    }

    /// The current ledger.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("not poisoned")
    }

    /// The number of deliveries that were started.
    pub fn started(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// The answers since the last call, for runs with phases.
    pub fn phase(&self) -> anyhow::Result<Tally> {
        Ok(std::mem::replace(&mut self.ledger().tally, Tally::new()?))
    }

    /// The time since the start, as in [`Accepted::at`].
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Sends new deliveries at this rate until [`Senders::stop`], and ends after the last attempt of each.
    pub async fn run(self: Arc<Self>, per_second: u32) -> anyhow::Result<()> {
        let plan = LoadPlan { count: u64::MAX, concurrency: MAX_CONCURRENT, rate: Some(per_second.into()) };
        let mut ended = pin!(load::run(plan, self.stopped.clone(), |_, _| {
            let senders = self.clone();
            async move {
                if !senders.paused.load(Ordering::Relaxed) {
                    senders.deliver(senders.next.fetch_add(1, Ordering::Relaxed)).await;
                }
            }
        }));
        while let Some(ended) = ended.next().await {
            ended?;
        }
        Ok(())
    }

    /// Pauses or continues new deliveries.
    pub fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
    }

    /// Ends [`Senders::run`] after the deliveries that were started.
    pub fn stop(&self) {
        self.stopped.cancel();
    }

    async fn deliver(&self, n: u64) {
        let delivery = deliveries::make(self.seed, n);
        self.ledger().sent += 1;
        let mut pauses = pauses(delivery.source).iter();
        loop {
            if self.attempt(n, &delivery).await {
                break;
            }
            let Some(pause) = pauses.next() else {
                self.ledger().abandoned += 1;
                return;
            };
            tokio::time::sleep(Duration::from_millis(*pause)).await;
        }
        if fastrand::Rng::with_seed(self.seed ^ n).u8(..100) < REPEATED {
            self.attempt(n, &delivery).await;
        }
    }

    /// Sends a delivery once. Returns whether the provider would not retry.
    async fn attempt(&self, n: u64, delivery: &Delivery) -> bool {
        let mut request = self.client.post(format!("{}/{}", (self.hooks)(), delivery.source));
        if let Some((name, value)) = &delivery.header {
            request = request.header(*name, value);
        }
        let result = load::post(request.body(delivery.body.clone()), Instant::now()).await;
        let mut ledger = self.ledger();
        ledger.tally.add(&result);
        let answer = match result {
            Ok(answer) => answer,
            // If the service was killed, the connection is broken, which does not count as late.
            Err(none) => {
                if none.word == "timed_out" {
                    ledger.late += 1;
                    println!(
                        "{:6.1} s  delivery {n} was not answered in time",
                        self.start.elapsed().as_secs_f64()
                    );
                }
                return false;
            }
        };
        ledger.slow += u64::from(answer.took > ACK_DEADLINE + SLACK);
        match (answer.status, &delivery.fate) {
            (401, Fate::Forged) => true,
            (status @ 200..300, Fate::Event { .. } | Fate::DeadLetter { .. }) => {
                ledger.accepted.entry(n).or_insert(Accepted { at: self.start.elapsed(), status });
                true
            }
            (503, _) if answer.retry_after.is_some() => false,
            (status, fate) => {
                let fate = if *fate == Fate::Forged { "forged" } else { "authentic" };
                let word = answer.word().unwrap_or_default();
                ledger.wrong.push(format!("delivery {n}, {fate}, was answered {status} {word}"));
                false
            }
        }
    }
}
