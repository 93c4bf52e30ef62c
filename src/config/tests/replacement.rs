//! A higher layer replaces the value of a setting whole; only tables of settings are merged.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;
use crate::config::envelope::{EventIdRule, TextPart};
use crate::config::layers::{Layers, SettingLocation};
use crate::config::settings::TABLES;
use crate::config::tree::ConfigNode;

fn envelope(preset: &str, rules: &str, sets: &[&str]) -> EnvelopeConfig {
    let toml = format!(
        "[source.s]\npreset = '{preset}'\nsecrets = {{ env = 'DATAGRID_WEBHOOK_SECRET' }}\n[source.s.envelope]\n{rules}"
    );
    let loaded = load_toml(&toml, &[], sets).unwrap_or_else(|problems| panic!("{preset}: {problems}"));
    loaded.config.source["s"].envelope.clone()
}

#[test]
fn w0_a_place_replaces_the_one_of_the_preset_whole() {
    let header = |name: &str, unsigned| TextPart::Header { name: name.to_owned(), unsigned };
    for preset in ["shopify", "github", "linear", "gitlab", "stripe", "standard-webhooks"] {
        let id = "id = { header = 'X-Shopify-Webhook-Id', unsigned = true }";
        let expected = vec![EventIdRule::Part(header("X-Shopify-Webhook-Id", true))];
        assert_eq!(envelope(preset, id, &[]).id.0, expected, "{preset}");

        let id = "id = { join = ['/a', '/b'], separator = '-' }";
        let [EventIdRule::Join { parts, separator }] = &envelope(preset, id, &[]).id.0[..] else {
            panic!("{preset}: not joined");
        };
        assert_eq!((parts.len(), separator.as_str()), (2, "-"), "{preset}");

        let sets = ["source.s.envelope.id.header=X-C", "source.s.envelope.id.unsigned=true"];
        let expected = vec![EventIdRule::Part(header("X-C", true))];
        assert_eq!(envelope(preset, id, &sets).id.0, expected, "several -X make one value: {preset}");
    }
}

#[test]
fn w0b_unsigned_is_not_inherited_by_another_place() {
    for (rules, sets) in [
        ("type = { header = 'X-Other-Event' }", &[][..]),
        ("", &["source.s.envelope.type.header=X-Other-Event"][..]),
        ("type = { header = 'X-A', unsigned = true }", &["source.s.envelope.type.header=X-Other-Event"][..]),
    ] {
        let expected = TextPart::Header { name: "X-Other-Event".to_owned(), unsigned: false };
        assert_eq!(envelope("github", rules, sets).event_type.0, [expected], "{rules} {sets:?}");
    }
}

#[test]
fn a_secret_by_reference_keeps_nothing_of_the_one_it_replaces() {
    let toml = "[source.datagrid]\nsecrets = { name = 'old', dir = '/no/such', binds = { pointer = '/a', equals = 'b' } }\n\
                [registry]\nbasic_auth = { username = 'u', password = { file = '/no/such' } }";
    let vars = [
        ("HOOKSTREAM_SOURCE__DATAGRID__SECRETS__ENV", "DATAGRID_WEBHOOK_SECRET"),
        ("HOOKSTREAM_REGISTRY__BASIC_AUTH__PASSWORD__ENV", "DATAGRID_WEBHOOK_SECRET"),
        ("HOOKSTREAM_REGISTRY__BASIC_AUTH__USERNAME", "v"),
    ];
    let loaded = load_toml(toml, &vars, &[]).unwrap();
    let secret = &loaded.secrets["datagrid"][0];
    assert_eq!((&*secret.name, secret.binds.is_none()), ("DATAGRID_WEBHOOK_SECRET", true));
    assert_eq!(loaded.registry_auth, Auth::Basic("v".into(), SecretText::new(SECRETS[0].1)));

    let mistake = line(toml, &vars[..2], &[]);
    let place = "HOOKSTREAM_REGISTRY__BASIC_AUTH__PASSWORD__ENV: registry.basic_auth";
    assert_eq!(mistake, format!("{place}: lacks `username`; add it"));
}

/// The value of a setting, as TOML or as variables.
#[derive(Debug, Clone)]
enum Written {
    Leaf(String),
    List(Vec<Written>),
    Table(std::collections::BTreeMap<&'static str, Written>),
}

const WORDS: [&str; 9] =
    ["header", "unsigned", "join", "env", "file", "binds", "equals", "username", "push.main"];

fn written() -> impl Strategy<Value = Written> {
    let leaf = prop::sample::select(vec!["'a'", "'/b'", "7", "0.5", "true"]);
    leaf.prop_map(|text| Written::Leaf(text.to_owned())).prop_recursive(3, 12, 3, |value| {
        let table = btree_map(prop::sample::select(WORDS.to_vec()), value.clone(), 0..4);
        prop_oneof![vec(value, 0..3).prop_map(Written::List), table.prop_map(Written::Table)]
    })
}

impl Written {
    fn toml(&self) -> String {
        match self {
            Self::Leaf(text) => text.clone(),
            Self::List(list) => format!("[{}]", list.iter().map(Self::toml).collect::<Vec<_>>().join(", ")),
            Self::Table(table) => {
                let entry = |(key, value): (&&str, &Self)| format!("'{key}' = {}", value.toml());
                format!("{{ {} }}", table.iter().map(entry).collect::<Vec<_>>().join(", "))
            }
        }
    }

    /// The paths and texts of its leaves: variables have no lists.
    fn leaves<'w>(&'w self, path: Vec<&'w str>, found: &mut Vec<(Vec<&'w str>, String)>) {
        match self {
            Self::Table(table) if !table.is_empty() => {
                table.iter().for_each(|(key, value)| value.leaves([&path[..], &[key]].concat(), found));
            }
            value => found.push((path, value.toml())),
        }
    }
}

/// The layers from the lowest to the highest; the first two are a preset and the shipped file.
const PLACES: usize = 5;

fn place(layer: usize) -> SettingLocation {
    match layer {
        0 | 1 => SettingLocation::BuiltIn,
        2 => SettingLocation::File("hookstream.toml".into(), 1),
        3 => SettingLocation::Variable("VARIABLE".into()),
        _ => SettingLocation::Set("set".into()),
    }
}

/// Sets the setting at `path` in a layer.
fn set(layers: &mut Layers, layer: usize, path: &[&str], value: &Written) {
    if layer < 3 {
        let key: Vec<_> = path.iter().map(|key| format!("'{key}'")).collect();
        let toml = format!("{} = {}", key.join("."), value.toml());
        layers.push(place(layer), ConfigNode::parse(&toml).unwrap_or_else(|_| panic!("{toml}")));
    } else {
        let mut leaves = Vec::new();
        value.leaves(path.to_vec(), &mut leaves);
        for (path, text) in leaves {
            layers.push(place(layer), ConfigNode::nested(path, &text));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(20261126),
        ..ProptestConfig::default()
    })]

    /// For every setting: the effective value is that of the higher layer alone, and so is the place that messages name.
    /// Other settings of the same table keep what the lower layer says.
    #[test]
    fn the_value_of_a_setting_is_replaced_whole(
        low in written(),
        high in written(),
        (below, above) in (0..PLACES, 0..PLACES).prop_filter("a lower and a higher layer", |(a, b)| a < b),
    ) {
        for table in TABLES {
            for setting in table.settings {
                let key = format!("{}.{}", table.name, setting.key);
                let path: Vec<&str> = key.split('.').map(|key| match key {
                    "NAME" => "shop",
                    "*" => "some.name",
                    key => key,
                }).collect();
                let beside = [&path[..path.len() - 1], &["beside"]].concat();

                let mut alone = Layers::default();
                set(&mut alone, above, &path, &high);
                let mut layers = Layers::default();
                set(&mut layers, below, &beside, &low);
                set(&mut layers, below, &path, &low);
                set(&mut layers, above, &path, &high);
                layers.replace_settings();

                let value = |layers: &Layers, path: &[&str]| {
                    let mut found = figment::value::Value::from(layers.merged());
                    for key in path {
                        found = found.into_dict().and_then(|mut dict| dict.remove(*key))?;
                    }
                    Some(found)
                };
                prop_assert!(value(&alone, &path).is_some());
                prop_assert_eq!(value(&layers, &path), value(&alone, &path), "{}", &key);
                prop_assert!(value(&layers, &beside).is_some(), "{} removes the setting beside it", &key);
                let dotted = path.join(".");
                for name in WORDS.iter().map(|word| format!("{dotted}.{word}")).chain([dotted.clone()]) {
                    prop_assert_eq!(layers.place(&name), place(above), "{}", name);
                }
            }
        }
    }
}
