//! `hookstream subscription`

mod api;
mod create;
mod secret_sink;

use std::io::Write as _;
use std::time::Duration;

use anyhow::{bail, ensure};
use serde::Serialize;

use self::api::{Api, Webhook};
use super::output::{self, TextTable, escape_controls, print_json};
use super::{ConfigArgs, ExitStatus, send};
use crate::config::{self, Environment, Overrides, Secrets, SourceConfig};
use crate::observe::log;

const EXAMPLES: &str = "\
Examples:
  hookstream subscription list datagrid
  hookstream subscription create datagrid --url https://hooks.example.com/hooks/datagrid
  hookstream subscription create datagrid --url https://hooks.example.com/hooks/datagrid --apply
  hookstream subscription pause datagrid wh_1 --apply

Set DATAGRID_API_KEY to the API key, and DATAGRID_API_URL to use another address
than https://api.datagrid.com (with or without /v1). Commands that change something
show the plan and change nothing without --apply.

Exit codes: 0 success or nothing to do; 1 no such webhook, or a plan not applied; 2 error.";

/// Manage webhook subscriptions through the provider's API
///
/// Works for sources with the preset datagrid. `list` shows all webhooks of the API key's teamspace, since the API has
/// no sources.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, disable_help_subcommand = true)]
pub struct Args {
    #[command(subcommand)]
    action: SubscriptionCommand,
}

/// `Create` has its doc comment at its `Args`.
#[derive(Debug, clap::Subcommand)]
enum SubscriptionCommand {
    Create(create::Args),
    /// List all webhooks
    List(Common),
    /// Show one webhook
    Show(One),
    /// Pause deliveries; changes nothing without --apply
    Pause(WebhookChange),
    /// Resume deliveries; changes nothing without --apply
    Resume(WebhookChange),
    /// Delete a webhook; changes nothing without --apply
    Delete(WebhookChange),
}

#[derive(Debug, clap::Args)]
struct Common {
    /// The source, by its name in the configuration
    source: String,
    /// Print JSON lines
    #[arg(long)]
    json: bool,
    /// Time to wait for each answer
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = send::timeout)]
    timeout: Duration,
}

#[derive(Debug, clap::Args)]
struct One {
    #[command(flatten)]
    common: Common,
    /// The id of the webhook, as `list` shows it
    #[arg(value_parser = id)]
    id: String,
}

#[derive(Debug, clap::Args)]
struct WebhookChange {
    #[command(flatten)]
    one: One,
    /// Carry out the plan
    #[arg(long)]
    apply: bool,
}

/// A change of a webhook.
#[derive(Clone, Copy)]
enum ChangeKind {
    Pause,
    Resume,
    Delete,
}

impl ChangeKind {
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Pause => ("pause", "paused"),
            Self::Resume => ("resume", "resumed"),
            Self::Delete => ("delete", "deleted"),
        }
    }
}

#[derive(Serialize)]
struct ChangeReport<'a> {
    change: Option<&'static str>,
    applied: bool,
    webhook: Option<&'a Webhook>,
}

/// Runs the subcommand.
///
/// # Errors
/// Problems of the configuration; a source of another provider; refusals of the API.
pub async fn run(config: &ConfigArgs, args: &Args) -> anyhow::Result<ExitStatus> {
    log::init(log::QUIET);
    match &args.action {
        SubscriptionCommand::Create(args) => create::run(config, args).await,
        SubscriptionCommand::List(common) => list(config, common).await,
        SubscriptionCommand::Show(one) => show_one(config, one).await,
        SubscriptionCommand::Pause(args) => change(config, args, ChangeKind::Pause).await,
        SubscriptionCommand::Resume(args) => change(config, args, ChangeKind::Resume).await,
        SubscriptionCommand::Delete(args) => change(config, args, ChangeKind::Delete).await,
    }
}

/// The source's configuration. Needs no secrets, neither the source's nor Kafka's: they may not exist yet.
fn source(config: &ConfigArgs, name: &str) -> anyhow::Result<SourceConfig> {
    let overrides = Overrides { secrets: Secrets::Unread, embedded: true, ..config.overrides() };
    let mut loaded = config::load(&overrides, &Environment::from_process())?;
    let Some(source) = loaded.config.source.remove(name) else {
        if let Some(why) = loaded.off.get(name) {
            bail!("the source {name} is off: {why}");
        }
        let known: Vec<_> = loaded.config.source.keys().map(String::as_str).collect();
        bail!("there is no source `{}`; there are: {}", escape_controls(name), known.join(", "));
    };
    let preset = source.preset.as_deref();
    ensure!(
        preset == Some("datagrid"),
        "only Datagrid's API is supported, and the source {name} has another provider ({}): \
         subscribe in that provider's dashboard",
        preset.unwrap_or("no preset")
    );
    Ok(source)
}

async fn list(config: &ConfigArgs, args: &Common) -> anyhow::Result<ExitStatus> {
    source(config, &args.source)?;
    let all = Api::new(args.timeout)?.list().await?;
    if args.json {
        all.iter().try_for_each(print_json)?;
    } else if all.is_empty() {
        output::print_line("no webhooks; `hookstream subscription create` creates one")?;
    } else {
        let mut table = TextTable::new(["id", "state", "created", "url", "events"]);
        for webhook in &all {
            let created = webhook.created_at.as_deref().unwrap_or_default();
            table.row([&webhook.id, state(webhook), created, &webhook.url, &webhook.events.join(" ")]);
        }
        output::print_line(&table.to_string())?;
    }
    Ok(ExitStatus::Success)
}

async fn show_one(config: &ConfigArgs, args: &One) -> anyhow::Result<ExitStatus> {
    let common = &args.common;
    source(config, &common.source)?;
    let Some(webhook) = Api::new(common.timeout)?.get(&args.id).await? else {
        note(&format!("no webhook {}", args.id))?;
        return Ok(ExitStatus::Failure);
    };
    if common.json {
        print_json(&webhook)?
    } else {
        show(&webhook)?
    }
    Ok(ExitStatus::Success)
}

async fn change(config: &ConfigArgs, args: &WebhookChange, kind: ChangeKind) -> anyhow::Result<ExitStatus> {
    let One { common, id } = &args.one;
    source(config, &common.source)?;
    let api = Api::new(common.timeout)?;
    let (verb, done) = kind.words();
    let found = api.get(id).await?;
    let (needed, missing) = match (&found, kind) {
        (None, ChangeKind::Delete) => (false, false),
        (None, _) => (false, true),
        (Some(webhook), ChangeKind::Pause) => (webhook.enabled, false),
        (Some(webhook), ChangeKind::Resume) => (!webhook.enabled, false),
        (Some(_), ChangeKind::Delete) => (true, false),
    };
    if missing {
        note(&format!("no webhook {id}"))?;
        return Ok(ExitStatus::Failure);
    }
    let mut webhook = found;
    if needed && args.apply {
        match kind {
            ChangeKind::Pause => webhook = Some(api.switch(id, false).await?),
            ChangeKind::Resume => webhook = Some(api.switch(id, true).await?),
            ChangeKind::Delete => api.delete(id).await?,
        }
    }
    let applied = needed && args.apply;
    if common.json {
        print_json(&ChangeReport { change: needed.then_some(verb), applied, webhook: webhook.as_ref() })?;
    } else if applied {
        output::print_line(&format!("{done} {id}"))?;
    } else if needed {
        webhook.as_ref().map_or(Ok(()), show)?;
        output::print_line(&format!("pending: {id} would be {done}; --apply does it"))?;
    } else {
        let why = if webhook.is_some() { format!("{id} is {done}") } else { format!("no webhook {id}") };
        output::print_line(&format!("nothing to do: {why}"))?;
    }
    Ok(if needed && !applied { ExitStatus::Failure } else { ExitStatus::Success })
}

fn show(webhook: &Webhook) -> anyhow::Result<()> {
    let rows = [
        ("webhook", webhook.id.as_str()),
        ("state", state(webhook)),
        ("url", &webhook.url),
        ("events", &webhook.events.join(" ")),
        ("created", webhook.created_at.as_deref().unwrap_or("unknown")),
        ("updated", webhook.updated_at.as_deref().unwrap_or("unknown")),
    ];
    rows.iter().try_for_each(|(name, value)| {
        Ok(output::print_line(&format!("{name:<9}{}", escape_controls(value)))?)
    })
}

const fn state(webhook: &Webhook) -> &'static str {
    if webhook.enabled { "active" } else { "paused" }
}

/// Parses an id. It becomes part of a path, so characters with a meaning there could address another resource.
fn id(text: &str) -> anyhow::Result<String> {
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':');
    let fits = (1..=200).contains(&text.len()) && text.bytes().all(known);
    ensure!(
        fits && text.bytes().any(|b| b.is_ascii_alphanumeric()),
        "expected the id of a webhook, as `list` shows it"
    );
    Ok(text.to_owned())
}

/// Prints one line to standard error.
fn line(text: &str) -> anyhow::Result<()> {
    Ok(writeln!(output::stderr(), "{}", output::escape_controls(text))?)
}

fn note(text: &str) -> anyhow::Result<()> {
    line(&format!("note  {text}"))
}
