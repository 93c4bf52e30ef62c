//! `hookstream subscription create`

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use jiff::Zoned;
use reqwest::Url;
use serde::Serialize;

use super::Common;
use super::api::{Api, CreateRequest, Webhook};
use super::secret_file::SecretFile;
use crate::cli::output::{self, escape_controls, note, print_json};
use crate::cli::{ConfigArgs, ExitStatus};
use crate::config::SourceConfig;

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
    #[arg(long, value_name = "PATH")]
    secret_file: Option<PathBuf>,
    /// Create a second webhook, with another secret, even if one for this URL exists
    #[arg(long)]
    another: bool,
    /// Carry out the plan
    #[arg(long)]
    apply: bool,
}

#[derive(Serialize, Default)]
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
    config: Option<String>,
}

pub(super) async fn run(config: &ConfigArgs, args: &Args) -> anyhow::Result<ExitStatus> {
    let Common { source: name, json, timeout } = &args.common;
    let source = super::source(config, name)?;
    let api = Api::new(*timeout)?;
    let mut events = if args.events.is_empty() { source.types.clone() } else { args.events.clone() };
    let mut seen = BTreeSet::new();
    events.retain(|event| seen.insert(event.clone()));
    let request = CreateRequest { url: args.url.as_str(), events: &events };
    let all = if args.another { Vec::new() } else { api.list().await? };
    if let Some(webhook) = existing(&all, &request)? {
        let id = escape_controls(&webhook.id);
        let text = format!("nothing to do: {id} delivers these events to this URL");
        print(*json, &CreateReport { webhook: Some(webhook), ..CreateReport::default() }, &text)?;
        note("its secret is not shown again; --another creates a second webhook with another secret")?;
        return Ok(ExitStatus::Success);
    }
    let file = args.secret_file.clone().unwrap_or_else(|| PathBuf::from(format!("{name}-webhook-secret")));
    let file = std::path::absolute(file).context("--secret-file")?;
    let shown_file = escape_controls(&file.to_string_lossy()).into_owned();
    let report = CreateReport { change: Some("create"), secret_file: Some(&file), ..CreateReport::default() };
    if !args.apply {
        let text = format!(
            "create  {}\n        {}\npending: a webhook would be created and its secret written to {shown_file}; \
             --apply does it",
            escape_controls(request.url),
            escape_controls(&events.join(" "))
        );
        print(*json, &CreateReport { request: Some(&request), ..report }, &text)?;
        warn(name, &source, args, &events)?;
        return Ok(ExitStatus::Failure);
    }
    let webhook = create(&api, &request, &file).await?;
    let line = config_line(&file, &Zoned::now().date().to_string());
    let text = format!(
        "created {}\nsecret  {shown_file}\nadd to [source.{name}] in the configuration, next to existing secrets:\n  {}",
        escape_controls(&webhook.id),
        escape_controls(&line)
    );
    let report = CreateReport { applied: true, webhook: Some(&webhook), config: Some(line), ..report };
    print(*json, &report, &text)?;
    warn(name, &source, args, &events)?;
    Ok(ExitStatus::Success)
}

/// Prepares the file for the secret, creates the webhook and saves the secret.
async fn create(api: &Api, request: &CreateRequest<'_>, file: &Path) -> anyhow::Result<Webhook> {
    let file = SecretFile::new(file)?;
    match api.create(request).await {
        Ok((secret, webhook)) => {
            file.keep(&secret).with_context(|| match &webhook {
                Ok(webhook) => format!("the webhook {} was created", escape_controls(&webhook.id)),
                Err(_) => String::from("the webhook was created"),
            })?;
            webhook.context("the webhook was created and its secret is saved")
        }
        Err(error) => {
            file.give_up();
            Err(error)
        }
    }
}

fn print(json: bool, report: &CreateReport<'_>, text: &str) -> anyhow::Result<()> {
    if json {
        return print_json(report);
    }
    Ok(output::print_line(text)?)
}

/// The line of configuration that refers to the secret.
fn config_line(file: &Path, name: &str) -> String {
    let file = toml::Value::from(file.to_string_lossy().as_ref());
    format!("secrets = [{{ name = \"{name}\", file = {file} }}]")
}

/// An existing webhook that already delivers these events to this URL.
fn existing<'a>(all: &'a [Webhook], request: &CreateRequest<'_>) -> anyhow::Result<Option<&'a Webhook>> {
    let same = || all.iter().filter(|webhook| webhook.url == request.url);
    let does = |webhook: &&Webhook| {
        webhook.enabled && request.events.iter().all(|event| webhook.events.contains(event))
    };
    let found = same().find(does);
    let Some(Webhook { id, enabled, .. }) = same().next().filter(|_| found.is_none()) else {
        return Ok(found);
    };
    let (id, why) = (escape_controls(id), if *enabled { "has other events" } else { "is paused" });
    bail!("{id} exists for this URL, but {why}: delete it, or create a second one with --another")
}

/// Notes on unusual arguments that may be intended.
fn warn(name: &str, source: &SourceConfig, args: &Args, events: &[String]) -> anyhow::Result<()> {
    for event in events.iter().filter(|event| !source.types.contains(event)) {
        note(&format!("{event} is not a type of [source.{name}]: its deliveries would become dead letters"))?;
    }
    let path = format!("/hooks/{name}");
    if !args.url.path().ends_with(&path) {
        note(&format!("the URL does not end in {path}, where hookstream accepts deliveries of {name}"))?;
    }
    Ok(())
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
        let line = config_line(odd, "2026-11-24");
        let table: toml::Table = line.parse().unwrap();
        assert_eq!(table["secrets"][0]["file"].as_str(), odd.to_str());
        assert_eq!(table["secrets"][0]["name"].as_str(), Some("2026-11-24"));
    }

    #[test]
    fn only_an_https_url_without_credentials_is_accepted() {
        assert!(https("https://hooks.example.com/hooks/datagrid").is_ok());
        for bad in ["http://x/hooks/datagrid", "https://u:p@x/", "https://x/#y", "hooks.example.com"] {
            assert!(https(bad).is_err(), "{bad}");
        }
    }
}
