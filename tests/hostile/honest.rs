//! Honest clients: deliveries at a fixed rate, independent of earlier results.

use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::{Client, ClientBuilder};
use tokio::time::{Instant, interval_at};

use crate::support::{Answer, batch, datagrid};

/// Deliveries per second on kept-alive connections, and as many on new connections.
pub const RATE: u32 = 50;

/// The senders of a provider.
pub struct Honest {
    url: String,
    kept: Client,
    fresh: Client,
    /// The ids of all deliveries, each answered 200.
    pub sent: BTreeSet<String>,
}

/// The sorted times of one round, from when each delivery was due to its answer.
pub struct Times {
    pub kept: Vec<Duration>,
    pub fresh: Vec<Duration>,
}

impl Times {
    pub fn all(&self) -> Vec<Duration> {
        let mut all = [&self.kept[..], &self.fresh[..]].concat();
        all.sort_unstable();
        all
    }
}

impl Honest {
    pub fn new(url: String, client: impl Fn() -> ClientBuilder) -> Self {
        // Below the service's keep-alive limit: a request fails if its connection is being closed, as always in HTTP.
        let kept = client().pool_idle_timeout(Duration::from_secs(5)).build().unwrap();
        let fresh = client().pool_max_idle_per_host(0).build().unwrap();
        Self { url, kept, fresh, sent: BTreeSet::new() }
    }

    /// Sends deliveries for this long; fails if one is not answered `published`.
    pub async fn round(&mut self, name: &str, long: Duration) -> Times {
        let (times, failed) = self.try_round(name, long).await;
        assert!(failed.is_empty(), "{name}: {} deliveries were not published: {}", failed.len(), failed[0]);
        times
    }

    /// Like [`Self::round`], but returns the failures as text.
    pub async fn try_round(&mut self, name: &str, long: Duration) -> (Times, Vec<String>) {
        let pace = Duration::from_secs(1) / RATE;
        let mut tick = interval_at(Instant::now() + pace, pace);
        let mut tasks = Vec::new();
        for n in 0..long.div_duration_f64(pace) as usize {
            let due = tick.tick().await;
            for (client, kind) in [(&self.kept, "kept"), (&self.fresh, "fresh")] {
                let id = format!("evt_{name}_{kind}_{n}");
                let body = batch(&id);
                let header = datagrid(body.as_bytes());
                let request = client.post(&self.url).header("datagrid-signature", header).body(body);
                self.sent.insert(id);
                tasks.push(tokio::spawn(async move {
                    let answer = request.send().await.map_err(|error| format!("{kind}: {error:?}"))?;
                    let took = due.elapsed();
                    let answer = Answer::read(answer).await;
                    let published = answer.status == 200 && answer.body["outcome"] == "published";
                    published.then_some((kind, took)).ok_or_else(|| format!("{kind}, {took:?}: {answer:?}"))
                }));
            }
        }
        let mut times = Times { kept: Vec::new(), fresh: Vec::new() };
        let mut failed = Vec::new();
        for task in tasks {
            match task.await.unwrap() {
                Ok(("kept", took)) => times.kept.push(took),
                Ok((_, took)) => times.fresh.push(took),
                Err(why) => failed.push(why),
            }
        }
        times.kept.sort_unstable();
        times.fresh.sort_unstable();
        (times, failed)
    }
}

/// The smallest value that is not exceeded by `percent` of the times. `times` is sorted.
pub fn percentile(times: &[Duration], percent: usize) -> Duration {
    times[(times.len() * percent).div_ceil(100) - 1]
}
