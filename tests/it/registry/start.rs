//! What a start asks of the registry, and what it does not wait for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use hookstream::dev::registry;
use serde_json::json;

use super::{before_registry, kafka_ready, respond};
use crate::support::{Setup, batch, until};

#[tokio::test]
async fn k5_a_registered_schema_needs_no_right_to_write() {
    let read_only = Arc::new(AtomicBool::new(false));
    let registry = before_registry(registry::router(), {
        let read_only = read_only.clone();
        move |call| {
            let writes = call.starts_with("PUT") || call.starts_with("POST") && call.ends_with("/versions");
            let refused = read_only.load(Ordering::SeqCst) && writes;
            let body = json!({"error_code": 42205, "message": "The registry is in read-only mode"});
            async move { respond(422, body).filter(|_| refused) }
        }
    })
    .await;
    let setup = || Setup { registry: registry.clone(), ..Setup::new("datagrid") };
    let first = setup().ready().await;
    let source = first.source.clone();
    first.app.stop().await.unwrap();
    read_only.store(true, Ordering::SeqCst);
    let service = Setup { source, ..setup() }.ready().await;
    service.datagrid_post(batch("evt_1")).await.is(200, "published", None);
}

#[tokio::test]
async fn w16_types_with_an_id_serve_while_another_subject_is_waited_for() {
    let hangs_since = Arc::new(OnceLock::new());
    let registry = before_registry(registry::router(), {
        let hangs_since = hangs_since.clone();
        // The first subject in the order of their names.
        move |call| {
            let hangs = call.contains(".batch_prediction.cancelled-value");
            let hangs_since = hangs_since.clone();
            async move {
                if hangs {
                    hangs_since.get_or_init(Instant::now);
                    std::future::pending::<()>().await;
                }
                None
            }
        }
    })
    .await;
    let service = Setup { registry, ..Setup::new("datagrid") }.start().await;
    kafka_ready(&service).await;
    until("the other types", async || service.datagrid_post(batch("evt_1")).await.status == 200).await;
    let waited = hangs_since.get().expect("a call that hangs").elapsed();
    // A call to the registry is given up after 10 s.
    assert!(waited < Duration::from_secs(9), "the other types waited {waited:?} for a subject");
}
