//! OpenTelemetry spans of deliveries: one server span for each sampled delivery, with children for reading the
//! body, for verifying and encoding, and for each send.
//!
//! Sampling is decided once the signature has been verified, or when the delivery ends without:
//!
//! - A verified caller takes part in the trace: its `traceparent` is the parent and its sampled flag decides
//!   (`ParentBased`). If it sent no `traceparent`, the ratio decides.
//! - Other callers are not trusted: anybody can send a `traceparent` with the sampled flag and a trace id that
//!   the ratio selects, because the ratio uses the id. So an unverified delivery starts a trace of its own, under
//!   a new id, with a link to the received one; and at most [`MAX_UNVERIFIED`] per second are considered at all.
//!
//! Spans contain what the log line contains: names, ids, positions and reasons. They contain no header, query,
//! body or record key, since a key may be any text of the body (`envelope.keys`). `tracestate` and baggage are
//! not read.

mod collect;
mod export;
mod span;

use std::sync::Arc;
use std::time::Duration;

pub use export::{Collector, TracesError};
use export::{Exports, resource};
use opentelemetry::InstrumentationScope;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
pub use span::{Ending, Outgoing, SendSpanEnd, Sending, Trace};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::quota::RateLimit;

/// The unverified deliveries per second that may be sampled, as for log lines: a flood must not push other
/// deliveries' spans out of the queue.
const MAX_UNVERIFIED: u32 = 20;

/// Creates spans; cheap to clone.
#[derive(Clone)]
pub struct Tracer(Arc<Inner>);

struct Inner {
    tracer: SdkTracer,
    propagator: TraceContextPropagator,
    unverified: RateLimit,
    /// `http` or `https`, the scheme of hookstream's port.
    scheme: &'static str,
}

/// The export task.
pub struct Traces {
    task: JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

impl Traces {
    /// Starts the export. Neither the start nor a delivery waits for the collector. `tls` is true if
    /// hookstream's port uses TLS.
    ///
    /// # Errors
    /// If the client cannot be created, usually because the system has no certificates.
    pub fn start(collector: &Collector, tls: bool) -> Result<(Tracer, Self), TracesError> {
        let (stop, stopped) = oneshot::channel();
        let resource = resource();
        let (queue, exports) = Exports::new(collector, &resource, stopped)?;
        let ratio = Sampler::TraceIdRatioBased(collector.sample);
        let provider = SdkTracerProvider::builder()
            .with_span_processor(queue)
            .with_sampler(Sampler::ParentBased(Box::new(ratio)))
            .with_resource(resource)
            .build();
        let scope = InstrumentationScope::builder("hookstream").with_version(env!("CARGO_PKG_VERSION"));
        let inner = Inner {
            tracer: provider.tracer_with_scope(scope.build()),
            propagator: TraceContextPropagator::new(),
            unverified: RateLimit::per_second(MAX_UNVERIFIED),
            scheme: if tls { "https" } else { "http" },
        };
        Ok((Tracer(Arc::new(inner)), Self { task: tokio::spawn(exports.run()), stop }))
    }

    /// Exports the waiting spans for up to `bound`; spans that end later are dropped.
    pub async fn stop(self, bound: Duration) {
        let Self { mut task, stop } = self;
        // The receiver is gone only if the task panicked.
        let _ = stop.send(());
        if tokio::time::timeout(bound, &mut task).await.is_err() {
            task.abort();
            tracing::warn!("shutdown: the collector did not accept the last spans within {bound:?}");
        }
    }
}
