//! Processes one HTTP delivery: head, body, outcome, answer.

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::timeout_at;
use tokio_util::task::TaskTracker;

use super::body::{BodyBudget, Charge, NotRead};
use super::client_address::{ClientAddress, ClientResolver};
use super::detach::DetachOnDrop;
use super::diagnosis::{self, DiagnosisQueue};
use super::failed_auth::FailedAuthBudget;
use super::limits::RequestLimits;
use super::report::{DeliveryObserver, DeliveryReport};
use super::verification::{Allowance, Asked, Authentication, Verification};
use super::{Phase, admission, body, response};
use crate::delivery::{Deadline, Delivery, DeliveryId};
use crate::envelope::HandshakeAnswer;
use crate::observe::clock::Clocks;
use crate::observe::metrics;
use crate::observe::traces::{Ending, Trace, Tracer};
use crate::outcome::{Fault, Reason};
use crate::pipeline::{DeliveryResult, Pipeline};
use crate::sources::{Source, Sources};

/// The state that all requests share.
pub struct Ingest {
    /// Replaced as a unit; a delivery keeps the source with which it was admitted.
    pub sources: Arc<ArcSwap<Sources>>,
    pub pipeline: Arc<Pipeline>,
    /// The phase of a shutdown.
    pub phase: watch::Receiver<Phase>,
    /// The tasks that a shutdown waits for.
    pub tasks: TaskTracker,
    pub limits: RequestLimits,
    /// The bytes in use by all bodies.
    pub bodies: BodyBudget,
    /// Limits the work for unverified deliveries.
    pub verification: Verification,
    /// Identifies clients and their limits.
    pub callers: ClientResolver,
    /// Observes each delivery.
    pub watch: DeliveryObserver,
    /// Receives refused deliveries for diagnosis.
    pub refusals: DiagnosisQueue,
    /// Creates spans; `None` if no collector is configured.
    pub tracer: Option<Tracer>,
    /// Detects a wrong system clock.
    pub clocks: Arc<Clocks>,
}

/// What is known once the head is complete.
#[derive(Clone, Copy)]
struct Head {
    id: DeliveryId,
    /// When the head was complete.
    start: Instant,
    client: ClientAddress,
}

/// A delivery with a complete body.
struct Admitted {
    source: Arc<Source>,
    delivery: Delivery,
    deadline: Deadline,
    allowance: Allowance,
    /// Accounts for the body's bytes until the delivery has ended.
    charge: Charge,
}

/// Handles a request.
pub(super) async fn ingest(State(ingest): State<Arc<Ingest>>, request: Request) -> Response {
    let head = Head { id: DeliveryId::new(), start: Instant::now(), client: ingest.callers.client(&request) };
    let source = admission::source(&ingest.sources.load(), request.uri()).cloned();
    let mut trace = Trace::open(ingest.tracer.as_ref(), request.method(), request.headers());
    if let Some(answer) = source.as_deref().and_then(|source| challenge(source, &request, &head)) {
        let ended = DeliveryResult::handshake(answer);
        ingest.report(&head, source.as_deref(), &ended, trace);
        return response::answer(head.id, &ended, *ingest.phase.borrow() > Phase::Serving);
    }
    let (ended, leaves_body_unread) = match admit(&ingest, source.clone(), request, &head).await {
        Ok(admitted) => {
            trace.body_complete();
            (run(&ingest, admitted, head, trace).await, false)
        }
        Err(fault) => {
            let leaves_body_unread = leaves_body_unread(fault.reason);
            if let Some(source) = &source {
                ingest.report_address_refusal(source, &fault, &head);
            }
            let ended = fault.into();
            ingest.report(&head, source.as_deref(), &ended, trace);
            (ended, leaves_body_unread)
        }
    };
    let last = *ingest.phase.borrow() > Phase::Serving || leaves_body_unread;
    response::answer(head.id, &ended, last)
}

/// After these reasons the rest of the body may still arrive, so the connection cannot be reused.
fn leaves_body_unread(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::BodyTooLarge
            | Reason::BodyTooSlow
            | Reason::BodyIncomplete
            | Reason::Overloaded
            | Reason::AddressLimited
    )
}

/// Answered even while the service shuts down: nothing is stored.
fn challenge(source: &Source, request: &Request, head: &Head) -> Option<HandshakeAnswer> {
    let answer = admission::challenge(source, request.method(), request.uri(), request.headers());
    answer.filter(|_| source.admits(head.client.address))
}

async fn admit(
    ingest: &Ingest,
    source: Option<Arc<Source>>,
    request: Request,
    head: &Head,
) -> Result<Admitted, Fault> {
    let received_at = Timestamp::now();
    let source = source.ok_or_else(|| admission::unknown_source(&ingest.sources.load(), request.uri()))?;
    if !source.admits(head.client.address) {
        return Err(Reason::AddressNotAllowed.into());
    }
    admission::check_method(request.method())?;
    if *ingest.phase.borrow() >= Phase::Refusing {
        return Err(Reason::Draining.into());
    }
    source.accepts_coding(request.headers())?;
    let (client, limits) = (&head.client, &ingest.limits);
    // A body without a declared length may have the maximum length.
    let declared = body::declared(request.headers()).and_then(|length| usize::try_from(length).ok());
    let bytes = declared.unwrap_or(usize::MAX).min(limits.max_body);
    let allowance = ingest.callers.allowance(client, source.verifier.cost(bytes).likely)?;
    let deadline = Deadline::new(head.start, source.ack_deadline, limits.reserve);
    let until = deadline.answer.min(head.start + limits.body_timeout);
    let (parts, body) = request.into_parts();
    let read = body::read(&parts.headers, body, limits, until, &ingest.bodies, client.counted()).await;
    let (bytes, charge) = read.map_err(|NotRead { fault, bytes }| {
        // It occupied a slot for a while, and proved nothing.
        ingest.callers.charge(client, FailedAuthBudget::Deliveries, 1);
        ingest.callers.charge(client, FailedAuthBudget::Work, NOT_READ + bytes as u64);
        fault
    })?;
    let delivery = Delivery { id: head.id, uri: parts.uri, headers: parts.headers, body: bytes, received_at };
    Ok(Admitted { source, delivery, deadline, allowance, charge })
}

/// The charge for a body that was not accepted, beside its bytes, against its address's budget of work.
const NOT_READ: u64 = 16 * 1024;

/// Processes a delivery with a complete body: it continues even if the client closes the connection.
async fn run(ingest: &Arc<Ingest>, admitted: Admitted, head: Head, mut trace: Trace) -> DeliveryResult {
    let Admitted { source, delivery, deadline, allowance, mut charge } = admitted;
    let work = {
        let ingest = ingest.clone();
        async move {
            let asked = Asked {
                source: &source,
                client: &head.client,
                allowance,
                deadline,
                callers: &ingest.callers,
                bodies: &ingest.bodies,
                limits: &ingest.limits,
                clocks: &ingest.clocks,
            };
            match ingest.verification.verify(delivery, &mut charge, &asked).await {
                Authentication::Verified(search, stale) => {
                    let ended = match search.verified() {
                        Some(verified) => {
                            ingest.pipeline.run(&source, &verified, stale, deadline, &mut trace).await
                        }
                        None => Fault::from(Reason::SignatureMismatch).into(),
                    };
                    ingest.report(&head, Some(&source), &ended, trace);
                    ended
                }
                Authentication::Unverified(delivery, fault) => {
                    let answer = delivery.as_ref();
                    let answer = answer.and_then(|delivery| admission::posted_challenge(&source, delivery));
                    if let Some(answer) = answer {
                        let ended = DeliveryResult::handshake(answer);
                        ingest.report(&head, Some(&source), &ended, trace);
                        return ended;
                    }
                    ingest.report_address_refusal(&source, &fault, &head);
                    let ended = DeliveryResult::from(fault.clone());
                    ingest.report(&head, Some(&source), &ended, trace);
                    if let (Some(delivery), StatusCode::UNAUTHORIZED) = (delivery, response::status(&ended)) {
                        ingest.refusals.take(source, delivery, &fault, charge);
                    }
                    ended
                }
            }
        }
    };
    let work = DetachOnDrop::new(ingest.tasks.track_future(work));
    match timeout_at(deadline.answer.into(), work).await {
        Ok(Some(ended)) => ended,
        // The pipeline keeps the deadline itself; these two are a second line of defence.
        Ok(None) => Fault::new(Reason::Overloaded, "the delivery's task failed").into(),
        Err(_) => Fault::new(Reason::KafkaUnavailable, "no result within the deadline").into(),
    }
}

impl Ingest {
    /// Shows refusals caused by the client's address in `/status`.
    fn report_address_refusal(&self, source: &Source, fault: &Fault, head: &Head) {
        if matches!(fault.reason, Reason::AddressNotAllowed | Reason::AddressLimited) {
            diagnosis::address_refused(source, fault, &head.client, self.callers.header(), head.id);
        }
    }

    fn report(&self, head: &Head, source: Option<&Source>, ended: &DeliveryResult, trace: Trace) {
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
        (self.watch)(&DeliveryReport { delivery: head.id, client: head.client, source, status, took, ended });
    }
}
