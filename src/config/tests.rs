//! Loading the configuration end to end, as a user sees it.

use std::path::Path;
use std::time::Duration;

use super::load::load_with;
use super::*;

mod callers;
mod error_messages;
mod mistakes;
mod properties;
mod reload;
mod replacement;
mod secrets;
mod settings;

const SECRETS: [(&str, &str); 2] = [
    ("DATAGRID_WEBHOOK_SECRET", "whsec_0123456789abcdef"),
    ("GRAPEVINE_WEBHOOK_SECRET", "wh_abcdefghij0123456789"),
];

/// A value that must never appear in a message.
const CANARY: &str = "hunter2-do-not-repeat";

/// Loads `toml` as the file, with both providers' secrets and `vars` in the environment.
fn load_toml(toml: &str, vars: &[(&str, &str)], sets: &[&str]) -> Result<LoadedConfig, ConfigErrors> {
    load_for(toml, vars, sets, Overrides::default())
}

fn load_for(
    toml: &str,
    vars: &[(&str, &str)],
    sets: &[&str],
    overrides: Overrides,
) -> Result<LoadedConfig, ConfigErrors> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hookstream.toml");
    std::fs::write(&file, toml).unwrap();
    let sets = sets.iter().map(ToString::to_string).collect();
    let environment = SECRETS.iter().chain(vars).copied().collect();
    load_with(&Overrides { file: Some(file), sets, ..overrides }, &environment, &[])
}

/// The problems' lines, without the file's directory.
fn lines(problems: &ConfigErrors) -> Vec<String> {
    let short = |line: String| match line.find("hookstream.toml") {
        Some(at) if line.starts_with('/') => line[at..].to_owned(),
        _ => line,
    };
    problems.lines().into_iter().map(short).collect()
}

/// The line of a single mistake.
fn line(toml: &str, vars: &[(&str, &str)], sets: &[&str]) -> String {
    let problems = load_toml(toml, vars, sets).expect_err(toml);
    let lines = lines(&problems);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(!lines[0].contains(CANARY), "{lines:?}");
    lines.into_iter().next().unwrap()
}

/// Loads without a file, with these variables and `-X`.
fn load_env(vars: &[(&str, &str)], sets: &[&str]) -> Result<LoadedConfig, ConfigErrors> {
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
    assert_eq!(datagrid.signature[0].timestamp_key.as_deref(), Some("t"));
    assert_eq!(
        loaded.config.source["grapevine"].signature[0].forms,
        [BodyForm::Raw, BodyForm::JsonCompactAscii]
    );
    let secret = &loaded.secrets["grapevine"][0];
    assert_eq!((&*secret.name, secret.expose()), (SECRETS[1].0, SECRETS[1].1.as_bytes()));
    assert!(loaded.properties.iter().next().is_none());
    assert_eq!(loaded.registry_auth, Auth::None);
}

#[test]
fn the_shipped_file_counts_as_user_defined_if_it_is_the_configuration_file() {
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
fn variables_are_text_that_the_fields_type_converts() {
    let vars = [
        ("HOOKSTREAM_KAFKA__TOPICS__PARTITIONS", "12"),
        ("HOOKSTREAM_HTTP__MAX_BODY", "1 MiB"),
        ("HOOKSTREAM_HTTP__LISTEN", "[::]:0"),
        ("HOOKSTREAM_PROVISION__ON_START", "false"),
        ("HOOKSTREAM_LAG__GROUPS", "billing, flink-*"),
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
    assert_eq!(config.lag.groups, ["billing", "flink-*"]);
    assert_eq!(config.source["datagrid"].types, ["batch_prediction.completed", "123"]);
    assert_eq!(config.source["datagrid"].ack_deadline, Duration::from_millis(3500));
    assert_eq!(config.source["datagrid"].signature[0].prefix.as_deref(), Some("0123"));
    assert_eq!(config.kafka.topics.retention, Duration::from_secs(7 * 24 * 3600));
    assert_eq!(loaded.off["grapevine"], "enabled = false");
    assert!(!config.source.contains_key("grapevine"));
    assert_eq!(loaded.registry_auth, Auth::Basic("42".into(), SecretText::new("1234")));
}

#[test]
fn a_named_file_must_exist_and_the_usual_ones_are_tried_in_order() {
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
        assert!(found.ends_with("none.toml: cannot be read: no such file"), "{found}");
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
    assert_eq!(shop.signature[0].header, ["X-Shop"]);
    assert_eq!(shop.signature[0].prefix.as_deref(), Some("sha256="));
    assert_eq!(shop.types, ["document.changed"]);
    assert_eq!(loaded.config.source["grapevine"].signature[0].header, ["X-Grapevine-Signature"]);
}

#[test]
fn w1_a_list_of_places_is_replaced_whole_by_a_later_layer() {
    let places = |rule: &str, sets: &[&str]| {
        let toml = format!(
            "[source.g]\npreset = 'gitlab'\nsecrets = {{ env = 'DATAGRID_WEBHOOK_SECRET' }}\n[source.g.envelope]\n{rule}"
        );
        load_toml(&toml, &[], sets).unwrap().config.source["g"].envelope.event_type.to_string()
    };
    assert_eq!(places("", &[]), "/object_kind or /event_name or the header X-Gitlab-Event");
    assert_eq!(places("type = ['/a', '/b']", &[]), "/a or /b");
    assert_eq!(places("type = '/a'", &[]), "/a");
    assert_eq!(places("type = { header = 'X-A', unsigned = true }", &[]), "the header X-A");
    assert_eq!(places("type = ['/a', '/b']", &["source.g.envelope.type=/c"]), "/c");
}

#[test]
fn w2_a_list_of_schemes_is_replaced_whole_by_a_later_layer() {
    let headers = |rules: &str, sets: &[&str]| {
        let toml = format!(
            "[source.g]\npreset = 'gitlab'\nstale = 'accept'\nsecrets = {{ env = 'DATAGRID_WEBHOOK_SECRET' }}\n{rules}"
        );
        let schemes = load_toml(&toml, &[], sets)?.config.source["g"].signature.clone();
        Ok(schemes.iter().map(|scheme| scheme.header.join(" or ")).collect::<Vec<_>>())
    };
    let read = |rules, sets: &[&str]| {
        headers(rules, sets).unwrap_or_else(|problems: ConfigErrors| panic!("{problems}"))
    };
    assert_eq!(read("", &[]), ["webhook-signature", "X-Gitlab-Token"]);
    let one = "signature = { header = 'X-A', signed = '{body}' }";
    assert_eq!(read(one, &[]), ["X-A"]);
    let two = "[[source.g.signature]]\nheader = 'X-A'\n[[source.g.signature]]\nheader = 'X-B'";
    assert_eq!(read(two, &[]), ["X-A", "X-B"]);
    assert_eq!(read(one, &["source.g.signature.header=X-C"]), ["X-C"]);

    let refused = |rules| lines(&headers(rules, &[]).unwrap_err());
    assert_eq!(
        refused("signature = []"),
        ["hookstream.toml:5: source.g.signature: is an empty list; describe a signature"]
    );
    assert_eq!(
        refused("signature = 'X-A'"),
        ["hookstream.toml:5: source.g.signature: expected a table, or a list of tables, found text"]
    );
    assert_eq!(
        refused("[[source.g.signature]]\nheader = 'X-A'\n[[source.g.signature]]\nheadr = 'X-B'"),
        [
            "hookstream.toml:7: source.g.signature.1: lacks `header`; add it",
            "hookstream.toml:8: source.g.signature.1.headr: unknown key; did you mean `header`?",
        ]
    );
}

#[test]
fn brokers_may_leave_out_their_port() {
    for servers in ["kafka", "kafka-1.example.com, kafka_2:9093", "127.0.0.1", "[::1]:9092"] {
        let loaded = load_toml(&format!("[kafka]\nbootstrap_servers = '{servers}'"), &[], &[]);
        assert_eq!(loaded.unwrap().config.kafka.bootstrap_servers, servers);
    }
}
