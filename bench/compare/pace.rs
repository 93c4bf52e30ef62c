//! Load at a fixed rate, independent of the answers: each delivery's time counts from when it was due, so that a stalled
//! service cannot hide its stall by slowing the load down.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use hdrhistogram::Histogram;
use hookstream::load::{self, LoadPlan};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::deliveries::Requests;
use crate::load::{Connection, PATIENCE};

/// The result of a load at a fixed rate. Times are in microseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Latency {
    /// The number of measured deliveries.
    pub count: u64,
    /// From when a delivery was due until its answer.
    pub p50: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
    /// From when a delivery was due until it was sent, which is the generator's fault; 99th percentile.
    pub late_p99: u64,
    /// Answers by status, including the warm-up.
    pub answers: BTreeMap<u16, u64>,
}

/// The rate and the duration; deliveries during `warm` are not measured.
#[derive(Clone, Copy)]
pub struct Pace {
    pub rate: u32,
    pub warm: Duration,
    pub time: Duration,
}

impl Pace {
    /// Calls `send` with the number of each delivery, up to `concurrency` at a time. It returns the status of the answer.
    pub async fn run<F: Future<Output = u16> + Send + 'static>(
        self,
        concurrency: usize,
        mut send: impl FnMut(u64) -> F,
    ) -> anyhow::Result<Latency> {
        let count = |time: Duration| (time.as_secs_f64() * f64::from(self.rate)) as u64;
        let plan =
            LoadPlan { count: count(self.warm + self.time), concurrency, rate: Some(self.rate.into()) };
        let mut ended = pin!(load::run(plan, CancellationToken::new(), |n, due| {
            let sending = send(n);
            async move {
                let late = due.elapsed();
                (n, late, sending.await, due.elapsed())
            }
        }));
        let (mut took, mut late, mut answers) =
            (Histogram::<u64>::new(3)?, Histogram::<u64>::new(3)?, BTreeMap::new());
        while let Some(one) = tokio::time::timeout(PATIENCE, ended.next()).await.context("no answer")? {
            let (n, sent, status, answered) = one?;
            *answers.entry(status).or_default() += 1;
            if n >= count(self.warm) {
                late.record(sent.as_micros() as u64)?;
                took.record(answered.as_micros() as u64)?;
            }
        }
        let at = |q| took.value_at_quantile(q);
        Ok(Latency {
            count: took.len(),
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: took.max(),
            late_p99: late.value_at_quantile(0.99),
            answers,
        })
    }
}

/// Posts over this many connections, and waits for all answers. Blocks. A delivery without a free connection waits for one,
/// which counts as part of its time.
pub fn post(
    to: SocketAddr,
    connections: usize,
    requests: &Arc<Requests>,
    pace: Pace,
) -> anyhow::Result<Latency> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut open = Vec::new();
        for _ in 0..connections {
            open.push(Connection::open(to).await?);
        }
        let free = Arc::new(Mutex::new(open));
        pace.run(connections, |_| {
            let (free, requests, n) = (free.clone(), requests.clone(), requests.take(1));
            async move {
                let mut connection =
                    free.lock().unwrap().pop().expect("a connection for each delivery in progress");
                let status = connection.exchange(requests.get(n)).await.unwrap_or(0);
                free.lock().unwrap().push(connection);
                // A broken connection has no status.
                status
            }
        })
        .await
    })
}
