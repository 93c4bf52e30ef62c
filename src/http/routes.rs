//! All URLs on one screen.

use std::sync::Arc;

use axum::Router;
use axum::routing::{any, get, post};

use super::admin::{self, Operator};
use super::ingest::{self, Ingest};

/// The port that providers call.
pub fn hooks(state: Arc<Ingest>) -> Router {
    Router::new().route("/hooks/{source}", any(ingest::take)).fallback(ingest::take).with_state(state)
}

/// The operator's port.
pub fn admin(operator: Operator) -> Router {
    Router::new()
        .route("/", get(admin::page))
        .route("/livez", get(admin::livez))
        .route("/readyz", get(admin::readyz))
        .route("/status", get(admin::status))
        .route("/metrics", get(admin::metrics))
        .route("/spool/requeue", post(admin::requeue))
        .with_state(operator)
}
