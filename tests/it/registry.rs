//! The registry becomes unavailable, returns, and returns with other schemas under the known ids.

mod start;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{StatusCode, Uri};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use hookstream::config::{self, Environment, LoadedConfig, Networks, Overrides};
use hookstream::dev::registry;
use hookstream::http::{self, ConnectionLimits, Phase};
use hookstream::observe::error_chain::ErrorChain;
use hookstream::observe::health::{Health, PartState};
use hookstream::provision::SchemaRegistrar;
use hookstream::schema::Registry;
use hookstream::schema::decode::{DecodeError, Decoded, Decoder};
use hookstream::sources::Sources;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::security::serve;
use crate::support::{PATIENCE, SECRET, Service, Setup, batch, kafka, stack, until};

const BATCH: &str = include_str!("../../schemas/datagrid/batch_prediction.avsc");
const KNOWLEDGE: &str = include_str!("../../schemas/datagrid/knowledge.processing.completed.avsc");

/// A registry that can be stopped and restarted at the same address.
pub struct LocalRegistry {
    pub address: String,
    phase: watch::Sender<Phase>,
    task: JoinHandle<()>,
}

impl LocalRegistry {
    pub async fn at(address: &str, router: &Router) -> Self {
        let mut listener = None;
        until("the registry's port", async || {
            listener = TcpListener::bind(address).await.ok();
            listener.is_some()
        })
        .await;
        let listener = listener.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let limits = ConnectionLimits {
            max_connections: 16,
            max_per_address: None,
            trusted_proxies: Networks::default(),
            head_timeout: Duration::from_secs(60),
            max_head: 16 * 1024,
        };
        let (phase, phases) = watch::channel(Phase::Serving);
        let task = tokio::spawn(http::serve(listener, router.clone(), limits, || None, phases));
        Self { address, phase, task }
    }

    /// The address, for the next registry.
    pub async fn stop(self) -> String {
        self.phase.send_replace(Phase::Closing);
        self.task.await.unwrap();
        self.address
    }
}

/// A registry in which others have registered these schemas, with ids from 1.
async fn filled(address: &str, schemas: &[&str]) -> LocalRegistry {
    let up = LocalRegistry::at(address, &registry::router()).await;
    for (at, schema) in schemas.iter().enumerate() {
        let url = format!("http://{}/subjects/stranger-{at}/versions", up.address);
        let posted = reqwest::Client::builder().no_proxy().build().unwrap().post(url);
        let answer = posted.json(&json!({"schema": schema})).send().await.unwrap();
        assert_eq!(answer.json::<serde_json::Value>().await.unwrap(), json!({"id": at + 1}));
    }
    up
}

/// A registry that was rebuilt from scratch: the id of the batch predictions is now that of a foreign schema.
async fn rebuilt(address: &str) -> LocalRegistry {
    filled(address, &[r#"{"type":"string"}"#, KNOWLEDGE]).await
}

/// A service that is restarted with the same configuration.
fn setup(source: &str, registry: &str, dir: &Path) -> Setup {
    Setup {
        source: source.into(),
        registry: format!("http://{registry}"),
        tables: format!("[spool]\ndir = \"{}\"\nmin_free = \"1 MiB\"", dir.display()),
        ..Setup::new("datagrid")
    }
}

/// Runs the service once, so that it stores its pinned ids. Returns the source's name.
async fn pinned(registry: &LocalRegistry, dir: &Path) -> String {
    let mut first = setup("", &registry.address, dir);
    first.source = Setup::new("datagrid").source;
    let service = first.ready().await;
    service.datagrid_post(batch("evt_first")).await.is(200, "published", None);
    until("the pins", async || dir.join("pins.json").exists()).await;
    let source = service.source.clone();
    service.app.stop().await.unwrap();
    source
}

fn knowledge(id: &str) -> String {
    format!(
        r#"{{"id":"{id}","event_type":"knowledge.processing.completed","timestamp":1775847600,"data":{{"knowledge_id":"kn_1"}}}}"#
    )
}

fn schemas(service: &Service) -> (PartState, String) {
    let report = service.app.health.schemas.report();
    (report.state, serde_json::to_value(&report).unwrap()["why"].as_str().unwrap_or_default().to_owned())
}

async fn kafka_ready(service: &Service) {
    until("Kafka and its topics to be ready", async || {
        [&service.app.health.kafka, &service.app.health.topics]
            .iter()
            .all(|part| part.state() == PartState::Ok)
    })
    .await;
}

#[tokio::test]
async fn the_next_start_publishes_with_pinned_ids_while_the_registry_is_down() {
    let dir = tempfile::tempdir().unwrap();
    let content = registry::router();
    let up = LocalRegistry::at("127.0.0.1:0", &content).await;
    let source = pinned(&up, dir.path()).await;
    let address = up.stop().await;

    let service = setup(&source, &address, dir.path()).start().await;
    kafka_ready(&service).await;
    service.datagrid_post(batch("evt_out")).await.is(200, "published", None);
    until("a report of the outage", async || schemas(&service).1.contains("does not answer")).await;
    let (status, ready) = service.admin("/readyz").await;
    assert!(status == 200 && ready.contains("\"status\":\"degraded\""), "{ready}");
    assert!(ready.contains("using pinned ids: the registry does not answer"), "{ready}");

    let _up = LocalRegistry::at(&address, &content).await;
    service.wait_ready().await;
    service.datagrid_post(batch("evt_back")).await.is(200, "published", None);
}

#[tokio::test]
async fn another_schema_under_an_id_stops_only_the_types_of_that_id() {
    let dir = tempfile::tempdir().unwrap();
    let up = filled("127.0.0.1:0", &[BATCH, KNOWLEDGE]).await;
    let source = pinned(&up, dir.path()).await;
    let address = up.stop().await;

    // Id 1 was that of the batch predictions; id 2 is still that of the knowledge events.
    let up = rebuilt(&address).await;
    let service = setup(&source, &address, dir.path()).start().await;
    kafka_ready(&service).await;
    until("the loss to be noticed", async || schemas(&service).1.contains("lost or changed")).await;
    service.datagrid_post(batch("evt_lost")).await.is(503, "unavailable", Some("schema_unknown"));
    service.datagrid_post(knowledge("evt_kept")).await.is(200, "published", None);
    let (status, ready) = service.admin("/readyz").await;
    assert!(status == 200 && ready.contains("\"status\":\"degraded\""), "{ready}");
    let alarm = format!("{source}.batch_prediction.completed-value: the registry has lost or changed id 1");
    assert!(ready.contains(&alarm) && ready.contains("pins.json"), "{ready}");
    assert!(!schemas(&service).1.contains("knowledge"), "{ready}");
    service.app.stop().await.unwrap();

    // A restart changes nothing, even before the registry has confirmed it.
    let address = up.stop().await;
    let service = setup(&source, &address, dir.path()).start().await;
    kafka_ready(&service).await;
    service.datagrid_post(batch("evt_lost")).await.is(503, "unavailable", Some("schema_unknown"));
    service.datagrid_post(knowledge("evt_kept_2")).await.is(200, "published", None);
    service.app.stop().await.unwrap();

    // An operator must decide.
    std::fs::remove_file(dir.path().join("pins.json")).unwrap();
    let _up = rebuilt(&address).await;
    let service = setup(&source, &address, dir.path()).ready().await;
    service.datagrid_post(batch("evt_lost")).await.is(200, "published", None);
}

#[tokio::test]
async fn a_restored_registry_is_trusted_again_with_or_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let content = registry::router();
    let up = LocalRegistry::at("127.0.0.1:0", &content).await;
    let source = pinned(&up, dir.path()).await;
    let address = up.stop().await;

    // The registry is empty: it knows none of the ids, and no new ones are requested.
    let empty = registry::router();
    let up = LocalRegistry::at(&address, &empty).await;
    let service = setup(&source, &address, dir.path()).start().await;
    until("the loss to be noticed", async || schemas(&service).1.contains("lost or changed")).await;
    service.datagrid_post(batch("evt_lost")).await.is(503, "unavailable", Some("schema_unknown"));
    assert_eq!(schemas(&service).0, PartState::Down, "no type can be published");
    let subjects = reqwest::get(format!("http://{address}/subjects")).await.unwrap();
    assert_eq!(subjects.text().await.unwrap(), "[]", "nothing was registered in it");
    up.stop().await;
    let up = LocalRegistry::at(&address, &content).await;
    service.wait_ready().await;
    service.datagrid_post(batch("evt_lost")).await.is(200, "published", None);

    up.stop().await;
    let up = LocalRegistry::at(&address, &empty).await;
    service.app.stop().await.unwrap();
    let service = setup(&source, &address, dir.path()).start().await;
    until("the loss to be noticed", async || schemas(&service).1.contains("lost or changed")).await;
    service.app.stop().await.unwrap();
    up.stop().await;
    let _up = LocalRegistry::at(&address, &content).await;
    let service = setup(&source, &address, dir.path()).ready().await;
    service.datagrid_post(batch("evt_lost")).await.is(200, "published", None);
}

/// A loaded configuration with this registry.
pub fn load(registry: &str) -> LoadedConfig {
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(file.path(), setup("datagrid", registry, Path::new("unused")).toml()).unwrap();
    let overrides = Overrides { file: Some(file.path().to_owned()), ..Overrides::default() };
    let environment = Environment::from_iter([(String::from("TEST_SECRET"), String::from(SECRET))]);
    config::load(&overrides, &environment).unwrap()
}

/// Serves the registry behind a layer that may answer in its place.
pub async fn before_registry<F: Future<Output = Option<Response>> + Send + 'static>(
    router: Router,
    answer_for: impl Fn(String) -> F + Clone + Send + Sync + 'static,
) -> String {
    let layer = from_fn(move |request: Request, next: Next| {
        let answer = answer_for(format!("{} {}", request.method(), request.uri()));
        async move {
            match answer.await {
                Some(response) => response,
                None => next.run(request).await,
            }
        }
    });
    serve(router.layer(layer)).await
}

pub fn respond(status: u16, body: serde_json::Value) -> Option<Response> {
    let status = StatusCode::from_u16(status).unwrap();
    Some(
        (status, [("content-type", "application/vnd.schemaregistry.v1+json")], body.to_string())
            .into_response(),
    )
}

#[tokio::test]
async fn the_decoder_reports_what_the_registry_answered_for_a_missing_schema() {
    for (status, body, expected) in [
        (404, json!({"error_code": 40403, "message": "Schema not found"}), DecodeError::NotFound),
        // A proxy before a registry that is unavailable.
        (404, json!({"error": "no such route"}), DecodeError::Refused(StatusCode::NOT_FOUND)),
        (401, json!({"error_code": 401, "message": "no"}), DecodeError::Refused(StatusCode::UNAUTHORIZED)),
        (503, json!({"error_code": 50003, "message": "no leader"}), DecodeError::NoAnswer),
        (200, json!({"schema": "{\"type\":"}), DecodeError::NotAvro),
    ] {
        let asked = Arc::new(AtomicUsize::new(0));
        let registry = before_registry(registry::router(), {
            let asked = asked.clone();
            move |_| {
                asked.fetch_add(1, Ordering::SeqCst);
                let answer = respond(status, body.clone());
                async move { answer }
            }
        })
        .await;
        let registry = Registry::new(&load(registry.strip_prefix("http://").unwrap())).unwrap();
        let mut decoder = Decoder::new(&registry, true);
        for _ in 0..3 {
            let decoded = decoder.decode(b"\0\0\0\0\x07\0").await;
            assert_eq!(decoded, Decoded::Unreadable { schema_id: 7, why: expected }, "{status}");
        }
        assert!(
            asked.load(Ordering::SeqCst) <= 2,
            "the library requests the schema once, and hookstream once more for the cause"
        );
    }
}

async fn is_redirected(status: u16) {
    let real = stack("REGISTRY");
    let target = real.trim_end_matches('/').to_owned();
    let router = Router::new().fallback(async move |uri: Uri| {
        (StatusCode::from_u16(status).unwrap(), [("location", format!("{target}{uri}"))])
    });
    let service = Setup { registry: serve(router).await, ..Setup::new("datagrid") }.start().await;
    kafka_ready(&service).await;
    until("a report of the redirect", async || schemas(&service).1.contains("redirects")).await;
    service.datagrid_post(batch("evt_1")).await.is(503, "unavailable", Some("schema_unknown"));
    let (state, why) = schemas(&service);
    println!("{status}: {why}");
    assert_eq!(state, PartState::Down, "{why}");
    let real = real.trim_end_matches('/');
    assert!(why.contains(&format!("set [registry] url to {real}: it redirects ({status} ")), "{why}");
    assert!(why.contains(&format!(" to {real}/subjects/")), "{why}");
    let topic = service.topic("batch_prediction.completed");
    until("the topic", async || kafka::exists(&topic).await).await;
    assert_eq!(kafka::all(&topic).await.len(), 0, "{status}");
    service.app.stop().await.unwrap();
}

#[tokio::test]
async fn k1_a_registry_that_redirects_gives_no_id_and_is_reported() {
    for status in [301, 302, 303, 307, 308] {
        is_redirected(status).await;
    }
}

#[tokio::test]
async fn k1_an_id_is_used_only_once_the_registry_returns_our_schema_for_it() {
    let mended = Arc::new(AtomicBool::new(false));
    // As after a redirect that turned the POST into a GET: the answer has the id of another schema.
    let registry = before_registry(registry::router(), {
        let mended = mended.clone();
        move |call| {
            let lies = !mended.load(Ordering::SeqCst) && call.starts_with("GET /schemas/ids/");
            async move { respond(200, json!({"schema": "\"string\""})).filter(|_| lies) }
        }
    })
    .await;
    let service = Setup { registry, ..Setup::new("datagrid") }.start().await;
    kafka_ready(&service).await;
    let reported = "but has another schema under that id";
    until("a report of the id", async || schemas(&service).1.contains(reported)).await;
    service.datagrid_post(batch("evt_1")).await.is(503, "unavailable", Some("schema_unknown"));
    mended.store(true, Ordering::SeqCst);
    service.wait_ready().await;
    service.datagrid_post(batch("evt_1")).await.is(200, "published", None);
    assert_eq!(kafka::all(&service.topic("batch_prediction.completed")).await.len(), 1);
}

#[tokio::test]
async fn k14_an_id_that_no_record_can_carry_is_refused() {
    for id in
        ["0", "-1", "2147483648", "4294967295", "4294967296", "1.0", "\"1\"", "null", "99999999999999999999"]
    {
        let body: serde_json::Value = serde_json::from_str(&format!("{{\"id\":{id}}}")).unwrap();
        let registry = before_registry(registry::router(), move |call| {
            let answer = if call.starts_with("POST") { respond(200, body.clone()) } else { None };
            async move { answer }
        })
        .await;
        let loaded = load(registry.strip_prefix("http://").unwrap());
        let (_, schemas) = hookstream::app::compile(&loaded).unwrap();
        let schema = schemas.iter().next().unwrap();
        let client = Registry::new(&loaded).unwrap();
        for register in [true, false] {
            let error = ErrorChain(&client.id(schema, register).await.unwrap_err()).to_string();
            let expected = ["ids are from 1 to 2147483647", "expected an object with an id"];
            assert!(expected.iter().any(|text| error.contains(text)), "{id}: {error}");
        }
    }
}

/// The registry client of a running service without pins on disk: it knows only the ids that it received.
struct Running {
    sources: Arc<arc_swap::ArcSwap<Sources>>,
    health: Arc<Health>,
    task: JoinHandle<()>,
}

impl Running {
    /// Starts with the registry's ids, and checks them every 20 ms.
    async fn start(registry: &str) -> Self {
        let loaded = load(registry);
        let (sources, schemas) = hookstream::app::compile(&loaded).unwrap();
        let sources = Arc::new(arc_swap::ArcSwap::from_pointee(sources));
        let health = Health::new();
        let client = Registry::new(&loaded).unwrap();
        let subjects =
            SchemaRegistrar::new(Arc::new(loaded), client, sources.clone(), health.clone(), schemas, None);
        let task = tokio::spawn(subjects.run(Duration::from_millis(20), mpsc::channel(1).1));
        until("ids", async || health.schemas.state() == PartState::Ok).await;
        Self { sources, health, task }
    }

    fn encodes(&self, event_type: &str) -> bool {
        self.sources.load().get("datagrid").unwrap().route(event_type).unwrap().encoder.is_some()
    }

    fn encodes_all(&self) -> bool {
        self.sources.load().get("datagrid").unwrap().routes().all(|route| route.encoder.is_some())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn k13_a_single_answer_of_a_lagging_replica_stops_no_type() {
    // The number of requests for the ids since the replica lagged; its answer is the first.
    let (lagging, asked) = (Arc::new(AtomicBool::new(false)), watch::Sender::new(0));
    let mut rounds = asked.subscribe();
    let registry = before_registry(registry::router(), {
        let lagging = lagging.clone();
        move |call| {
            let counts = lagging.load(Ordering::SeqCst) && call.starts_with("GET /schemas/ids/");
            if counts {
                asked.send_modify(|count| *count += 1);
            }
            let first = counts && *asked.borrow() == 1;
            let missing = respond(404, json!({"error_code": 40403, "message": "Schema not found"}));
            async move { missing.filter(|_| first) }
        }
    })
    .await;
    let running = Running::start(registry.strip_prefix("http://").unwrap()).await;
    assert!(running.encodes_all());
    lagging.store(true, Ordering::SeqCst);
    // Each check of the five subjects is followed by a check of the published state.
    let watched = async {
        for count in 1..=20 {
            rounds.wait_for(|asked| *asked >= count).await.unwrap();
            assert!(
                running.encodes_all() && running.health.schemas.state() == PartState::Ok,
                "after {count}"
            );
        }
    };
    tokio::time::timeout(PATIENCE, watched).await.expect("repeated checks of the ids");
}

#[tokio::test]
async fn a_running_service_survives_a_registry_outage_and_notices_a_wiped_registry() {
    let up = filled("127.0.0.1:0", &[BATCH, KNOWLEDGE]).await;
    let running = Running::start(&up.address).await;
    let (health, encodes) = (&running.health, |event_type: &str| running.encodes(event_type));
    assert!(encodes("batch_prediction.completed"));

    // In between, the requests get the answer of a proxy whose registry is unavailable.
    let (asked, mut rounds) = watch::channel(0);
    let address = up.stop().await;
    let proxy = Router::new().fallback(move || {
        asked.send_modify(|count| *count += 1);
        async { (axum::http::StatusCode::NOT_FOUND, "default backend - 404") }
    });
    let up = LocalRegistry::at(&address, &proxy).await;
    let waited = tokio::time::timeout(PATIENCE, rounds.wait_for(|count| *count >= 6)).await;
    waited.expect("repeated checks of the ids").unwrap();
    assert!(encodes("batch_prediction.completed") && health.schemas.state() == PartState::Ok);

    up.stop().await;
    let _up = rebuilt(&address).await;
    until("a report of the lost id", async || !encodes("batch_prediction.completed")).await;
    until("readiness", async || health.schemas.state() == PartState::Degraded).await;
    // The request may have come between the registration of the two schemas in the new registry.
    until("the existing id", async || encodes("knowledge.processing.completed")).await;
}
