//! The way of finished spans to the collector: a bounded queue, and one task that empties it.
//!
//! Not the SDK's own batch processor: it wants a client that blocks, in a thread of its own, does not
//! end an export that hangs, and tells nobody how many spans it has dropped.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
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

/// Spans that may wait, at about 1 KiB each; past it they are dropped.
const QUEUE: usize = 8192;

/// Spans of one request; OpenTelemetry's default.
const BATCH: usize = 512;

/// How long the first span of a batch waits for more.
const GATHER: Duration = Duration::from_secs(1);

/// What one batch may take, with its retries.
const EXPORT: Duration = Duration::from_secs(10);

/// Between two warnings; and so long without trouble, the collector is well again.
const QUIET: Duration = Duration::from_secs(60);

/// `[traces]`, its secrets read. `Debug` shows none: the headers are marked as sensitive.
#[derive(Debug)]
pub struct Collector {
    url: String,
    headers: HeaderMap,
    /// The part of deliveries that is exported where no verified caller decides.
    pub(super) sample: f64,
}

impl Collector {
    /// `None` where none is named.
    pub fn read(loaded: &LoadedConfig, problems: &mut ConfigErrors) -> Option<Self> {
        let rules = &loaded.config.traces;
        let endpoint = rules.endpoint.as_ref()?;
        let mut headers = HeaderMap::new();
        for (name, value) in loaded.trace_headers() {
            let key = format!("traces.headers.{name}");
            let Ok(name) = HeaderName::try_from(name) else {
                problems.add(key, "is no name of a header; write one such as authorization");
                continue;
            };
            let value = value.and_then(|text| {
                let value = HeaderValue::try_from(text.expose());
                value.map_err(|_| "the secret has characters that no header can hold".to_owned())
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

    /// OTLP/HTTP in protobuf. The headers are the client's and not the exporter's, which would show them.
    fn exporter(&self, last: LastAnswer) -> anyhow::Result<SpanExporter> {
        let client = client::builder().default_headers(self.headers.clone()).timeout(EXPORT);
        // The system's certificates are not needed, and a bare container has none.
        let client = if self.url.starts_with("http://") { client.tls_certs_only([]) } else { client };
        let client = client.build().context("the client of the collector of [traces]")?;
        let client = collect::CollectorClient { client, last };
        let builder = SpanExporter::builder().with_http().with_http_client(client);
        let builder = builder.with_endpoint(&self.url).with_protocol(Protocol::HttpBinary);
        builder.with_timeout(EXPORT).build().context("the exporter of [traces]")
    }
}

/// Who the spans are from; `OTEL_RESOURCE_ATTRIBUTES` adds to it, and stands above.
pub(super) fn resource() -> Resource {
    Resource::builder_empty()
        .with_service_name("hookstream")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("service.instance.id", Uuid::now_v7().to_string()))
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_detector(Box::new(EnvResourceDetector::new()))
        .build()
}

/// Takes finished spans; never waits.
#[derive(Debug)]
pub(super) struct SpanQueue {
    spans: mpsc::Sender<SpanData>,
    /// Since it was last looked at.
    left_out: Arc<AtomicUsize>,
}

impl SpanProcessor for SpanQueue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.spans.try_send(span).is_err() {
            metrics::spans_dropped(Dropped::QueueFull, 1);
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Empties the queue, until it is told to stop.
pub(super) struct Exports {
    url: String,
    exporter: SpanExporter,
    spans: mpsc::Receiver<SpanData>,
    left_out: Arc<AtomicUsize>,
    last: LastAnswer,
    /// Sent, or dropped: the last spans are exported, and no more.
    stop: oneshot::Receiver<()>,
    trouble: ExportTrouble,
}

impl Exports {
    pub(super) fn new(
        collector: &Collector,
        resource: &Resource,
        stop: oneshot::Receiver<()>,
    ) -> anyhow::Result<(SpanQueue, Self)> {
        let last = LastAnswer::new(Mutex::new(Ok(0)));
        let mut exporter = collector.exporter(last.clone())?;
        exporter.set_resource(resource);
        let (sender, spans) = mpsc::channel(QUEUE);
        let left_out = Arc::<AtomicUsize>::default();
        let queue = SpanQueue { spans: sender, left_out: left_out.clone() };
        let (url, trouble) = (collector.url.clone(), ExportTrouble::default());
        Ok((queue, Self { url, exporter, spans, left_out, last, stop, trouble }))
    }

    pub(super) async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let stopping = tokio::select! {
                _ = &mut self.stop => true,
                () = gather(&mut self.spans, &mut batch) => false,
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
        // The exporter's own bound ends no request that hangs.
        let exported = timeout(EXPORT, self.exporter.export(spans)).await;
        let last = std::mem::replace(&mut *self.last.lock().unwrap_or_else(PoisonError::into_inner), Ok(0));
        let left_out = self.left_out.swap(0, Ordering::Relaxed);
        let (taken, trouble) = match (exported, last) {
            (Ok(Ok(())), Ok(0)) => (count, (left_out > 0).then(|| "more come than it takes".to_owned())),
            (Ok(Ok(())), Ok(refused)) => {
                let refused = refused.min(count);
                (count - refused, Some(format!("it has refused {refused} of {count} spans")))
            }
            // Of the last try, where there were several.
            (_, Err(why)) => (0, Some(why)),
            (Ok(Err(error)), Ok(_)) => (0, Some(error.to_string())),
            (Err(_), Ok(_)) => (0, Some(format!("no answer within {EXPORT:?}"))),
        };
        if taken > 0 {
            metrics::spans_exported(taken);
        }
        if taken < count {
            metrics::spans_dropped(Dropped::ExportFailed, count - taken);
        }
        self.trouble.tell(&self.url, trouble);
    }
}

/// Until a batch is full, or [`GATHER`] is over.
async fn gather(spans: &mut mpsc::Receiver<SpanData>, batch: &mut Vec<SpanData>) {
    let full = async {
        while batch.len() < BATCH && spans.recv_many(batch, BATCH - batch.len()).await > 0 {}
        if batch.is_empty() {
            // The queue is gone, and so will we be.
            std::future::pending::<()>().await;
        }
    };
    let _ = timeout(GATHER, full).await;
}

/// What was said of the collector: a warning where it begins to fail, and not one for each batch.
#[derive(Default)]
struct ExportTrouble {
    /// When it was last warned of, and when it last was seen.
    told: Option<Instant>,
    seen: Option<Instant>,
}

impl ExportTrouble {
    fn tell(&mut self, url: &str, trouble: Option<String>) {
        let now = Instant::now();
        let past = |since: Option<Instant>| since.is_none_or(|since| now - since >= QUIET);
        match trouble {
            Some(why) => {
                self.seen = Some(now);
                if self.told.is_none() {
                    self.told = Some(now);
                    tracing::warn!(
                        collector = url,
                        why,
                        "spans are dropped, and counted in hookstream_spans_dropped_total; \
                         deliveries do not wait for the collector"
                    );
                }
            }
            None if self.told.is_some() && past(self.seen) => {
                self.told = None;
                tracing::info!(collector = url, "spans are exported again");
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests;
