//! Honest clients: deliveries at a fixed rate, independent of earlier results.

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use hookstream::load::{self, LoadPlan};
use reqwest::{Client, ClientBuilder};
use tokio_util::sync::CancellationToken;

use crate::support::{batch, datagrid};

/// Deliveries per second, on kept-alive and on new connections in turn.
const RATE: f64 = 100.0;

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
        let count = (long.as_secs_f64() * RATE) as u64;
        let plan = LoadPlan { count, concurrency: usize::MAX, rate: Some(RATE) };
        let mut ended = pin!(load::run(plan, CancellationToken::new(), |n, due| {
            let (client, kind) = if n % 2 == 0 { (&self.kept, "kept") } else { (&self.fresh, "fresh") };
            let id = format!("evt_{name}_{kind}_{n}");
            let body = batch(&id);
            let header = datagrid(body.as_bytes());
            let request = client.post(&self.url).header("datagrid-signature", header).body(body);
            self.sent.insert(id);
            async move { (kind, load::post(request, due).await) }
        }));
        let mut times = Times { kept: Vec::new(), fresh: Vec::new() };
        let mut failed = Vec::new();
        while let Some(ended) = ended.next().await {
            match ended.unwrap() {
                (kind, Ok(answer)) if answer.status == 200 && answer.word() == Some("published") => {
                    let times = if kind == "kept" { &mut times.kept } else { &mut times.fresh };
                    times.push(answer.took);
                }
                (kind, other) => failed.push(format!("{kind}: {other:?}")),
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
