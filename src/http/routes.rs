//! All routes in one place.

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{any, get, post};

use super::admin::{self, Operator};
use super::guard::guard;
use super::ingest::{self, Ingest};

/// The port that providers call.
pub fn hooks(state: Arc<Ingest>) -> Router {
    Router::new().route("/hooks/{source}", any(ingest::ingest)).fallback(ingest::ingest).with_state(state)
}

/// The operator's port. The two probes are open to anybody.
pub fn admin(operator: Operator) -> Router {
    let guarded = Router::new()
        .route("/", get(admin::page))
        .route("/status", get(admin::status))
        .route("/metrics", get(admin::metrics))
        .route("/spool/requeue", post(admin::requeue))
        .route_layer(from_fn_with_state(operator.access.clone(), guard));
    Router::new()
        .route("/livez", get(admin::livez))
        .route("/readyz", get(admin::readyz))
        .merge(guarded)
        .with_state(operator)
}
