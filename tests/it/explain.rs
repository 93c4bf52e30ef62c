//! `hookstream explain`: why a captured request is refused, or where it would go.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::cli::{hookstream, run};
use crate::support::{batch, hmac_with};

const SECRET: &str = "wh_of-the-explain-tests-0123";
const MARK: &str = "bpred_marked_in_the_body";

const CONFIG: &str = "[source.datagrid]\npreset = \"datagrid\"\nsecrets = [{ name = \"2026-11\", env = \"TEST_SECRET\" }]\n\
    [source.github]\npreset = \"github\"\nsecrets = [{ name = \"hub\", env = \"TEST_SECRET\" }]\n\
    [source.keyed]\npreset = \"datagrid\"\nsecrets = [{ name = \"2026-11\", env = \"TEST_SECRET\" }]\n\
    envelope.keys = { \"batch_prediction.completed\" = \"/data/id\" }\n\
    [source.stripe]\npreset = \"stripe\"\nsecrets = [{ name = \"live\", env = \"TEST_SECRET\" }]\n";

fn explain(directory: &Path) -> Command {
    std::fs::write(directory.join("own.toml"), CONFIG).unwrap();
    let mut command = hookstream(directory);
    command.args(["explain", "-c", "own.toml"]).env("TEST_SECRET", SECRET);
    command
}

fn body() -> String {
    batch("evt_explained").replace("bpred_abc123", MARK)
}

/// Datagrid's signature of `text` with this secret.
fn signed(secret: &str, text: &str) -> String {
    format!("t=1775847600,v1={}", hmac_with(secret, format!("1775847600.{text}").as_bytes()))
}

fn dump(signature: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST /hooks/datagrid HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\nDatagrid-Signature: {signature}\r\n\r\n{body}"
    )
}

fn har(signature: &str, body: &str) -> String {
    let entry = serde_json::json!({
        "startedDateTime": "2026-04-10T19:00:02Z",
        "request": {
            "method": "POST", "url": "https://h.example/hooks/datagrid",
            "headers": [{"name": "Datagrid-Signature", "value": signature}],
            "postData": {"mimeType": "application/json", "text": body},
        },
    });
    serde_json::json!({"log": {"version": "1.2", "entries": [entry]}}).to_string()
}

/// Checks that an output does not show the secret, the signed text, the header value or the body.
fn check_hidden(text: &str, signed: &str) {
    let right = hmac_with(SECRET, format!("1775847600.{signed}").as_bytes());
    let inner = hmac_with(SECRET, signed.as_bytes());
    for hidden in [SECRET, MARK, "results_url", &right, &inner, "0123456789abcdef0123"] {
        assert!(!text.contains(hidden), "{hidden} is in\n{text}");
    }
}

#[test]
fn a_dump_a_har_file_and_a_body_with_headers_get_the_same_explanation() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let (body, signature) = (body(), signed(SECRET, &body()));
    std::fs::write(path("dump.txt"), dump(&signature, &body)).unwrap();
    std::fs::write(path("lf.txt"), dump(&signature, &body).replace("\r\n", "\n")).unwrap();
    std::fs::write(path("capture.har"), har(&signature, &body)).unwrap();
    std::fs::write(path("body.json"), &body).unwrap();
    let header = format!("Datagrid-Signature: {signature}");
    for arguments in [
        &["dump.txt"][..],
        &["lf.txt", "--at", "2026-04-10T19:00:02Z"],
        &["capture.har"],
        &["capture.har", "--entry", "1"],
        &["--header", &header, "--body", "body.json"],
    ] {
        let (code, text, stderr) = run(explain(directory.path()).arg("datagrid").args(arguments));
        assert_eq!((code, &*stderr), (0, ""), "{arguments:?} {text}");
        for expected in [
            "header     ok   datagrid-signature: once",
            "signature  ok   64 hex digits (32 bytes); expected `t=<time>,v1=<signature>`",
            "time       ok   signed at 2026-04-10T19:00:00Z",
            "secrets    ok   2026-11 made it, over the raw body",
            "verdict    ok   the signature is valid",
            "becomes         published, topic datagrid.batch_prediction.completed, key evt_explained",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
        check_hidden(&text, &body);
    }
    let (_, text, _) = run(explain(directory.path()).args(["datagrid", "capture.har"]));
    assert!(text.contains("received at 2026-04-10T19:00:02Z (the HAR entry's time)"), "{text}");
}

#[test]
fn explain_names_the_cause_of_a_refusal_but_never_a_secret_a_signature_or_the_body() {
    let directory = tempfile::tempdir().unwrap();
    let body = body();
    let spaced = body.replace(':', ": ").replace(',', ", ");
    let hex = "0123456789abcdef".repeat(4);
    let cases = [
        ("body_changed", "without spaces", dump(&signed(SECRET, &body), &spaced)),
        ("not_found", "cause not found", dump(&signed("wh_of-somebody-else-0123", &body), &body)),
        ("not_found", "cause not found", dump(&format!("t=1775847600,v1={hex}"), &body)),
        ("encoding", "the rules read `v1`", dump(&signed(SECRET, &body).replace("v1=", "v0="), &body)),
        (
            "signed_text",
            "over the body alone",
            dump(&format!("t=1775847600,v1={}", hmac_with(SECRET, body.as_bytes())), &body),
        ),
        (
            "header_missing",
            "there is x-hub-signature-256",
            dump(&hex, &body).replace("Datagrid-Signature", "X-Hub-Signature-256"),
        ),
        (
            "other_source",
            "a delivery of the source github",
            dump(&format!("sha256={}", hmac_with(SECRET, body.as_bytes())), &body)
                .replace("Datagrid-Signature", "X-Hub-Signature-256"),
        ),
    ];
    for (kind, cause, capture) in cases {
        std::fs::write(directory.path().join("capture"), &capture).unwrap();
        let (code, text, _) = run(explain(directory.path()).args(["datagrid", "capture"]));
        assert_eq!(code, 1, "{text}");
        assert!(text.contains("verdict    401  signature_") && text.contains(cause), "{cause}: {text}");
        assert!(
            text.contains("\ncause ") && text.contains("\nnext ") && !text.contains("\nbecomes"),
            "{text}"
        );
        let (code, json, _) = run(explain(directory.path()).args(["datagrid", "capture", "--json"]));
        let report: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            (code, &report["valid"], &report["cause"]["kind"]),
            (1, &Value::from(false), &Value::from(kind))
        );
        assert!(report["steps"].as_array().unwrap().len() > 2 && report.get("becomes").is_none(), "{json}");
        for shown in [&text, &json] {
            check_hidden(shown, &body);
            check_hidden(shown, &spaced);
        }
    }
}

#[test]
fn w15_explain_distinguishes_two_times_in_a_stripe_header_from_a_repeated_header() {
    let directory = tempfile::tempdir().unwrap();
    let body = r#"{"id":"evt_1","type":"charge.succeeded","created":1775847600}"#;
    for secret in [SECRET, "wh_of-somebody-else-0123"] {
        let signature = format!("t=1775847600,{}", signed(secret, body));
        let capture =
            dump(&signature, body).replace("Datagrid-", "Stripe-").replace("hooks/datagrid", "hooks/stripe");
        std::fs::write(directory.path().join("capture"), capture).unwrap();
        let (code, text, _) = run(explain(directory.path()).args(["stripe", "capture"]));
        assert_eq!(code, 1, "{text}");
        assert!(text.contains("the list in stripe-signature has the time more than once"), "{text}");
        assert!(text.contains("time       NO   there is more than one signed time"), "{text}");
        let next = text.lines().find(|line| line.starts_with("next ")).unwrap();
        assert!(next.contains("what the provider sends") && !next.contains("adds"), "{text}");
    }
}

#[test]
fn explain_reads_a_chunked_body_from_stdin_and_prints_no_colour_to_a_pipe() {
    let directory = tempfile::tempdir().unwrap();
    let body = body();
    let (first, rest) = body.split_at(10);
    let chunks = format!("{:x}\r\n{first}\r\n{:x}\r\n{rest}\r\n0\r\n\r\n", first.len(), rest.len());
    let capture =
        dump(&signed(SECRET, &body), "").replace("Content-Length: 0", "Transfer-Encoding: chunked") + &chunks;
    let mut child = explain(directory.path())
        .args(["datagrid", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(capture.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("the chunked body was decoded"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text:?}");
}

#[test]
fn explain_measures_the_age_at_the_given_time_or_that_of_the_har_entry() {
    let directory = tempfile::tempdir().unwrap();
    let body = r#"{"id":"evt_1","type":"charge.succeeded","created":1775847600}"#;
    let capture = har(&signed(SECRET, body), body)
        .replace("Datagrid-", "Stripe-")
        .replace("hooks/datagrid", "hooks/stripe");
    std::fs::write(directory.path().join("capture.har"), capture).unwrap();
    let (code, text, _) = run(explain(directory.path()).args(["stripe", "capture.har"]));
    assert!(code == 0 && text.contains("published, topic stripe.unmapped, key evt_1"), "{text}");
    let late = ["stripe", "capture.har", "--at", "2026-04-10T20:30:00Z"];
    let (code, text, _) = run(explain(directory.path()).args(late));
    assert_eq!(code, 1, "{text}");
    for expected in [
        "time       NO   signed at 2026-04-10T19:00:00Z, 5400 s (90 min) before its receipt: 5400 s old, the tolerance is 300 s",
        "verdict    401  stale_rejected",
        "the signature is right, but it was made 5400 s (90 min) before the delivery came",
    ] {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }
}

#[test]
fn explain_shows_the_outcome_of_a_valid_delivery_and_its_unsigned_fields() {
    let directory = tempfile::tempdir().unwrap();
    let signature =
        |body: &str| format!("X-Hub-Signature-256: sha256={}", hmac_with(SECRET, body.as_bytes()));
    let explained = |body: &str, event: &str| {
        std::fs::write(directory.path().join("body"), body).unwrap();
        let event = format!("X-GitHub-Event: {event}");
        let arguments =
            ["github", "--body", "body", "--header", "X-GitHub-Delivery: d-1", "--header", &event];
        let command = &mut explain(directory.path());
        let (code, json, _) = run(command.args(arguments).args(["--json", "--header", &signature(body)]));
        assert_eq!(code, 0, "{json}");
        serde_json::from_str::<Value>(&json).unwrap()["becomes"].clone()
    };
    let becomes = explained("{\"a\":1}", "push");
    assert_eq!((&becomes["outcome"], &becomes["topic"]), (&"published".into(), &"github.unmapped".into()));
    assert_eq!(becomes["unsigned"], serde_json::json!(["id", "type"]));
    assert!(becomes["key"].as_str().unwrap().starts_with("d-1:"), "{becomes}");
    let becomes = explained("no JSON", "push");
    assert_eq!(
        (&becomes["outcome"], &becomes["reason"], &becomes["topic"]),
        (&"dead_lettered".into(), &"json_invalid".into(), &"dead_letter.github".into())
    );
    assert_eq!(explained("{}", "ping")["outcome"], "handled");
}

/// The `answer` of a capture, which has the service's own verdict, and the exit code.
fn answered(directory: &Path, source: &str, capture: &str, more: &[&str]) -> (i32, Value, String) {
    std::fs::write(directory.join("capture"), capture).unwrap();
    let (code, json, _) = run(explain(directory).args([source, "capture", "--json"]).args(more));
    let (text_code, text, _) = run(explain(directory).args([source, "capture"]).args(more));
    assert_eq!(code, text_code, "{text}");
    let report: Value = serde_json::from_str(&json).unwrap_or_else(|_| panic!("{text}"));
    (code, report, text)
}

#[test]
fn w11b_the_verdict_and_the_exit_code_are_what_serve_answers() {
    let directory = tempfile::tempdir().unwrap();
    let body = body();
    let right = dump(&signed(SECRET, &body), &body);
    let wrong = dump(&signed("wh_of-somebody-else-0123", &body), &body);
    let to = |path: &str| right.replace("/hooks/datagrid", path);
    let many: String = (0..101).map(|number| format!("X-{number}: 1\r\n")).collect();
    let small = ["-X", "http.max_body=1KiB", "-X", "http.max_head=8KiB"];
    for (capture, code, status, reason, says) in [
        (
            to("/hooks/datagrid/"),
            1,
            404,
            "source_unknown",
            "the path is /hooks/datagrid/; the source datagrid is at /hooks/datagrid",
        ),
        (to("/in?key=s3cret"), 1, 404, "source_unknown", "the path is /in"),
        (to("/hooks/stripe"), 1, 401, "signature_missing", "no stripe-signature"),
        (right.replace("POST", "PUT"), 1, 405, "method_not_allowed", "method_not_allowed"),
        (
            dump(&signed(SECRET, &body), &(body.clone() + &" ".repeat(2000))),
            1,
            413,
            "body_too_large",
            "the limit is 1024",
        ),
        (right.replace("Host: h\r\n", &many), 1, 431, "", "the head has 103 header lines, the limit is 100"),
        (
            right.replace("Host: h", &format!("X-Long: {}", "x".repeat(9000))),
            1,
            431,
            "",
            "http.max_head is 8192",
        ),
        (wrong.clone(), 1, 401, "signature_mismatch", "cause not found"),
        (right.clone(), 0, 200, "", "becomes         published"),
    ] {
        let (found, report, text) = answered(directory.path(), "datagrid", &capture, &small);
        let answer = &report["answer"];
        assert_eq!((found, answer["status"].as_u64()), (code, Some(status)), "{text}");
        assert_eq!(answer["reason"].as_str().unwrap_or_default(), reason, "{text}");
        assert!(text.contains(says) && !text.contains("s3cret"), "{says}: {text}");
        assert_eq!(text.contains("\nbecomes "), code == 0, "{text}");
        // The signature is examined in any case.
        assert_eq!(report["valid"].as_bool(), Some(capture != wrong && !capture.contains("    ")), "{text}");
    }
    let (_, report, text) = answered(directory.path(), "datagrid", &to("/hooks/datagrid/"), &[]);
    assert!(text.contains("otherwise       published, topic datagrid.batch_prediction.completed"), "{text}");
    assert_eq!(report["otherwise"]["outcome"], "published");
}

#[test]
fn w14c_explain_reads_what_curl_and_http_2_tools_print() {
    let directory = tempfile::tempdir().unwrap();
    let body = body();
    let dump = dump(&signed(SECRET, &body), &body);
    let (head, _) = dump.split_once("\r\n\r\n").unwrap();
    let curl = format!("* Connected to h\n> {}\n> \n{body}", head.replace("\r\n", "\n> "));
    for capture in [dump.replace("HTTP/1.1", "HTTP/2"), curl.replace("HTTP/1.1", "HTTP/2"), curl] {
        let (code, _, text) = answered(directory.path(), "datagrid", &capture, &[]);
        assert!(code == 0 && text.contains("becomes         published"), "{text}");
    }
}

#[test]
fn explain_says_what_an_event_with_another_key_becomes() {
    let directory = tempfile::tempdir().unwrap();
    let body = body();
    let capture = dump(&signed(SECRET, &body), &body).replace("hooks/datagrid", "hooks/keyed");
    let (code, report, text) = answered(directory.path(), "keyed", &capture, &[]);
    assert_eq!((code, report["becomes"]["outcome"].as_str()), (0, Some("published")), "{text}");
}

#[test]
fn explain_notes_that_a_capture_does_not_show_the_client_s_address() {
    let directory = tempfile::tempdir().unwrap();
    let body = body();
    let allow = ["-X", "source.datagrid.allow=192.0.2.0/24"];
    let (code, _, text) =
        answered(directory.path(), "datagrid", &dump(&signed(SECRET, &body), &body), &allow);
    assert!(code == 0 && text.contains("`allow` is not checked"), "{text}");
}

#[test]
fn explain_exits_with_2_for_unusable_captures_and_arguments() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("bad"), "s3cret").unwrap();
    for (arguments, expected) in [
        (&["nobody", "bad"][..], "there is no source `nobody`; there are: datagrid, github, keyed, stripe"),
        (
            &["grapevine", "bad"],
            "the source grapevine is off: the variable GRAPEVINE_WEBHOOK_SECRET is not set",
        ),
        (&["datagrid", "bad"], "this is not a captured HTTP request"),
        (&["datagrid", "missing"], "cannot read missing"),
        (&["datagrid"], "required"),
        (&["datagrid", "bad", "--at", "yesterday"], "--at"),
        (&["datagrid", "--body", "bad", "--header", "s3cret"], "--header expects 'Name: value'"),
    ] {
        let (code, stdout, stderr) = run(explain(directory.path()).args(arguments));
        assert_eq!((code, &*stdout), (2, ""), "{arguments:?} {stderr}");
        assert!(stderr.contains(expected) && !stderr.contains("s3cret"), "{arguments:?}: {stderr}");
    }
}
