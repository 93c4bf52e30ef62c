//! A schema file gets a new field while deliveries arrive: the id is requested before the swap.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use hookstream::dev::registry;
use rdkafka::message::Message as _;
use serde_json::{Value, json};

use crate::registry::LocalRegistry;
use crate::support::process::{Process, serve};
use crate::support::{Setup, datagrid, kafka, stack, until};

const SCHEMA: &str = include_str!("../../schemas/datagrid/batch_prediction.avsc");

/// The program with its own schema file.
struct Program {
    process: Process,
    hooks: String,
    admin: String,
    source: String,
    schema: PathBuf,
    client: reqwest::Client,
}

impl Program {
    async fn start(dir: &Path, registry: &str) -> Self {
        let mut setup = Setup::new("datagrid");
        setup.registry = format!("http://{registry}");
        setup.rules = "types = [\"batch_prediction.completed\"]".into();
        let file = dir.join("hookstream.toml");
        std::fs::write(&file, setup.toml()).unwrap();
        let schema = dir.join("schemas").join(&setup.source).join("batch_prediction.avsc");
        std::fs::create_dir_all(schema.parent().unwrap()).unwrap();
        std::fs::write(&schema, SCHEMA).unwrap();
        let (process, hooks, admin) = serve(&file);
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let program = Self { process, hooks, admin, source: setup.source, schema, client };
        until("a published delivery", async || program.post("evt_first").await.0 == 200).await;
        program
    }

    /// Posts a delivery with a member that the schema does not have yet. Returns status and reason.
    async fn post(&self, id: &str) -> (u16, Value) {
        let body = json!({"id": id, "event_type": "batch_prediction.completed", "timestamp": 1_775_847_600,
            "data": {"id": "bpred_1", "priority": "very-high"}});
        let body = body.to_string();
        let request = self.client.post(format!("http://{}/hooks/{}", self.hooks, self.source));
        let request = request.header("datagrid-signature", datagrid(body.as_bytes()));
        let answer = request.body(body).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap()["reason"].clone())
    }

    /// Adds the member to the file, or a change that every registry refuses, and sends SIGHUP.
    fn reload(&self, field: &Value) {
        let mut schema: Value = serde_json::from_str(SCHEMA).unwrap();
        let fields = schema["fields"].as_array_mut().unwrap();
        let data = fields.iter_mut().find(|field| field["name"] == "data").unwrap();
        data["type"]["fields"].as_array_mut().unwrap().push(field.clone());
        std::fs::write(&self.schema, schema.to_string()).unwrap();
        let pid = self.process.0.id().to_string();
        assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    }

    async fn ready(&self) -> String {
        let answer = self.client.get(format!("http://{}/readyz", self.admin)).send().await.unwrap();
        answer.text().await.unwrap()
    }

    /// The schema ids of the records in each partition's order. Checks that each record matches its id.
    fn ids(&self) -> Vec<Vec<u32>> {
        let has = |value: &[u8], text: &str| value.windows(text.len()).any(|part| part == text.as_bytes());
        let mut ids = vec![Vec::new(); 3];
        kafka::records(&stack("KAFKA"), &format!("{}.batch_prediction.completed", self.source), |record| {
            let value = record.payload().unwrap();
            let id = u32::from_be_bytes(value[1..5].try_into().unwrap());
            assert!(has(value, "very-high"));
            assert_eq!(
                has(value, "/data/priority"),
                id == 1,
                "only the first schema does not know the member"
            );
            ids[usize::try_from(record.partition()).unwrap()].push(id);
        });
        ids
    }
}

fn priority() -> Value {
    json!({"name": "priority", "type": ["null", "string"], "default": null, "doc": "How urgent it is."})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_delivery_waits_for_the_registry_while_a_schema_changes() {
    // A slow registry, so that deliveries arrive during the request.
    let slow = async |request: Request, next: Next| {
        tokio::time::sleep(Duration::from_millis(300)).await;
        next.run(request).await
    };
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let count = move |request: Request, next: Next| {
        counted.fetch_add(usize::from(request.method() == "POST"), Ordering::Relaxed);
        next.run(request)
    };
    let router: Router = registry::router().layer(from_fn(slow)).layer(from_fn(count));
    let up = LocalRegistry::at("127.0.0.1:0", &router).await;
    let dir = tempfile::tempdir().unwrap();
    let program = Arc::new(Program::start(dir.path(), &up.address).await);
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let senders: Vec<_> = (0..3)
        .map(|sender| {
            let (program, stop, sent) = (program.clone(), stop.clone(), sent.clone());
            tokio::spawn(async move {
                let mut answers = BTreeSet::new();
                while !stop.load(Ordering::Relaxed) {
                    let n = sent.fetch_add(1, Ordering::Relaxed);
                    let (status, reason) = program.post(&format!("evt_{sender}_{n}")).await;
                    answers.insert((status, reason.as_str().unwrap_or_default().to_owned()));
                }
                answers
            })
        })
        .collect();
    let more = async || {
        let before = sent.load(Ordering::Relaxed);
        until("more deliveries", async || sent.load(Ordering::Relaxed) > before + 30).await;
    };
    more().await;
    let before = asked.load(Ordering::Relaxed);
    program.reload(&priority());
    until("the request to the registry", async || asked.load(Ordering::Relaxed) > before).await;
    until("the new schema", async || {
        let reader = program.clone();
        let ids = tokio::task::spawn_blocking(move || reader.ids()).await.unwrap();
        ids.iter().any(|ids| ids.contains(&2))
    })
    .await;
    more().await;
    stop.store(true, Ordering::Relaxed);
    for sender in senders {
        let answers = sender.await.unwrap();
        assert_eq!(answers, BTreeSet::from([(200, String::new())]), "no delivery is answered 503");
    }
    let ids = tokio::task::spawn_blocking(move || program.ids()).await.unwrap();
    assert!(ids.iter().any(|ids| ids.contains(&1)), "{ids:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_type_keeps_its_old_schema_while_the_registry_is_down_or_refuses_the_new_one() {
    let content = registry::router();
    let up = LocalRegistry::at("127.0.0.1:0", &content).await;
    let dir = tempfile::tempdir().unwrap();
    let program = Arc::new(Program::start(dir.path(), &up.address).await);
    let ids = async || {
        let reader = program.clone();
        let mut ids = tokio::task::spawn_blocking(move || reader.ids()).await.unwrap().concat();
        ids.sort_unstable();
        ids
    };
    let waiting =
        async || program.ready().await.contains("publishing with the schema from before the reload");

    // Without a default, the new schema cannot read the old records.
    program.reload(&json!({"name": "priority", "type": "string", "doc": "How urgent it is."}));
    until("the refusal", waiting).await;
    assert_eq!(program.post("evt_refused").await.0, 200);
    assert_eq!(ids().await, [1, 1]);

    let address = up.stop().await;
    program.reload(&priority());
    until("a report of the outage", async || program.ready().await.contains("does not answer")).await;
    assert!(waiting().await);
    assert_eq!(program.post("evt_out").await.0, 200);
    assert_eq!(ids().await, [1, 1, 1]);

    // Rebuilt from scratch: the known id has another schema, and the subject accepts no new one.
    let rebuilt = registry::router();
    let up = LocalRegistry::at("127.0.0.1:0", &rebuilt).await;
    let subject = format!("{}.batch_prediction.completed-value", program.source);
    let url = format!("http://{}/subjects/{subject}/versions", up.address);
    let posted = program.client.post(url).json(&json!({"schema": r#"{"type":"string"}"#}));
    assert_eq!(posted.send().await.unwrap().json::<Value>().await.unwrap(), json!({"id": 1}));
    up.stop().await;
    let up = LocalRegistry::at(&address, &rebuilt).await;
    until("a report of the lost id", async || {
        program.post("evt_lost").await == (503, "schema_unknown".into())
    })
    .await;
    up.stop().await;

    let _up = LocalRegistry::at(&address, &content).await;
    until("the new schema", async || program.post("evt_back").await.0 == 200).await;
    let ids = ids().await;
    assert_eq!(ids.iter().filter(|id| **id == 2).count(), 1, "{ids:?}");
    until("readiness", async || !waiting().await).await;
}
