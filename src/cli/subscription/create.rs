//! `hookstream subscription create`

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use jiff::Zoned;
use reqwest::Url;
use serde::Serialize;

use super::api::{Api, CreateRequest, Webhook};
use super::secret_sink::{self, SecretSink};
use super::{Common, note};
use crate::cli::output::{self, escape_controls, print_json};
use crate::cli::{ConfigArgs, ExitStatus};
use crate::config::{SecretText, SourceConfig};

/// Create a webhook; changes nothing without --apply
///
/// Datagrid shows the webhook's secret only once. The command writes it to a new file that only its owner can read,
/// before it prints anything.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) common: Common,
    /// The URL for deliveries, such as https://hooks.example.com/hooks/datagrid
    #[arg(long, value_name = "URL", value_parser = https)]
    url: Url,
    /// An event type; may be repeated [default: all types of the source]
    #[arg(long = "event", value_name = "TYPE")]
    events: Vec<String>,
    /// The new file for the secret [default: ./SOURCE-webhook-secret]
    #[arg(long, value_name = "PATH", conflicts_with = "print_secret")]
    secret_file: Option<PathBuf>,
    /// Print the secret instead of writing it to a file; without --json, standard output has only the secret
    #[arg(long)]
    print_secret: bool,
    /// Create a second webhook, with another secret, even if one for this URL exists
    #[arg(long)]
    another: bool,
    /// Carry out the plan
    #[arg(long)]
    apply: bool,
}

#[derive(Serialize)]
struct CreateReport<'a> {
    change: Option<&'static str>,
    applied: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook: Option<&'a Webhook>,
    #[serde(rename = "wish", skip_serializing_if = "Option::is_none")]
    request: Option<&'a CreateRequest<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_file: Option<&'a Path>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<&'a str>,
}

pub(super) async fn run(config: &ConfigArgs, args: &Args) -> anyhow::Result<ExitStatus> {
    let Common { source: name, json, timeout } = &args.common;
    let source = super::source(config, name)?;
    let api = Api::new(*timeout)?;
    let mut events = if args.events.is_empty() { source.types.clone() } else { args.events.clone() };
    let mut seen = BTreeSet::new();
    events.retain(|event| seen.insert(event.clone()));
    let request = CreateRequest { url: args.url.as_str(), events: &events };
    let notes = notes(name, &source, args, &events);
    if !args.another
        && let Some(existing) = existing(&api.list().await?, &request)?
    {
        if *json {
            let done = CreateReport { change: None, applied: false, ..CreateReport::about(Some(&existing)) };
            print_json(&done)?;
        } else {
            output::print_line(&format!(
                "nothing to do: {} delivers these events to this URL",
                escape_controls(&existing.id)
            ))?;
        }
        note("its secret is not shown again; --another creates a second webhook with another secret")?;
        return Ok(ExitStatus::Success);
    }
    let file = (!args.print_secret).then(|| match &args.secret_file {
        Some(file) => file.clone(),
        None => PathBuf::from(format!("{name}-webhook-secret")),
    });
    let file = file.map(std::path::absolute).transpose().context("--secret-file")?;
    if !args.apply {
        plan(args, &request, file.as_deref())?;
        notes.iter().try_for_each(|text| note(text))?;
        return Ok(ExitStatus::Failure);
    }
    let (secret, webhook) = create(&api, &request, file.as_deref(), *json).await?;
    let webhook = webhook.context("the webhook was created and its secret is saved")?;
    report(args, &webhook, file.as_deref(), &secret)?;
    notes.iter().try_for_each(|text| note(text))?;
    Ok(ExitStatus::Success)
}

/// Prepares the place for the secret, creates the webhook and saves the secret.
async fn create(
    api: &Api,
    request: &CreateRequest<'_>,
    file: Option<&Path>,
    json: bool,
) -> anyhow::Result<(SecretText, anyhow::Result<Webhook>)> {
    let mut sink = match file {
        Some(file) => SecretSink::file(file)?,
        None if json => SecretSink::InJson,
        None => SecretSink::Print,
    };
    match api.create(request).await {
        Ok((secret, webhook)) => {
            sink.keep(&secret).with_context(|| match &webhook {
                Ok(webhook) => format!("the webhook {} was created", escape_controls(&webhook.id)),
                Err(_) => String::from("the webhook was created"),
            })?;
            Ok((secret, webhook))
        }
        Err(error) => {
            sink.give_up();
            Err(error)
        }
    }
}

impl<'a> CreateReport<'a> {
    fn about(webhook: Option<&'a Webhook>) -> Self {
        let change = Some("create");
        Self { change, applied: true, webhook, request: None, secret_file: None, secret: None, config: None }
    }
}

fn plan(args: &Args, request: &CreateRequest<'_>, file: Option<&Path>) -> anyhow::Result<()> {
    if let Some(file) = file {
        secret_sink::check(file)?;
    }
    if args.common.json {
        let planned = CreateReport {
            applied: false,
            request: Some(request),
            secret_file: file,
            ..CreateReport::about(None)
        };
        return print_json(&planned);
    }
    output::print_line(&format!("create  {}", escape_controls(request.url)))?;
    for event in request.events {
        output::print_line(&format!("        {}", escape_controls(event)))?;
    }
    let target = file.map_or_else(|| String::from("standard output"), |file| file.display().to_string());
    Ok(output::print_line(&format!(
        "pending: a webhook would be created and its secret written to {}; --apply does it",
        escape_controls(&target)
    ))?)
}

fn report(args: &Args, webhook: &Webhook, file: Option<&Path>, secret: &SecretText) -> anyhow::Result<()> {
    let name = &args.common.source;
    let config = config_line(name, file, &Zoned::now().date().to_string());
    if args.common.json {
        let secret = file.is_none().then(|| secret.expose());
        let made = CreateReport {
            secret_file: file,
            secret,
            config: Some(&config),
            ..CreateReport::about(Some(webhook))
        };
        return print_json(&made);
    }
    let mut lines = vec![format!("created {}", escape_controls(&webhook.id))];
    if let Some(file) = file {
        lines.push(format!("secret  {}", escape_controls(&file.to_string_lossy())));
    }
    lines.push(format!("add to [source.{name}] in the configuration, next to existing secrets:"));
    lines.push(format!("  {}", escape_controls(&config)));
    match file {
        Some(_) => lines.iter().try_for_each(|line| Ok(output::print_line(line)?)),
        // Standard output is reserved for the secret.
        None => lines.iter().try_for_each(|line| super::line(line)),
    }
}

/// The line of configuration that refers to the secret.
fn config_line(source: &str, file: Option<&Path>, name: &str) -> String {
    let place = match file {
        Some(file) => format!("file = {}", toml::Value::from(file.to_string_lossy().as_ref())),
        None => {
            let source: String = source
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' })
                .collect();
            format!("env = \"{source}_WEBHOOK_SECRET\"")
        }
    };
    format!("secrets = [{{ name = \"{name}\", {place} }}]")
}

/// An existing webhook that already delivers these events to this URL.
fn existing(all: &[Webhook], request: &CreateRequest<'_>) -> anyhow::Result<Option<Webhook>> {
    let same = |webhook: &&Webhook| webhook.url == request.url;
    let does = |webhook: &&Webhook| {
        webhook.enabled && request.events.iter().all(|event| webhook.events.contains(event))
    };
    if let Some(webhook) = all.iter().filter(same).find(does) {
        return Ok(Some(webhook.clone()));
    }
    let Some(Webhook { id, enabled, .. }) = all.iter().find(same) else { return Ok(None) };
    let (id, why) = (escape_controls(id), if *enabled { "has other events" } else { "is paused" });
    bail!("{id} exists for this URL, but {why}: resume or delete it, or create a second one with --another")
}

/// Notes on unusual arguments that may be intended.
fn notes(name: &str, source: &SourceConfig, args: &Args, events: &[String]) -> Vec<String> {
    let mut notes = Vec::new();
    let unknown = events.iter().filter(|event| !source.types.contains(event));
    notes.extend(unknown.map(|event| {
        let event = escape_controls(event);
        format!("{event} is not a type of [source.{name}]: its deliveries would become dead letters")
    }));
    let path = format!("/hooks/{name}");
    if !args.url.path().ends_with(&path) {
        notes.push(format!("the URL does not end in {path}, where hookstream accepts deliveries of {name}"));
    }
    notes
}

fn https(text: &str) -> anyhow::Result<Url> {
    let url = Url::parse(text).ok().filter(|url| url.scheme() == "https" && url.has_host());
    let url = url.context("expected a URL that begins with https://")?;
    ensure!(
        url.username().is_empty() && url.password().is_none(),
        "the URL must not contain a user or a password"
    );
    ensure!(url.fragment().is_none(), "the URL must not have a fragment (#)");
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_line_is_valid_configuration_for_any_path() {
        let odd = Path::new("/run/a \"b\"\\c");
        let line = config_line("datagrid", Some(odd), "2026-11-24");
        let table: toml::Table = line.parse().unwrap();
        assert_eq!(table["secrets"][0]["file"].as_str(), odd.to_str());
        assert_eq!(table["secrets"][0]["name"].as_str(), Some("2026-11-24"));
        let line = config_line("data-grid", None, "x");
        assert_eq!(line, r#"secrets = [{ name = "x", env = "DATA_GRID_WEBHOOK_SECRET" }]"#);
    }

    #[test]
    fn only_an_https_url_without_credentials_is_accepted() {
        assert!(https("https://hooks.example.com/hooks/datagrid").is_ok());
        for bad in ["http://x/hooks/datagrid", "https://u:p@x/", "https://x/#y", "hooks.example.com"] {
            assert!(https(bad).is_err(), "{bad}");
        }
    }
}
