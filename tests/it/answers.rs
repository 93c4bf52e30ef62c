//! Wrong answers to each HTTP client of hookstream: none is accepted, each is reported correctly and in time, and none
//! of its content is shown.

use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use hookstream::observe::error_chain::ErrorChain;
use hookstream::schema::Registry;
use hookstream::schema::decode::{Decoded, Decoder};
use hookstream::schema::registry::RegistryError;

use crate::cli::{hookstream, run};
use crate::registry::load;
use crate::support::hostile::{PLANTED, Trick, hostile};
use crate::support::process::serve_with_log;
use crate::support::{PATIENCE, Setup, batch, datagrid, until};

const SCHEMA: &str = include_str!("../../schemas/datagrid/knowledge.processing.completed.avsc");

/// Far less than an answer takes if it arrives byte by byte.
const IN_TIME: Duration = PATIENCE;

/// Checks the message of the client that received the wrong answer.
fn check_message(trick: Trick, client: &str, message: &str) {
    println!("{trick:?} {client}: {message}");
    assert!(
        message.contains(trick.message()),
        "{trick:?} {client}: {} is not in: {message}",
        trick.message()
    );
    assert!(!message.contains(PLANTED), "{trick:?} {client}: {message}");
}

/// Runs a command that fails with an error. Returns its message.
async fn run_failing(directory: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let mut command = hookstream(directory);
    command.args(arguments).envs(environment.iter().copied());
    let begin = Instant::now();
    let (code, stdout, stderr) = tokio::task::spawn_blocking(move || run(&mut command)).await.unwrap();
    assert!(begin.elapsed() < IN_TIME, "{arguments:?} took {:?}", begin.elapsed());
    assert!(code == 2 || code == 1, "{arguments:?}: {code} {stdout}{stderr}");
    format!("{stdout}{stderr}")
}

async fn registry_calls(trick: Trick) {
    let url = hostile(trick).await;
    let loaded = load(url.strip_prefix("http://").unwrap());
    let (_, schemas) = hookstream::app::compile(&loaded).unwrap();
    let schema = schemas.iter().next().unwrap();
    let registry = Registry::new(&loaded).unwrap();
    let begin = Instant::now();
    let error =
        |result: Result<(), RegistryError>| ErrorChain(&result.expect_err("a wrong answer")).to_string();
    let errors = tokio::join!(
        async { ("register", error(registry.id(schema, true).await.map(drop))) },
        async { ("look up", error(registry.id(schema, false).await.map(drop))) },
        async { ("listing", error(registry.listing("s", SCHEMA).await.map(drop))) },
        async { ("resolve", error(registry.resolve(1, &schema.schema).await.map(drop))) },
        async { ("level", error(registry.level("s").await.map(drop))) },
        async { ("latest", error(registry.latest("s").await.map(drop))) },
        async { ("versions", error(registry.versions("s").await.map(drop))) },
        async { ("set level", error(registry.set_level("s", schema.level).await)) },
    );
    let (a, b, c, d, e, f, g, h) = errors;
    for (call, error) in [a, b, c, d, e, f, g, h] {
        check_message(trick, call, &error);
        let advice = "the registry is elsewhere; set [registry] url to http://127.0.0.1:1/elsewhere: ";
        assert_eq!(error.contains(advice), matches!(trick, Trick::Redirect), "{error}");
    }
    let decoded = Decoder::new(&registry, true).decode(b"\0\0\0\0\x01\0").await;
    let Decoded::Unreadable { schema_id: 1, why } = decoded else { panic!("{trick:?}: {decoded:?}") };
    assert!(!why.to_string().contains(PLANTED), "{why}");
    assert!(begin.elapsed() < IN_TIME, "{trick:?} took {:?}", begin.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn k1_the_registry_client_accepts_no_wrong_answer() {
    join_all(Trick::ALL.map(registry_calls)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k1_check_reports_a_wrong_answer_of_the_registry() {
    let each = Trick::ALL.map(async |trick| {
        let directory = tempfile::tempdir().unwrap();
        let setup = Setup { registry: hostile(trick).await, ..Setup::new("datagrid") };
        std::fs::write(directory.path().join("own.toml"), setup.toml()).unwrap();
        let secret = [("TEST_SECRET", crate::support::SECRET)];
        let output = run_failing(directory.path(), &["check", "--online", "-c", "own.toml"], &secret).await;
        match trick {
            // `check` has its own timeout, shorter than that of a request.
            Trick::Drip => assert!(output.contains("it did not answer within 6s"), "{output}"),
            // It shows the first and the last message of a chain of causes.
            Trick::Truncated => assert!(output.contains("is not understood: "), "{output}"),
            _ => check_message(trick, "check", &output),
        }
        assert!(!output.contains(PLANTED), "{output}");
    });
    join_all(each).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k1_subscription_accepts_no_wrong_answer() {
    let each = Trick::ALL.map(async |trick| {
        let (directory, url) = (tempfile::tempdir().unwrap(), hostile(trick).await);
        let environment =
            [("DATAGRID_API_KEY", "dg-key-of-the-tests-0123456789"), ("DATAGRID_API_URL", &url)];
        for arguments in [&["list", "datagrid"][..], &["delete", "datagrid", "wh_1", "--apply"]] {
            let arguments = [&["subscription"], arguments, &["--timeout", "3s"]].concat();
            check_message(
                trick,
                &arguments.join(" "),
                &run_failing(directory.path(), &arguments, &environment).await,
            );
        }
    });
    join_all(each).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k1_status_accepts_no_wrong_answer() {
    let each = Trick::ALL.map(async |trick| {
        let (directory, url) = (tempfile::tempdir().unwrap(), hostile(trick).await);
        let output = run_failing(directory.path(), &["status", "--url", &url], &[]).await;
        check_message(trick, "status", &output);
    });
    join_all(each).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k1_send_counts_no_wrong_answer_as_accepted() {
    let each = Trick::ALL.map(async |trick| {
        let (directory, url) = (tempfile::tempdir().unwrap(), hostile(trick).await);
        let arguments = ["send", "datagrid", "--url", &url, "--timeout", "3s"];
        let output = run_failing(directory.path(), &arguments, &[]).await;
        println!("{trick:?}: {:.300}", output);
        let expected = match trick {
            Trick::Drip => "timed out",
            Trick::Truncated => "connection lost",
            // `send` is for inspecting answers, so it shows the start of an unknown one.
            _ => "the answer is not hookstream's",
        };
        assert!(output.contains(expected) && output.len() < 100_000, "{trick:?}: {output:.300}");
        assert!(!matches!(trick, Trick::Redirect) || !output.contains(PLANTED), "{output}");
    });
    join_all(each).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k1_the_exporter_counts_no_wrong_answer_as_exported_spans() {
    join_all(Trick::ALL.map(collector)).await;
}

async fn collector(trick: Trick) {
    let (directory, url) = (tempfile::tempdir().unwrap(), hostile(trick).await);
    let mut setup = Setup::new("datagrid");
    setup.tables = format!("[traces]\nendpoint = \"{url}\"\nsample = 1.0\n[log]\nfilter = \"trace\"");
    let config = directory.path().join("hookstream.toml");
    std::fs::write(&config, setup.toml()).unwrap();
    let (_process, hooks, admin, log) =
        tokio::task::spawn_blocking(move || serve_with_log(&config)).await.unwrap();
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
    let body = batch("evt_1");
    until("an accepted delivery", async || {
        let request = client.post(format!("http://{hooks}/hooks/{}", setup.source));
        let request = request.header("Datagrid-Signature", datagrid(body.as_bytes()));
        request.body(body.clone()).send().await.unwrap().status() == 200
    })
    .await;
    let lines = || log.lock().unwrap().clone();
    let warning =
        || lines().into_iter().find(|line| line["message"].as_str().unwrap_or_default().contains("spans"));
    until("a warning about the collector", async || warning().is_some()).await;
    let why = warning().unwrap()["why"].as_str().unwrap().to_owned();
    match trick {
        Trick::Drip => assert!(why.contains("no answer within 10s") || why.contains("timed out"), "{why}"),
        _ => check_message(trick, "collector", &why),
    }
    let metrics = client.get(format!("http://{admin}/metrics")).send().await.unwrap().text().await.unwrap();
    let count = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        line.map_or(0, |rest| rest.trim().parse::<u64>().unwrap())
    };
    assert_eq!(count("hookstream_spans_exported_total "), 0, "{trick:?}");
    assert!(count("hookstream_spans_dropped_total{cause=\"export_failed\"} ") > 0, "{trick:?}");
    let all = format!("{:?}", lines());
    assert!(!all.contains(PLANTED), "{trick:?}: {all}");
}

/// Settings that contain a secret where none belongs, and the expected error.
const MISPLACED: [(&str, &str); 6] = [
    ("registry.url=https://registry/?token=planted-secret", "registry.url: has a query or a fragment"),
    ("registry.url=https://user:planted-secret@registry", "registry.url: contains a user name or password"),
    (
        "traces.endpoint=http://collector:4318/?key=planted-secret",
        "traces.endpoint: has a query or a fragment",
    ),
    (
        "traces.endpoint=http://user:planted-secret@collector:4318",
        "traces.endpoint: contains a user name or password",
    ),
    (
        "kafka.bootstrap_servers=http://user:planted-secret@kafka:9092",
        "expected host:port, several separated by commas, not a URL",
    ),
    ("kafka.bootstrap_servers=user:planted-secret@kafka:9092", "kafka.bootstrap_servers: expected host:port"),
];

#[tokio::test(flavor = "multi_thread")]
async fn c7_no_error_shows_a_secret_in_a_url() {
    let directory = tempfile::tempdir().unwrap();
    let check = async |arguments: &[&str], environment: &[(&str, &str)], expected: &str| {
        let output = run_failing(directory.path(), arguments, environment).await;
        assert!(output.contains(expected), "{arguments:?}: {expected} is not in: {output}");
        assert!(!output.contains(PLANTED), "{arguments:?}: {output}");
    };
    for (setting, expected) in MISPLACED {
        for command in ["check", "serve", "provision", "tail", "lag"] {
            check(&[command, "-X", setting], &[], expected).await;
        }
    }
    let url = "http://user:planted-secret@127.0.0.1:1/?token=planted-secret#planted-secret";
    check(&["status", "--url", url], &[], "no service answers at http://127.0.0.1:1/status").await;
    check(&["send", "datagrid", "--url", url], &[], "no answer from http://127.0.0.1:1/hooks/datagrid").await;
    let list = ["subscription", "list", "datagrid"];
    let key = ("DATAGRID_API_KEY", "dg-key-of-the-tests-0123456789");
    check(&list, &[key, ("DATAGRID_API_URL", url)], "contains a user or a password").await;
    let query = ("DATAGRID_API_URL", "http://127.0.0.1:1/?token=planted-secret");
    check(&list, &[key, query], "no answer from http://127.0.0.1:1/v1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c7_no_log_and_no_page_shows_a_secret_in_a_url() {
    let directory = tempfile::tempdir().unwrap();
    let mut setup = Setup { registry: hostile(Trick::Redirect).await, ..Setup::new("datagrid") };
    setup.tables = "[log]\nfilter = \"trace\"".into();
    let config = directory.path().join("hookstream.toml");
    std::fs::write(&config, setup.toml()).unwrap();
    let (_process, _, admin, log) =
        tokio::task::spawn_blocking(move || serve_with_log(&config)).await.unwrap();
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
    let page = async |path: &str| {
        client.get(format!("http://{admin}{path}")).send().await.unwrap().text().await.unwrap()
    };
    until("a report of the redirect", async || page("/readyz").await.contains(Trick::Redirect.message()))
        .await;
    for path in ["/readyz", "/status", "/metrics", "/"] {
        let text = page(path).await;
        assert!(!text.contains(PLANTED), "{path}: {text}");
    }
    let lines = format!("{:?}", log.lock().unwrap());
    assert!(lines.contains("listening") && !lines.contains(PLANTED), "{lines}");
}
