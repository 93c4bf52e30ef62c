//! `[kafka.properties]` through all layers.

use super::*;

#[test]
fn properties_that_durability_depends_on_may_not_be_set_by_any_name() {
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
        ("allow.auto.create.topics", "set `provision.on_start`"),
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
fn properties_may_be_quoted_or_not_and_be_numbers_text_or_references() {
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
fn a_secret_property_must_be_a_reference() {
    for name in ["sasl.password", "ssl.key.password", "ssl.key.pem", "sasl.oauthbearer.client.secret"] {
        let found = line(&format!("[kafka.properties]\n{name} = '{CANARY}'"), &[], &[]);
        let expected = format!(
            "hookstream.toml:2: kafka.properties.{name}: is a secret and must be a reference: \
             {{ env = \"NAME\" }} or {{ file = \"/path\" }}"
        );
        assert_eq!(found, expected);
        let found = line("", &[], &[&format!("kafka.properties.{name}={CANARY}")]);
        assert!(found.contains("must be a reference"), "{found}");
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
            "is set twice, or also by its alias `sasl.mechanism`; keep one",
        ),
    ];
    for (toml, expected) in rows {
        let found = line(&format!("[kafka.properties]\n{toml}"), &[("PATH", "x")], &[]);
        assert!(found.ends_with(expected), "{found}");
    }
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
        ["hookstream.toml:2: registry.bearer: cannot be combined with registry.basic_auth; keep one of them"]
    );
}

#[test]
fn a_property_called_file_is_not_a_reference() {
    let toml = "
[kafka.properties.sasl.oauthbearer.assertion]
file = '/a'
private.key.file = '/b'
private.key.passphrase = { env = 'DATAGRID_WEBHOOK_SECRET' }
";
    let loaded = load_toml(toml, &[], &[]).unwrap();
    let found: Vec<_> = loaded.properties.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let expected = [
        "sasl.oauthbearer.assertion.file=/a",
        "sasl.oauthbearer.assertion.private.key.file=/b",
        "sasl.oauthbearer.assertion.private.key.passphrase=whsec_0123456789abcdef",
    ];
    assert_eq!(found, expected);
}
