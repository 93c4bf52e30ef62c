//! `hookstream check`: what is wrong is told before `serve` meets it.

use std::path::Path;

use serde_json::{Value, json};

use crate::cli::{hookstream, run};

const SECRET: &str = "whsec_of-the-check-tests-0123";

/// `check` of a file with these lines, and its JSON where it printed some.
fn check(directory: &Path, toml: &str, arguments: &[&str]) -> (i32, String, String) {
    std::fs::write(directory.join("own.toml"), toml).unwrap();
    let mut command = hookstream(directory);
    command.args(["check", "-c", "own.toml"]).args(arguments).env("TEST_SECRET", SECRET);
    let (code, stdout, stderr) = run(&mut command);
    assert!(!stdout.contains(SECRET) && !stderr.contains(SECRET), "{stdout}{stderr}");
    (code, stdout, stderr)
}

fn parsed(stdout: &str) -> Value {
    serde_json::from_str(stdout).unwrap_or_else(|_| panic!("no JSON: {stdout}"))
}

#[test]
fn each_source_is_shown_with_its_path_topics_and_what_to_mind() {
    let directory = tempfile::tempdir().unwrap();
    let toml = "[source.datagrid]\npreset = \"datagrid\"\nsecrets = [{ name = \"2026-11\", env = \"TEST_SECRET\" }]\n\
                [source.short]\npreset = \"grapevine\"\nsecrets = [{ file = \"./short\" }]\n";
    std::fs::write(directory.path().join("short"), "tiny").unwrap();
    let (code, stdout, stderr) = check(directory.path(), toml, &[]);
    assert_eq!(code, 0, "{stdout}{stderr}");
    for expected in [
        "ok    datagrid   /hooks/datagrid, 5 types, secrets: 2026-11",
        "batch_prediction.failed         -> datagrid.batch_prediction.failed",
        "all others                      -> dead_letter.datagrid",
        "ok    short      /hooks/short, 1 type, secrets: short",
        "off   grapevine  the variable GRAPEVINE_WEBHOOK_SECRET is not set",
        "warn  source short: the secret short has only 4 bytes",
        "note  no spool",
    ] {
        assert!(stdout.contains(expected), "{expected} is not in\n{stdout}");
    }
    let (code, stdout, _) = check(directory.path(), toml, &["--json", "-X", "spool.dir=/nowhere"]);
    let report = parsed(&stdout);
    assert_eq!((code, &report["ok"], &report["problems"]), (0, &json!(true), &json!([])));
    assert_eq!(
        report["sources"][1]["types"],
        json!([{"type": "document.changed", "topic": "short.document.changed"}])
    );
    assert_eq!((&report["notes"], report["warnings"].as_array().unwrap().len()), (&json!([]), 1));
}

#[test]
fn what_is_wrong_is_told_in_the_words_of_serve() {
    let source = "[source.datagrid]\npreset = \"datagrid\"\nsecrets = [{ env = \"TEST_SECRET\" }]\n";
    let schema = "{\"type\":\"record\"";
    for (toml, expected) in [
        (
            "[http]\nlisen = \"x\"\n[source.datagrid]\npreset = \"datagrid\"\nsecrets = [{ env = \"NOT_SET\" }]\n",
            &["own.toml:2: http.lisen: unknown key"][..],
        ),
        (
            "[source.datagrid]\npreset = \"datagrid\"\nsecrets = [{ env = \"NOT_SET\" }]\nack_deadline = \"1s\"\n",
            &["own.toml:3: source.datagrid.secrets.0", "own.toml:4: source.datagrid.ack_deadline"],
        ),
        (
            &format!("{source}types = [\"nobody.knows\", \"batch_prediction.completed\"]\n"),
            &[
                "own.toml:4: source.datagrid.types: no schema for nobody.knows",
                "schema of datagrid batch_prediction.completed",
            ],
        ),
    ] {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("schemas/datagrid")).unwrap();
        std::fs::write(directory.path().join("schemas/datagrid/batch_prediction.completed.avsc"), schema)
            .unwrap();
        let (code, stdout, stderr) = check(directory.path(), toml, &[]);
        assert_eq!((code, stderr.as_str()), (1, ""), "{stdout}");
        for expected in expected {
            assert!(stdout.contains(expected), "{expected} is not in\n{stdout}");
        }
        let mut serve = hookstream(directory.path());
        serve.args([
            "serve",
            "-c",
            "own.toml",
            "-X",
            "http.listen=127.0.0.1:0",
            "-X",
            "admin.listen=127.0.0.1:0",
        ]);
        let (code, _, stderr) = run(serve.env("TEST_SECRET", SECRET).env("HOOKSTREAM_LOG", "off"));
        assert_eq!((code, stderr), (2, format!("hookstream: {stdout}")));
        let (code, json, _) = check(directory.path(), toml, &["--json"]);
        let report = parsed(&json);
        let problems: Vec<&str> =
            report["problems"].as_array().unwrap().iter().map(|problem| problem.as_str().unwrap()).collect();
        assert_eq!((code, &report["ok"]), (1, &json!(false)));
        assert_eq!(problems, stdout.lines().skip(1).map(str::trim_start).collect::<Vec<_>>());
    }
}

#[test]
fn what_cannot_be_checked_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    for arguments in [&["-c", "missing.toml"][..], &["--nonsense"]] {
        let (code, stdout, stderr) = run(hookstream(directory.path()).arg("check").args(arguments));
        assert!(code == 2 && stdout.is_empty() && !stderr.is_empty(), "{arguments:?}: {stdout}{stderr}");
    }
}
