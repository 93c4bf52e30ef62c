//! Which sources are enabled, and with which secrets.

use std::os::unix::fs::PermissionsExt;

use jiff::Timestamp;

use super::*;

#[test]
fn without_a_secret_a_built_in_source_is_disabled_and_a_user_defined_one_is_a_problem() {
    let only = |name: &str| SECRETS.into_iter().filter(|(n, _)| n.starts_with(name)).collect::<Environment>();
    let overrides = Overrides::default();
    let loaded = load_with(&overrides, &only("DATAGRID"), &[]).unwrap();
    assert_eq!(loaded.config.source.keys().collect::<Vec<_>>(), ["datagrid"]);
    assert_eq!(loaded.off["grapevine"], "the variable GRAPEVINE_WEBHOOK_SECRET is not set");

    let none = load_with(&overrides, &Environment::default(), &[]).unwrap_err();
    let found = lines(&none);
    assert!(
        found.len() == 1 && found[0].starts_with("source: no source is enabled: datagrid ("),
        "{found:?}"
    );

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
fn a_short_secret_is_a_warning_and_secrets_of_a_disabled_source_are_not_read() {
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
        ["source datagrid: the secret 2026-11 has only 15 bytes; a secret below 16 bytes can be guessed"]
    );
    assert_eq!(loaded.off.len(), 1);
}

#[test]
fn dev_ignores_cluster_and_registry_and_has_a_secret_for_every_source() {
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
fn commands_read_only_the_secrets_they_need() {
    let toml = "[source.datagrid]\nsecrets = [{ file = '/no/such' }]";
    let load = |secrets| load_for(toml, &[], &[], Overrides { secrets, ..Overrides::default() });
    let loaded = load(Secrets::Unread).unwrap();
    assert!(loaded.secrets.is_empty() && loaded.config.source.len() == 2);
    let loaded = load(Secrets::Only("grapevine".into())).unwrap();
    assert_eq!(loaded.secrets.keys().collect::<Vec<_>>(), ["grapevine"]);
    assert!(load(Secrets::Only("datagrid".into())).is_err());
}

#[test]
fn a_secret_is_decoded_from_the_providers_format_or_reported_by_name() {
    let rule = |format: &str| format!("[source.datagrid.signature]\nsecret_format = '{format}'");
    let with = |value| [("DATAGRID_WEBHOOK_SECRET", value)];
    let loaded = load_toml(&rule("hex"), &with("00112233445566778899aabbccddeeff"), &[]).unwrap();
    assert_eq!(loaded.secrets["datagrid"][0].expose()[..3], [0x00, 0x11, 0x22]);
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let loaded = load_toml(&rule("whsec"), &with("whsec_AAECAwQFBgcICQo="), &[]).unwrap();
    assert!(loaded.warnings[0].contains("has only 11 bytes"), "{:?}", loaded.warnings);

    let line = line(&rule("base64"), &with(CANARY), &[]);
    assert!(line.contains("the secret DATAGRID_WEBHOOK_SECRET is not base64"), "{line}");
}

#[test]
fn sha_1_is_accepted_with_a_warning() {
    let loaded = load_toml("[source.datagrid.signature]\nhash = 'sha1'", &[], &[]).unwrap();
    assert_eq!(loaded.warnings.len(), 1);
    assert!(loaded.warnings[0].starts_with("source datagrid: signatures use SHA-1"));
    assert!(load_toml("", &[], &[]).unwrap().warnings.is_empty());
}

#[test]
fn a_binding_applies_to_every_secret_of_its_entry() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["2026-11", "2027-02"] {
        std::fs::write(dir.path().join(name), format!("whsec_of-{name}-000")).unwrap();
        std::fs::set_permissions(dir.path().join(name), PermissionsExt::from_mode(0o600)).unwrap();
    }
    let toml = format!(
        "[source.datagrid]
secrets = [
  {{ name = 'acme', env = 'DATAGRID_WEBHOOK_SECRET', binds = {{ pointer = '/tenant_id', equals = 'acme' }} }},
  {{ name = 'globex', env = 'DATAGRID_WEBHOOK_SECRET', binds = {{ pointer = '/tenant_id', equals = 'globex' }} }},
  {{ dir = '{}', binds = {{ pointer = '/a/b', equals = 'c' }} }},
]
signature.secret_format = 'text'",
        dir.path().display()
    );
    let loaded = load_toml(&toml, &[], &[]).unwrap();
    let bound = loaded.secrets["datagrid"].iter().map(|secret| {
        let binds = secret.binds.as_deref().unwrap();
        format!("{} {} {}", secret.name, binds.pointer, binds.equals)
    });
    let expected = ["acme /tenant_id acme", "globex /tenant_id globex", "2026-11 /a/b c", "2027-02 /a/b c"];
    assert_eq!(bound.collect::<Vec<_>>(), expected);
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);

    // Decoding preserves the binding.
    let toml = "[source.datagrid]\nsignature.secret_format = 'hex'\n\
                secrets = { env = 'HEX', binds = { pointer = '/a', equals = 'b' } }";
    let loaded = load_toml(toml, &[("HEX", "00112233445566778899aabbccddeeff")], &[]).unwrap();
    assert!(loaded.secrets["datagrid"][0].binds.is_some());
}

#[test]
fn an_invalid_binding_is_a_problem() {
    for (entry, expected) in [
        (
            "env = 'A', binds = { pointer = 'hunter2-do-not-repeat', equals = 'x' }",
            ".0: `binds.pointer` must be a JSON pointer such as \"/tenant_id\"",
        ),
        (
            "dir = '/x', binds = { pointer = '/tenant_id', equals = '' }",
            ".0: `binds.equals` is empty; set it to the text that the body must contain there",
        ),
        ("env = 'A', binds = { pointer = '/tenant_id' }", ".0.binds: lacks `equals`; add it"),
        (
            "env = 'A', binds = { pointer = '/a', equals = 5 }",
            ".0.binds.equals: expected text, found a number",
        ),
        (
            "env = 'A', binds = { pointer = '/a', equals = 'b', path = '' }",
            ".0.binds.path: unknown key; known names: pointer, equals",
        ),
    ] {
        let line =
            line(&format!("[source.datagrid]\nsecrets = [{{ {entry} }}]"), &[("A", SECRETS[0].1)], &[]);
        assert_eq!(line, format!("hookstream.toml:2: source.datagrid.secrets{expected}"));
    }
    let line = line("[registry]\nbearer = { env = 'A', binds = { pointer = '/a', equals = 'b' } }", &[], &[]);
    assert_eq!(line, "hookstream.toml:2: registry.bearer: `binds` is for a source's secrets only");
}

#[test]
fn an_unbound_copy_of_a_bound_secret_gets_a_warning() {
    let toml = "
[source.datagrid]
secrets = [
  { name = 'any', env = 'DATAGRID_WEBHOOK_SECRET' },
  { name = 'acme', env = 'DATAGRID_WEBHOOK_SECRET', binds = { pointer = '/a', equals = 'acme' } },
]";
    let loaded = load_toml(toml, &[], &[]).unwrap();
    let expected = "source datagrid: the secrets acme and any have the same value, and any is not bound: \
                    anyone who holds it can sign for every tenant; bind both, or use different values";
    assert_eq!(loaded.warnings, [expected]);
}

#[test]
fn keys_that_tenants_share_get_a_warning() {
    let load = |more: &str, binds: &str| {
        let toml =
            format!("[source.datagrid]\n{more}\nsecrets = [{{ env = 'DATAGRID_WEBHOOK_SECRET'{binds} }}]");
        load_toml(&toml, &[], &[]).unwrap()
    };
    let binds = ", binds = { pointer = '/a', equals = 'acme' }";
    let loaded = load("", binds);
    assert!(loaded.config.source["datagrid"].binding_in_key && loaded.warnings.is_empty());
    assert!(load("binding_in_key = false", "").warnings.is_empty(), "nothing is bound");
    let warnings = load("binding_in_key = false", binds).warnings;
    let expected = "source datagrid: binding_in_key is false, so anyone who holds the bound secret DATAGRID_WEBHOOK_SECRET";
    assert!(matches!(&warnings[..], [only] if only.starts_with(expected)), "{warnings:?}");
}

#[test]
fn secrets_that_are_invalid_or_expire_soon_get_a_warning() {
    let days = |days: i64| Timestamp::now() + jiff::SignedDuration::from_hours(24 * days + 1);
    let load = |secrets: &[(&str, Option<i64>, Option<i64>)]| {
        let entry = |(name, from, until): &(&str, Option<i64>, Option<i64>)| {
            let time = |key: &str, day: &Option<i64>| day.map(|day| format!(", {key} = '{}'", days(day)));
            let (from, until) = (time("not_before", from), time("not_after", until));
            let env = "env = 'DATAGRID_WEBHOOK_SECRET'";
            format!("{{ name = '{name}', {env}{}{} }}", from.unwrap_or_default(), until.unwrap_or_default())
        };
        let entries: Vec<_> = secrets.iter().map(entry).collect();
        load_toml(&format!("[source.datagrid]\nsecrets = [{}]", entries.join(", ")), &[], &[]).unwrap()
    };
    // The lines, with each timestamp replaced.
    let masked = |lines: &[String]| {
        let word =
            |word: &str| if word.starts_with("20") && word.len() > 20 { "TIME" } else { word }.to_owned();
        let line = |line: &String| line.split(' ').map(word).collect::<Vec<_>>().join(" ");
        lines.iter().map(line).collect::<Vec<_>>()
    };
    let loaded = load(&[("far", None, Some(14)), ("always", None, None)]);
    assert!(loaded.warnings.is_empty() && loaded.refusing.is_empty(), "{:?}", loaded.warnings);

    let loaded = load(&[("old", None, Some(-2)), ("now", None, Some(13)), ("next", Some(5), None)]);
    assert_eq!(
        masked(&loaded.warnings),
        [
            "source datagrid: the secret old expired at TIME and is refused; remove it",
            "source datagrid: the secret now expires at TIME in 13 days; switch the provider to next before then",
            "source datagrid: the secret next is valid from TIME and is refused until then",
        ]
    );
    // A secret of another tenant is not a successor.
    let bound = |name: &str, more: &str| {
        format!(
            "{{ name = '{name}', env = 'DATAGRID_WEBHOOK_SECRET'{more}, binds = {{ pointer = '/a', equals = '{name}' }} }}"
        )
    };
    let soon = bound("acme", &format!(", not_after = '{}'", days(3)));
    let toml = format!("[source.datagrid]\nsecrets = [{soon}, {}]", bound("globex", ""));
    let loaded = load_toml(&toml, &[], &[]).unwrap();
    assert!(loaded.warnings[0].ends_with("in 3 days; add its successor (docs/secrets.md, Rotate a secret)"));

    let loaded = load(&[("now", None, Some(0))]);
    assert_eq!(
        masked(&loaded.warnings),
        ["source datagrid: the secret now expires at TIME in less than a day; \
          add its successor (docs/secrets.md, Rotate a secret)"]
    );
    let loaded = load(&[("old", None, Some(-2)), ("next", Some(5), None)]);
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    assert_eq!(
        masked(&loaded.refusing.into_values().collect::<Vec<_>>()),
        [
            "source datagrid: no secret is valid now, so every delivery is refused with 401: old expired at TIME \
          next is valid from TIME add a valid secret"
        ]
    );
}

const TWO_SCHEMES: &str = "
[[source.shop.signature]]
header = 'X-A'
signed = '{body}'
secret_format = 'FORMAT'
[[source.shop.signature]]
kind = 'token'
header = 'X-B'
[source.shop]
envelope = { id = 'digest', type = '/type' }
unmapped = 'generic'
";

#[test]
fn of_the_keys_that_schemes_decode_from_a_secret_the_shortest_counts() {
    let toml = TWO_SCHEMES.replace("FORMAT", "hex") + "secrets = [{ name = 'both', env = 'BOTH' }]";
    let loaded = load_toml(&toml, &[("BOTH", "0123456789abcdef")], &[]).unwrap();
    let short = loaded.warnings.iter().any(|line| line.contains("the secret both has only 8 bytes"));
    assert!(short, "{:?}", loaded.warnings);
}

#[test]
fn a_secret_of_another_scheme_is_no_successor() {
    let soon = Timestamp::now() + jiff::SignedDuration::from_hours(72);
    let secrets = format!(
        "secrets = [{{ name = 'old', env = 'OLD', not_after = '{soon}' }}, {{ name = 'new', env = 'NEW' }}]"
    );
    let toml = TWO_SCHEMES.replace("FORMAT", "whsec") + &secrets;
    let warned = |new: &str| {
        let vars = [("OLD", "whsec_AAECAwQFBgcICQoLDA0ODw=="), ("NEW", new)];
        load_toml(&toml, &vars, &[]).unwrap().warnings.join("\n")
    };
    let (other, same) = (warned("a-token-of-the-shop"), warned("whsec_AQECAwQFBgcICQoLDA0ODw=="));
    assert!(other.contains("the secret old expires") && other.contains("add its successor"), "{other}");
    assert!(same.contains("switch the provider to new"), "{same}");
}

#[test]
fn a_damaged_whsec_secret_is_reported_without_its_value() {
    let toml = TWO_SCHEMES.replace("FORMAT", "whsec") + "secrets = [{ env = 'OLD' }]";
    let line = line(&toml, &[("OLD", "\"whsec_AAECAwQFBgcICQoLDA0ODw==\"")], &[]);
    assert!(line.contains("the secret OLD is not `whsec_` and then base64, although"), "{line}");
    assert!(!line.contains("AAEC"), "{line}");
}
