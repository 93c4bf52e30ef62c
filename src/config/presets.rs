//! The presets: what hookstream knows of a provider, one file of config/providers each. A file has the rules of a source,
//! and what nobody configures: facts for people, samples for `send`, and the vectors that show the rules right.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use jiff::Timestamp;
use serde::Deserialize;

use super::SourceConfig;

/// Name and text of each file, in the order of the names. `build.rs` lists them.
pub(super) const PRESETS: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/presets.rs"));

/// The tables of a preset's file that are not rules of a source.
pub(super) const FACTS: [&str; 3] = ["about", "sample", "vector"];

/// A provider, apart from the rules of its deliveries.
#[derive(Debug, Deserialize)]
pub struct Provider {
    /// Its page about signatures.
    pub docs: Option<String>,
    /// Facts for people.
    pub about: About,
    /// Realistic deliveries, the most useful one first.
    #[serde(default)]
    pub sample: Vec<PresetSample>,
    /// Deliveries that others signed.
    #[serde(default)]
    pub vector: Vec<PresetVector>,
}

/// `[about]`: facts for people, each a phrase.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// The provider's name.
    pub name: String,
    /// Where the URL of a webhook is entered there.
    pub setup: String,
    /// What the secret is called there, and its form.
    pub secret: String,
    /// What the signature does not cover.
    pub unsigned: String,
    /// When the provider sends a delivery again, and how often.
    #[serde(default)]
    pub retries: Option<String>,
    /// How long it waits for the answer.
    #[serde(default)]
    pub timeout: Option<String>,
    /// The list of addresses that it publishes: a URL.
    #[serde(default)]
    pub addresses: Option<String>,
    /// What does not work, or needs a setting of the user's.
    #[serde(default)]
    pub note: Option<String>,
}

/// `[[sample]]`: a delivery as the provider sends it, on one line.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PresetSample {
    /// The event type.
    #[serde(rename = "type")]
    pub event_type: String,
    /// The body.
    pub body: String,
}

/// `[[vector]]`: a delivery that another program signed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PresetVector {
    /// Who signed it: a published example, the provider's library, or another implementation.
    pub by: String,
    /// When it is received, if a time is signed.
    #[serde(default)]
    pub at: Option<Timestamp>,
    /// The secret, as the provider writes it.
    pub secret: String,
    /// The URL that is signed.
    #[serde(default)]
    pub url: Option<String>,
    /// The request's headers.
    pub headers: BTreeMap<String, String>,
    /// The body as text.
    #[serde(default)]
    pub body: String,
    /// The body in base64, if it is no text.
    #[serde(default)]
    pub body_base64: Option<String>,
}

/// The available presets: name and TOML text.
pub fn presets() -> impl Iterator<Item = (&'static str, &'static str)> {
    PRESETS.iter().copied()
}

/// All providers by the name of their preset.
///
/// # Panics
/// Never: a test reads every file.
pub fn providers() -> &'static BTreeMap<&'static str, Provider> {
    static ALL: LazyLock<BTreeMap<&'static str, Provider>> = LazyLock::new(|| {
        // A file that cannot be read would be missing here; a test reads all.
        presets().filter_map(|(name, text)| Some((name, toml::from_str(text).ok()?))).collect()
    });
    &ALL
}

/// The rules of a preset, before any setting of a user's; `None` if there is no such preset.
pub fn provider_rules(name: &str) -> Option<SourceConfig> {
    let (_, text) = presets().find(|(preset, _)| *preset == name)?;
    let mut rules: toml::Table = text.parse().ok()?;
    FACTS.iter().for_each(|facts| drop(rules.remove(*facts)));
    rules.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_says_what_a_person_needs_to_know() {
        for (name, text) in presets() {
            let provider: Provider = toml::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}"));
            let about = &provider.about;
            for phrase in [&about.name, &about.setup, &about.secret, &about.unsigned] {
                let is_sentence = phrase.ends_with('.') && !phrase.ends_with("...");
                assert!(!phrase.trim().is_empty() && !is_sentence, "{name}: {phrase:?}");
            }
            assert!(!provider.sample.is_empty(), "{name} has no sample");
            assert!(!provider.vector.is_empty(), "{name} has no vector");
            for sample in &provider.sample {
                assert_eq!(sample.body, sample.body.trim(), "{name}");
            }
        }
        assert_eq!(providers().len(), PRESETS.len());
    }

    /// An answer after the provider has given up is none.
    #[test]
    fn every_preset_answers_before_its_provider_gives_up() {
        let mut checked = 0;
        for (name, provider) in providers() {
            let rules = provider_rules(name).expect(name);
            let timeout = provider.about.timeout.as_deref();
            // Some say it in more words than a duration.
            if let Some(Ok(timeout)) = timeout.map(humantime::parse_duration) {
                assert!(rules.ack_deadline < timeout, "{name}: {:?}, {timeout:?}", rules.ack_deadline);
                checked += 1;
            }
        }
        assert!(checked > 20, "{checked}");
    }
}
