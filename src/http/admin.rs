//! The operator's port.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio_util::task::TaskTracker;

use super::body::{self, BodyBudget};
use super::guard::Access;
use super::limits::RequestLimits;
use super::response::{json, refuse};
use crate::client::JsonObject;
use crate::observe::health::{Health, PartState};
use crate::observe::metrics::lag::LagSeries;
use crate::observe::metrics::scrape::{self, Now};
use crate::observe::status::{self, InForce, Status};
use crate::sources::Sources;
use crate::spool::{self, Spool};

/// Enough for thousands of ids; a client with more sends several requests.
const MAX_REQUEST: usize = 64 * 1024;

/// The time limit for receiving such a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The state that the operator's port shows and changes.
#[derive(Clone)]
pub struct Operator {
    pub health: Arc<Health>,
    pub spool: Option<Arc<Spool>>,
    /// The current sources; empty if the service does not accept deliveries.
    pub sources: Arc<ArcSwap<Sources>>,
    /// The deliveries between their complete body and their outcome.
    pub in_flight: TaskTracker,
    /// The lag of consumer groups.
    pub lag: LagSeries,
    /// The active configuration; `None` if the service does not accept deliveries.
    pub config: Option<Arc<status::CurrentConfig>>,
    /// Who may use the port.
    pub access: Arc<Access>,
    /// When the service started.
    pub started: Timestamp,
}

/// The page's content security policy: it may send requests to this port only, and may not be framed.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                           connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `/status` and `/metrics` as a page: one file without a build step, which fetches both itself.
pub(super) async fn page() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, PAGE_POLICY),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, include_str!("page.html")).into_response()
}

/// Never depends on Kafka: a restart would not make Kafka available again.
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// 200 while deliveries can be made durable, even if "degraded"; else 503. Names the reasons by component.
pub(super) async fn readyz(State(operator): State<Operator>) -> Response {
    let readiness = operator.health.readiness();
    let status = if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(status, &readiness)
}

/// The service's state as JSON.
pub(super) async fn status(State(operator): State<Operator>) -> Response {
    let now = Timestamp::now();
    let sources = operator.sources.load();
    let spool = operator.spool.as_ref().map(|spool| {
        let spool::Stats { live, parked, bytes, oldest_ms, salvaged, .. } = spool.stats();
        let oldest = oldest_ms.and_then(|ms| Timestamp::from_millisecond(ms).ok());
        status::SpoolStatus { live, parked, bytes, oldest, damage: salvaged.iter().map(damage).collect() }
    });
    let status = Status {
        version: env!("CARGO_PKG_VERSION").into(),
        started: operator.started,
        now,
        readiness: operator.health.readiness(),
        config: operator.config.as_ref().map(|config| InForce::clone(&config.load())),
        in_flight: operator.in_flight.len(),
        spool,
        sources: sources.iter().map(|source| (source.name.clone(), source.status(now))).collect(),
    };
    json(StatusCode::OK, &status)
}

fn damage(salvage: &spool::Salvage) -> status::Damage {
    let spool::Salvage { at, cause, kept, lost, aside } = salvage.clone();
    let (lost_at_least, lost_at_most) = (lost.least, lost.most);
    status::Damage { at, cause, kept, lost_at_least, lost_at_most, aside }
}

/// Prometheus' text format.
pub(super) async fn metrics(State(operator): State<Operator>) -> Response {
    let (sources, readiness) = (operator.sources.load(), operator.health.readiness());
    let now = Now {
        in_flight: operator.in_flight.len(),
        kafka_up: operator.health.kafka.state() == PartState::Ok,
        readiness: &readiness,
        expiring: sources.iter().flat_map(|source| source.expiring_secrets()).collect(),
        lag: &operator.lag,
    };
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], scrape::render(&now))
        .into_response()
}

/// Selects the parked rows that become live again: exactly one of the two members.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RequeueRequest {
    #[serde(default)]
    ids: Option<Vec<i64>>,
    #[serde(default)]
    all: bool,
}

#[derive(Serialize)]
struct RequeueResponse {
    requeued: u64,
}

/// Requeues parked rows: `{"ids":[1,2]}` or `{"all":true}`; answers `{"requeued":2}`.
pub(super) async fn requeue(State(operator): State<Operator>, request: Request) -> Response {
    let Some(spool) = operator.spool else {
        return refuse(StatusCode::NOT_FOUND, "this service has no spool: [spool] dir is not set");
    };
    let (head, body) = request.into_parts();
    let requeue = match requeue_request(&head.headers, body).await {
        Ok(requeue) => requeue,
        Err(refusal) => return refusal,
    };
    let ids = requeue.ids.as_deref();
    match spool.requeue(ids).await {
        Ok(requeued) => {
            tracing::info!(requeued, "parked rows are live again, as requested by the operator");
            json(StatusCode::OK, &RequeueResponse { requeued })
        }
        Err(error) => refuse(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    }
}

async fn requeue_request(headers: &HeaderMap, body: Body) -> Result<RequeueRequest, Response> {
    const FORM: &str = r#"expected {"ids":[1,2]} or {"all":true}"#;
    let media = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !media.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
        return Err(refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "expected content-type: application/json"));
    }
    let limits = RequestLimits {
        max_body: MAX_REQUEST,
        max_body_bytes: MAX_REQUEST,
        body_timeout: REQUEST_TIMEOUT,
        reserve: Duration::ZERO,
    };
    let until = Instant::now() + limits.body_timeout;
    // The port's limit of connections bounds the sum.
    let (bodies, anybody) = (BodyBudget::default(), Ipv4Addr::UNSPECIFIED.into());
    let read = body::read(headers, body, &limits, until, &bodies, anybody);
    let (bytes, _charge) = read.await.map_err(|not_read| {
        let info = not_read.fault.reason.info();
        let mut refusal = refuse(info.status, info.label);
        // The rest of the body may still arrive.
        refusal.headers_mut().insert(header::CONNECTION, http::HeaderValue::from_static("close"));
        refusal
    })?;
    match serde_json::from_slice(&bytes) {
        Ok(JsonObject::<RequeueRequest>(requeue)) if requeue.all != requeue.ids.is_some() => Ok(requeue),
        _ => Err(refuse(StatusCode::BAD_REQUEST, FORM)),
    }
}
