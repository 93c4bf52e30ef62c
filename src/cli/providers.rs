//! `hookstream providers` and `hookstream init`: what the presets know of their providers.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};

use anyhow::Context as _;
use serde::Serialize;

use super::ExitStatus;
use super::output::{self, TextTable};
use crate::config::{
    self, Hash, Provider, Signature, SignatureKind, SourceConfig, Stale, provider_rules, providers,
};
use crate::names;

const EXAMPLES: &str = "\
Examples:
  hookstream providers               # all of them
  hookstream providers stripe        # how Stripe signs, what is unsigned, when it retries, where to click
  hookstream providers --json";

const INIT_EXAMPLES: &str = "\
Examples:
  hookstream init stripe
  hookstream init stripe >> config/hookstream.toml";

/// List the providers that have a preset, or show one
///
/// A preset has the rules of a provider's deliveries; `preset = \"NAME\"` in a source is all that it takes. A provider that is
/// not in the list needs a few lines more: see docs/providers.md.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The preset to show
    #[arg(value_name = "PROVIDER")]
    name: Option<String>,
    /// Print JSON even on a terminal
    #[arg(long)]
    json: bool,
}

/// Print the configuration of a provider's source, and what to do next
///
/// The output is TOML: it can be appended to the configuration as it is.
#[derive(Debug, clap::Args)]
#[command(after_help = INIT_EXAMPLES)]
pub struct InitArgs {
    /// A preset: `hookstream providers` lists them
    #[arg(value_name = "PROVIDER")]
    provider: String,
    /// The source's name, if it is not the preset's
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

/// One provider, for people and programs.
#[derive(Debug, Serialize)]
pub struct ProviderFacts {
    /// The preset.
    pub preset: &'static str,
    /// The provider.
    pub provider: &'static str,
    /// Its page about signatures.
    pub docs: &'static str,
    /// How it signs, a phrase for each scheme.
    pub signed: Vec<String>,
    /// What the signature does not cover.
    pub unsigned: &'static str,
    /// What happens to a delivery whose signed time is too far from now.
    pub stale: String,
    /// When it sends a delivery again.
    pub retries: Option<&'static str>,
    /// How long it waits for the answer.
    pub timeout: Option<&'static str>,
    /// Where to enter the URL.
    pub setup: &'static str,
    /// What the secret is called there.
    pub secret: &'static str,
    /// What does not work, or needs a setting.
    pub note: Option<&'static str>,
    /// Who signed the deliveries that the tests verify.
    pub vectors: Vec<&'static str>,
}

/// The facts of a preset; `None` if it does not exist.
pub fn facts(name: &str) -> Option<ProviderFacts> {
    let (preset, provider) = providers().get_key_value(name)?;
    let Provider { docs, about, vector, .. } = provider;
    let rules = provider_rules(preset)?;
    let mut vectors: Vec<&str> = vector.iter().map(|vector| vector.by.as_str()).collect();
    vectors.dedup();
    Some(ProviderFacts {
        preset,
        provider: &about.name,
        docs: docs.as_deref().unwrap_or_default(),
        signed: rules.signature.iter().map(signed).collect(),
        unsigned: &about.unsigned,
        stale: stale(&rules),
        retries: about.retries.as_deref(),
        timeout: about.timeout.as_deref(),
        setup: &about.setup,
        secret: &about.secret,
        note: about.note.as_deref(),
        vectors,
    })
}

/// How one scheme signs, as a phrase.
fn signed(rules: &Signature) -> String {
    let header = rules.header.join(" or ");
    let hash = match rules.hash.unwrap_or_default() {
        Hash::Sha256 => "SHA-256",
        Hash::Sha512 => "SHA-512",
        Hash::Sha1 => "SHA-1",
    };
    match rules.kind {
        SignatureKind::Hmac => {
            format!("HMAC with {hash} of {:?} in {header}", rules.signed.as_deref().unwrap_or_default())
        }
        SignatureKind::Token => format!("none: {header} holds the secret itself"),
        SignatureKind::Bearer => "none: the secret is a bearer token".to_owned(),
        SignatureKind::Basic => "none: the secret is user and password (HTTP Basic)".to_owned(),
    }
}

/// What happens to an old delivery, as a phrase.
fn stale(rules: &SourceConfig) -> String {
    let timed =
        |rules: &Signature| rules.signed.as_ref().is_some_and(|signed| signed.contains("{timestamp}"));
    let minutes = rules.tolerance.as_secs() / 60;
    match rules.stale {
        _ if !rules.signature.iter().any(timed) => "accepted: no time is signed".to_owned(),
        Stale::Accept => "accepted: a retry may have the time of the first attempt".to_owned(),
        Stale::DeadLetter => format!("a dead letter past {minutes} min"),
        Stale::Reject => format!("refused past {minutes} min; each attempt is signed anew"),
    }
}

/// Lists the presets, or shows one.
///
/// # Errors
/// An unknown preset; standard output cannot be written.
pub fn run(args: &Args) -> anyhow::Result<ExitStatus> {
    let all: Vec<ProviderFacts> = match &args.name {
        Some(name) => vec![known(name)?],
        None => providers().keys().filter_map(|name| facts(name)).collect(),
    };
    match (&args.name, all.first()) {
        _ if args.json || !io::stdout().is_terminal() => all.iter().try_for_each(output::print_json)?,
        (Some(_), Some(facts)) => output::print_line(&text(facts))?,
        _ => output::print_line(&table(&all))?,
    }
    Ok(ExitStatus::Success)
}

fn known(name: &str) -> anyhow::Result<ProviderFacts> {
    facts(name).with_context(|| {
        let hint = config::suggestion(name, providers().keys().copied());
        let hint = hint.map_or_else(String::new, |known| format!(" (did you mean `{known}`?)"));
        format!(
            "there is no preset `{name}`{hint}: `hookstream providers` lists them, and docs/providers.md shows how to \
             configure a provider without one"
        )
    })
}

fn table(all: &[ProviderFacts]) -> String {
    let mut table = TextTable::new(["preset", "signature", "old deliveries"]);
    for facts in all {
        let stale = facts.stale.split([':', ';']).next().unwrap_or_default();
        table.row([facts.preset, &facts.signed.join("; or "), stale]);
    }
    table.to_string()
}

fn text(facts: &ProviderFacts) -> String {
    let mut text = format!("{} ({})\n", facts.provider, facts.docs);
    let signed = facts.signed.join("; or ");
    let rows = [
        ("signature", Some(signed.as_str())),
        ("unsigned", Some(facts.unsigned)),
        ("old deliveries", Some(&facts.stale)),
        ("retries", facts.retries),
        ("its time-out", facts.timeout),
        ("secret", Some(facts.secret)),
        ("webhook URL", Some(facts.setup)),
        ("note", facts.note),
    ];
    for (label, value) in rows {
        // Writing to a string cannot fail.
        let _ = value.map(|value| write!(text, "\n{label:<16}{value}"));
    }
    let _ = write!(text, "\n\nTo configure it: hookstream init {}", facts.preset);
    text
}

/// Prints the source's block and the next steps.
///
/// # Errors
/// An unknown preset, a name that no source may have; standard output cannot be written.
pub fn init(args: &InitArgs) -> anyhow::Result<ExitStatus> {
    let facts = known(&args.provider)?;
    let name = args.name.as_deref().unwrap_or(facts.preset);
    anyhow::ensure!(
        names::is_source(name),
        "a source name has 1 to 64 characters a-z, 0-9, _ and -, and starts with a letter, and is not `dead_letter`"
    );
    output::print_line(&block(&facts, name))?;
    Ok(ExitStatus::Success)
}

/// The block in TOML, with comments for what TOML cannot say.
pub fn block(facts: &ProviderFacts, name: &str) -> String {
    let ProviderFacts { preset, provider, setup, secret, note, .. } = facts;
    let variable = format!("{}_SECRET", name.to_uppercase().replace('-', "_"));
    let needs_url = facts.signed.iter().any(|signed| signed.contains("{url}"));
    let mut block = format!("# {provider}: enter https://YOUR-HOST/hooks/{name} at {setup}.\n");
    let _ = note.map(|note| writeln!(block, "# {note}."));
    let _ = write!(block, "[source.{name}]\npreset = \"{preset}\"\n");
    let _ = write!(block, "# {secret}\nsecrets = [{{ env = \"{variable}\" }}]\n");
    if needs_url {
        let _ = write!(
            block,
            "# The URL exactly as entered at the provider, which signs it.\nsignature.url = \"https://YOUR-HOST/hooks/{name}\"\n"
        );
    }
    let _ = write!(
        block,
        "# Next: `{variable}=... hookstream check`, and `hookstream dev` to try it; `hookstream send {name}` sends a sample."
    );
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, Overrides};

    #[test]
    fn every_provider_is_configured_by_its_block() {
        for name in providers().keys() {
            let facts = facts(name).unwrap();
            let block = block(&facts, name);
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), &block).unwrap();
            let overrides = Overrides { file: Some(file.path().to_owned()), ..Overrides::default() };
            let variable = block.split("env = \"").nth(1).unwrap().split('"').next().unwrap();
            let secret = &providers()[name].vector[0].secret;
            let environment: Environment = [(variable, secret.as_str())].into_iter().collect();
            let loaded = config::load(&overrides, &environment)
                .unwrap_or_else(|problems| panic!("{block}\n{problems}"));
            crate::app::compile(&loaded).unwrap_or_else(|problems| panic!("{block}\n{problems}"));
            assert!(text(&facts).contains("hookstream init"));
        }
    }

    #[test]
    fn an_unknown_provider_is_named_with_the_nearest() {
        let error = known("strype").unwrap_err().to_string();
        assert!(error.contains("no preset `strype` (did you mean `stripe`?)"), "{error}");
    }
}
