//! Configurations that `serve` refuses: `check` refuses each of them too, with the same sentences. And the few that only
//! `check` refuses.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cli::{hookstream, run};
use crate::support::process;

const SECRET: &str = "whsec_of-the-broken-tests-0123";

const SCHEMA: &str = include_str!("../../schemas/datagrid/batch_prediction.avsc");

/// The variable with the secret of the preset's source.
const DATAGRID: &str = "DATAGRID_WEBHOOK_SECRET";

/// The lines of a configuration, and a part of the problem that both commands report.
const BROKEN: &[(&str, &str)] = &[
    ("[http]\nlisen = \"127.0.0.1:0\"", "http.lisen"),
    ("[http]\nlisten = \"8080\"", "http.listen: expected address:port"),
    ("[http]\nlisten = \"203.0.113.7:8080\"", "http.listen: cannot listen on 203.0.113.7:8080"),
    ("[admin]\nlisten = \"[2001:db8::7]:9464\"", "admin.listen: cannot listen on [2001:db8::7]:9464"),
    (
        "[http]\nlisten = \"127.0.0.1:8080\"\n[admin]\nlisten = \"127.0.0.1:8080\"",
        "admin.listen: equals http.listen",
    ),
    ("[http]\nmax_body = \"0\"", "http.max_body"),
    ("[http]\nhead_timeout = \"soon\"", "http.head_timeout"),
    ("[http.tls]\ncert = \"missing.pem\"\nkey = \"missing.pem\"", "http.tls"),
    ("[http.tls]\ncert = \"text\"\nkey = \"text\"", "http.tls"),
    ("[admin.tls]\ncert = \"missing.pem\"\nkey = \"missing.pem\"", "admin.tls"),
    ("[admin]\nbearer = { env = \"NOT_SET\" }", "admin.bearer"),
    ("[traces]\nendpoint = \"collector:4318\"", "traces.endpoint"),
    (
        "[traces]\nendpoint = \"http://127.0.0.1:1\"\nheaders = { \"a b\" = { env = \"TEST_SECRET\" } }",
        "traces.headers",
    ),
    ("[log]\nfilter = \"loud=yes=no\"", "log.filter"),
    ("[kafka]\nbootstrap_servers = \"http://127.0.0.1:1\"", "kafka.bootstrap_servers"),
    ("[kafka.properties]\n\"no.such.property\" = \"1\"", "kafka.properties.no.such.property"),
    ("[kafka.properties]\n\"compression.type\" = \"best\"", "kafka.properties.compression.type"),
    ("[kafka.properties]\nacks = \"1\"", "kafka.properties.acks"),
    ("[kafka.properties]\n\"linger.ms\" = \"900000\"", "kafka.properties"),
    (
        "[kafka.properties]\n\"security.protocol\" = \"ssl\"\n\"ssl.ca.location\" = \"missing.pem\"",
        "librdkafka cannot create a client: ssl.ca.location",
    ),
    (
        "[kafka.properties]\n\"security.protocol\" = \"ssl\"\n\"ssl.ca.location\" = \"text\"",
        "librdkafka cannot create a client: ssl.ca.location",
    ),
    (
        "[kafka.properties]\n\"security.protocol\" = \"ssl\"\n\"ssl.certificate.location\" = \"missing.pem\"",
        "librdkafka cannot create a client: ssl.certificate.location",
    ),
    (
        "[kafka.properties]\n\"security.protocol\" = \"ssl\"\n\"ssl.key.location\" = \"text\"",
        "librdkafka cannot create a client: ssl.key.location",
    ),
    (
        "[kafka.properties]\n\"security.protocol\" = \"sasl_plaintext\"\n\"sasl.mechanism\" = \"GSSAPI\"",
        "librdkafka cannot create a client: No provider for SASL mechanism GSSAPI",
    ),
    (
        "[kafka.properties]\n\"security.protocol\" = \"sasl_plaintext\"\n\"sasl.mechanism\" = \"CRAM-MD5\"",
        "librdkafka cannot create a client: Unsupported SASL mechanism: CRAM-MD5",
    ),
    (
        "[kafka.properties]\n\"security.protocol\" = \"sasl_plaintext\"\n\"sasl.mechanism\" = \"PLAIN\"\n\
         \"sasl.password\" = { env = \"NOT_SET\" }",
        "kafka.properties.sasl.password",
    ),
    ("[registry]\nurl = \"ftp://127.0.0.1\"", "registry.url"),
    ("[registry]\nurl = \"https://127.0.0.1:1\"\nca_file = \"missing.pem\"", "registry.ca_file"),
    ("[registry]\nurl = \"https://127.0.0.1:1\"\nca_file = \"text\"", "registry.ca_file"),
    (
        "[registry]\nclient_cert = \"missing.pem\"\nclient_key = { file = \"missing.pem\" }",
        "registry.client_cert",
    ),
    ("[registry]\nclient_cert = \"text\"\nclient_key = { file = \"text\" }", "registry.client_cert"),
    ("[spool]\ndir = \"text\"", "spool.dir: cannot use text"),
    ("[spool]\ndir = \"text/spool\"", "spool.dir"),
    ("[spool]\ndir = \"foreign\"", "spool.dir: foreign/spool.db"),
    ("[spool]\ndir = \"linked\"", "spool.dir: cannot use linked/spool.db: it is a symbolic link"),
    ("[spool]\ndir = \"spool\"\nmin_free = \"much\"", "spool.min_free"),
    ("[source.other]\npreset = \"unheard-of\"", "source.other.preset"),
    ("[source.datagrid]\nsignature.signed = \"{nonsense}\"", "source.datagrid.signature.signed"),
    ("[source.datagrid]\nsecrets = [{ file = \"missing\" }]", "source.datagrid.secrets"),
    ("[source.datagrid]\ntypes = [\"\"]", "source.datagrid.types"),
    ("[source.datagrid]\nenvelope.id = \"id\"", "source.datagrid.envelope.id"),
    (
        "[source.datagrid]\nsecrets = [{ env = \"TEST_SECRET\" }]\nschemas = \"own\"",
        "source.datagrid.schemas",
    ),
];

/// The lines of a configuration with which `serve` starts, since only one source cannot accept deliveries or only one
/// schema cannot be registered, and a part of the problem that `check` reports.
const ONLY_CHECK: &[(&str, &str)] = &[
    (
        "[source.datagrid]\nsecrets = [{ env = \"TEST_SECRET\", not_after = 2020-01-01T00:00:00Z }]",
        "source datagrid: no secret is valid now",
    ),
    (
        "[source.own]\nsecrets = [{ env = \"TEST_SECRET\" }]\nunmapped = \"generic\"\n\
         envelope = { id = \"/id\", type = \"/type\" }\n\
         signature = { header = \"S\", signature_key = \"h\", timestamp_header = \"S\", signed = \"{timestamp}:{body}\" }",
        "source.own.signature: no delivery can verify",
    ),
    (
        "[source.own]\nsecrets = [{ env = \"TEST_SECRET\" }]\nunmapped = \"generic\"\n\
         envelope = { id = \"/event\", type = \"/event/type\" }\nsignature = { header = \"S\", signed = \"{body}\" }",
        "source.own.envelope: every event would be a dead letter",
    ),
    (
        "[source.versioned]\npreset = \"datagrid\"\nsecrets = [{ env = \"TEST_SECRET\" }]",
        "schemas/versioned/batch_prediction.avsc: not compatible with",
    ),
];

/// The files that the configurations name.
fn prepare(directory: &Path) {
    std::fs::write(directory.join("text"), "no certificate, no directory").unwrap();
    for name in ["foreign", "linked"] {
        std::fs::create_dir(directory.join(name)).unwrap();
    }
    let foreign = rusqlite::Connection::open(directory.join("foreign/spool.db")).unwrap();
    foreign.execute_batch("CREATE TABLE somebody_elses (id INTEGER)").unwrap();
    std::os::unix::fs::symlink("../text", directory.join("linked/spool.db")).unwrap();
    let schemas = directory.join("schemas/versioned");
    std::fs::create_dir_all(schemas.join("versions/batch_prediction")).unwrap();
    std::fs::write(schemas.join("batch_prediction.avsc"), SCHEMA).unwrap();
    let other = SCHEMA.replace(r#"["null", "string"]"#, r#"["null", "long"]"#);
    assert_ne!(other, SCHEMA);
    std::fs::write(schemas.join("versions/batch_prediction/1.avsc"), other).unwrap();
}

/// The end of `check`, and the problems that it reports.
fn check(directory: &Path, arguments: &[String]) -> (i32, Vec<String>) {
    let (code, stdout, _) = run(command(directory, "check", arguments).arg("--json"));
    assert!(!stdout.contains(SECRET), "{stdout}");
    let report: Value = serde_json::from_str(&stdout).unwrap_or_default();
    let problems = report["problems"].as_array().into_iter().flatten().flat_map(Value::as_str);
    (code, problems.map(str::to_owned).collect())
}

/// The problems in the error with which `serve` ended: a list, or the one that it met while it started.
fn said(stderr: &str) -> Vec<&str> {
    let mut lines = stderr.lines().skip_while(|line| !line.starts_with("hookstream: "));
    let first = lines.next().unwrap_or_default();
    let listed: Vec<&str> = lines.filter_map(|line| line.strip_prefix("  ")).collect();
    if listed.is_empty() { vec![first] } else { listed }
}

/// A problem without its place or the program's name: what `serve` meets while it starts has no line.
fn sentence(problem: &str) -> &str {
    problem.split_once(' ').map_or(problem, |(_, sentence)| sentence)
}

fn command(directory: &Path, name: &str, arguments: &[String]) -> Command {
    let mut command = hookstream(directory);
    command.args([name, "-c", "broken.toml"]).args(arguments);
    command.env("TEST_SECRET", SECRET).env(DATAGRID, SECRET);
    command
}

/// Runs `serve` until it stops by itself.
fn serve(directory: &Path, arguments: &[String]) -> (Option<i32>, String) {
    let stderr = directory.join("stderr");
    let mut serve = command(directory, "serve", arguments);
    let mut serve =
        serve.stdout(Stdio::null()).stderr(std::fs::File::create(&stderr).unwrap()).spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    let code = loop {
        match serve.try_wait().unwrap() {
            Some(status) => break status.code(),
            None if Instant::now() > end => {
                serve.kill().unwrap();
                serve.wait().unwrap();
                break None;
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    (code, std::fs::read_to_string(stderr).unwrap())
}

#[test]
fn docs9_check_refuses_the_same_configurations_as_serve_in_the_same_words() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    prepare(directory);
    let mut wrong = Vec::new();
    for (lines, expected) in BROKEN {
        std::fs::write(directory.join("broken.toml"), lines).unwrap();
        let listens = [("[http]\nlisten", "http.listen"), ("[admin]\nlisten", "admin.listen")];
        let free = listens.iter().filter(|(set, _)| !lines.contains(set));
        let free: Vec<String> = free.map(|(_, key)| format!("-X{key}=127.0.0.1:0")).collect();
        let (code, stderr) = serve(directory, &free);
        assert!(!stderr.contains(SECRET), "{stderr}");
        let (checked, problems) = check(directory, &free);
        let of_check: BTreeSet<&str> = problems.iter().map(|problem| sentence(problem)).collect();
        let of_serve: BTreeSet<&str> = said(&stderr).into_iter().map(sentence).collect();
        let same = of_check == of_serve;
        let named = problems.iter().any(|problem| problem.contains(expected));
        if code != Some(2) || checked != 1 || !same || !named {
            wrong.push(format!("{lines}\n  serve {code:?}: {stderr}\n  check {checked}: {problems:?}"));
        }
    }
    assert!(BROKEN.len() >= 30);
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), BROKEN.len(), wrong.join("\n"));
}

#[test]
fn docs9_serve_starts_with_what_only_check_refuses() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    prepare(directory);
    for (lines, expected) in ONLY_CHECK {
        let ports = "[http]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"";
        std::fs::write(directory.join("broken.toml"), format!("{ports}\n{lines}")).unwrap();
        let (code, problems) = check(directory, &[]);
        assert!(code == 1 && !problems.is_empty(), "{lines}: {problems:?}");
        assert!(problems.iter().all(|problem| problem.contains(expected)), "{lines}: {problems:?}");
        // Returns once it listens.
        process::serve(&directory.join("broken.toml"));
    }
}
