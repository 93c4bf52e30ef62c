//! The command line: help, configuration problems, and a new user's first minutes with `dev`, `send` and `tail`.

use std::io::{BufRead as _, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use serde_json::Value;

/// The program with an empty environment, in the given directory.
pub fn hookstream(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookstream"));
    command.env_clear().current_dir(directory);
    command
}

pub fn run(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[test]
fn help_lists_every_command_in_its_group() {
    let directory = tempfile::tempdir().unwrap();
    let (code, help, _) = run(hookstream(directory.path()).arg("--help"));
    assert_eq!(code, 0);
    let titles = ["Run:", "Set up:", "Inspect:", "Repair:", "Test:", "Install:"];
    let groups = help.split("\n\n").filter(|group| titles.iter().any(|title| group.starts_with(title)));
    let listed: Vec<&str> = groups
        .flat_map(|group| group.lines().skip(1).filter_map(|line| line.split_whitespace().next()))
        .collect();
    assert_eq!(
        listed,
        [
            "serve",
            "dev",
            "providers",
            "init",
            "check",
            "provision",
            "schema",
            "subscription",
            "status",
            "tail",
            "lag",
            "explain",
            "replay",
            "spool",
            "send",
            "completions",
            "man"
        ]
    );
    for command in listed {
        let (code, help, _) = run(hookstream(directory.path()).args([command, "--help"]));
        assert!(code == 0 && help.contains("Usage: hookstream"), "{command}: {help}");
    }
}

#[test]
fn all_problems_of_the_configuration_are_reported_at_once_without_a_secret() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bad.toml");
    std::fs::write(
        &file,
        "[http]\nlisen = \"x\"\n[kafka.properties]\nacks = 1\nsasl.password = \"hunter2-hunter2\"\n\
         [source.datagrid]\npreset = \"datagrid\"\nack_deadline = 4\nsecrets = [{ env = \"NOT_SET\" }]\n",
    )
    .unwrap();
    let command = &mut hookstream(directory.path());
    let (code, stdout, stderr) = run(command
        .args(["serve", "-c", "bad.toml", "-X", "http.max_body=lots"])
        .env("HOOKSTREAM_HTTP__LISTN", "x")
        .env("HOOKSTREAM_PORT", "tcp://10.0.0.1:80"));
    assert_eq!((code, stdout.as_str()), (2, ""));
    for expected in [
        "bad.toml:2: http.lisen: unknown key",
        "bad.toml:4: kafka.properties.acks",
        "bad.toml:5: kafka.properties.sasl.password",
        "bad.toml:8: source.datagrid.ack_deadline",
        "HOOKSTREAM_HTTP__LISTN",
        "http.max_body",
    ] {
        assert!(stderr.contains(expected), "{expected} is not in\n{stderr}");
    }
    assert!(!stderr.contains("hunter2") && !stderr.contains("HOOKSTREAM_PORT"), "{stderr}");
}

#[test]
fn serve_refuses_a_source_without_a_secret_and_the_public_secrets_of_dev() {
    let directory = tempfile::tempdir().unwrap();
    let (code, _, stderr) = run(hookstream(directory.path()).arg("serve"));
    assert!(code == 2 && stderr.contains("DATAGRID_WEBHOOK_SECRET"), "{stderr}");
    let (_, public) = hookstream::config::secret::DEV_SECRETS[0];
    let (code, _, stderr) =
        run(hookstream(directory.path()).arg("serve").env("DATAGRID_WEBHOOK_SECRET", public));
    assert!(code == 2 && stderr.contains("datagrid") && !stderr.contains(public), "{stderr}");
}

/// A running `dev` on free ports.
struct Dev {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    directory: tempfile::TempDir,
    addresses: Value,
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Dev {
    fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap())
    }

    /// Like [`Self::start`] in a directory that may have a configuration.
    fn start_in(directory: tempfile::TempDir) -> Self {
        let mut child = hookstream(directory.path())
            .args(["dev", "-X", "http.listen=127.0.0.1:0", "-X", "admin.listen=127.0.0.1:0"])
            // Ignored: `dev` uses its own Kafka.
            .env("HOOKSTREAM_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().expect("the addresses").unwrap();
        Self { child, lines, directory, addresses: serde_json::from_str(&first).unwrap() }
    }

    fn text(&self, key: &str) -> String {
        self.addresses[key].as_str().unwrap().to_owned()
    }

    fn base(&self) -> String {
        self.text("hooks").trim_end_matches("/hooks/").to_owned()
    }

    /// The next delivery that `dev` prints.
    fn next(&mut self) -> Value {
        serde_json::from_str(&self.lines.next().expect("a line for each delivery").unwrap()).unwrap()
    }

    fn send(&self, arguments: &[&str]) -> (i32, String, String) {
        run(hookstream(self.directory.path()).arg("send").args(arguments).args(["--url", &self.base()]))
    }

    fn tail(&self, arguments: &[&str]) -> (i32, Vec<Value>, String) {
        let kafka = format!("kafka.bootstrap_servers={}", self.text("kafka"));
        let registry = format!("registry.url={}", self.text("registry"));
        let command = &mut hookstream(self.directory.path());
        let (code, stdout, stderr) =
            run(command.arg("tail").args(arguments).args(["-X", &kafka, "-X", &registry]));
        (code, stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), stderr)
    }
}

#[test]
fn dev_and_tail_show_the_event_that_send_sent() {
    let mut dev = Dev::start();
    for (source, event_type) in [("datagrid", "batch_prediction.failed"), ("grapevine", "document.changed")] {
        let (code, stdout, stderr) = dev.send(&[source, event_type]);
        assert_eq!(code, 0, "{stderr}");
        let answer: Value = serde_json::from_str(stdout.trim()).unwrap();
        let shown = dev.next();
        assert_eq!(
            (&shown["status"], &shown["source"], &shown["type"]),
            (&200.into(), &source.into(), &event_type.into())
        );
        let topic = format!("{source}.{event_type}");
        assert_eq!(shown["topic"], topic.as_str());
        assert!(stdout.contains(shown["delivery"].as_str().unwrap()), "{answer}");

        let id = shown["id"].as_str().unwrap();
        let (code, found, stderr) = dev.tail(&["-o", "start", "-e", "--key", id]);
        assert_eq!(code, 0, "{stderr}");
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((&found[0]["topic"], &found[0]["key"]), (&topic.as_str().into(), &id.into()));
        assert_eq!((&found[0]["partition"], &found[0]["offset"]), (&shown["partition"], &shown["offset"]));
        assert_eq!(found[0]["value"]["type"], event_type);
        assert_eq!(found[0]["headers"]["ce_type"], event_type);
    }
    let (code, found, stderr) = dev.tail(&["-o", "start", "-e", "--key", "evt_nobody_sent"]);
    assert_eq!((code, found.len()), (1, 0), "{stderr}");
}

#[test]
fn w16_each_of_two_hundred_sources_in_dev_answers_its_first_delivery() {
    let sources = (0..200).map(|n| format!("[source.s{n:03}]\npreset = \"grapevine\"\n"));
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("config")).unwrap();
    let file = directory.path().join("config/hookstream.toml");
    std::fs::write(file, sources.collect::<String>()).unwrap();
    let mut dev = Dev::start_in(directory);
    for source in ["s199", "s100", "s000"] {
        let (code, stdout, stderr) = dev.send(&[source]);
        assert_eq!(code, 0, "{stdout}{stderr}");
        assert_eq!(dev.next()["outcome"], "published");
    }
}

/// A zero-width space, a byte order mark, a direction override and a tag character.
const INVISIBLE: &str = "\u{200b}\u{feff}\u{202e}\u{e0041}";

#[test]
fn c7_no_command_prints_invisible_characters() {
    let mut dev = Dev::start();
    let (id, event_type) = (format!("evt_{INVISIBLE}1"), format!("type{INVISIBLE}"));
    let body = format!(
        r#"{{"id":"{id}","event_type":"{event_type}","timestamp":1,"data":{{"{INVISIBLE}":"{INVISIBLE}"}}}}"#
    );
    std::fs::write(dev.directory.path().join("odd.json"), &body).unwrap();
    std::fs::write(
        dev.directory.path().join("known.json"),
        body.replace(&event_type, "batch_prediction.failed"),
    )
    .unwrap();
    let shows = |what: &str, output: &str| {
        assert!(!output.contains(|c| INVISIBLE.contains(c)), "{what}: {output:?}");
        assert!(output.contains("200b"), "{what}: {output:?}");
    };
    for file in ["odd.json", "known.json"] {
        let (code, stdout, stderr) = dev.send(&["datagrid", "--body", file]);
        assert_eq!(code, 0, "{stdout}{stderr}");
        shows("send", &stdout);
        shows("dev", &dev.lines.next().unwrap().unwrap());
    }
    let kafka = format!("kafka.bootstrap_servers={}", dev.text("kafka"));
    let registry = format!("registry.url={}", dev.text("registry"));
    let stack = ["-X", &*kafka, "-X", &*registry];
    let header = "Datagrid-Signature: t=1775847600,v1=00";
    let unknown = format!("none{INVISIBLE}");
    for arguments in [
        &["tail", "-o", "start", "-e"][..],
        &["tail", "-o", "start", "-e", "--key", &id],
        &["tail", "-o", "start", "-e", "--key", &unknown],
        &["tail", &unknown, "-o", "start", "-e"],
        &["explain", "datagrid", "--header", header, "--body", &unknown],
        &["explain", &unknown, "--header", header, "--body", "odd.json"],
        &["replay", &unknown],
        &["schema", "drift", &unknown],
        &["check", "-c", &unknown],
    ] {
        let mut command = hookstream(dev.directory.path());
        command.env("DATAGRID_WEBHOOK_SECRET", "whsec_0123456789abcdef");
        let (_, stdout, stderr) = run(command.args(arguments).args(stack));
        shows(&format!("{arguments:?}"), &(stdout + &stderr));
    }
}

#[test]
fn send_exits_with_1_if_the_delivery_is_refused() {
    let mut dev = Dev::start();
    let body = dev.directory.path().join("odd.json");
    std::fs::write(&body, r#"{"id":"evt_odd","event_type":"nobody.knows","timestamp":1,"data":{}}"#).unwrap();
    let (code, stdout, _) = dev.send(&["datagrid", "--body", "odd.json"]);
    assert!(code == 0 && stdout.contains("type_unknown"), "a dead-lettered delivery is a success: {stdout}");
    assert_eq!(dev.next()["outcome"], "dead_lettered");
    let (_, found, _) = dev.tail(&["dead_letter.datagrid", "-o", "start", "-e"]);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["headers"]["hookstream-reason"], "type_unknown");

    let command = &mut hookstream(dev.directory.path());
    let (code, stdout, _) = run(command
        .args(["send", "datagrid", "--url", &dev.base()])
        .env("DATAGRID_WEBHOOK_SECRET", "another secret than that of dev"));
    assert!(code == 1 && stdout.contains("401"), "{stdout}");
    let refused = dev.next();
    assert_eq!((&refused["status"], &refused["reason"]), (&401.into(), &"signature_mismatch".into()));

    let (code, _, stderr) = dev.send(&["nobody"]);
    assert!(code == 2 && stderr.contains("datagrid"), "the error names the known sources: {stderr}");
    let command = &mut hookstream(dev.directory.path());
    let (code, _, stderr) = run(command.args(["send", "datagrid", "--url", "http://127.0.0.1:1"]));
    assert!(code == 2 && stderr.contains("running?"), "{stderr}");
}

#[test]
fn send_makes_load_and_dev_ends_with_a_count_and_leaves_no_file() {
    let mut dev = Dev::start();
    let (code, _, stderr) =
        dev.send(&["datagrid", "--count", "300", "--concurrency", "8", "--ids", "ids.tsv"]);
    assert_eq!(code, 0, "{stderr}");
    let ids = std::fs::read_to_string(dev.directory.path().join("ids.tsv")).unwrap();
    let ids: std::collections::BTreeSet<&str> =
        ids.lines().map(|line| line.split('\t').next().unwrap()).collect();
    assert_eq!(ids.len(), 300, "each delivery is a new event");
    std::fs::remove_file(dev.directory.path().join("ids.tsv")).unwrap();
    for _ in 0..300 {
        assert_eq!(dev.next()["outcome"], "published");
    }
    let pid = dev.child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert_eq!(dev.child.wait().unwrap().code(), Some(0));
    let mut screen = String::new();
    std::io::Read::read_to_string(dev.child.stderr.as_mut().unwrap(), &mut screen).unwrap();
    assert!(screen.contains("300 events in 1 topic. No file left behind."), "{screen}");
    assert!(
        screen.contains("send datagrid") && screen.contains("x-grapevine-signature: sha256="),
        "{screen}"
    );
    assert!(!screen.contains("librdkafka") && !screen.contains("%3|"), "{screen}");
    assert_eq!(std::fs::read_dir(dev.directory.path()).unwrap().count(), 0);
}
