//! One mistake, one row: what a person reads who made it.

use std::path::Path;
use std::time::Duration;

use super::load::load_with;
use super::*;

const SECRETS: [(&str, &str); 2] = [
    ("DATAGRID_WEBHOOK_SECRET", "whsec_0123456789abcdef"),
    ("GRAPEVINE_WEBHOOK_SECRET", "wh_abcdefghij0123456789"),
];

/// What only a test with a value that must not show up puts into one.
const CANARY: &str = "hunter2-do-not-repeat";

/// Loads `toml` as the file, with both providers' secrets and `vars` in the environment.
fn load_toml(toml: &str, vars: &[(&str, &str)], sets: &[&str]) -> Result<Loaded, Problems> {
    load_for(toml, vars, sets, Overrides::default())
}

fn load_for(
    toml: &str,
    vars: &[(&str, &str)],
    sets: &[&str],
    overrides: Overrides,
) -> Result<Loaded, Problems> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hookstream.toml");
    std::fs::write(&file, toml).unwrap();
    let sets = sets.iter().map(ToString::to_string).collect();
    let environment = SECRETS.iter().chain(vars).copied().collect();
    load_with(&Overrides { file: Some(file), sets, ..overrides }, &environment, &[])
}

/// The problems' lines, the file's directory left out.
fn lines(problems: &Problems) -> Vec<String> {
    let short = |line: String| match line.find("hookstream.toml") {
        Some(at) if line.starts_with('/') => line[at..].to_owned(),
        _ => line,
    };
    problems.lines().into_iter().map(short).collect()
}

/// The one line of a mistake.
fn line(toml: &str, vars: &[(&str, &str)], sets: &[&str]) -> String {
    let problems = load_toml(toml, vars, sets).expect_err(toml);
    let lines = lines(&problems);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(!lines[0].contains(CANARY), "{lines:?}");
    lines.into_iter().next().unwrap()
}

/// No file, these variables, these `-X`.
fn load_env(vars: &[(&str, &str)], sets: &[&str]) -> Result<Loaded, Problems> {
    let sets = sets.iter().map(ToString::to_string).collect();
    let environment = SECRETS.iter().chain(vars).copied().collect();
    load_with(&Overrides { sets, ..Overrides::default() }, &environment, &[])
}

#[test]
fn the_shipped_configuration_and_presets_load_clean() {
    let loaded = load_env(&[], &[]).unwrap();
    assert_eq!(loaded.file, None);
    assert!(loaded.off.is_empty() && loaded.warnings.is_empty() && loaded.ignored.is_empty());
    assert_eq!(loaded.config.http.max_body, 900 * 1024);
    assert_eq!(loaded.config.kafka.topics.retention, Duration::from_secs(30 * 24 * 3600));
    let datagrid = &loaded.config.source["datagrid"];
    assert_eq!(datagrid.types.len(), 5);
    assert_eq!(datagrid.ack_deadline, Duration::from_secs(4));
    assert_eq!(datagrid.signature.timestamp_key.as_deref(), Some("t"));
    assert_eq!(loaded.config.source["grapevine"].signature.forms, [Form::Raw, Form::JsonCompactAscii]);
    let secret = &loaded.secrets["grapevine"][0];
    assert_eq!((&*secret.name, secret.expose()), (SECRETS[1].0, SECRETS[1].1.as_bytes()));
    assert!(loaded.properties.iter().next().is_none());
    assert_eq!(loaded.registry_auth, Auth::None);
}

#[test]
fn the_shipped_file_counts_as_the_users_when_it_is_the_file() {
    let shipped = include_str!("../../config/hookstream.toml");
    assert!(load_toml(shipped, &[], &[]).is_ok());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hookstream.toml");
    std::fs::write(&file, shipped).unwrap();
    let problems = load_with(&Overrides::default(), &Environment::default(), &[&file]).unwrap_err();
    let lines = lines(&problems);
    assert!(
        lines[0].starts_with("hookstream.toml:") && lines[0].contains("DATAGRID_WEBHOOK_SECRET is not set")
    );
    assert_eq!(lines.len(), 2, "{lines:?}");
}

#[test]
fn one_mistake_gives_one_line_with_its_place() {
    let rows: &[(&str, &str)] = &[
        ("[http]\n\nlisten = 8080", "hookstream.toml:3: http.listen: expected text, found a number"),
        ("[http]\nlisen = 'x'", "hookstream.toml:2: http.lisen: unknown key; did you mean `listen`?"),
        ("htp.listen = 'x'", "hookstream.toml:1: htp: unknown key; did you mean `http`?"),
        ("http = 5", "hookstream.toml:1: http: expected a table, found a number"),
        (
            "[kafka.topics]\npartitions = 'hunter2-do-not-repeat'",
            "hookstream.toml:2: kafka.topics.partitions: expected a whole number",
        ),
        (
            "[kafka.topics]\npartitions = 99999999999999999999",
            "hookstream.toml:2: kafka.topics.partitions: expected a whole number",
        ),
        (
            "[kafka.topics]\npartitions = 0",
            "hookstream.toml:2: kafka.topics.partitions: expected 1 to 2147483647",
        ),
        (
            "[kafka.topics]\nreplication = 1",
            "built in: kafka.topics.min_insync_replicas: is more than kafka.topics.replication: no record could be acknowledged; lower it or raise the other",
        ),
        (
            "[http]\nmax_body = '900 hunter2-do-not-repeat'",
            "hookstream.toml:2: http.max_body: expected a size such as \"900 KiB\"",
        ),
        ("[http]\nmax_body = 1023", "hookstream.toml:2: http.max_body: expected at least 1 KiB"),
        ("[http]\nmax_in_flight = 0", "hookstream.toml:2: http.max_in_flight: expected at least 1"),
        (
            "[http]\nbody_timeout = 2",
            "hookstream.toml:2: http.body_timeout: expected a duration with its unit, such as \"4s\"",
        ),
        ("[provision]\non_start = 'yes'", "hookstream.toml:2: provision.on_start: expected true or false"),
        (
            "[http]\nlisten = '8080'",
            "hookstream.toml:2: http.listen: expected address:port, such as \"127.0.0.1:8080\" or \"[::]:8080\"",
        ),
        (
            "[admin]\nlisten = '127.0.0.1:8080'",
            "hookstream.toml:2: admin.listen: equals http.listen; the operator's port is one of its own",
        ),
        (
            "[kafka]\nbootstrap_servers = 'a:1,,b:2'",
            "hookstream.toml:2: kafka.bootstrap_servers: expected host:port, several with commas",
        ),
        (
            "[registry]\nurl = 'registry:8081'",
            "hookstream.toml:2: registry.url: expected a URL with http:// or https://",
        ),
        (
            "[registry]\nurl = 'https://u:hunter2-do-not-repeat@r'",
            "hookstream.toml:2: registry.url: holds user or password; take them out and set registry.basic_auth, the password by reference",
        ),
        (
            "[registry]\nbearer = 'hunter2-do-not-repeat'",
            "hookstream.toml:2: registry.bearer: expected a reference to the secret: { env = \"NAME\" } or { file = \"/path\" }, found text",
        ),
        (
            "[registry]\nbearer = { dir = '/run' }",
            "hookstream.toml:2: registry.bearer: `dir` is for a source's secrets only; use `file`",
        ),
        (
            "[registry]\nbasic_auth = { username = 'u' }",
            "hookstream.toml:2: registry.basic_auth: lacks `password`; add it",
        ),
        (
            "[registry]\nbearer = { env = 'TOKEN' }",
            "hookstream.toml:2: registry.bearer: the variable TOKEN is not set; set it",
        ),
        (
            "[source.datagrid]\nack_deadline = '2s'",
            "hookstream.toml:2: source.datagrid.ack_deadline: is not longer than http.body_timeout: a slow body would leave no time for Kafka; raise it, or lower the other",
        ),
        (
            "[source.datagrid]\nunmapped = 0",
            "hookstream.toml:2: source.datagrid.unmapped: expected text, found a number",
        ),
        (
            "[source.datagrid]\nunmapped = 'hunter2-do-not-repeat'",
            "hookstream.toml:2: source.datagrid.unmapped: expected one of dead_letter",
        ),
        (
            "[source.datagrid]\npreset = 'datagird'",
            "hookstream.toml:2: source.datagrid.preset: unknown preset; did you mean `datagrid`?",
        ),
        (
            "[source.datagrid]\npreset = 'hunter2-do-not-repeat'",
            "hookstream.toml:2: source.datagrid.preset: unknown preset; known are datagrid, grapevine",
        ),
        (
            "[source.datagrid.signature]\nforms = ['raw',\n'ra']",
            "hookstream.toml:3: source.datagrid.signature.forms.1: expected one of raw, json_compact_ascii",
        ),
        (
            "[source.datagrid]\ntypes = []",
            "hookstream.toml:2: source.datagrid.types: is empty; name at least one event type",
        ),
        (
            "[source.datagrid]\ntypes = ['a', '']",
            "hookstream.toml:2: source.datagrid.types.1: is an empty event type; take it out",
        ),
        (
            "[source.datagrd]\nenabled = false",
            "hookstream.toml:1: source.datagrd: no rules for a source of this name: write out its types, signature and envelope, or name a preset; did you mean `datagrid`?",
        ),
        (
            "[source.Shop]\npreset = 'datagrid'",
            "hookstream.toml:1: source.Shop: a source's name is 1 to 64 of a-z, 0-9, _ and -, a letter first, and not `dead_letter`; rename it",
        ),
        (
            "[source.shop]\npreset = 'datagrid'",
            "hookstream.toml:1: source.shop: has no usable secret; add secrets = [{ env = \"NAME\" }], or enabled = false",
        ),
        (
            "[source.datagrid]\nsecrets = 'hunter2-do-not-repeat'",
            "hookstream.toml:2: source.datagrid.secrets: expected a list of references to secrets: [{ env = \"NAME\" }] or [{ file = \"/path\" }], found text",
        ),
        (
            "[source.datagrid]\nsecrets = ['hunter2-do-not-repeat']",
            "hookstream.toml:2: source.datagrid.secrets.0: expected a reference to the secret: { env = \"NAME\" } or { file = \"/path\" }, found text",
        ),
        (
            "[source.datagrid]\nsecrets = [{ name = 'a' }]",
            "hookstream.toml:2: source.datagrid.secrets.0: expected a reference to the secret: { env = \"NAME\" } or { file = \"/path\" }",
        ),
        (
            "[source.datagrid]\nsecrets = [{ value = 'hunter2-do-not-repeat' }]",
            "hookstream.toml:2: source.datagrid.secrets.0.value: unknown key; known are name, env, file, dir",
        ),
        (
            "[source.datagrid]\nsecrets = [{ env = 'A', file = '/b' }]",
            "hookstream.toml:2: source.datagrid.secrets.0: give exactly one of `env`, `file` and `dir`",
        ),
        (
            "[source.datagrid]\nsecrets = [{ name = 'a', dir = '/b' }]",
            "hookstream.toml:2: source.datagrid.secrets.0: `name` does not go with `dir`: each secret is named as its file",
        ),
        (
            "[source.datagrid]\nsecrets = [{ env = 'BLANK' }]",
            "hookstream.toml:2: source.datagrid.secrets.0: the variable BLANK is set but empty; give it the secret or unset it, or turn the source off",
        ),
        (
            "[source.datagrid]\nsecrets = [\n  { env = 'DATAGRID_WEBHOOK_SECRET' },\n  { env = 'NO_SUCH' },\n]",
            "hookstream.toml:4: source.datagrid.secrets.1: the variable NO_SUCH is not set; set it, or turn the source off",
        ),
        (
            "[source.datagrid]\nsecrets = [{ env = 'DATAGRID_WEBHOOK_SECRET' }, { env = 'DATAGRID_WEBHOOK_SECRET' }]",
            "hookstream.toml:2: source.datagrid.secrets: two secrets are called DATAGRID_WEBHOOK_SECRET; give one another `name`",
        ),
        (
            "[source.datagrid]\nsecrets = [{ file = '/no/such' }]",
            "hookstream.toml:2: source.datagrid.secrets.0: cannot read /no/such: entity not found, or turn the source off",
        ),
        (
            "[source.datagrid]\nsecrets = [{ env = 'DEV' }]",
            "hookstream.toml:2: source.datagrid.secrets: DEV is the public dev secret: anybody can sign with it; set the provider's",
        ),
    ];
    let vars = [("BLANK", " \n"), ("DEV", secret::DEV_SECRETS[0].1)];
    for (toml, expected) in rows {
        assert_eq!(line(toml, &vars, &[]), *expected, "{toml}");
    }
}

#[test]
fn what_the_promise_rests_on_may_not_be_set_by_any_name() {
    let reserved = [
        ("acks", "there is no setting for it"),
        ("request.required.acks", "there is no setting for it"),
        ("enable.idempotence", "there is no setting for it"),
        ("enable.gapless.guarantee", "there is no setting for it"),
        ("delivery.report.only.error", "there is no setting for it"),
        ("transactional.id", "there is no setting for it"),
        ("message.timeout.ms", "set `ack_deadline`"),
        ("delivery.timeout.ms", "set `ack_deadline`"),
        ("request.timeout.ms", "set `ack_deadline`"),
        ("topic.metadata.propagation.max.ms", "set `ack_deadline`"),
        ("partitioner", "there is no setting for it"),
        ("partitioner_cb", "in code only"),
        ("dr_msg_cb", "in code only"),
        ("retries", "there is no setting for it"),
        ("message.send.max.retries", "there is no setting for it"),
        ("max.in.flight", "there is no setting for it"),
        ("max.in.flight.requests.per.connection", "there is no setting for it"),
        ("queuing.strategy", "there is no setting for it"),
        ("queue.buffering.max.messages", "set `http.max_in_flight`"),
        ("queue.buffering.max.kbytes", "set `http.max_in_flight`"),
        ("message.max.bytes", "set `http.max_body`"),
        ("bootstrap.servers", "set `kafka.bootstrap_servers`"),
        ("metadata.broker.list", "set `kafka.bootstrap_servers`"),
        ("test.mock.num.brokers", "use `hookstream dev`"),
    ];
    for (name, instead) in reserved {
        let variable = format!("HOOKSTREAM_KAFKA__PROPERTIES__{}", name.to_uppercase().replace('.', "__"));
        let key = format!("kafka.properties.{name}");
        for (line, place) in [
            (line(&format!("[kafka.properties]\n{name} = 1"), &[], &[]), "hookstream.toml:2"),
            (line(&format!("[kafka.properties]\n\n\"{name}\" = 1"), &[], &[]), "hookstream.toml:3"),
            (line("", &[(&variable, "1")], &[]), &variable),
            (line("", &[], &[&format!("{key}=1")]), &format!("-X {key}")),
        ] {
            assert!(line.starts_with(&format!("{place}: {key}: may not be set: ")), "{line}");
            assert!(line.ends_with(instead) || line.contains(instead), "{line}");
        }
    }
}

#[test]
fn properties_may_be_quoted_or_not_numbers_or_text_and_by_reference() {
    let toml = "
[kafka.properties]
sasl.mechanism = 'PLAIN'
'security.protocol' = 'SASL_SSL'
sasl.username = { env = 'KAFKA_USER' }
'sasl.password' = { env = 'KAFKA_PASSWORD' }
statistics.interval.ms = 1000
socket.keepalive.enable = true
queue.buffering.max.ms = 0.5
[kafka.properties.ssl]
ca.location = '/ca.pem'
";
    let vars = [
        ("KAFKA_USER", "00123"),
        ("KAFKA_PASSWORD", CANARY),
        ("HOOKSTREAM_KAFKA__PROPERTIES__CLIENT__ID", "007"),
        ("HOOKSTREAM_KAFKA__PROPERTIES__SASL__MECHANISM", "SCRAM-SHA-256"),
    ];
    let sets = ["kafka.properties.sasl.mechanisms=SCRAM-SHA-512", "kafka.properties.linger.ms=2"];
    let loaded = load_toml(toml, &vars, &sets).unwrap();
    let found: Vec<_> = loaded.properties.iter().collect();
    let expected = [
        ("client.id", "007"),
        ("linger.ms", "2"),
        ("sasl.mechanism", "SCRAM-SHA-512"),
        ("sasl.password", CANARY),
        ("sasl.username", "00123"),
        ("security.protocol", "SASL_SSL"),
        ("socket.keepalive.enable", "true"),
        ("ssl.ca.location", "/ca.pem"),
        ("statistics.interval.ms", "1000"),
    ];
    assert_eq!(found, expected);
    assert!(!format!("{loaded:?}").contains(CANARY));
}

#[test]
fn a_secret_property_goes_by_reference_only() {
    for name in ["sasl.password", "ssl.key.password", "ssl.key.pem", "sasl.oauthbearer.client.secret"] {
        let found = line(&format!("[kafka.properties]\n{name} = '{CANARY}'"), &[], &[]);
        let expected = format!(
            "hookstream.toml:2: kafka.properties.{name}: is a secret and goes by reference only: \
             {{ env = \"NAME\" }} or {{ file = \"/path\" }}"
        );
        assert_eq!(found, expected);
        let found = line("", &[], &[&format!("kafka.properties.{name}={CANARY}")]);
        assert!(found.contains("by reference only"), "{found}");
    }
    let rows = [
        ("sasl.password = { env = 'NO_SUCH' }", "the variable NO_SUCH is not set; set it"),
        ("sasl.password = { env = 'A', file = '/b' }", "give exactly one of `env`, `file` and `dir`"),
        ("sasl.password = { env = 'PATH', nme = 'x' }", "unknown key; did you mean `name`?"),
        (
            "sasl.mechanism = ['PLAIN']",
            "expected text, a number, true or false, or a reference to a secret, found a list",
        ),
        (
            "sasl.mechanism = 'A'\nsasl.mechanisms = 'B'",
            "is set twice, or with its alias `sasl.mechanism`; keep one",
        ),
    ];
    for (toml, expected) in rows {
        let found = line(&format!("[kafka.properties]\n{toml}"), &[("PATH", "x")], &[]);
        assert!(found.ends_with(expected), "{found}");
    }
}

#[test]
fn variables_are_text_that_the_fields_type_converts() {
    let vars = [
        ("HOOKSTREAM_KAFKA__TOPICS__PARTITIONS", "12"),
        ("HOOKSTREAM_HTTP__MAX_BODY", "1 MiB"),
        ("HOOKSTREAM_HTTP__LISTEN", "[::]:0"),
        ("HOOKSTREAM_PROVISION__ON_START", "false"),
        ("HOOKSTREAM_SOURCE__DATAGRID__TYPES", "batch_prediction.completed, 123"),
        ("HOOKSTREAM_SOURCE__DATAGRID__ACK_DEADLINE", "3500ms"),
        ("HOOKSTREAM_SOURCE__GRAPEVINE__ENABLED", "false"),
        ("HOOKSTREAM_SOURCE__DATAGRID__SIGNATURE__PREFIX", "0123"),
        ("hookstream_kafka__Topics__retention", "7d"),
        ("HOOKSTREAM_REGISTRY__BASIC_AUTH__USERNAME", "42"),
        ("HOOKSTREAM_REGISTRY__BASIC_AUTH__PASSWORD__ENV", "PASSWORD"),
        ("PASSWORD", "1234"),
    ];
    let loaded = load_env(&vars, &["kafka.topics.partitions=24"]).unwrap();
    let config = &loaded.config;
    assert_eq!(config.kafka.topics.partitions, 24, "-X is above the environment");
    assert_eq!(config.http.max_body, 1024 * 1024);
    assert_eq!(config.http.listen, "[::]:0");
    assert!(!config.provision.on_start);
    assert_eq!(config.source["datagrid"].types, ["batch_prediction.completed", "123"]);
    assert_eq!(config.source["datagrid"].ack_deadline, Duration::from_millis(3500));
    assert_eq!(config.source["datagrid"].signature.prefix.as_deref(), Some("0123"));
    assert_eq!(config.kafka.topics.retention, Duration::from_secs(7 * 24 * 3600));
    assert_eq!(loaded.off["grapevine"], "enabled = false");
    assert!(!config.source.contains_key("grapevine"));
    assert_eq!(loaded.registry_auth, Auth::Basic("42".into(), SecretText::new("1234")));
}

#[test]
fn variables_that_lead_nowhere_are_named_and_those_of_others_ignored() {
    let ignored = [
        ("HOOKSTREAM_PORT", "tcp://10.0.0.1:8080"),
        ("HOOKSTREAM_SERVICE_HOST", "10.0.0.1"),
        ("HOOKSTREAM_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("HOOKSTREAM", "x"),
        ("MY__VARIABLE", "x"),
    ];
    assert!(load_env(&ignored, &[]).is_ok());
    let rows = [
        ("HOOKSTREAM_HTTP__LISEN", "http.lisen: unknown key; did you mean `listen`?"),
        (
            "HOOKSTREAM_FOO__BAR",
            "foo: unknown key; known are http, admin, kafka, registry, provision, source",
        ),
        ("HOOKSTREAM_HTTP__LISTEN__PORT", "http.listen: expected text, found a table"),
        (
            "HOOKSTREAM_SOURCE__DATAGRD__ENABLED",
            "source.datagrd: no rules for a source of this name: write out its types, signature and envelope, or name a preset; did you mean `datagrid`?",
        ),
        ("HOOKSTREAM_SOURCE__DATAGRID", "source.datagrid: expected a table, found text"),
        ("HOOKSTREAM_KAFKA__TOPICS__PARTITIONS", "kafka.topics.partitions: expected a whole number"),
        (
            "HOOKSTREAM_KAFKA__PROPERTIES__SASL____X",
            "kafka.properties.sasl..x: is no property's name; write it with single dots between its words",
        ),
        (
            "HOOKSTREAM_HTTP__",
            "http.: unknown key; known are listen, max_body, max_head, head_timeout, body_timeout, max_connections, max_in_flight, drain_delay, shutdown_timeout",
        ),
    ];
    for (name, expected) in rows {
        assert_eq!(line("", &[(name, CANARY)], &[]), format!("{name}: {expected}"));
    }
    assert_eq!(
        line("", &[("HOOKSTREAM_SOURCE__DATAGRID__PRESET", "123")], &[]),
        "HOOKSTREAM_SOURCE__DATAGRID__PRESET: source.datagrid.preset: unknown preset; known are datagrid, grapevine"
    );
    assert_eq!(line("", &[], &[CANARY]), "-X: has no `=`; write -X key=value");
    assert_eq!(
        line("", &[], &[&format!("http.lisen={CANARY}")]),
        "-X http.lisen: http.lisen: unknown key; did you mean `listen`?"
    );
}

#[test]
fn all_problems_are_told_at_once_each_with_its_line() {
    let toml = "\
[http]
listen = 8080
max_bodi = '1 MiB'

[kafka.properties]
acks = 1
sasl.password = 'hunter2-do-not-repeat'

[kafka.topics]
partitions = 'many'

[source.shop]
types = ['order.created']
secrets = [
  'hunter2-do-not-repeat',
  { env = 'NO_SUCH' },
  { fil = '/x' },
]
[source.shop.signature]
header = 'X'
signed = '{body}'
[source.shop.envelope]
id = '/id'
type = '/type'
time = '/time'
data = '/data'
";
    let vars = [("HOOKSTREAM_KAFKA__TOPICS__PARTITIONS", "few"), ("HOOKSTREAM_HTTP__LISEN", CANARY)];
    let problems = load_toml(toml, &vars, &["registry.url=ftp://x", "foo=1"]).unwrap_err();
    let found = lines(&problems);
    let starts = [
        "hookstream.toml:2: http.listen: ",
        "hookstream.toml:3: http.max_bodi: ",
        "hookstream.toml:6: kafka.properties.acks: ",
        "hookstream.toml:7: kafka.properties.sasl.password: ",
        "hookstream.toml:10: kafka.topics.partitions: ",
        "hookstream.toml:15: source.shop.secrets.0: ",
        "hookstream.toml:17: source.shop.secrets.2.fil: ",
        "hookstream.toml:19: source.shop.signature: lacks `forms`",
        "hookstream.toml:22: source.shop.envelope: lacks `time_format`",
        "HOOKSTREAM_HTTP__LISEN: ",
        "HOOKSTREAM_KAFKA__TOPICS__PARTITIONS: ",
        "-X foo: ",
        "-X registry.url: ",
    ];
    for (line, start) in found.iter().zip(starts) {
        assert!(line.starts_with(start), "{start}\n{found:#?}");
    }
    assert_eq!(found.len(), starts.len(), "{found:#?}");
    let shown = format!("{problems} {problems:?}");
    assert!(
        shown.starts_with("13 problems in the configuration:\n  /") && !shown.contains(CANARY),
        "{shown}"
    );
}

#[test]
fn what_is_no_toml_is_told_by_place_alone() {
    for (toml, place) in [
        (format!("[http]\nlisten = {CANARY}"), "hookstream.toml:2: column 10: "),
        (format!("ä = '{CANARY}"), "hookstream.toml:1: column "),
        (format!("a = 1\na = '{CANARY}'"), "hookstream.toml:2: column 1: duplicate key"),
    ] {
        let found = line(&toml, &[("HOOKSTREAM_SOURCE__SHOP__ENABLED", "false")], &[]);
        assert!(found.starts_with(place), "{found}");
    }
}

#[test]
fn a_file_that_is_named_must_exist_and_others_are_taken_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("second.toml"), "[http]\nmax_in_flight = 22").unwrap();
    std::fs::write(path("named.toml"), "[http]\nmax_in_flight = 33").unwrap();
    let candidates = [path("first.toml"), path("second.toml")];
    let candidates: Vec<&Path> = candidates.iter().map(PathBuf::as_path).collect();
    let with = |file: Option<&str>, variable: Option<&str>| {
        let overrides = Overrides { file: file.map(path), ..Overrides::default() };
        let variable = variable.map(|file| ("HOOKSTREAM_CONFIG".into(), path(file).into_os_string()));
        let secrets = SECRETS.map(|(name, value)| (name.into(), value.into()));
        let environment: Environment = secrets
            .into_iter()
            .chain(variable)
            .collect::<Vec<(std::ffi::OsString, _)>>()
            .into_iter()
            .collect();
        load_with(&overrides, &environment, &candidates)
    };
    let loaded = with(None, None).unwrap();
    assert_eq!((loaded.file, loaded.config.http.max_in_flight), (Some(path("second.toml")), 22));
    let loaded = with(None, Some("named.toml")).unwrap();
    assert_eq!((loaded.file, loaded.config.http.max_in_flight), (Some(path("named.toml")), 33));
    let loaded = with(Some("second.toml"), Some("named.toml")).unwrap();
    assert_eq!(loaded.file, Some(path("second.toml")));
    for missing in [with(Some("none.toml"), None), with(None, Some("none.toml"))] {
        let found = missing.unwrap_err().to_string();
        assert!(found.ends_with("none.toml: cannot be read: entity not found"), "{found}");
    }
}

#[test]
fn a_preset_can_be_overridden_key_by_key_under_any_name() {
    let toml = "
[source.my-shop]
preset = 'grapevine'
secrets = { env = 'DATAGRID_WEBHOOK_SECRET' }
signature.header = 'X-Shop'
";
    let loaded = load_toml(toml, &[], &[]).unwrap();
    let shop = &loaded.config.source["my-shop"];
    assert_eq!(shop.signature.header, "X-Shop");
    assert_eq!(shop.signature.prefix.as_deref(), Some("sha256="));
    assert_eq!(shop.types, ["document.changed"]);
    assert_eq!(loaded.config.source["grapevine"].signature.header, "X-Grapevine-Signature");
}

#[test]
fn a_reference_of_a_higher_layer_replaces_the_lower_one() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "t0ken\n").unwrap();
    let toml =
        "[registry]\nbearer = { env = 'NO_SUCH' }\n[kafka.properties]\nsasl.password = { env = 'NO_SUCH' }";
    let token = token.display();
    let sets =
        [format!("registry.bearer.file={token}"), format!("kafka.properties.sasl.password.file={token}")];
    let loaded = load_toml(toml, &[], &sets.each_ref().map(String::as_str)).unwrap();
    assert_eq!(loaded.registry_auth, Auth::Bearer(SecretText::new("t0ken")));
    assert_eq!(loaded.properties.get("sasl.password"), Some("t0ken"));
    let both = "[registry]\nbearer = { env = 'PATH' }\nbasic_auth = { username = 'u', password = { env = 'DATAGRID_WEBHOOK_SECRET' } }";
    let problems = load_toml(both, &[("PATH", "x")], &[]).unwrap_err();
    assert_eq!(
        lines(&problems),
        ["hookstream.toml:2: registry.bearer: excludes registry.basic_auth; keep one of them"]
    );
}

#[test]
fn no_two_event_types_share_a_topic() {
    let source = |name: &str, kind: &str| {
        format!(
            "[source.{name}]\npreset = 'datagrid'\ntypes = ['{kind}']\nsecrets = {{ env = 'DATAGRID_WEBHOOK_SECRET' }}\n"
        )
    };
    for (toml, topic) in [
        (source("a", "b.c") + &source("a_b", "c"), "a_b.c"),
        (source("dead", "letter.datagrid"), "dead_letter.datagrid|dead.letter.datagrid"),
        ("[source.datagrid]\ntypes = ['a/b', 'a-b']".to_owned(), "datagrid.a-b"),
        ("[source.datagrid]\ntypes = ['a', 'a']".to_owned(), "datagrid.a"),
    ] {
        let found = line(&toml, &[], &[]);
        assert!(topic.split('|').any(|topic| found.contains(&format!("the topic {topic} of"))), "{found}");
    }
    let long = format!("[source.datagrid]\ntypes = ['{}']", "x".repeat(names_max() - "datagrid.".len() + 1));
    assert!(line(&long, &[], &[]).contains("more than 249 characters"));
}

fn names_max() -> usize {
    crate::names::MAX_TOPIC
}

#[test]
fn a_source_of_the_built_in_layer_without_a_secret_is_off_and_one_of_the_users_a_problem() {
    let only = |name: &str| SECRETS.into_iter().filter(|(n, _)| n.starts_with(name)).collect::<Environment>();
    let overrides = Overrides::default();
    let loaded = load_with(&overrides, &only("DATAGRID"), &[]).unwrap();
    assert_eq!(loaded.config.source.keys().collect::<Vec<_>>(), ["datagrid"]);
    assert_eq!(loaded.off["grapevine"], "the variable GRAPEVINE_WEBHOOK_SECRET is not set; set it");

    let none = load_with(&overrides, &Environment::default(), &[]).unwrap_err();
    let found = lines(&none);
    assert!(found.len() == 1 && found[0].starts_with("source: no source is on: datagrid ("), "{found:?}");

    let blank = [("DATAGRID_WEBHOOK_SECRET", ""), SECRETS[1]].into_iter().collect();
    let found = load_with(&overrides, &blank, &[]).unwrap_err().to_string();
    assert!(found.contains(
        "built in: source.datagrid.secrets.0: the variable DATAGRID_WEBHOOK_SECRET is set but empty"
    ));

    let sets = vec!["source.grapevine.ack_deadline=3s".to_owned()];
    let found = load_with(&Overrides { sets, ..overrides }, &only("DATAGRID"), &[]).unwrap_err().to_string();
    assert!(found.contains("source.grapevine.secrets.0: the variable GRAPEVINE_WEBHOOK_SECRET is not set"));
}

#[test]
fn a_short_secret_is_a_warning_and_a_source_that_is_off_is_not_read() {
    let toml = "
[source.datagrid]
secrets = [{ name = '2026-11', env = 'SHORT' }]
[source.grapevine]
enabled = false
secrets = [{ file = '/no/such' }]
";
    let loaded = load_toml(toml, &[("SHORT", "only15bytes....")], &[]).unwrap();
    assert_eq!(
        loaded.warnings,
        ["source datagrid: the secret 2026-11 has only 15 bytes; below 16 it can be guessed"]
    );
    assert_eq!(loaded.off.len(), 1);
}

#[test]
fn dev_leaves_cluster_and_registry_out_and_has_secrets_for_all() {
    let toml = "
[kafka]
bootstrap_servers = 'prod:9092'
properties.acks = 1
[source.shop]
preset = 'datagrid'
";
    let overrides = Overrides { secrets: Secrets::OrDev, embedded: true, ..Overrides::default() };
    let vars = [("HOOKSTREAM_REGISTRY__URL", "https://registry.prod")];
    let loaded = load_for(toml, &vars, &[], overrides.clone()).unwrap();
    assert_eq!(loaded.config.kafka.bootstrap_servers, "127.0.0.1:9092");
    assert_eq!(loaded.config.registry.url, "http://127.0.0.1:8081");
    assert!(loaded.ignored[0].ends_with("hookstream.toml:2: [kafka]"), "{:?}", loaded.ignored);
    assert_eq!(loaded.ignored[1..], ["HOOKSTREAM_REGISTRY__URL"]);
    assert_eq!(loaded.secrets["datagrid"][0].expose(), SECRETS[0].1.as_bytes());
    assert_eq!(loaded.secrets["shop"][0].expose(), secret::DEV_SECRETS[0].1.as_bytes());

    let alone = load_with(&overrides, &Environment::default(), &[]).unwrap();
    assert_eq!(alone.secrets["grapevine"][0].expose(), secret::DEV_SECRETS[1].1.as_bytes());
    assert!(alone.off.is_empty());
}

#[test]
fn commands_that_need_fewer_secrets_ask_for_fewer() {
    let toml = "[source.datagrid]\nsecrets = [{ file = '/no/such' }]";
    let load = |secrets| load_for(toml, &[], &[], Overrides { secrets, ..Overrides::default() });
    let loaded = load(Secrets::Unread).unwrap();
    assert!(loaded.secrets.is_empty() && loaded.config.source.len() == 2);
    let loaded = load(Secrets::Only("grapevine".into())).unwrap();
    assert_eq!(loaded.secrets.keys().collect::<Vec<_>>(), ["grapevine"]);
    assert!(load(Secrets::Only("datagrid".into())).is_err());
}

#[test]
fn a_room_adds_its_problem_at_the_place_of_the_key() {
    let loaded = load_toml("[source.datagrid.signature]\n\nsigned = 'x'", &[], &[]).unwrap();
    let mut problems = loaded.problems();
    problems.add("source.datagrid.signature.signed", "lacks {body}");
    problems.add("source.datagrid.signature.prefix", "is missing");
    let mut plain = Problems::default();
    plain.add("source.datagrid.signature.signed", "lacks {body}");
    assert_eq!(
        lines(&problems),
        [
            "hookstream.toml:1: source.datagrid.signature.prefix: is missing",
            "hookstream.toml:3: source.datagrid.signature.signed: lacks {body}"
        ]
    );
    assert_eq!(plain.lines(), ["source.datagrid.signature.signed: lacks {body}"]);
}
