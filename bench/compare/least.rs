//! The minimum that a program with hookstream's guarantee needs, with the same libraries: the relay plus the signature, one
//! pass over the JSON, the record's headers, a limit on the wait, an answer and a log line. It has no Avro, keeps no unknown
//! members, and has no metrics, limits, dead letters or spool.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::post;
use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde::Deserialize;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::contender::{Args, block_on, producer, serve};
use crate::deliveries;

/// Like hookstream's `ack_deadline`.
const PATIENCE: Duration = Duration::from_secs(4);

struct Least {
    producer: FutureProducer,
    topics: Vec<String>,
    mac: Hmac<Sha256>,
}

/// serde_json skips all other members, and so checks that they are JSON.
#[derive(Deserialize)]
struct Event<'a> {
    id: &'a str,
    event_type: &'a str,
}

/// Publishes the body to the first topic.
pub fn least(args: Args) -> anyhow::Result<()> {
    let _log = hookstream::observe::log::init_service();
    let (loaded, topics) = (args.load()?, args.topic);
    let mac = Hmac::new_from_slice(deliveries::secret(0).as_bytes())?;
    let least = Arc::new(Least { producer: producer(&loaded)?, topics, mac });
    let router = Router::new().route("/hooks/{source}", post(publish)).with_state(least);
    block_on(serve(loaded, router, false))
}

async fn publish(State(least): State<Arc<Least>>, headers: HeaderMap, body: Bytes) -> impl IntoResponse {
    let (delivery, began, now) = (uuid::Uuid::now_v7(), Instant::now(), jiff::Timestamp::now());
    if !least.signed(&headers, &body) {
        return (StatusCode::UNAUTHORIZED, [(header::CONTENT_TYPE, "application/json")], String::new());
    }
    let event: Event<'_> = serde_json::from_slice(&body).unwrap();
    let topic = &least.topics[0];
    let record_headers = [
        ("ce_specversion", "1.0"),
        ("ce_id", event.id),
        ("ce_source", "/hooks/bench"),
        ("ce_type", event.event_type),
        ("ce_time", &now.to_string()),
        ("content-type", "application/json"),
        ("hookstream-delivery-id", &delivery.to_string()),
        ("hookstream-received-at", &now.to_string()),
        ("hookstream-secret", "BENCH_SECRET_0"),
    ];
    let record_headers =
        record_headers.into_iter().fold(OwnedHeaders::new_with_capacity(9), |all, (key, value)| {
            all.insert(Header { key, value: Some(value) })
        });
    let record = FutureRecord::to(topic).key(event.id).payload(&*body).headers(record_headers);
    let sent = least.producer.send_result(record.timestamp(now.as_millisecond())).ok().unwrap();
    let Ok(Ok(Ok(at))) = tokio::time::timeout(PATIENCE, sent).await else {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            [(header::CONTENT_TYPE, "application/json")],
            String::new(),
        );
    };
    tracing::info!(
        %delivery,
        outcome = "published",
        source = "bench",
        r#type = event.event_type,
        id = event.id,
        topic,
        partition = at.partition,
        offset = at.offset,
        ms = began.elapsed().as_millis() as u64,
    );
    let answer = serde_json::json!({
        "outcome": "published", "id": event.id, "topic": topic, "partition": at.partition, "offset": at.offset,
    });
    (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], answer.to_string())
}

impl Least {
    /// Whether `t=TIME,v1=HEX` is a signature of the time and the body.
    fn signed(&self, headers: &HeaderMap, body: &[u8]) -> bool {
        let header =
            headers.get("datagrid-signature").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let Some((time, claim)) = header.strip_prefix("t=").and_then(|rest| rest.split_once(",v1=")) else {
            return false;
        };
        let mut claimed = [0; 32];
        let mut mac = self.mac.clone();
        mac.update(time.as_bytes());
        mac.update(b".");
        mac.update(body);
        hex::decode_to_slice(claim, &mut claimed).is_ok()
            && bool::from(mac.finalize().into_bytes().as_slice().ct_eq(&claimed))
    }
}
