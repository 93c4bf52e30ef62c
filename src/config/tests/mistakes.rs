//! Each row is one mistake and the line that reports it.

use super::*;

#[test]
fn one_mistake_gives_one_line_with_its_place() {
    let rows: &[(&str, &str)] = &[
        ("[http]\n\nlisten = 8080", "hookstream.toml:3: http.listen: expected text, found a number"),
        ("[http]\nlisen = 'x'", "hookstream.toml:2: http.lisen: unknown key; did you mean `listen`?"),
        ("htp.listen = 'x'", "hookstream.toml:1: htp: unknown key; did you mean `http`?"),
        (
            "\"a\\n\\u001b\" = 1",
            "hookstream.toml:1: a\\n\\u{1b}: unknown key; known names: http, admin, kafka, registry, spool, provision, log, lag, traces, source",
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
            "hookstream.toml:2: kafka.topics.retention: expected at least 1s, and at most what Kafka can represent in milliseconds",
        ),
        (
            "[source.datagrid]\nack_deadline = '2h'",
            "hookstream.toml:2: source.datagrid.ack_deadline: expected 1ms to 1h",
        ),
        (
            "[source.datagrid]\ndead_letter_rate = 0",
            "hookstream.toml:2: source.datagrid.dead_letter_rate: expected at least 1: with 0, the provider would retry an authentic but unusable delivery forever",
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
            "hookstream.toml:2: registry.context: expected a dot and a name, such as \".tenant\"; omit it for the default context",
        ),
        (
            "[registry]\nnormalize = 'perhaps'",
            "hookstream.toml:2: registry.normalize: expected true or false",
        ),
        (
            "[source.grapevine]\nstale = 'reject'",
            "hookstream.toml:2: source.grapevine.stale: needs a signed timestamp, and the signature has none; set \"accept\"",
        ),
        (
            "[source.datagrid]\ntolerance = '0s'",
            "hookstream.toml:2: source.datagrid.tolerance: expected 1s to 1h",
        ),
        (
            "[source.datagrid]\nsecrets = [{ env = 'A', not_after = 'hunter2-do-not-repeat' }]",
            "hookstream.toml:2: source.datagrid.secrets.0: `not_before` and `not_after` expect a time with a time zone, such as \"2027-02-01T00:00:00Z\"",
        ),
        (
            "[source.datagrid]\nsecrets = [{ env = 'A', not_before = 2027-01-01T00:00:00Z, not_after = 2027-01-01T00:00:00Z }]",
            "hookstream.toml:2: source.datagrid.secrets.0: `not_before` is not earlier than `not_after`",
        ),
        (
            "[source.datagrid]\nsecrets = [{ dir = '/x', not_after = 2027-01-01T00:00:00Z }]",
            "hookstream.toml:2: source.datagrid.secrets.0: `not_before` and `not_after` cannot be combined with `dir`: remove the file instead",
        ),
        ("[http]\nmax_body = 1023", "hookstream.toml:2: http.max_body: expected 1 KiB to 256 MiB"),
        (
            "[http]\nmax_body_bytes = '800 KiB'",
            "hookstream.toml:2: http.max_body_bytes: max_body_bytes, the limit for all bodies together, is less than max_body: a body of that size could never be accepted; raise it, or lower max_body",
        ),
        (
            "[http]\nmax_connections_per_address = 0",
            "hookstream.toml:2: http.max_connections_per_address: expected at least 1; the default is an eighth of http.max_connections, but at least 256",
        ),
        (
            "[source.datagrid]\nmax_in_flight = 2001",
            "hookstream.toml:2: source.datagrid.max_in_flight: expected 1 to 2000, which is http.max_in_flight",
        ),
        (
            "[spool]\nsource_share = 0",
            "hookstream.toml:2: spool.source_share: expected a number above 0 and at most 1",
        ),
        (
            "[spool]\nsource_share = 'nan'",
            "hookstream.toml:2: spool.source_share: expected a number above 0 and at most 1",
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
            "hookstream.toml:2: lag.groups.1: is an empty group name; remove it",
        ),
        ("[traces]\nsample = 1.5", "hookstream.toml:2: traces.sample: expected a number from 0 to 1"),
        ("[traces]\nsample = 'nan'", "hookstream.toml:2: traces.sample: expected a number from 0 to 1"),
        (
            "[traces]\nendpoint = 'collector:4317'",
            "hookstream.toml:2: traces.endpoint: expected the collector's base URL, such as \"http://127.0.0.1:4318\"",
        ),
        (
            "[traces]\nendpoint = 'http://collector:4318/v1/traces'",
            "hookstream.toml:2: traces.endpoint: ends in /v1/traces, which hookstream appends; remove it",
        ),
        (
            "[traces]\nendpoint = 'https://me:hunter2-do-not-repeat@collector'",
            "hookstream.toml:2: traces.endpoint: contains a user name or password; remove them and set traces.headers, with authorization by reference",
        ),
        (
            "[traces]\nendpoint = 'https://collector?key=hunter2-do-not-repeat'",
            "hookstream.toml:2: traces.endpoint: has a query or a fragment; remove it",
        ),
        ("[provision]\non_start = 'yes'", "hookstream.toml:2: provision.on_start: expected true or false"),
        (
            "[log]\nfilter = 'hookstream=loud'",
            "hookstream.toml:2: log.filter: expected a level (error, warn, info, debug, trace, off) or TARGET=LEVEL, several separated by commas",
        ),
        (
            "[http]\nlisten = '8080'",
            "hookstream.toml:2: http.listen: expected address:port, such as \"127.0.0.1:8080\" or \"[::]:8080\"",
        ),
        (
            "[admin]\nlisten = '127.0.0.1:8080'",
            "hookstream.toml:2: admin.listen: equals http.listen; give the operator's port its own address",
        ),
        (
            "[kafka]\nbootstrap_servers = 'a:1,,b:2'",
            "hookstream.toml:2: kafka.bootstrap_servers: expected host:port, several separated by commas",
        ),
        (
            "[kafka]\nbootstrap_servers = 'a:1,b:0'",
            "hookstream.toml:2: kafka.bootstrap_servers: expected host:port, several separated by commas",
        ),
        (
            "[kafka]\nbootstrap_servers = 'u:hunter2-do-not-repeat@b:2'",
            "hookstream.toml:2: kafka.bootstrap_servers: expected host:port, several separated by commas",
        ),
        (
            "[kafka]\nbootstrap_servers = 'a:1, http://b:2'",
            "hookstream.toml:2: kafka.bootstrap_servers: expected host:port, several separated by commas, not a URL; set security.protocol in [kafka.properties]",
        ),
        (
            "[registry]\nurl = 'https://r?token=hunter2-do-not-repeat'",
            "hookstream.toml:2: registry.url: has a query or a fragment; remove it, and set registry.bearer if it is a token",
        ),
        (
            "[registry]\nurl = 'registry:8081'",
            "hookstream.toml:2: registry.url: expected a URL with http:// or https://",
        ),
        (
            "[registry]\nurl = 'https://u:hunter2-do-not-repeat@r'",
            "hookstream.toml:2: registry.url: contains a user name or password; remove them and set registry.basic_auth, with the password by reference",
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
            "hookstream.toml:1: source.datagrid.envelope.keys: names an event type that is not in `types`; add it there, or correct it",
        ),
        (
            "[source.grapevine.envelope.keys]\n'document.changed' = 5",
            "hookstream.toml:2: source.grapevine.envelope.keys.document.changed: expected a JSON pointer such as \"/id\", or { header = \"NAME\" }, or a list of them, found a number",
        ),
        (
            "[source.datagrid.envelope]\naliases = { old = 'hunter2-do-not-repeat' }",
            "hookstream.toml:2: source.datagrid.envelope.aliases: names an event type that is not in `types`; add it there, or correct it",
        ),
        (
            "[source.datagrid.envelope]\ndefault_type = 'hunter2-do-not-repeat'",
            "hookstream.toml:2: source.datagrid.envelope.default_type: names an event type that is not in `types`; add it there, or correct it",
        ),
        (
            "[source.datagrid.envelope]\ntype = 5",
            "hookstream.toml:2: source.datagrid.envelope.type: expected a JSON pointer such as \"/id\", or { header = \"NAME\" }, or a list of them, found a number",
        ),
        (
            "[source.datagrid.envelope]\ntype = ['/type',\n5]",
            "hookstream.toml:3: source.datagrid.envelope.type.1: expected a JSON pointer such as \"/id\", or { header = \"NAME\" }, or a list of them, found a number",
        ),
        (
            "[source.datagrid.envelope]\ntype = []",
            "hookstream.toml:2: source.datagrid.envelope.type: is an empty list; name a place",
        ),
        (
            "[source.datagrid.envelope]\nid = { join = ['/a', { join = ['/b', '/c'] }] }",
            "hookstream.toml:2: source.datagrid.envelope.id.join.1: `join` is for the id only",
        ),
        (
            "[source.datagrid.envelope]\nid = ['/id', { heder = 'hunter2-do-not-repeat' }]",
            "hookstream.toml:2: source.datagrid.envelope.id.1.heder: unknown key; did you mean `header`?",
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
            "hookstream.toml:2: source.datagrid.preset: unknown preset; `hookstream providers` lists them",
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
            "hookstream.toml:2: source.datagrid.types.1: is an empty event type; remove it",
        ),
        (
            "[source.datagrd]\nenabled = false",
            "hookstream.toml:1: source.datagrd: this source has no rules: set its types, signature and envelope, or a preset; did you mean `datagrid`?",
        ),
        (
            "[source.Shop]\npreset = 'datagrid'",
            "hookstream.toml:1: source.Shop: a source name has 1 to 64 characters a-z, 0-9, _ and -, and starts with a letter, and not `dead_letter`; rename it",
        ),
        (
            "[source.shop]\npreset = 'datagrid'",
            "hookstream.toml:1: source.shop: has no usable secret; add secrets = [{ env = \"NAME\" }], or set enabled = false",
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
            "hookstream.toml:2: source.datagrid.secrets.0.value: unknown key; known names: name, env, file, dir, not_before, not_after, binds",
        ),
        (
            "[source.datagrid]\nsecrets = [{ env = 'A', file = '/b' }]",
            "hookstream.toml:2: source.datagrid.secrets.0: give exactly one of `env`, `file` and `dir`",
        ),
        (
            "[source.datagrid]\nsecrets = [{ name = 'a', dir = '/b' }]",
            "hookstream.toml:2: source.datagrid.secrets.0: `name` cannot be combined with `dir`: each secret is named after its file",
        ),
        (
            "[source.datagrid]\nsecrets = [{ env = 'BLANK' }]",
            "hookstream.toml:2: source.datagrid.secrets.0: the variable BLANK is set but empty; set it to the secret or unset it, or set enabled = false",
        ),
        (
            "[source.datagrid]\nsecrets = [\n  { env = 'DATAGRID_WEBHOOK_SECRET' },\n  { env = 'NO_SUCH' },\n]",
            "hookstream.toml:4: source.datagrid.secrets.1: the variable NO_SUCH is not set; set it, or set enabled = false",
        ),
        (
            "[source.datagrid]\nsecrets = [{ env = 'DATAGRID_WEBHOOK_SECRET' }, { env = 'DATAGRID_WEBHOOK_SECRET' }]",
            "hookstream.toml:2: source.datagrid.secrets: two secrets are named DATAGRID_WEBHOOK_SECRET; give one of them another `name`",
        ),
        (
            "[source.datagrid]\nsecrets = [{ file = '/no/such' }]",
            "hookstream.toml:2: source.datagrid.secrets.0: /no/such cannot be read (no such file); create it, or make it readable for the service, or set enabled = false",
        ),
        (
            "[source.datagrid]\nsecrets = [{ env = 'DEV' }]",
            "hookstream.toml:2: source.datagrid.secrets: DEV is the public dev secret: anyone can sign with it; set the provider's secret",
        ),
    ];
    let vars = [("BLANK", " \n"), ("DEV", secret::DEV_SECRETS[0].1)];
    for (toml, expected) in rows {
        assert_eq!(line(toml, &vars, &[]), *expected, "{toml}");
    }
}
