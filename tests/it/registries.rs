//! Registries in different set-ups: client certificates, contexts, other subject names, schemas that only others
//! register. The real registry is Apicurio; where Confluent's differs, the embedded registry follows Confluent's
//! documentation.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use hookstream::dev::registry;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};

use crate::cli::{hookstream, run};
use crate::security::{behind_tls, serve, tls, with_registry};
use crate::support::{SECRET, Setup, batch, until};

const KNOWLEDGE: &str = include_str!("../../schemas/datagrid/knowledge.processing.completed.avsc");
const BATCH: &str = include_str!("../../schemas/datagrid/batch_prediction.avsc");

/// A set-up with these lines in `[registry]`.
fn setup(registry: &str, lines: &str) -> Setup {
    Setup { registry: format!("{registry}\"\n{lines}\n# \""), ..Setup::new("datagrid") }
}

async fn get(url: String) -> Value {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    client.get(url).send().await.unwrap().json().await.unwrap()
}

async fn register(registry: &str, subject: &str, schema: &str) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let body = json!({"schemaType": "AVRO", "schema": schema});
    let answer =
        client.post(format!("{registry}/subjects/{subject}/versions")).json(&body).send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
}

/// Runs a command with a set-up's configuration.
async fn command(setup: &Setup, arguments: &'static [&'static str]) -> (i32, String, String) {
    let toml = setup.toml();
    let work = move || {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("own.toml"), toml).unwrap();
        let mut command = hookstream(directory.path());
        run(command.args(arguments).args(["-c", "own.toml"]).env("TEST_SECRET", SECRET))
    };
    let (code, stdout, stderr) = tokio::task::spawn_blocking(work).await.unwrap();
    println!("{stdout}{stderr}");
    (code, stdout, stderr)
}

#[tokio::test(flavor = "multi_thread")]
async fn record_name_subjects_are_shared_by_the_types_of_one_schema() {
    let registry = serve(registry::router()).await;
    let service = setup(&registry, "subject_name_strategy = \"record_name\"").ready().await;
    service.datagrid_post(batch("evt_1")).await.is(200, "published", None);
    let subjects =
        ["BatchPrediction", "KnowledgeProcessingCompleted"].map(|name| format!("hookstream.datagrid.{name}"));
    assert_eq!(get(format!("{registry}/subjects")).await, json!(subjects));
    let level = get(format!("{registry}/config/{}", subjects[0])).await;
    assert_eq!(level["compatibilityLevel"], "FULL_TRANSITIVE");
    let (code, stdout, _) =
        command(&setup(&registry, "subject_name_strategy = \"record_name\""), &["check", "--online"]).await;
    assert!(code == 0 && stdout.contains("registry    ok   no auth, 2 of 2 subjects"), "{stdout}");
}

#[tokio::test(flavor = "multi_thread")]
async fn topic_record_name_subjects_work_on_the_real_registry() {
    let mut own = setup(&crate::support::stack("REGISTRY"), "subject_name_strategy = \"topic_record_name\"");
    own.rules = "compatibility = \"BACKWARD_TRANSITIVE\"".into();
    let (source, real) = (own.source.clone(), crate::support::stack("REGISTRY"));
    let service = own.ready().await;
    service.datagrid_post(batch("evt_1")).await.is(200, "published", None);
    let subject = format!("{source}.batch_prediction.completed-hookstream.datagrid.BatchPrediction");
    assert_eq!(get(format!("{real}/subjects/{subject}/versions")).await, json!([1]));
    assert_eq!(get(format!("{real}/config/{subject}")).await["compatibilityLevel"], "BACKWARD_TRANSITIVE");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_schemas_with_one_record_name_are_a_problem_before_any_request() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(directory.path().join("schemas/own")).unwrap();
    std::fs::write(
        directory.path().join("schemas/own/batch_prediction.avsc"),
        BATCH.replace("A batch", "One batch"),
    )
    .unwrap();
    let source = |name: &str| {
        format!(
            "[source.{name}]\npreset = \"datagrid\"\ntypes = [\"batch_prediction.completed\"]\nsecrets = [{{ env = \"TEST_SECRET\" }}]\n"
        )
    };
    let toml = format!(
        "[registry]\nsubject_name_strategy = \"record_name\"\n{}{}",
        source("datagrid"),
        source("own")
    );
    std::fs::write(directory.path().join("own.toml"), toml).unwrap();
    let mut command = hookstream(directory.path());
    let (code, stdout, _) = run(command.args(["check", "-c", "own.toml"]).env("TEST_SECRET", SECRET));
    let problem =
        "schema of own batch_prediction.completed: has the record name hookstream.datagrid.BatchPrediction";
    assert!(code == 1 && stdout.contains(problem), "{stdout}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_others_register_is_requested_with_a_command_and_used_once_it_exists() {
    let own = setup(&crate::support::stack("REGISTRY"), "auto_register = false");
    let real = crate::support::stack("REGISTRY");
    // The last schema that is requested.
    register(&real, &format!("{}.knowledge.processing.completed-value", own.source), KNOWLEDGE).await;
    let subject = format!("{}.batch_prediction.completed-value", own.source);
    let same = Setup {
        source: own.source.clone(),
        registry: own.registry.clone(),
        rules: own.rules.clone(),
        ..Setup::new("datagrid")
    };
    let service = own.start().await;
    let missing = format!(
        "the schema of subject {subject} was not found in the registry (`hookstream provision --apply \
                           -X registry.auto_register=true` registers it)"
    );
    until("a report of the missing schema", async || service.admin("/readyz").await.1.contains(&missing))
        .await;
    service.datagrid_post(batch("evt_1")).await.is(503, "unavailable", Some("schema_unknown"));
    let registered =
        r#"{"id":"evt_k","event_type":"knowledge.processing.completed","timestamp":1775847600,"data":{}}"#;
    until("the type with a registered schema", async || {
        service.datagrid_post(registered).await.status == 200
    })
    .await;
    let (code, stdout, _) = command(&same, &["provision", "--apply"]).await;
    let advice = format!(
        "! subject {subject}\n    ! not registered, and [registry] auto_register is false: `hookstream provision --apply"
    );
    assert!(code == 2 && stdout.contains(&advice), "{stdout}");
    assert_eq!(
        get(format!("{real}/subjects/{subject}/versions")).await["error_code"],
        40401,
        "nothing was registered"
    );
    let (code, stdout, _) = command(&same, &["check", "--online"]).await;
    let mut lines = stdout.lines();
    let missing =
        |line: &str| line.contains(&subject) && line.ends_with("missing: [registry] auto_register is false");
    assert!(code == 1 && lines.any(missing), "{stdout}");
    assert!(
        stdout.contains("next: `hookstream provision --apply -X registry.auto_register=true` registers"),
        "{stdout}"
    );

    let (code, stdout, _) =
        command(&same, &["provision", "--apply", "-X", "registry.auto_register=true"]).await;
    assert!(
        code == 0 && stdout.contains(&format!("done    register the schema of subject {subject}\n")),
        "{stdout}"
    );
    service.wait_ready().await;
    service.datagrid_post(batch("evt_1")).await.is(200, "published", None);
    assert_eq!(command(&same, &["provision"]).await.0, 0);
}

/// The requested paths with queries.
fn recorded(router: Router) -> (Router, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let into = asked.clone();
    let record = move |request: Request, next: Next| {
        into.lock().unwrap().push(format!("{} {}", request.method(), request.uri()));
        next.run(request)
    };
    (router.layer(from_fn(record)), asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_with_a_schema_asks_to_normalize_it() {
    let (router, asked) = recorded(registry::router());
    let registry = serve(router).await;
    let mut own = setup(&registry, "normalize = true");
    own.rules = "types = [\"batch_prediction.completed\"]".into();
    let (source, rules) = (own.source.clone(), own.rules.clone());
    let subject = format!("{source}.batch_prediction.completed-value");
    let mut older: Value = serde_json::from_str(BATCH).unwrap();
    older["doc"] = "another".into();
    register(&registry, &subject, &older.to_string()).await;
    asked.lock().unwrap().clear();
    let same = Setup { source, rules, ..setup(&registry, "normalize = true") };
    assert_eq!(command(&same, &["provision", "--apply"]).await.0, 0);
    own.ready().await;
    let asked = asked.lock().unwrap().clone();
    for expected in [
        format!("POST /subjects/{subject}?normalize=true"),
        format!("POST /compatibility/subjects/{subject}/versions?verbose=true&normalize=true"),
        format!("POST /subjects/{subject}/versions?normalize=true"),
    ] {
        assert!(asked.contains(&expected), "{expected} is not in {asked:#?}");
    }
    assert!(
        asked.iter().filter(|call| call.starts_with("POST")).all(|call| call.contains("normalize=true")),
        "{asked:#?}"
    );
}

/// Apicurio accepts the parameter too.
#[tokio::test(flavor = "multi_thread")]
async fn the_real_registry_accepts_normalize() {
    let service = setup(&crate::support::stack("REGISTRY"), "normalize = true").ready().await;
    service.datagrid_post(batch("evt_1")).await.is(200, "published", None);
}

/// In Confluent's registry each context has its own ids, below `/contexts/<name>`.
#[tokio::test(flavor = "multi_thread")]
async fn a_context_has_its_own_subjects_and_ids() {
    let dir = tempfile::tempdir().unwrap();
    let router = registry::router().nest("/contexts/.tenant", registry::router());
    let (router, asked) = recorded(router);
    let registry = serve(router).await;
    // Id 1 is another schema in the default context.
    register(&registry, "other-value", r#"{"type":"record","name":"Other","fields":[]}"#).await;
    asked.lock().unwrap().clear();
    let mut own = setup(&registry, "context = \".tenant\"");
    own.tables = format!("[spool]\ndir = \"{}\"\nmin_free = \"1 MiB\"", dir.path().display());
    own.rules = "types = [\"batch_prediction.completed\"]".into();
    let again = Setup {
        source: own.source.clone(),
        tables: own.tables.clone(),
        rules: own.rules.clone(),
        ..setup(&registry, "context = \".tenant\"")
    };
    let service = own.ready().await;
    service.datagrid_post(batch("evt_1")).await.is(200, "published", None);
    until("the pins", async || dir.path().join("pins.json").exists()).await;
    let source = service.source.clone();
    service.app.stop().await.unwrap();
    let subject = format!("{source}.batch_prediction.completed-value");
    assert_eq!(get(format!("{registry}/contexts/.tenant/subjects")).await, json!([subject]));
    assert_eq!(get(format!("{registry}/subjects")).await, json!(["other-value"]));
    // The next start looks up its pinned id.
    let service = again.ready().await;
    service.datagrid_post(batch("evt_2")).await.is(200, "published", None);
    let mut asked = asked.lock().unwrap().clone();
    asked.retain(|call| !call.ends_with("/subjects"));
    assert!(asked.iter().any(|call| call.starts_with("GET /contexts/.tenant/schemas/ids/1")), "{asked:#?}");
    assert!(asked.iter().all(|call| call.contains(" /contexts/.tenant/")), "{asked:#?}");
}

/// Apicurio does not have these paths, and the error says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_registry_without_contexts_is_distinguished_from_one_without_the_subjects() {
    let own = setup(&crate::support::stack("REGISTRY"), "context = \".tenant\"");
    let (code, stdout, _) = command(&own, &["check", "--online"]).await;
    assert!(code == 1 && stdout.contains("the registry did not return the schema: "), "{stdout}");
    assert!(stdout.contains("Could not find resource"), "{stdout}");
}

/// A certificate authority with two certificates: one for `localhost` and one for a client.
#[tokio::test(flavor = "multi_thread")]
async fn a_registry_with_client_certificates() {
    let (ca_key, key) = (rcgen::KeyPair::generate().unwrap(), rcgen::KeyPair::generate().unwrap());
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::new(ca, &ca_key);
    let server =
        rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap().signed_by(&key, &issuer).unwrap();
    let client_key = rcgen::KeyPair::generate().unwrap();
    let client = rcgen::CertificateParams::new(vec!["hookstream".into()])
        .unwrap()
        .signed_by(&client_key, &issuer)
        .unwrap();

    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca_certificate.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .unwrap();
    let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = tls()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![server.der().clone()], private)
        .unwrap();
    let url = behind_tls(config, registry::router()).await;

    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let ca = format!("ca_file = \"{}\"", file("ca.pem", &ca_certificate.pem()));
    let (certificate, private) =
        (file("client.pem", &client.pem()), file("client-key.pem", &client_key.serialize_pem()));
    let pair = format!("{ca}\nclient_cert = \"{certificate}\"\nclient_key = \"{private}\"");
    with_registry(url.clone(), &pair).await;
    let (code, stdout, _) = command(&setup(&url, &pair), &["check", "--online"]).await;
    assert!(code == 0 && stdout.contains("registry    ok   client certificate, 0 of 5 subjects"), "{stdout}");

    let stranger = setup(&url, &ca).start().await;
    stranger.datagrid_post(batch("evt_1")).await.is(503, "unavailable", Some("schema_unknown"));
    until("the refusal", async || stranger.admin("/readyz").await.1.contains("the registry does not answer"))
        .await;

    // Unusable files are reported immediately, without their content.
    let other = file("other.pem", &rcgen::KeyPair::generate().unwrap().serialize_pem());
    for (lines, expected) in [
        (format!("client_cert = \"{certificate}\""), "registry.client_cert: needs registry.client_key"),
        (format!("client_key = \"{private}\""), "registry.client_key: needs registry.client_cert"),
        (
            format!("client_cert = \"{certificate}\"\nclient_key = \"/nowhere\""),
            "registry.client_key: /nowhere cannot be read (no such file)",
        ),
        (
            format!("client_cert = \"{certificate}\"\nclient_key = \"{other}\""),
            "registry.client_key: does not work with registry.client_cert",
        ),
        (format!("client_cert = \"{private}\"\nclient_key = \"{certificate}\""), ""),
    ] {
        let (code, stdout, stderr) = command(&setup(&url, &lines), &["check"]).await;
        if expected.is_empty() {
            // Certificate and key may be in one file or swapped, since PEM labels distinguish them.
            assert_eq!(code, 0, "{stdout}");
            continue;
        }
        assert!(code == 1 && stdout.contains(expected), "{expected} is not in\n{stdout}{stderr}");
        assert!(!stdout.contains("PRIVATE KEY") && !stdout.contains("CERTIFICATE"), "{stdout}");
    }
    let plain =
        setup("http://127.0.0.1:1", &format!("client_cert = \"{certificate}\"\nclient_key = \"{private}\""));
    let (code, stdout, _) = command(&plain, &["check"]).await;
    assert!(code == 1 && stdout.contains("needs an https:// URL: over http://"), "{stdout}");
}
