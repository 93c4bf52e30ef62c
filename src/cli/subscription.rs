//! `hookstream subscription`

mod api;
mod create;
mod secret_file;

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
  hookstream subscription delete datagrid wh_1 --apply

Set DATAGRID_API_KEY to the API key, and DATAGRID_API_URL to use another address
than https://api.datagrid.com (with or without /v1). `create` and `delete` show the plan
and change nothing without --apply.

Exit codes: 0 success or nothing to do; 1 a plan not applied; 2 error.";

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
    /// Delete a webhook; changes nothing without --apply
    Delete(DeleteArgs),
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
struct DeleteArgs {
    #[command(flatten)]
    common: Common,
    /// The id of the webhook, as `list` shows it
    #[arg(value_parser = id)]
    id: String,
    /// Carry out the plan
    #[arg(long)]
    apply: bool,
}

#[derive(Serialize)]
struct DeleteReport {
    change: Option<&'static str>,
    applied: bool,
    webhook: Option<Webhook>,
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
        SubscriptionCommand::Delete(args) => delete(config, args).await,
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
            let state = if webhook.enabled { "active" } else { "paused" };
            let created = webhook.created_at.as_deref().unwrap_or_default();
            table.row([&webhook.id, state, created, &webhook.url, &webhook.events.join(" ")]);
        }
        output::print_line(&table.to_string())?;
    }
    Ok(ExitStatus::Success)
}

async fn delete(config: &ConfigArgs, args: &DeleteArgs) -> anyhow::Result<ExitStatus> {
    let DeleteArgs { common, id, apply } = args;
    source(config, &common.source)?;
    let api = Api::new(common.timeout)?;
    let webhook = api.list().await?.into_iter().find(|webhook| webhook.id == *id);
    let applied = webhook.is_some() && *apply;
    if applied {
        api.delete(id).await?;
    }
    let text = match &webhook {
        None => format!("nothing to do: no webhook {id}"),
        Some(_) if applied => format!("deleted {id}"),
        Some(Webhook { url, .. }) => format!("pending: {id} for {url} would be deleted; --apply does it"),
    };
    let pending = webhook.is_some() && !applied;
    if common.json {
        print_json(&DeleteReport { change: webhook.is_some().then_some("delete"), applied, webhook })?;
    } else {
        output::print_line(&escape_controls(&text))?;
    }
    Ok(if pending { ExitStatus::Failure } else { ExitStatus::Success })
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
