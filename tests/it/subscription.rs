//! `hookstream subscription` against a mock of Datagrid's API that follows its documentation and client library:
//! `{data, next_cursor}` pages, and the secret only in the answer to POST.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use hookstream::config::Networks;
use hookstream::http::{ConnectionLimits, Phase, serve};
use http::{HeaderMap, Method, StatusCode, Uri};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::cli::{hookstream, run};

const KEY: &str = "dg-key-of-the-tests-0123456789";

const SECRET: &str = "whsec_shown-this-once-0123456789";

const URL: &str = "https://hooks.example.com/hooks/datagrid";

#[derive(Default)]
struct Api {
    webhooks: Vec<Value>,
    /// Method, path and query of each request.
    calls: Vec<String>,
    /// Answers that replace the normal ones, by method.
    replacement: Option<(Method, StatusCode, String)>,
    /// Requests with this method get no answer.
    unanswered: Option<Method>,
}

type Shared = Arc<Mutex<Api>>;

/// The mock API, and a directory for the program.
struct Fixture {
    api: Shared,
    address: String,
    directory: tempfile::TempDir,
    _phase: watch::Sender<Phase>,
}

impl Fixture {
    async fn start() -> Self {
        let api = Shared::default();
        let router = Router::new().fallback(answer).with_state(api.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let limits = ConnectionLimits {
            max_connections: 16,
            max_per_address: None,
            trusted_proxies: Networks::default(),
            head_timeout: Duration::from_secs(60),
            max_head: 16 * 1024,
        };
        let (phase, phases) = watch::channel(Phase::Serving);
        tokio::spawn(serve(listener, router, limits, || None, phases));
        Self { api, address, directory: tempfile::tempdir().unwrap(), _phase: phase }
    }

    /// Starts with existing webhooks: id, URL, and whether each is enabled.
    async fn with(webhooks: &[(&str, &str, bool)]) -> Self {
        let fixture = Self::start().await;
        fixture.api.lock().unwrap().webhooks =
            webhooks.iter().map(|(id, url, enabled)| webhook(id, url, &types(), *enabled)).collect();
        fixture
    }

    fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = hookstream(self.directory.path());
        command.arg("subscription").args(arguments);
        command.env("DATAGRID_API_KEY", KEY).env("DATAGRID_API_URL", &self.address);
        command
    }

    async fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = self.command(arguments);
        let (code, stdout, stderr) = tokio::task::spawn_blocking(move || run(&mut command)).await.unwrap();
        assert!(!stdout.contains(KEY) && !stderr.contains(KEY), "the key is shown: {stdout}{stderr}");
        (code, stdout, stderr)
    }

    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.api.lock().unwrap().calls)
    }

    fn file(&self) -> std::path::PathBuf {
        self.directory.path().join("datagrid-webhook-secret")
    }
}

fn types() -> Value {
    json!([
        "knowledge.processing.completed",
        "batch_prediction.completed",
        "batch_prediction.failed",
        "batch_prediction.expired",
        "batch_prediction.cancelled"
    ])
}

fn webhook(id: &str, url: &str, events: &Value, enabled: bool) -> Value {
    let time = "2026-11-22T10:00:00.000Z";
    json!({"id": id, "object": "webhook", "url": url, "events": events, "enabled": enabled,
           "created_at": time, "updated_at": time})
}

async fn answer(
    State(api): State<Shared>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, String) {
    let unanswered = {
        let mut api = api.lock().unwrap();
        api.calls.push(format!("{method} {uri}"));
        api.unanswered.as_ref() == Some(&method)
    };
    if unanswered {
        std::future::pending::<()>().await;
    }
    let mut api = api.lock().unwrap();
    if let Some((_, status, text)) = api.replacement.as_ref().filter(|(only, ..)| *only == method) {
        return (*status, text.clone());
    }
    if headers.get("authorization").is_none_or(|given| given != &format!("Bearer {KEY}")) {
        return (StatusCode::UNAUTHORIZED, json!({"error": {"message": "Invalid API key"}}).to_string());
    }
    let (status, value) = act(&mut api.webhooks, &method, &uri, &body);
    (status, if value.is_null() { String::new() } else { value.to_string() })
}

fn act(webhooks: &mut Vec<Value>, method: &Method, uri: &Uri, body: &[u8]) -> (StatusCode, Value) {
    let missing = || (StatusCode::NOT_FOUND, json!({"error": {"message": "No such webhook"}}));
    let sent: Value = serde_json::from_slice(body).unwrap_or_default();
    match (method.as_str(), uri.path(), uri.path().strip_prefix("/v1/webhooks/")) {
        ("POST", "/v1/webhooks", _) => {
            if !sent["events"]
                .as_array()
                .unwrap()
                .iter()
                .all(|event| types().as_array().unwrap().contains(event))
            {
                return (StatusCode::UNPROCESSABLE_ENTITY, json!({"detail": "events: unknown event type"}));
            }
            let id = format!("wh_{}", webhooks.len() + 1);
            let mut made = webhook(&id, sent["url"].as_str().unwrap(), &sent["events"], true);
            webhooks.push(made.clone());
            made["secret"] = SECRET.into();
            (StatusCode::CREATED, made)
        }
        ("GET", "/v1/webhooks", _) => {
            let cursor = uri.query().map_or("0", |query| query.strip_prefix("cursor=").unwrap());
            let from: usize = cursor.trim_start_matches("c%2B").parse().unwrap();
            let page: Vec<&Value> = webhooks.iter().skip(from).take(2).collect();
            let next = (from + 2 < webhooks.len()).then(|| format!("c+{}", from + 2));
            (StatusCode::OK, json!({"data": page, "next_cursor": next}))
        }
        ("DELETE", _, Some(id)) => {
            let Some(at) = webhooks.iter().position(|webhook| webhook["id"] == id) else { return missing() };
            webhooks.remove(at);
            (StatusCode::NO_CONTENT, Value::Null)
        }
        _ => missing(),
    }
}

fn json(stdout: &str) -> Value {
    serde_json::from_str(stdout.trim()).unwrap_or_else(|_| panic!("no JSON: {stdout}"))
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn create_shows_its_plan_and_with_apply_saves_the_secret_in_a_private_file() {
    let fixture = Fixture::start().await;
    let (code, stdout, stderr) = fixture.run(&["create", "datagrid", "--url", URL]).await;
    assert!(code == 1 && stdout.contains("pending") && stdout.contains(URL), "{stdout}{stderr}");
    assert!(
        stdout.contains("batch_prediction.expired") && stdout.contains("datagrid-webhook-secret"),
        "{stdout}"
    );
    assert_eq!(fixture.calls(), ["GET /v1/webhooks"], "a plan changes nothing");
    assert!(!fixture.file().exists());

    let (code, stdout, stderr) = fixture.run(&["create", "datagrid", "--url", URL, "--apply"]).await;
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(fixture.calls(), ["GET /v1/webhooks", "POST /v1/webhooks"]);
    assert_eq!(text(&fixture.file()), SECRET);
    assert_eq!(fixture.file().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!stdout.contains(SECRET) && !stderr.contains(SECRET), "{stdout}{stderr}");
    assert_eq!(fixture.api.lock().unwrap().webhooks[0]["events"], types(), "all event types of the source");

    // The printed line works unchanged.
    let line = stdout.lines().find(|line| line.contains("secrets = ")).unwrap().trim();
    let config =
        format!("[source.datagrid]\npreset = \"datagrid\"\n{line}\n[source.grapevine]\nenabled = false\n");
    std::fs::write(fixture.directory.path().join("own.toml"), config).unwrap();
    let overrides = hookstream::config::Overrides {
        file: Some(fixture.directory.path().join("own.toml")),
        ..Default::default()
    };
    let loaded = hookstream::config::load(&overrides, &Default::default()).unwrap();
    assert_eq!(loaded.secrets["datagrid"][0].expose(), SECRET.as_bytes());

    let (code, stdout, _) = fixture.run(&["create", "datagrid", "--url", URL, "--apply"]).await;
    assert!(code == 0 && stdout.contains("nothing to do: wh_1"), "{stdout}");
    assert_eq!(fixture.calls(), ["GET /v1/webhooks"]);
    let (code, _, stderr) = fixture.run(&["create", "datagrid", "--url", URL, "--another", "--apply"]).await;
    assert!(code == 2 && stderr.contains("--secret-file"), "{stderr}");
    assert!(fixture.calls().is_empty(), "an existing file is refused before any request");
    assert_eq!(text(&fixture.file()), SECRET, "the existing file is unchanged");
    let (code, stdout, stderr) = fixture
        .run(&[
            "create",
            "datagrid",
            "--url",
            URL,
            "--another",
            "--apply",
            "--json",
            "--secret-file",
            "second",
        ])
        .await;
    assert_eq!(code, 0, "{stderr}");
    let made = json(&stdout);
    assert_eq!((&made["change"], &made["applied"]), (&json!("create"), &json!(true)));
    assert_eq!((&made["webhook"]["id"], made.get("secret")), (&json!("wh_2"), None));
    assert_eq!(text(Path::new(made["secret_file"].as_str().unwrap())), SECRET);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secret_is_saved_before_the_first_byte_of_output() {
    let fixture = Fixture::start().await;
    let into_closed_pipe = |arguments: &'static [&'static str]| {
        let mut command = fixture.command(arguments);
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        command.stdout(writer).stderr(Stdio::piped());
        tokio::task::spawn_blocking(move || command.output().unwrap())
    };
    into_closed_pipe(&["create", "datagrid", "--url", URL, "--apply"]).await.unwrap();
    assert_eq!(text(&fixture.file()), SECRET);
}

#[tokio::test(flavor = "multi_thread")]
async fn list_reads_all_pages_and_delete_acts_only_with_apply() {
    let other = "https://other.example.com/x";
    let fixture = Fixture::with(&[("wh_1", URL, true), ("wh_2", other, true), ("wh_3", other, false)]).await;
    let (code, stdout, stderr) = fixture.run(&["list", "datagrid", "--json"]).await;
    assert_eq!(code, 0, "{stderr}");
    let ids: Vec<Value> = stdout.lines().map(|line| json(line)["id"].clone()).collect();
    assert_eq!(ids, ["wh_1", "wh_2", "wh_3"]);
    assert_eq!(fixture.calls(), ["GET /v1/webhooks", "GET /v1/webhooks?cursor=c%2B2"]);
    let (_, stdout, _) = fixture.run(&["list", "datagrid"]).await;
    assert!(stdout.lines().count() == 4 && stdout.contains("paused"), "{stdout}");
    fixture.calls();

    let (pages, delete) = (["GET /v1/webhooks", "GET /v1/webhooks?cursor=c%2B2"], "DELETE /v1/webhooks/wh_2");
    let (code, stdout, _) = fixture.run(&["delete", "datagrid", "wh_2"]).await;
    assert!(code == 1 && stdout.contains("pending") && stdout.contains(other), "{stdout}");
    assert_eq!(fixture.calls(), pages, "without --apply");
    let (code, stdout, stderr) = fixture.run(&["delete", "datagrid", "wh_2", "--apply", "--json"]).await;
    assert_eq!((code, &json(&stdout)["applied"]), (0, &json!(true)), "{stderr}");
    assert_eq!(fixture.calls(), [&pages[..], &[delete]].concat());
    let (code, stdout, _) = fixture.run(&["delete", "datagrid", "wh_2", "--apply"]).await;
    assert!(code == 0 && stdout.contains("nothing to do: no webhook wh_2"), "{stdout}");
    assert_eq!(fixture.calls(), ["GET /v1/webhooks"]);
    fixture.api.lock().unwrap().webhooks[0]["enabled"] = json!(false);
    // A paused webhook for the same URL must not lead to a second one silently.
    let (code, _, stderr) = fixture.run(&["create", "datagrid", "--url", URL]).await;
    assert!(code == 2 && stderr.contains("wh_1") && stderr.contains("paused"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_the_api_are_reported_without_the_key_and_leave_no_file() {
    let fixture = Fixture::start().await;
    let create = ["create", "datagrid", "--url", URL, "--apply"];
    let (code, _, stderr) = fixture.run(&[&create[..], &["--event", "made.up"]].concat()).await;
    assert!(code == 2 && stderr.contains("422") && stderr.contains("unknown event type"), "{stderr}");
    assert!(!fixture.file().exists(), "a file without a secret");

    // A hostile or verbose API repeats the key, sends control sequences, and sends a very long message.
    let echo = format!("bad key {KEY}\u{1b}[31m{}", "x".repeat(100_000));
    for method in [Method::GET, Method::POST] {
        fixture.api.lock().unwrap().replacement =
            Some((method, StatusCode::UNAUTHORIZED, json!({"error": {"message": echo}}).to_string()));
        let (code, _, stderr) = fixture.run(&create).await;
        assert!(code == 2 && stderr.contains("401") && stderr.contains("DATAGRID_API_KEY"), "{stderr}");
        assert!(stderr.contains("bad key [the key]") && !stderr.contains('\u{1b}'), "{stderr}");
        assert!(stderr.len() < 1_000, "{} bytes", stderr.len());
    }
    // A secret in an answer that is not a webhook is still saved.
    let bare = json!({"secret": SECRET}).to_string();
    fixture.api.lock().unwrap().replacement = Some((Method::POST, StatusCode::OK, bare));
    let (code, stdout, stderr) = fixture.run(&create).await;
    assert!(code == 2 && !stdout.contains(SECRET) && !stderr.contains(SECRET), "{stdout}{stderr}");
    assert_eq!(text(&fixture.file()), SECRET);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_api_is_abandoned_after_the_timeout() {
    let fixture = Fixture::start().await;
    for method in [Method::GET, Method::POST] {
        fixture.api.lock().unwrap().unanswered = Some(method.clone());
        let begin = Instant::now();
        let (code, _, stderr) =
            fixture.run(&["create", "datagrid", "--url", URL, "--apply", "--timeout", "300ms"]).await;
        assert!(code == 2 && stderr.contains("no answer"), "{stderr}");
        assert_eq!(stderr.contains("unknown"), method == Method::POST, "{stderr}");
        assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
        assert!(!fixture.file().exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_arguments_cause_no_request_to_the_api() {
    let fixture = Fixture::start().await;
    for (arguments, expected) in [
        (&["create", "datagrid", "--url", "http://hooks.example.com/x"][..], "https://"),
        (&["create", "grapevine", "--url", URL], "only Datagrid's API"),
        (&["list", "nobody"], "datagrid, grapevine"),
        (&["delete", "datagrid", "..", "--apply"], "expected the id of a webhook"),
        (&["delete", "datagrid", "a/b"], "expected the id of a webhook"),
    ] {
        let (code, stdout, stderr) = fixture.run(arguments).await;
        assert!(code == 2 && stdout.is_empty() && stderr.contains(expected), "{arguments:?}: {stderr}");
    }
    for (name, value) in [("DATAGRID_API_KEY", ""), ("DATAGRID_API_URL", "http://api.example.com")] {
        let mut command = fixture.command(&["list", "datagrid"]);
        command.env(name, value);
        let (code, _, stderr) = tokio::task::spawn_blocking(move || run(&mut command)).await.unwrap();
        assert!(code == 2 && stderr.contains(name), "{name}: {stderr}");
    }
    assert!(fixture.calls().is_empty());
}
