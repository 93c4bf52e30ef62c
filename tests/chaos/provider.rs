//! A provider that signs, sends from several connections at once, and keeps each answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::support::{PATIENCE, datagrid};

/// One answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The event's id.
    pub id: String,
    /// The HTTP status.
    pub status: u16,
    /// The reason in the body; empty for none.
    pub reason: String,
    /// Whether the sender is told when to come again.
    pub retry_after: bool,
    /// From the request to the complete answer, as the sender saw it.
    pub took: Duration,
}

/// The service closes a connection that is idle for 75 s (`idle_timeout`): one that the client would
/// use in the same moment is not used any more.
const IDLE: Duration = Duration::from_secs(5);

/// Sends to one source.
#[derive(Clone, Debug)]
pub struct Provider {
    client: reqwest::Client,
    url: String,
}

impl Provider {
    /// For the source of a service that listens there.
    pub fn new(hooks: SocketAddr, source: &str) -> anyhow::Result<Self> {
        let client =
            reqwest::Client::builder().timeout(PATIENCE).pool_idle_timeout(IDLE).no_proxy().build()?;
        Ok(Self { client, url: format!("http://{hooks}/hooks/{source}") })
    }

    /// Sends one delivery, once.
    pub async fn send(&self, id: &str, body: String) -> anyhow::Result<Answer> {
        let start = Instant::now();
        let header = datagrid(body.as_bytes());
        let request = self.client.post(&self.url).header("Datagrid-Signature", header).body(body);
        let answer = request.send().await.with_context(|| format!("no answer to {id}"))?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let text = answer.text().await.with_context(|| format!("half an answer to {id}"))?;
        let took = start.elapsed();
        let body: serde_json::Value = serde_json::from_str(&text).context("an answer that is no JSON")?;
        let reason = body["reason"].as_str().unwrap_or_default().to_owned();
        Ok(Answer {
            id: id.to_owned(),
            status,
            reason,
            retry_after: headers.contains_key("retry-after"),
            took,
        })
    }

    /// Sends each of `ids` once, from `clients` connections, with the body that `body` makes of it.
    pub async fn all(
        &self,
        ids: Vec<String>,
        clients: usize,
        body: fn(&str) -> String,
    ) -> anyhow::Result<Vec<Answer>> {
        let (ids, next) = (Arc::new(ids), Arc::new(AtomicUsize::new(0)));
        let tasks: Vec<_> = (0..clients)
            .map(|_| {
                let (mine, ids, next) = (self.clone(), ids.clone(), next.clone());
                tokio::spawn(async move {
                    let mut answers = Vec::new();
                    while let Some(id) = ids.get(next.fetch_add(1, Ordering::Relaxed)) {
                        answers.push(mine.send(id, body(id)).await?);
                    }
                    anyhow::Ok(answers)
                })
            })
            .collect();
        let mut answers = Vec::new();
        for task in tasks {
            answers.extend(task.await??);
        }
        Ok(answers)
    }
}

/// Looks again and again until `condition` holds; how long that took, or an error past `bound`.
pub async fn within(
    what: &str,
    bound: Duration,
    mut condition: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let mut pause = tokio::time::interval(Duration::from_millis(20));
    while !condition().await? {
        anyhow::ensure!(start.elapsed() < bound, "{what} did not come within {bound:?}");
        pause.tick().await;
    }
    Ok(start.elapsed())
}
