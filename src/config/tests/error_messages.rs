//! How problems are reported: all at once, each with its location, and never with a value.

use super::*;

/// The presets whose settings are tried one by one: one of each form.
const KEYED: [&str; 4] = ["datagrid", "gitlab", "slack", "stripe"];

#[test]
fn all_problems_are_reported_at_once_each_with_its_line() {
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
prefix = 'X'
signed = '{body}'
[source.shop.envelope]
id = '/id'
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
        "hookstream.toml:19: source.shop.signature: lacks `header`",
        "hookstream.toml:22: source.shop.envelope: lacks `type`",
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
fn a_rule_in_a_list_that_lacks_a_key_hides_no_other_mistake() {
    let toml = "\
[[source.datagrid.handshake]]
when = { pointer = '/type' }
[[source.datagrid.handshake]]
when = { pointer = '/type', equals = 'x' }
[[source.datagrid.handshake]]
when = { header = 'X', equalz = 'x' }
[kafka.topics]
partitions = 0
";
    let found = lines(&load_toml(toml, &[], &[]).unwrap_err());
    let wanted = [
        "hookstream.toml:2: source.datagrid.handshake.0.when: lacks `equals`; add it",
        "hookstream.toml:6: source.datagrid.handshake.2.when: lacks `equals`; add it",
        "hookstream.toml:6: source.datagrid.handshake.2.when.equalz: unknown key; did you mean `equals`?",
        "hookstream.toml:8: kafka.topics.partitions: expected 1 to 2147483647",
    ];
    assert_eq!(found, wanted);
}

#[test]
fn a_syntax_error_is_reported_without_an_excerpt() {
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
        ("[source.datagrid]\ntypes = ['unmapped']\nunmapped = 'generic'".to_owned(), "datagrid.unmapped"),
    ] {
        let found = line(&toml, &[], &[]);
        assert!(topic.split('|').any(|topic| found.contains(&format!("the topic {topic} of"))), "{found}");
    }
    let long = format!(
        "[source.datagrid]\ntypes = ['{}']",
        "x".repeat(crate::names::MAX_TOPIC - "datagrid.".len() + 1)
    );
    assert!(line(&long, &[], &[]).contains("more than 249 characters"));
}

#[test]
fn variables_for_unknown_settings_are_reported_and_unrelated_ones_ignored() {
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
            "foo: unknown key; known names: http, admin, kafka, registry, spool, provision, log, lag, traces, source",
        ),
        ("HOOKSTREAM_HTTP__LISTEN__PORT", "http.listen: expected text, found a table"),
        (
            "HOOKSTREAM_SOURCE__DATAGRD__ENABLED",
            "source.datagrd: this source has no rules: set its types, signature and envelope, or a preset; did you mean `datagrid`?",
        ),
        ("HOOKSTREAM_SOURCE__DATAGRID", "source.datagrid: expected a table, found text"),
        ("HOOKSTREAM_KAFKA__TOPICS__PARTITIONS", "kafka.topics.partitions: expected a whole number"),
        (
            "HOOKSTREAM_KAFKA__PROPERTIES__SASL____X",
            "kafka.properties.sasl..x: is not a property name; separate its words with single dots",
        ),
        (
            "HOOKSTREAM_HTTP__",
            "http.: unknown key; known names: listen, max_body, max_head, head_timeout, idle_timeout, body_timeout, max_body_bytes, max_connections, max_connections_per_address, max_connection_age, max_requests_per_connection, trusted_proxies, client_address_header, unverified_rate_per_address, unverified_work_per_address, max_in_flight, drain_delay, shutdown_timeout, tls",
        ),
    ];
    for (name, expected) in rows {
        assert_eq!(line("", &[(name, CANARY)], &[]), format!("{name}: {expected}"));
    }
    assert_eq!(
        line("", &[("HOOKSTREAM_SOURCE__DATAGRID__PRESET", "123")], &[]),
        "HOOKSTREAM_SOURCE__DATAGRID__PRESET: source.datagrid.preset: unknown preset; `hookstream providers` lists them"
    );
    assert_eq!(line("", &[], &[CANARY]), "-X: has no `=`; write -X key=value");
    assert_eq!(
        line("", &[], &[&format!("http.lisen={CANARY}")]),
        "-X http.lisen: http.lisen: unknown key; did you mean `listen`?"
    );
}

#[test]
fn a_problem_of_another_room_is_listed_at_the_location_of_its_key() {
    let loaded = load_toml("[source.datagrid.signature]\n\nsigned = 'x'", &[], &[]).unwrap();
    let mut problems = loaded.problems();
    problems.add("source.datagrid.signature.signed", "lacks {body}");
    problems.add("source.datagrid.signature.prefix", "is missing");
    let mut plain = ConfigErrors::default();
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

#[test]
fn no_message_repeats_a_value_of_any_setting() {
    fn leaves(prefix: &str, node: &tree::ConfigNode, found: &mut Vec<String>) {
        match node.table() {
            Some(table) => {
                table.iter().for_each(|(key, node)| leaves(&format!("{prefix}.{key}"), node, found))
            }
            None => found.push(prefix.trim_start_matches('.').to_owned()),
        }
    }
    let mut keys = Vec::new();
    leaves("", &tree::ConfigNode::parse(layers::SHIPPED).ok().unwrap(), &mut keys);
    for (name, preset) in presets::PRESETS.iter().filter(|(name, _)| KEYED.contains(name)) {
        leaves(&format!("source.{name}"), &tree::ConfigNode::parse(preset).ok().unwrap(), &mut keys);
    }
    keys.extend(
        ["bearer", "basic_auth", "ca_file", "client_cert", "context"].map(|key| format!("registry.{key}")),
    );
    assert!(keys.len() > 40, "{keys:?}");
    for key in keys {
        // Event types are repeated: topics are named after them.
        for key in [key.clone(), format!("{key}.below")].iter().filter(|key| !key.ends_with(".types")) {
            let variable = format!("HOOKSTREAM_{}", key.to_uppercase().replace('.', "__"));
            for result in [
                load_env(&[], &[&format!("{key}={CANARY}")]),
                load_env(&[(&variable, CANARY)], &[]),
                load_toml(&format!("{key} = '{CANARY}'"), &[], &[]),
                load_toml(&format!("{key} = ['{CANARY}']"), &[], &[]),
            ] {
                let shown = result.err().map(|problems| format!("{problems} {problems:?}"));
                assert!(!shown.unwrap_or_default().contains(CANARY), "{key}");
            }
        }
    }
}
