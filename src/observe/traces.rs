//! OpenTelemetry's spans of deliveries: one for each that is sampled, with children for the wait for its
//! body, for verifying and encoding, and for each send.
//!
//! Whether a delivery is sampled is decided once its signature has verified, or once it has ended without:
//!
//! - A verified caller is one of the trace: its `traceparent` is the parent, its sampled flag is followed
//!   (`ParentBased`), and where it sent none, the ratio decides.
//! - Nobody else is believed. Anybody can send a `traceparent`, with the flag set and a trace id that the
//!   ratio picks (it goes by the id). So what did not verify begins a trace of its own, under an id of ours,
//!   with a link to what was sent; and at most [`STRANGERS`] in a second are up for the ratio at all.
//!
//! Spans hold what the log's line holds: names, ids, places and reasons; no header, no query, no body, and no
//! record's key, which may be any text of the body (`envelope.keys`).
//! `tracestate` and baggage are not read.

mod collect;
mod export;
mod span;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

pub use export::Collector;
use export::{Exports, resource};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use opentelemetry::InstrumentationScope;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
pub use span::{Ending, Outgoing, SendSpanEnd, Sending, Trace};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Deliveries that did not verify, in a second, as with the log's lines: a flood must not push the others'
/// spans out of the queue.
const STRANGERS: NonZeroU32 = NonZeroU32::new(20).unwrap();

/// Makes spans; cheap to clone.
#[derive(Clone)]
pub struct Tracer(Arc<Inner>);

struct Inner {
    tracer: SdkTracer,
    propagator: TraceContextPropagator,
    strangers: DefaultDirectRateLimiter,
    /// `http` or `https`, as our port speaks it.
    scheme: &'static str,
}

/// The task that exports.
pub struct Traces {
    task: JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

impl Traces {
    /// Starts the export; the collector is not waited for, now or later. `tls` is whether our port
    /// speaks it.
    ///
    /// # Errors
    /// When the client cannot be made: no certificates of the system, mostly.
    pub fn start(collector: &Collector, tls: bool) -> anyhow::Result<(Tracer, Self)> {
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
            strangers: RateLimiter::direct(Quota::per_second(STRANGERS)),
            scheme: if tls { "https" } else { "http" },
        };
        Ok((Tracer(Arc::new(inner)), Self { task: tokio::spawn(exports.run()), stop }))
    }

    /// Exports what waits, up to `bound`; what ends after this is dropped.
    pub async fn stop(self, bound: Duration) {
        let Self { mut task, stop } = self;
        // Gone only if it panicked.
        let _ = stop.send(());
        if tokio::time::timeout(bound, &mut task).await.is_err() {
            task.abort();
            tracing::warn!("at the end: the collector did not take the last spans within {bound:?}");
        }
    }
}
