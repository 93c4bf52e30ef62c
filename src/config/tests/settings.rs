//! The reference of the settings matches the code: its keys are the types' fields, its defaults are those of an empty
//! configuration, and docs/configuration.md contains it.
//!
//! `HOOKSTREAM_WRITE_DOCS=1 cargo test --lib settings` writes the page's tables.

use std::collections::BTreeSet;
use std::fmt::Debug;

use figment::Figment;
use figment::error::Kind;
use figment::providers::Serialized;
use serde::de::DeserializeOwned;

use super::*;
use crate::config::settings::{Default as Fallback, TABLES, markdown};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");

/// A source without a preset, with required settings only.
const BARE: &str = r#"
[source.bare]
secrets = [{ env = "DATAGRID_WEBHOOK_SECRET" }]
types = ["a"]
signature = { header = "x-signature", timestamp_header = "x-time", signed = "{timestamp}.{body}" }
envelope = { id = "digest", type = "/type" }
"#;

/// A type's fields, as `serde` lists them in the error for a misspelt one.
fn fields<T: DeserializeOwned + Debug>() -> BTreeSet<&'static str> {
    let error = Figment::from(Serialized::default("misspelt", 1)).extract::<T>().unwrap_err();
    let kinds = error.into_iter().map(|error| error.kind);
    let expected = kinds.filter_map(|kind| match kind {
        Kind::UnknownField(_, expected) => Some(expected),
        _ => None,
    });
    expected.flat_map(|expected| expected.iter().copied()).collect()
}

#[test]
fn settings_have_each_field_and_no_other() {
    let types = [
        ("http", fields::<Http>()),
        ("http.tls", fields::<TlsConfig>()),
        ("admin", fields::<AdminConfig>()),
        ("admin.tls", fields::<TlsConfig>()),
        ("kafka", fields::<Kafka>()),
        ("kafka.topics", fields::<Topics>()),
        ("registry", fields::<RegistryConfig>()),
        ("spool", fields::<SpoolConfig>()),
        ("provision", fields::<Provision>()),
        ("log", fields::<Log>()),
        ("lag", fields::<LagConfig>()),
        ("traces", fields::<TracesConfig>()),
        ("source.NAME", fields::<SourceConfig>()),
        ("source.NAME.signature", fields::<Signature>()),
        ("source.NAME.envelope", fields::<EnvelopeConfig>()),
    ];
    assert_eq!(
        TABLES.iter().map(|table| table.name).collect::<Vec<_>>(),
        types.each_ref().map(|(name, _)| *name)
    );
    for (table, (name, fields)) in TABLES.iter().zip(types) {
        let below = TABLES.iter().filter_map(|other| other.name.strip_prefix(name)?.strip_prefix('.'));
        let keys = table.settings.iter().filter_map(|setting| setting.key.split('.').next());
        assert_eq!(keys.chain(below).collect::<BTreeSet<_>>(), fields, "[{name}]");
    }
    let tables: BTreeSet<_> = TABLES.iter().filter_map(|table| table.name.split('.').next()).collect();
    assert_eq!(tables, fields::<Config>());
}

#[test]
fn settings_name_the_defaults_that_an_empty_configuration_has() {
    let empty = load_toml(BARE, &[], &[]).unwrap().config;
    let mut compared = 0;
    for table in TABLES {
        for setting in table.settings {
            let (Fallback::Is(value) | Fallback::PresetOr(value)) = setting.default else { continue };
            let key = format!("{}.{}", table.name.replace("NAME", "bare"), setting.key);
            // Only a list can be set to an empty value.
            if value.is_empty() && key.starts_with("source.") {
                continue;
            }
            let set = format!("{key}={value}");
            let config =
                load_toml(BARE, &[], &[&set]).unwrap_or_else(|problems| panic!("{set}: {problems}")).config;
            let [ours, theirs] = [&config, &empty].map(|config| {
                let signature = &config.source["bare"].signature[0];
                // These are optional in the type; the code that uses them applies the default.
                let choices = (
                    signature.hash.unwrap_or_default(),
                    signature.encoding.unwrap_or_default(),
                    signature.timestamp_unit.unwrap_or_default(),
                    signature.timestamp_format.unwrap_or_default(),
                );
                let mut config = config.clone();
                let signature = &mut config.source.get_mut("bare").unwrap().signature[0];
                (signature.hash, signature.encoding) = (None, None);
                (signature.timestamp_unit, signature.timestamp_format) = (None, None);
                format!("{choices:?} {config:?}")
            });
            assert_eq!(ours, theirs, "{set} is not the default");
            compared += 1;
        }
    }
    assert!(compared > 45, "{compared}");
}

/// The keys in the shipped file, including those in comments.
#[test]
fn settings_have_each_key_of_the_shipped_file() {
    let (mut table, mut seen) = (String::new(), 0);
    for line in crate::config::layers::SHIPPED.lines() {
        let line = line.strip_prefix("# ").unwrap_or(line);
        if let Some((name, _)) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            table = name.to_owned();
            continue;
        }
        let Some((key, _)) = line.split_once(" = ").filter(|(key, _)| !key.contains([' ', '#'])) else {
            continue;
        };
        let name = if table.starts_with("source.") { "source.NAME" } else { &table };
        let (name, key) = name.strip_suffix(".properties").map_or((name, key), |name| (name, "properties.*"));
        let found = TABLES.iter().find(|table| table.name == name).expect(name);
        let keys: Vec<_> = found.settings.iter().map(|setting| setting.key.trim_end_matches(".*")).collect();
        assert!(keys.contains(&key.trim_end_matches(".*")), "[{table}] {key} is not in {keys:?}");
        seen += 1;
    }
    assert!(seen > 50, "{seen}");
}

/// The page with its tables generated.
fn generated(page: &str) -> String {
    let mut made = String::new();
    let mut rest = page;
    for table in TABLES {
        let begin = format!("<!-- settings: {} -->\n", table.name);
        let (before, after) =
            rest.split_once(&begin).unwrap_or_else(|| panic!("docs/configuration.md has no {begin}"));
        let (_, after) = after.split_once("<!-- end -->\n").expect("the end of a table");
        made += &format!("{before}{begin}\n{}\n<!-- end -->\n", markdown(table));
        rest = after;
    }
    made + rest
}

#[test]
fn settings_are_on_the_page() {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let generated = generated(&page);
    if std::env::var_os("HOOKSTREAM_WRITE_DOCS").is_some() {
        std::fs::write(PAGE, &generated).unwrap();
        return;
    }
    let differs = generated.lines().zip(page.lines()).find(|(generated, found)| generated != found);
    assert!(
        generated == page,
        "HOOKSTREAM_WRITE_DOCS=1 cargo test --lib settings writes docs/configuration.md. First difference, generated and \
         found: {differs:?}"
    );
}
