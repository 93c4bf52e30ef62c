//! What a start asks of the registry, and what it does not wait for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

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

/// Counts the requests that were given up.
struct GivenUp(Arc<AtomicUsize>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn w16_types_with_an_id_serve_while_another_subject_is_waited_for() {
    let (asked, given_up) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let registry = before_registry(registry::router(), {
        let (asked, given_up) = (asked.clone(), given_up.clone());
        // The first subject in the order of their names.
        move |call| {
            let hangs = call.contains(".batch_prediction.cancelled-value");
            let (asked, given_up) = (asked.clone(), given_up.clone());
            async move {
                if hangs {
                    asked.fetch_add(1, Ordering::SeqCst);
                    let _waited_for = GivenUp(given_up);
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
    let hung = asked.load(Ordering::SeqCst) > given_up.load(Ordering::SeqCst);
    assert!(hung, "the other types waited until the registry was given up");
}
