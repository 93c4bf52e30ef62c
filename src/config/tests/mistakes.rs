//! One mistake, one row: what a person reads who made it.

use super::*;

#[test]
fn one_mistake_gives_one_line_with_its_place() {
    let rows: &[(&str, &str)] = &[
        ("[http]\n\nlisten = 8080", "hookstream.toml:3: http.listen: expected text, found a number"),
        ("[http]\nlisen = 'x'", "hookstream.toml:2: http.lisen: unknown key; did you mean `listen`?"),
        ("htp.listen = 'x'", "hookstream.toml:1: htp: unknown key; did you mean `http`?"),
        (
            "\"a\\n\\u001b\" = 1",
            "hookstream.toml:1: a\\n\\u{1b}: unknown key; known are http, admin, kafka, registry, spool, provision, log, lag, source",
        ),
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
            "hookstream.toml:2: kafka.topics.replication: min_insync_replicas is more than replication: no record could be acknowledged; lower it, or raise replication",
        ),
        (
            "[http]\nmax_body = '900 hunter2-do-not-repeat'",
            "hookstream.toml:2: http.max_body: expected a size such as \"900 KiB\"",
        ),
        ("[http]\nmax_head = '4 KiB'", "hookstream.toml:2: http.max_head: expected 8 KiB to 1 MiB"),
        (
            "[http]\nshutdown_timeout = '100years'",
            "hookstream.toml:2: http.shutdown_timeout: expected 0s to 1h",
        ),
        (
            "[kafka.topics]\nretention = '0s'",
            "hookstream.toml:2: kafka.topics.retention: expected at least 1s, and no more than Kafka can count",
        ),
        (
            "[source.datagrid]\nack_deadline = '2h'",
            "hookstream.toml:2: source.datagrid.ack_deadline: expected 1ms to 1h",
        ),
        (
            "[source.datagrid]\ndead_letter_rate = 0",
            "hookstream.toml:2: source.datagrid.dead_letter_rate: expected at least 1: with 0, what is authentic but unusable would be retried for ever",
        ),
        (
            "[http]\nbody_timeout = '4s'\n[source.grapevine]\nenabled = false",
            "hookstream.toml:2: http.body_timeout: the ack_deadline of datagrid is not longer than http.body_timeout: a slow body would leave no time for Kafka; raise it, or lower http.body_timeout",
        ),
        (
            "[source.grapevine]\ncompatibility = 'BACKWORD'",
            "hookstream.toml:2: source.grapevine.compatibility: expected one of NONE, BACKWARD, BACKWARD_TRANSITIVE, FORWARD, FORWARD_TRANSITIVE, FULL, FULL_TRANSITIVE",
        ),
        (
            "[registry]\nsubject_name_strategy = 'TopicName'",
            "hookstream.toml:2: registry.subject_name_strategy: expected one of topic_name, record_name, topic_record_name",
        ),
        (
            "[registry]\ncontext = 'tenant'",
            "hookstream.toml:2: registry.context: expected a dot and a name, such as \".tenant\"; leave it out for the default context",
        ),
        (
            "[registry]\nnormalize = 'perhaps'",
            "hookstream.toml:2: registry.normalize: expected true or false",
        ),
        (
            "[source.grapevine]\nstale = 'reject'",
            "hookstream.toml:2: source.grapevine.stale: needs a signed time, and the signature has none; set \"accept\"",
        ),
        (
            "[source.datagrid]\ntolerance = '0s'",
            "hookstream.toml:2: source.datagrid.tolerance: expected 1s to 1h",
        ),
        (
            "[source.datagrid]\nsecrets = [{ env = 'A', not_after = 'hunter2-do-not-repeat' }]",
            "hookstream.toml:2: source.datagrid.secrets.0: `not_before` and `not_after` expect a time with its zone, such as \"2027-02-01T00:00:00Z\"",
        ),
        (
            "[source.datagrid]\nsecrets = [{ env = 'A', not_before = 2027-01-01T00:00:00Z, not_after = 2027-01-01T00:00:00Z }]",
            "hookstream.toml:2: source.datagrid.secrets.0: `not_before` is not earlier than `not_after`",
        ),
        (
            "[source.datagrid]\nsecrets = [{ dir = '/x', not_after = 2027-01-01T00:00:00Z }]",
            "hookstream.toml:2: source.datagrid.secrets.0: `not_before` and `not_after` do not go with `dir`: take the file out instead",
        ),
        ("[http]\nmax_body = 1023", "hookstream.toml:2: http.max_body: expected 1 KiB to 256 MiB"),
        (
            "[http]\nmax_body_bytes = '800 KiB'",
            "hookstream.toml:2: http.max_body_bytes: max_body_bytes, for all bodies together, is less than max_body: one of that size could never be taken; raise it, or lower max_body",
        ),
        (
            "[http]\nmax_connections_per_address = 0",
            "hookstream.toml:2: http.max_connections_per_address: expected at least 1; without it there is no such bound",
        ),
        (
            "[source.datagrid]\nmax_in_flight = 2001",
            "hookstream.toml:2: source.datagrid.max_in_flight: expected 1 to 2000, which is http.max_in_flight",
        ),
        (
            "[spool]\nsource_share = 0",
            "hookstream.toml:2: spool.source_share: expected a number above 0, up to 1",
        ),
        (
            "[spool]\nsource_share = 'nan'",
            "hookstream.toml:2: spool.source_share: expected a number above 0, up to 1",
        ),
        ("[spool]\nsource_share = 'half'", "hookstream.toml:2: spool.source_share: expected a number"),
        ("[http]\nmax_in_flight = 0", "hookstream.toml:2: http.max_in_flight: expected 1 to 10000000"),
        (
            "[http]\nbody_timeout = 2",
            "hookstream.toml:2: http.body_timeout: expected a duration with its unit, such as \"4s\"",
        ),
        ("[lag]\ninterval = '500ms'", "hookstream.toml:2: lag.interval: expected 1s to 1h"),
        (
            "[lag]\ngroups = ['billing', ' ']",
            "hookstream.toml:2: lag.groups.1: is an empty name of a group; take it out",
        ),
        ("[provision]\non_start = 'yes'", "hookstream.toml:2: provision.on_start: expected true or false"),
        (
            "[log]\nfilter = 'hookstream=loud'",
            "hookstream.toml:2: log.filter: expected a level (error, warn, info, debug, trace, off), or TARGET=LEVEL, several with commas",
        ),
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
            "hookstream.toml:2: source.datagrid.ack_deadline: the ack_deadline of datagrid is not longer than http.body_timeout: a slow body would leave no time for Kafka; raise it, or lower http.body_timeout",
        ),
        (
            "[source.datagrid.envelope.keys]\n'hunter2-do-not-repeat' = '/data/id'",
            "hookstream.toml:1: source.datagrid.envelope.keys: names an event type that is none of `types`; add it there, or correct it",
        ),
        (
            "[source.grapevine.envelope.keys]\n'document.changed' = 5",
            "hookstream.toml:2: source.grapevine.envelope.keys.document.changed: expected a JSON pointer such as \"/id\", or { header = \"NAME\" }, found a number",
        ),
        (
            "[source.datagrid.envelope]\naliases = { old = 'hunter2-do-not-repeat' }",
            "hookstream.toml:2: source.datagrid.envelope.aliases: names an event type that is none of `types`; add it there, or correct it",
        ),
        (
            "[source.datagrid.envelope]\ndefault_type = 'hunter2-do-not-repeat'",
            "hookstream.toml:2: source.datagrid.envelope.default_type: names an event type that is none of `types`; add it there, or correct it",
        ),
        (
            "[source.datagrid.envelope]\ntype = 5",
            "hookstream.toml:2: source.datagrid.envelope.type: expected a JSON pointer such as \"/id\", or { header = \"NAME\" }, found a number",
        ),
        (
            "[source.datagrid.envelope]\nid = { heder = 'hunter2-do-not-repeat' }",
            "hookstream.toml:2: source.datagrid.envelope.id.heder: unknown key; did you mean `header`?",
        ),
        (
            "[source.datagrid]\nunmapped = 0",
            "hookstream.toml:2: source.datagrid.unmapped: expected text, found a number",
        ),
        (
            "[source.datagrid]\nunmapped = 'hunter2-do-not-repeat'",
            "hookstream.toml:2: source.datagrid.unmapped: expected one of dead_letter, generic",
        ),
        (
            "[source.datagrid]\npreset = 'datagird'",
            "hookstream.toml:2: source.datagrid.preset: unknown preset; did you mean `datagrid`?",
        ),
        (
            "[source.datagrid]\npreset = 'hunter2-do-not-repeat'",
            "hookstream.toml:2: source.datagrid.preset: unknown preset; known are datagrid, github, gitlab, grapevine, linear, shopify, slack, standard-webhooks, stripe, svix",
        ),
        (
            "[source.datagrid.signature]\nforms = ['raw',\n'ra']",
            "hookstream.toml:3: source.datagrid.signature.forms.1: expected one of raw, json_compact_ascii",
        ),
        (
            "[source.datagrid]\ntypes = []",
            "hookstream.toml:2: source.datagrid.types: is empty; name at least one event type, or set unmapped = \"generic\"",
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
            "hookstream.toml:2: source.datagrid.secrets.0.value: unknown key; known are name, env, file, dir, not_before, not_after, binds",
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
            "hookstream.toml:2: source.datagrid.secrets.0: the variable BLANK is set but empty; give it the secret or unset it, or set enabled = false",
        ),
        (
            "[source.datagrid]\nsecrets = [\n  { env = 'DATAGRID_WEBHOOK_SECRET' },\n  { env = 'NO_SUCH' },\n]",
            "hookstream.toml:4: source.datagrid.secrets.1: the variable NO_SUCH is not set; set it, or set enabled = false",
        ),
        (
            "[source.datagrid]\nsecrets = [{ env = 'DATAGRID_WEBHOOK_SECRET' }, { env = 'DATAGRID_WEBHOOK_SECRET' }]",
            "hookstream.toml:2: source.datagrid.secrets: two secrets are called DATAGRID_WEBHOOK_SECRET; give one another `name`",
        ),
        (
            "[source.datagrid]\nsecrets = [{ file = '/no/such' }]",
            "hookstream.toml:2: source.datagrid.secrets.0: /no/such cannot be read (entity not found); create it, or let us read it, or set enabled = false",
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
            "foo: unknown key; known are http, admin, kafka, registry, spool, provision, log, lag, source",
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
            "http.: unknown key; known are listen, max_body, max_head, head_timeout, body_timeout, max_body_bytes, max_connections, max_connections_per_address, max_in_flight, drain_delay, shutdown_timeout, tls",
        ),
    ];
    for (name, expected) in rows {
        assert_eq!(line("", &[(name, CANARY)], &[]), format!("{name}: {expected}"));
    }
    assert_eq!(
        line("", &[("HOOKSTREAM_SOURCE__DATAGRID__PRESET", "123")], &[]),
        "HOOKSTREAM_SOURCE__DATAGRID__PRESET: source.datagrid.preset: unknown preset; known are datagrid, github, gitlab, grapevine, linear, shopify, slack, standard-webhooks, stripe, svix"
    );
    assert_eq!(line("", &[], &[CANARY]), "-X: has no `=`; write -X key=value");
    assert_eq!(
        line("", &[], &[&format!("http.lisen={CANARY}")]),
        "-X http.lisen: http.lisen: unknown key; did you mean `listen`?"
    );
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

#[test]
fn no_value_is_ever_repeated_wherever_it_was_put() {
    fn leaves(prefix: &str, node: &tree::Node, found: &mut Vec<String>) {
        match node.table() {
            Some(table) => {
                table.iter().for_each(|(key, node)| leaves(&format!("{prefix}.{key}"), node, found))
            }
            None => found.push(prefix.trim_start_matches('.').to_owned()),
        }
    }
    let mut keys = Vec::new();
    leaves("", &tree::Node::parse(layers::SHIPPED).ok().unwrap(), &mut keys);
    for (name, preset) in layers::PRESETS {
        leaves(&format!("source.{name}"), &tree::Node::parse(preset).ok().unwrap(), &mut keys);
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
