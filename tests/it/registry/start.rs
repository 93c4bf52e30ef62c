//! What a start asks of the registry, and what it does not wait for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hookstream::dev::registry;
use serde_json::json;

use super::{before_registry, respond};
use crate::support::{Setup, batch};

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
