//! The registry goes away, comes back, and comes back with other schemas under our ids.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hookstream::config::{self, Environment, Loaded, Networks, Overrides};
use hookstream::dev::registry;
use hookstream::http::{self, ConnectionLimits, Phase};
use hookstream::observe::health::{Health, State};
use hookstream::provision::Subjects;
use hookstream::schema::Registry;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::support::{PATIENCE, SECRET, Service, Setup, batch, until};

const KNOWLEDGE: &str = include_str!("../../schemas/datagrid/knowledge.processing.completed.avsc");

/// A registry at an address of its own that can be stopped.
pub struct Up {
    pub address: String,
    phase: watch::Sender<Phase>,
    task: JoinHandle<()>,
}

impl Up {
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

    /// Its address, for the next.
    pub async fn stop(self) -> String {
        self.phase.send_replace(Phase::Closing);
        self.task.await.unwrap();
        self.address
    }
}

/// A registry that was rebuilt from nothing: somebody else's schema came first, then these.
async fn rebuilt(address: &str, schemas: &[&str]) -> Up {
    let up = Up::at(address, &registry::router()).await;
    for (at, schema) in [r#"{"type":"string"}"#].iter().chain(schemas).enumerate() {
        let url = format!("http://{}/subjects/stranger-{at}/versions", up.address);
        let posted = reqwest::Client::builder().no_proxy().build().unwrap().post(url);
        let answer = posted.json(&json!({"schema": schema})).send().await.unwrap();
        assert_eq!(answer.json::<serde_json::Value>().await.unwrap(), json!({"id": at + 1}));
    }
    up
}

/// The same service again and again.
fn setup(source: &str, registry: &str, dir: &Path) -> Setup {
    Setup {
        source: source.into(),
        registry: format!("http://{registry}"),
        tables: format!("[spool]\ndir = \"{}\"\nmin_free = \"1 MiB\"", dir.display()),
        ..Setup::new("datagrid")
    }
}

/// A first run that leaves its pins, and its source's name.
async fn pinned(registry: &Up, dir: &Path) -> String {
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

fn schemas(service: &Service) -> (State, String) {
    let report = service.app.health.schemas.report();
    (report.state, serde_json::to_value(&report).unwrap()["why"].as_str().unwrap_or_default().to_owned())
}

async fn kafka_ready(service: &Service) {
    until("Kafka and its topics", async || {
        [&service.app.health.kafka, &service.app.health.topics].iter().all(|part| part.state() == State::Ok)
    })
    .await;
}

#[tokio::test]
async fn the_next_start_publishes_with_pinned_ids_while_the_registry_is_out() {
    let dir = tempfile::tempdir().unwrap();
    let content = registry::router();
    let up = Up::at("127.0.0.1:0", &content).await;
    let source = pinned(&up, dir.path()).await;
    let address = up.stop().await;

    let service = setup(&source, &address, dir.path()).start().await;
    kafka_ready(&service).await;
    service.datagrid_post(batch("evt_out")).await.is(200, "published", None);
    until("the silence to be noticed", async || schemas(&service).1.contains("does not answer")).await;
    let (status, ready) = service.admin("/readyz").await;
    assert!(status == 200 && ready.contains("\"status\":\"degraded\""), "{ready}");
    assert!(ready.contains("from pins: the registry does not answer"), "{ready}");

    let _up = Up::at(&address, &content).await;
    service.wait_ready().await;
    service.datagrid_post(batch("evt_back")).await.is(200, "published", None);
}

#[tokio::test]
async fn a_registry_with_another_schema_under_the_id_stops_the_types_of_that_id_only() {
    let dir = tempfile::tempdir().unwrap();
    let up = Up::at("127.0.0.1:0", &registry::router()).await;
    let source = pinned(&up, dir.path()).await;
    let address = up.stop().await;

    // Id 1 was that of the batch predictions, id 2 is still that of the knowledge.
    let up = rebuilt(&address, &[KNOWLEDGE]).await;
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

    // A restart changes nothing, even before the registry has said it again.
    let address = up.stop().await;
    let service = setup(&source, &address, dir.path()).start().await;
    kafka_ready(&service).await;
    service.datagrid_post(batch("evt_lost")).await.is(503, "unavailable", Some("schema_unknown"));
    service.datagrid_post(knowledge("evt_kept_2")).await.is(200, "published", None);
    service.app.stop().await.unwrap();

    // A person decides.
    std::fs::remove_file(dir.path().join("pins.json")).unwrap();
    let _up = rebuilt(&address, &[KNOWLEDGE]).await;
    let service = setup(&source, &address, dir.path()).ready().await;
    service.datagrid_post(batch("evt_lost")).await.is(200, "published", None);
}

#[tokio::test]
async fn a_registry_that_is_restored_is_trusted_again_without_a_restart_and_by_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let content = registry::router();
    let up = Up::at("127.0.0.1:0", &content).await;
    let source = pinned(&up, dir.path()).await;
    let address = up.stop().await;

    // Empty: every id is unknown there, and none is asked for anew.
    let empty = registry::router();
    let up = Up::at(&address, &empty).await;
    let service = setup(&source, &address, dir.path()).start().await;
    until("the loss to be noticed", async || schemas(&service).1.contains("lost or changed")).await;
    service.datagrid_post(batch("evt_lost")).await.is(503, "unavailable", Some("schema_unknown"));
    assert_eq!(schemas(&service).0, State::Down, "no type is left");
    let subjects = reqwest::get(format!("http://{address}/subjects")).await.unwrap();
    assert_eq!(subjects.text().await.unwrap(), "[]", "nothing was registered in it");
    up.stop().await;
    let up = Up::at(&address, &content).await;
    service.wait_ready().await;
    service.datagrid_post(batch("evt_lost")).await.is(200, "published", None);

    up.stop().await;
    let up = Up::at(&address, &empty).await;
    service.app.stop().await.unwrap();
    let service = setup(&source, &address, dir.path()).start().await;
    until("the loss to be noticed", async || schemas(&service).1.contains("lost or changed")).await;
    service.app.stop().await.unwrap();
    up.stop().await;
    let _up = Up::at(&address, &content).await;
    let service = setup(&source, &address, dir.path()).ready().await;
    service.datagrid_post(batch("evt_lost")).await.is(200, "published", None);
}

fn load(registry: &str) -> Loaded {
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(file.path(), setup("datagrid", registry, Path::new("unused")).toml()).unwrap();
    let overrides = Overrides { file: Some(file.path().to_owned()), ..Overrides::default() };
    let environment = Environment::from_iter([(String::from("TEST_SECRET"), String::from(SECRET))]);
    config::load(&overrides, &environment).unwrap()
}

/// Without pins on disk, too: what runs knows the ids that it was given.
#[tokio::test]
async fn what_runs_bears_a_registry_that_is_out_and_notices_one_that_was_wiped() {
    let up = Up::at("127.0.0.1:0", &registry::router()).await;
    let loaded = load(&up.address);
    let (sources, schemas) = hookstream::app::compile(&loaded).unwrap();
    let sources = Arc::new(arc_swap::ArcSwap::from_pointee(sources));
    let health = Health::new();
    let client = Registry::new(&loaded).unwrap();
    let subjects = Subjects::new(Arc::new(loaded), client, sources.clone(), health.clone(), schemas, None);
    let encodes = |event_type: &str| {
        sources.load().get("datagrid").unwrap().route(event_type).unwrap().encoder.is_some()
    };
    let (asked, mut rounds) = watch::channel(0);
    let every = Duration::from_millis(20);
    let task = tokio::spawn(subjects.run(every, mpsc::channel(1).1));
    until("ids", async || health.schemas.state() == State::Ok).await;
    assert!(encodes("batch_prediction.completed"));

    // In between it is asked, and answers what a proxy says for a registry that is out.
    let address = up.stop().await;
    let proxy = Router::new().fallback(move || {
        asked.send_modify(|count| *count += 1);
        async { (axum::http::StatusCode::NOT_FOUND, "default backend - 404") }
    });
    let up = Up::at(&address, &proxy).await;
    let waited = tokio::time::timeout(PATIENCE, rounds.wait_for(|count| *count >= 6)).await;
    waited.expect("it goes on asking").unwrap();
    assert!(encodes("batch_prediction.completed") && health.schemas.state() == State::Ok);

    up.stop().await;
    let _up = rebuilt(&address, &[KNOWLEDGE]).await;
    until("the loss", async || !encodes("batch_prediction.completed")).await;
    until("readiness", async || health.schemas.state() == State::Degraded).await;
    // It may have been asked between the two schemas of the new registry.
    until("the id that is there", async || encodes("knowledge.processing.completed")).await;
    task.abort();
}
