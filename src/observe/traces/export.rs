//! The path of finished spans to the collector: a bounded queue, and one task that exports its spans.
//!
//! The SDK's own batch processor does not fit: it requires a blocking client in a thread of its own, does not end
//! an export that hangs, and does not report how many spans it has dropped.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter as _, SpanProcessor};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::collect::{self, LastAnswer};
use crate::client;
use crate::config::{ConfigErrors, LoadedConfig};
use crate::observe::metrics::{self, Dropped};

/// The queue's capacity in spans, at about 1 KiB each; further spans are dropped.
const QUEUE: usize = 8192;

/// The number of spans in one request; OpenTelemetry's default.
const BATCH: usize = 512;

/// How long the first span of a batch waits for others.
const FILL_TIME: Duration = Duration::from_secs(1);

/// The time limit of one batch, including retries.
const EXPORT: Duration = Duration::from_secs(10);

/// After this time without a failure, the collector counts as healthy again.
const QUIET: Duration = Duration::from_secs(60);

/// The settings of `[traces]` with secrets resolved. `Debug` shows no secret: the headers are marked as sensitive.
#[derive(Debug)]
pub struct Collector {
    url: String,
    headers: HeaderMap,
    /// The ratio of deliveries to export if no verified caller decides.
    pub(super) sample: f64,
}

/// Why the export of spans cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TracesError {
    /// The HTTP client cannot be created, usually because the system has no certificates.
    #[error("cannot create the client of the collector in [traces]")]
    Client(#[source] reqwest::Error),
    /// OpenTelemetry refuses the settings.
    #[error("cannot create the exporter of [traces]")]
    Exporter(#[source] ExporterBuildError),
}

impl Collector {
    /// Returns `None` if no collector is configured.
    pub fn read(loaded: &LoadedConfig, problems: &mut ConfigErrors) -> Option<Self> {
        let rules = &loaded.config.traces;
        let endpoint = rules.endpoint.as_ref()?;
        let mut headers = HeaderMap::new();
        for (name, value) in loaded.trace_headers() {
            let key = format!("traces.headers.{name}");
            let Ok(name) = HeaderName::try_from(name) else {
                problems.add(key, "is not a header name; use one such as authorization");
                continue;
            };
            let value = value.and_then(|text| {
                let value = HeaderValue::try_from(text.expose());
                value.map_err(|_| "the secret has characters that a header cannot contain".to_owned())
            });
            match value {
                Ok(mut value) => {
                    value.set_sensitive(true);
                    headers.insert(name, value);
                }
                Err(message) => problems.add(key, message),
            }
        }
        let url = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
        Some(Self { url, headers, sample: rules.sample })
    }

    /// Uses OTLP/HTTP with protobuf. The client holds the headers, because the exporter's `Debug` would show them.
    fn exporter(&self, last: LastAnswer) -> Result<SpanExporter, TracesError> {
        let client = client::builder().default_headers(self.headers.clone()).timeout(EXPORT);
        let client =
            client::without_certificates_for_http(client, &self.url).build().map_err(TracesError::Client)?;
        let client = collect::CollectorClient { client, last };
        let builder = SpanExporter::builder().with_http().with_http_client(client);
        let builder = builder.with_endpoint(&self.url).with_protocol(Protocol::HttpBinary);
        builder.with_timeout(EXPORT).build().map_err(TracesError::Exporter)
    }
}

/// The resource of the spans; `OTEL_RESOURCE_ATTRIBUTES` adds to it and overrides it.
pub(super) fn resource() -> Resource {
    Resource::builder_empty()
        .with_service_name("hookstream")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("service.instance.id", Uuid::now_v7().to_string()))
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_detector(Box::new(EnvResourceDetector::new()))
        .build()
}

/// Queues finished spans; never waits.
#[derive(Debug)]
pub(super) struct SpanQueue {
    spans: mpsc::Sender<SpanData>,
    /// Dropped spans since the last export.
    dropped: Arc<AtomicUsize>,
}

impl SpanProcessor for SpanQueue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.spans.try_send(span).is_err() {
            metrics::spans_dropped(Dropped::QueueFull, 1);
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Exports the queued spans until it is stopped.
pub(super) struct Exports {
    url: String,
    exporter: SpanExporter,
    spans: mpsc::Receiver<SpanData>,
    dropped: Arc<AtomicUsize>,
    last: LastAnswer,
    /// When sent or dropped, the waiting spans are exported and the task ends.
    stop: oneshot::Receiver<()>,
    failure: ExportTrouble,
}

impl Exports {
    pub(super) fn new(
        collector: &Collector,
        resource: &Resource,
        stop: oneshot::Receiver<()>,
    ) -> Result<(SpanQueue, Self), TracesError> {
        let last = LastAnswer::new(Mutex::new(Ok(0)));
        let mut exporter = collector.exporter(last.clone())?;
        exporter.set_resource(resource);
        let (sender, spans) = mpsc::channel(QUEUE);
        let dropped = Arc::<AtomicUsize>::default();
        let queue = SpanQueue { spans: sender, dropped: dropped.clone() };
        let (url, failure) = (collector.url.clone(), ExportTrouble::default());
        Ok((queue, Self { url, exporter, spans, dropped, last, stop, failure }))
    }

    pub(super) async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let stopping = tokio::select! {
                _ = &mut self.stop => true,
                () = fill_batch(&mut self.spans, &mut batch) => false,
            };
            self.export(&mut batch).await;
            if stopping {
                break;
            }
        }
        self.spans.close();
        while self.spans.recv_many(&mut batch, BATCH).await > 0 {
            self.export(&mut batch).await;
        }
    }

    async fn export(&mut self, batch: &mut Vec<SpanData>) {
        let count = batch.len();
        if count == 0 {
            return;
        }
        let spans = std::mem::replace(batch, Vec::with_capacity(BATCH));
        // The exporter's own time limit does not end a request that hangs.
        let exported = timeout(EXPORT, self.exporter.export(spans)).await;
        let last = std::mem::replace(&mut *self.last.lock().unwrap_or_else(PoisonError::into_inner), Ok(0));
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        let (accepted, failure) = match (exported, last) {
            (Ok(Ok(())), Ok(0)) => (
                count,
                (dropped > 0).then(|| "deliveries produce spans faster than it accepts them".to_owned()),
            ),
            (Ok(Ok(())), Ok(refused)) => {
                let refused = refused.min(count);
                (count - refused, Some(format!("it rejected {refused} of {count} spans")))
            }
            // The error of the last attempt.
            (_, Err(why)) => (0, Some(why)),
            (Ok(Err(error)), Ok(_)) => (0, Some(error.to_string())),
            (Err(_), Ok(_)) => (0, Some(format!("no answer within {EXPORT:?}"))),
        };
        if accepted > 0 {
            metrics::spans_exported(accepted);
        }
        if accepted < count {
            metrics::spans_dropped(Dropped::ExportFailed, count - accepted);
        }
        self.failure.report(&self.url, failure);
    }
}

/// Fills the batch until it is full or [`FILL_TIME`] has passed.
async fn fill_batch(spans: &mut mpsc::Receiver<SpanData>, batch: &mut Vec<SpanData>) {
    let full = async {
        while batch.len() < BATCH && spans.recv_many(batch, BATCH - batch.len()).await > 0 {}
        if batch.is_empty() {
            // The queue is closed, so this task is about to end.
            std::future::pending::<()>().await;
        }
    };
    let _ = timeout(FILL_TIME, full).await;
}

/// The collector's failure state: one warning at its first failure instead of one for each batch.
#[derive(Default)]
struct ExportTrouble {
    /// When the warning was logged, and when the last failure occurred.
    warned: Option<Instant>,
    seen: Option<Instant>,
}

impl ExportTrouble {
    fn report(&mut self, url: &str, failure: Option<String>) {
        let now = Instant::now();
        let quiet_since = |since: Option<Instant>| since.is_none_or(|since| now - since >= QUIET);
        match failure {
            Some(why) => {
                self.seen = Some(now);
                if self.warned.is_none() {
                    self.warned = Some(now);
                    tracing::warn!(
                        collector = url,
                        why,
                        "spans are dropped and counted in hookstream_spans_dropped_total; \
                        deliveries do not wait for the collector"
                    );
                }
            }
            None if self.warned.is_some() && quiet_since(self.seen) => {
                self.warned = None;
                tracing::info!(collector = url, "the collector accepts spans again");
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests;
