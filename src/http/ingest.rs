//! One delivery over HTTP: head, body, its way to an end, the answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use axum::extract::{Request, State};
use axum::response::Response;
use http::{Method, StatusCode};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::timeout_at;
use tokio_util::task::TaskTracker;

use super::body::Charged;
use super::callers::{Callers, Client};
use super::line::{Line, Watch};
use super::ours::Ours;
use super::refusals::{self, Refusals};
use super::{Phase, body, response};
use crate::delivery::{Deadline, Delivery, Id};
use crate::observe::metrics;
use crate::observe::traces::{Ending, Trace, Tracer};
use crate::outcome::{Fault, Reason};
use crate::pipeline::{Ended, Pipeline};
use crate::quota::{Held, InUse};
use crate::sources::{Source, Sources};

/// Bounds of a request.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The body, in bytes.
    pub max_body: usize,
    /// All bodies that are being read or whose delivery has not ended, in bytes; past it, 503.
    pub max_body_bytes: usize,
    /// From the complete head to the complete body.
    pub body_timeout: Duration,
    /// What is kept back from Kafka's share of the deadline.
    pub reserve: Duration,
}

/// What the handler shares.
pub struct Ingest {
    /// Swapped as a whole; a delivery keeps the source it was admitted with.
    pub sources: Arc<ArcSwap<Sources>>,
    /// The hot path.
    pub pipeline: Arc<Pipeline>,
    /// How far a shutdown has come.
    pub phase: watch::Receiver<Phase>,
    /// The tasks that a shutdown waits for.
    pub tasks: TaskTracker,
    /// Bounds of a request.
    pub limits: Limits,
    /// Bytes of all bodies.
    pub body_bytes: Arc<InUse>,
    /// Who calls, and how often.
    pub callers: Callers,
    /// Who is told of each delivery.
    pub watch: Watch,
    /// Who finds out why deliveries are refused.
    pub refusals: Refusals,
    /// Who makes spans; `None` where no collector is configured.
    pub tracer: Option<Tracer>,
}

/// What is known from the head on.
#[derive(Clone, Copy)]
struct Head {
    id: Id,
    /// When it was complete.
    start: Instant,
    client: Client,
}

/// What was let in.
struct Admitted {
    source: Arc<Source>,
    delivery: Delivery,
    deadline: Deadline,
    /// Of the body's bytes, until the delivery has ended.
    charge: Held,
}

/// Takes a request to its answer.
pub(super) async fn take(State(ingest): State<Arc<Ingest>>, request: Request) -> Response {
    let head = Head { id: Id::new(), start: Instant::now(), client: ingest.callers.client(&request) };
    let source = source(&ingest, &request);
    let mut trace = Trace::open(ingest.tracer.as_ref(), request.method(), request.headers());
    if let Some(text) = source.as_deref().and_then(|source| challenge(source, &request, &head)) {
        let ended = Ended::handshake(Some(text));
        ingest.tell(&head, source.as_deref(), &ended, trace);
        return response::answer(head.id, &ended, *ingest.phase.borrow() > Phase::Serving);
    }
    let (ended, broken_off) = match admit(&ingest, source.clone(), request, &head).await {
        Ok(admitted) => {
            trace.body_complete();
            (run(&ingest, admitted, head, trace).await, false)
        }
        Err(fault) => {
            let reason = fault.reason;
            let ended = fault.into();
            ingest.tell(&head, source.as_deref(), &ended, trace);
            if let (Some(source), Reason::AddressNotAllowed | Reason::AddressLimited) = (&source, reason) {
                refusals::kept_out(source, reason, &head.client, ingest.callers.header(), head.id);
            }
            (ended, broken_off(reason))
        }
    };
    let last = *ingest.phase.borrow() > Phase::Serving || broken_off;
    response::answer(head.id, &ended, last)
}

/// After these the rest of the body may still be on its way: the connection cannot be used again.
fn broken_off(reason: Reason) -> bool {
    matches!(reason, Reason::BodyTooLarge | Reason::BodyTooSlow | Reason::BodyIncomplete | Reason::Overloaded)
}

fn source(ingest: &Ingest, request: &Request) -> Option<Arc<Source>> {
    let name = request.uri().path().strip_prefix("/hooks/")?;
    ingest.sources.load().get(name).cloned()
}

/// Answered also while the service shuts down: nothing is kept.
fn challenge(source: &Source, request: &Request, head: &Head) -> Option<String> {
    let query = request.uri().query().filter(|_| request.method() == Method::GET)?;
    source.handshakes.challenge(query).filter(|_| source.admits(head.client.address))
}

async fn admit(
    ingest: &Ingest,
    source: Option<Arc<Source>>,
    request: Request,
    head: &Head,
) -> Result<Admitted, Fault> {
    let received_at = Timestamp::now();
    let source = source.ok_or(Fault::from(Reason::SourceUnknown))?;
    if !source.admits(head.client.address) {
        return Err(Reason::AddressNotAllowed.into());
    }
    if request.method() != Method::POST {
        return Err(Reason::MethodNotAllowed.into());
    }
    if *ingest.phase.borrow() >= Phase::Refusing {
        return Err(Reason::Draining.into());
    }
    if ingest.callers.is_limited(&head.client) {
        return Err(Fault::new(Reason::AddressLimited, "unverified_rate_per_address"));
    }
    body::declared(request.headers(), ingest.limits.max_body)?;
    let deadline = Deadline::new(head.start, source.ack_deadline, ingest.limits.reserve);
    let until = deadline.answer.min(head.start + ingest.limits.body_timeout);
    let (parts, body) = request.into_parts();
    let Charged { bytes, charge } = body::read(body, &ingest.limits, until, &ingest.body_bytes).await?;
    let delivery = Delivery { id: head.id, uri: parts.uri, headers: parts.headers, body: bytes, received_at };
    Ok(Admitted { source, delivery, deadline, charge })
}

/// From the complete body on, the delivery is ours: it goes on when the client hangs up.
async fn run(ingest: &Arc<Ingest>, admitted: Admitted, head: Head, mut trace: Trace) -> Ended {
    let Admitted { source, delivery, deadline, charge } = admitted;
    let work = {
        let ingest = ingest.clone();
        async move {
            let ended = ingest.pipeline.run(&source, &delivery, deadline, &mut trace).await;
            ingest.tell(&head, Some(&source), &ended, trace);
            match &ended.result {
                Err(fault) if response::status(&ended) == StatusCode::UNAUTHORIZED => {
                    ingest.callers.count_unverified(&head.client);
                    ingest.refusals.take(source, delivery, fault, charge);
                }
                _ => drop((delivery, charge)),
            }
            ended
        }
    };
    let work = Ours::new(ingest.tasks.track_future(work));
    match timeout_at(deadline.answer.into(), work).await {
        Ok(Some(ended)) => ended,
        // The pipeline holds the deadline itself; these two are the wall behind it.
        Ok(None) => Fault::new(Reason::Overloaded, "the delivery's task failed").into(),
        Err(_) => Fault::new(Reason::KafkaUnavailable, "no end within the deadline").into(),
    }
}

impl Ingest {
    fn tell(&self, head: &Head, source: Option<&Source>, ended: &Ended, trace: Trace) {
        let took = head.start.elapsed();
        let (outcome, reason) = (ended.outcome(), ended.result.as_ref().err().map(|fault| fault.reason));
        match source {
            Some(source) => source.traffic.count(outcome, reason, took, Timestamp::now()),
            None => metrics::unknown_source(outcome, reason, took),
        }
        let known = source.map(|source| source.name.as_str());
        let source = known.unwrap_or(metrics::UNKNOWN_SOURCE);
        let status = response::status(ended).as_u16();
        trace.end(&Ending {
            delivery: &head.id,
            source: known,
            status,
            outcome,
            reason,
            event: ended.event.as_ref().map(|name| (name.id.as_str(), name.event_type.as_str())),
            topic: ended.stored.as_ref().map(|stored| &*stored.topic),
            place: ended.ack().map(|ack| (ack.partition, ack.offset)),
        });
        (self.watch)(&Line { delivery: head.id, client: head.client, source, status, took, ended });
    }
}
