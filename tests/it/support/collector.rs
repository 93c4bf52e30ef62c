//! An OpenTelemetry collector: OTLP over HTTP, in protobuf.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

use super::until;

/// The requests received.
#[derive(Default)]
pub struct Received {
    pub requests: Vec<(HeaderMap, ExportTraceServiceRequest)>,
}

/// A collector that accepts everything.
#[derive(Clone)]
pub struct Collector {
    pub endpoint: String,
    received: Arc<Mutex<Received>>,
}

impl Collector {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let received = Arc::<Mutex<Received>>::default();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().route("/v1/traces", post(receive)).with_state(received.clone());
        #[allow(clippy::disallowed_methods)] // No client is slow here.
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { endpoint, received }
    }

    /// The `[traces]` table with this collector and further lines.
    pub fn table(&self, more: &str) -> String {
        format!("[traces]\nendpoint = {:?}\n{more}", self.endpoint)
    }

    /// All requests received so far.
    pub fn requests(&self) -> Vec<(HeaderMap, ExportTraceServiceRequest)> {
        self.received.lock().unwrap().requests.clone()
    }

    /// All spans received so far.
    pub fn spans(&self) -> Vec<Span> {
        let requests = self.requests().into_iter();
        let resources = requests.flat_map(|(_, request)| request.resource_spans);
        resources.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans).collect()
    }

    /// Waits for the span of a delivery that was answered with this id.
    pub async fn delivery(&self, id: &str) -> Span {
        let find = || self.spans().into_iter().find(|span| text(span, "hookstream.delivery_id") == id);
        until("the delivery's span", async || find().is_some()).await;
        find().unwrap()
    }
}

async fn receive(
    State(received): State<Arc<Mutex<Received>>>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    received.lock().unwrap().requests.push((headers, request));
    StatusCode::OK
}

/// Attributes as text.
pub fn attributes(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Option<AnyValue>| match value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(flag)) => flag.to_string(),
        other => panic!("{other:?}"),
    };
    attributes.iter().map(|one| (one.key.clone(), text(&one.value))).collect()
}

/// One attribute of a span; empty if it is absent.
pub fn text(span: &Span, name: &str) -> String {
    attributes(&span.attributes).remove(name).unwrap_or_default()
}
