//! The spans of one delivery, named after OpenTelemetry's conventions for HTTP, messaging and CloudEvents.

use std::fmt::Display;
use std::time::SystemTime;

use http::{HeaderMap, Method};
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{
    Link, Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _, Tracer as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::Span;

use super::Tracer;
use crate::outcome::{Outcome, Reason};

/// The spans of one delivery, starting at its complete request head. Empty if no collector is configured:
/// each call then costs one branch.
#[derive(Default)]
pub struct Trace(Option<Box<Spans>>);

struct Spans {
    tracer: Tracer,
    method: &'static str,
    /// The context of the request's `traceparent`; invalid if it has none.
    caller: SpanContext,
    /// When the head was complete, when the body was complete, and when verifying and encoding ended.
    head: SystemTime,
    body: Option<SystemTime>,
    encoded: Option<SystemTime>,
    /// `None` until sampling is decided; then a span that may be non-recording.
    server: Option<Span>,
}

/// The result of a delivery, in the words of its log line.
pub struct Ending<'a> {
    pub delivery: &'a dyn Display,
    /// `None` if the request names no configured source.
    pub source: Option<&'a str>,
    pub status: u16,
    pub outcome: Outcome,
    /// Why the delivery is not an event in its topic.
    pub reason: Option<Reason>,
    /// The event's id and type.
    pub event: Option<(&'a str, &'a str)>,
    /// The topic of its record, now or after the spool has been drained.
    pub topic: Option<&'a str>,
    /// The partition and offset in that topic.
    pub place: Option<(i32, i64)>,
}

/// The records of one send.
pub struct Outgoing<'a> {
    /// The topic of all records; `None` if they differ.
    pub topic: Option<&'a str>,
    pub count: usize,
}

/// The span of a send in progress.
pub struct Sending(Span);

/// The outcome of a send.
pub enum SendSpanEnd {
    /// Published, with the partition and offset of the first record.
    Published(i32, i64),
    /// Stored in the spool; the drain publishes it later, under this span's `traceparent`.
    Spooled,
    /// Not published, or not known to be published.
    Failed(Reason),
}

/// Exposes only this header: hookstream does not read what else a propagator supports.
struct Traceparent<'h>(&'h HeaderMap);

impl Extractor for Traceparent<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).filter(|_| key == "traceparent")?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent"]
    }
}

/// A method name of low cardinality, whatever the client sends.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::POST => "POST",
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::CONNECT => "CONNECT",
        Method::TRACE => "TRACE",
        _ => "_OTHER",
    }
}

impl Trace {
    /// Starts the trace at the complete request head.
    pub fn open(tracer: Option<&Tracer>, request: &Method, headers: &HeaderMap) -> Self {
        let Some(tracer) = tracer else { return Self(None) };
        let caller = tracer.0.propagator.extract_with_context(&Context::new(), &Traceparent(headers));
        Self(Some(Box::new(Spans {
            tracer: tracer.clone(),
            method: method(request),
            caller: caller.span().span_context().clone(),
            head: SystemTime::now(),
            body: None,
            encoded: None,
            server: None,
        })))
    }

    /// Records that the body is complete.
    pub fn body_complete(&mut self) {
        if let Some(spans) = &mut self.0 {
            spans.body = Some(SystemTime::now());
        }
    }

    /// Records that the signature was verified: the caller is authentic and may decide on sampling.
    pub fn verified(&mut self) {
        if let Some(spans) = &mut self.0 {
            let parent = Context::new();
            // The sampler would treat an invalid context as a caller that does not want to be sampled.
            let parent = if spans.caller.is_valid() {
                parent.with_remote_span_context(spans.caller.clone())
            } else {
                parent
            };
            spans.begin(Vec::new(), &parent);
        }
    }

    /// Starts the span of a send; `None` if the delivery is not sampled.
    pub fn send(&mut self, outgoing: &Outgoing<'_>) -> Option<Sending> {
        let spans = self.0.as_mut()?;
        let server = spans.server.as_ref().filter(|server| server.is_recording())?;
        let Outgoing { topic, count } = *outgoing;
        let name = topic.map_or_else(|| "send".to_owned(), |topic| format!("send {topic}"));
        let mut attributes = vec![
            KeyValue::new("messaging.system", "kafka"),
            KeyValue::new("messaging.operation.name", "send"),
            KeyValue::new("messaging.operation.type", "send"),
        ];
        attributes.extend(topic.map(|topic| KeyValue::new("messaging.destination.name", topic.to_owned())));
        if count > 1 {
            attributes.push(KeyValue::new("messaging.batch.message_count", count as i64));
        }
        let now = SystemTime::now();
        let builder = SpanBuilder::from_name(name).with_kind(SpanKind::Producer).with_start_time(now);
        let sending = spans.tracer.child(builder.with_attributes(attributes), server);
        spans.encoded.get_or_insert(now);
        Some(Sending(sending))
    }

    /// Ends the trace of the delivery.
    pub fn end(self, ending: &Ending<'_>) {
        let Some(mut spans) = self.0 else { return };
        if spans.server.is_none() {
            if !spans.tracer.0.unverified.take() {
                return;
            }
            let link = Link::with_context(spans.caller.clone());
            // OpenTelemetry omits an invalid context, which means that no `traceparent` was sent.
            spans.begin(vec![link], &Context::new());
        }
        if let Some(server) = spans.server.take().filter(|server| server.is_recording()) {
            spans.end(server, ending);
        }
    }
}

impl Tracer {
    fn child(&self, builder: SpanBuilder, parent: &Span) -> Span {
        let parent = Context::new().with_remote_span_context(parent.span_context().clone());
        self.0.tracer.build_with_context(builder, &parent)
    }
}

impl Spans {
    fn begin(&mut self, links: Vec<Link>, parent: &Context) {
        let builder = SpanBuilder::from_name(self.method).with_kind(SpanKind::Server).with_links(links);
        let builder = builder.with_start_time(self.head);
        self.server = Some(self.tracer.0.tracer.build_with_context(builder, parent));
    }

    fn end(&self, mut server: Span, ending: &Ending<'_>) {
        let now = SystemTime::now();
        let child = |name: &'static str, from: SystemTime, until: SystemTime| {
            let builder = SpanBuilder::from_name(name).with_start_time(from);
            self.tracer.child(builder, &server).end_with_timestamp(until);
        };
        if let Some(body) = self.body {
            child("read body", self.head, body);
            child("verify and encode", body, self.encoded.unwrap_or(now));
        }
        if let Some(source) = ending.source {
            server.update_name(format!("{} {ROUTE}", self.method));
            server.set_attribute(KeyValue::new("http.route", ROUTE));
            server.set_attribute(KeyValue::new("url.path", format!("/hooks/{source}")));
            server.set_attribute(KeyValue::new("hookstream.source", source.to_owned()));
        }
        server.set_attributes([
            KeyValue::new("http.request.method", self.method),
            KeyValue::new("url.scheme", self.tracer.0.scheme),
            KeyValue::new("http.response.status_code", i64::from(ending.status)),
            KeyValue::new("hookstream.delivery_id", ending.delivery.to_string()),
            KeyValue::new("hookstream.outcome", ending.outcome.label()),
        ]);
        if let Some(reason) = ending.reason {
            let label = reason.info().label;
            server.set_attribute(KeyValue::new("hookstream.reason", label));
            // OpenTelemetry's convention for servers: a 4xx is the client's error, not the server's.
            if ending.status >= 500 {
                server.set_attribute(KeyValue::new("error.type", label));
                server.set_status(Status::error(label));
            }
        }
        if let Some((id, event_type)) = ending.event {
            server.set_attribute(KeyValue::new("cloudevents.event_id", id.to_owned()));
            server.set_attribute(KeyValue::new("cloudevents.event_type", event_type.to_owned()));
        }
        if let Some(topic) = ending.topic {
            server.set_attribute(KeyValue::new("messaging.destination.name", topic.to_owned()));
        }
        if let Some((partition, offset)) = ending.place {
            server.set_attributes(place(partition, offset));
        }
        server.end_with_timestamp(now);
    }
}

/// The route of deliveries, as in `http/routes`.
const ROUTE: &str = "/hooks/{source}";

fn place(partition: i32, offset: i64) -> [KeyValue; 2] {
    [
        KeyValue::new("messaging.destination.partition.id", partition.to_string()),
        KeyValue::new("messaging.kafka.offset", offset),
    ]
}

impl Sending {
    /// The `traceparent` header of the records, so that a consumer's span becomes a child of this one.
    pub fn traceparent(&self) -> String {
        let context = self.0.span_context();
        format!("00-{}-{}-01", context.trace_id(), context.span_id())
    }

    pub fn end(mut self, sent: SendSpanEnd) {
        match sent {
            SendSpanEnd::Published(partition, offset) => self.0.set_attributes(place(partition, offset)),
            SendSpanEnd::Spooled => self.0.set_attribute(KeyValue::new("hookstream.spooled", true)),
            SendSpanEnd::Failed(reason) => {
                let label = reason.info().label;
                self.0.set_attribute(KeyValue::new("error.type", label));
                self.0.set_status(Status::error(label));
            }
        }
        self.0.end();
    }
}
