//! Honest clients: deliveries at a fixed rate, whatever became of those before.

use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::{Client, ClientBuilder};
use tokio::time::{Instant, interval_at};

use crate::support::{Answer, batch, datagrid};

/// Deliveries in a second, on connections that are kept, and as many with one of their own each.
pub const RATE: u32 = 50;

/// A provider's senders.
pub struct Honest {
    url: String,
    kept: Client,
    fresh: Client,
    /// Ids of all that were sent, each answered 200.
    pub sent: BTreeSet<String>,
}

/// Times of one round, from when each delivery was due to its answer; sorted.
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
        // Below the service's keep-alive limit: a request on a connection that is just being closed
        // fails, as everywhere in HTTP.
        let kept = client().pool_idle_timeout(Duration::from_secs(5)).build().unwrap();
        let fresh = client().pool_max_idle_per_host(0).build().unwrap();
        Self { url, kept, fresh, sent: BTreeSet::new() }
    }

    /// Sends for so long; fails where one is not answered `published`.
    pub async fn round(&mut self, name: &str, long: Duration) -> Times {
        let (times, failed) = self.try_round(name, long).await;
        assert!(failed.is_empty(), "{name}: {} deliveries were not published: {}", failed.len(), failed[0]);
        times
    }

    /// The same, and what was not answered `published`, in words.
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

/// The least that so many of 100 do not exceed. `times` is sorted.
pub fn percentile(times: &[Duration], percent: usize) -> Duration {
    times[(times.len() * percent).div_ceil(100) - 1]
}
