//! The operator's port.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};

use super::response::json;
use crate::observe::{health::Health, metrics as exported};

#[derive(Clone)]
pub(super) struct Operator {
    pub(super) health: Arc<Health>,
}

/// Never depends on Kafka: a restart would not bring it back.
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// 200 while deliveries can be made durable, "degraded" included; else 503. Says why, by part.
pub(super) async fn readyz(State(operator): State<Operator>) -> Response {
    let readiness = operator.health.readiness();
    let status = if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(status, &readiness)
}

/// Prometheus' text format.
pub(super) async fn metrics() -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], exported::render()).into_response()
}
