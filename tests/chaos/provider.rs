//! A provider that signs deliveries, sends them over several connections, and keeps each answer.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::StreamExt as _;
use hookstream::load::{self, Answer, LoadPlan};
use tokio_util::sync::CancellationToken;

use crate::support::{PATIENCE, datagrid};

/// Less than the service's `idle_timeout` of 75 s, so that the client never uses a connection that is being closed.
const IDLE: Duration = Duration::from_secs(5);

/// A sender to one source.
#[derive(Clone, Debug)]
pub struct Provider {
    client: reqwest::Client,
    url: String,
}

impl Provider {
    /// A provider for a source of the service at this address.
    pub fn new(hooks: SocketAddr, source: &str) -> anyhow::Result<Self> {
        let client =
            reqwest::Client::builder().timeout(PATIENCE).pool_idle_timeout(IDLE).no_proxy().build()?;
        Ok(Self { client, url: format!("http://{hooks}/hooks/{source}") })
    }

    /// Sends a delivery once.
    pub async fn send(&self, id: &str, body: String) -> anyhow::Result<Answer> {
        let header = datagrid(body.as_bytes());
        let request = self.client.post(&self.url).header("Datagrid-Signature", header).body(body);
        let answer =
            load::post(request, Instant::now()).await.with_context(|| format!("no answer to {id}"))?;
        anyhow::ensure!(answer.known.is_some(), "not an answer of hookstream to {id}: {answer:?}");
        Ok(answer)
    }

    /// Sends a delivery for each id once, over up to `clients` connections; `body` makes the body from the id.
    pub async fn all(
        &self,
        ids: Vec<String>,
        clients: usize,
        body: fn(&str) -> String,
    ) -> anyhow::Result<Vec<(String, Answer)>> {
        let plan = LoadPlan { count: ids.len() as u64, concurrency: clients, rate: None };
        let mut ids = ids.into_iter();
        let mut ended = pin!(load::run(plan, CancellationToken::new(), |_, _| {
            let (provider, id) = (self.clone(), ids.next().unwrap_or_default());
            async move { anyhow::Ok((provider.send(&id, body(&id)).await?, id)) }
        }));
        let mut answers = Vec::new();
        while let Some(ended) = ended.next().await {
            let (answer, id) = ended??;
            answers.push((id, answer));
        }
        Ok(answers)
    }
}

/// Polls until `condition` is true. Returns how long that took, or an error after `timeout`.
pub async fn within(
    what: &str,
    timeout: Duration,
    mut condition: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let mut pause = tokio::time::interval(Duration::from_millis(20));
    while !condition().await? {
        anyhow::ensure!(start.elapsed() < timeout, "timed out after {timeout:?} waiting for {what}");
        pause.tick().await;
    }
    Ok(start.elapsed())
}
