//! `hookstream spool requeue`

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::Url;
use serde::{Deserialize, Serialize};

use super::list::table;
use super::{count, note, print_json};
use crate::cli::{self, ConfigArgs, ExitStatus, admin_client, output};
use crate::client::{JsonObject, printable};
use crate::spool::{Filter, OpenError, RowState, RowSummary, Spool, SpoolLimits, SpoolReader};

/// The number of rows that the plan shows.
const SHOWN: usize = 20;

/// Ids in one request: far below the request size that the operator's port accepts.
const AT_ONCE: usize = 1_000;

/// The timeout of each request; `--all` takes about ten seconds for a million rows.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The time within which the spool must release its directory.
const CLOSE: Duration = Duration::from_secs(10);

/// Make parked rows live again, so that they are published
///
/// Shows the plan and changes nothing without --apply. If `serve` uses the spool, the command asks it through the
/// operator's port. Otherwise it changes the file itself, and the next start of `serve` publishes the rows.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The ids of the rows
    #[arg(value_name = "ID", required_unless_present = "all")]
    ids: Vec<i64>,
    /// Requeue all parked rows
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    /// Carry out the plan
    #[arg(long)]
    apply: bool,
    /// The URL of the service's operator's port [default: [admin] listen of the configuration]
    #[arg(long)]
    url: Option<String>,
}

/// The spool's directory, and the configuration of its service.
pub(super) struct SpoolLocation<'a> {
    pub(super) config: &'a ConfigArgs,
    pub(super) dir: &'a Path,
}

#[derive(Serialize)]
struct Planned {
    pending: u64,
}

#[derive(Serialize, Deserialize)]
struct RequeueResult {
    requeued: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum RequeueQuery<'a> {
    Ids(&'a [i64]),
    All(bool),
}

#[derive(Deserialize)]
struct RequeueError {
    error: String,
}

/// The rows to requeue: their number, and the first of them to show.
struct RequeuePlan {
    rows: u64,
    first: Vec<RowSummary>,
    ids: Option<Vec<i64>>,
}

pub(super) async fn run(
    place: &SpoolLocation<'_>,
    reader: SpoolReader,
    args: &Args,
    json: bool,
) -> anyhow::Result<ExitStatus> {
    let plan = plan(&reader, args)?;
    // SQLite loses its locks if one process closes a second descriptor of the file.
    drop(reader);
    if plan.rows == 0 {
        if json {
            print_json(&RequeueResult { requeued: 0 })?;
        } else {
            output::print_line("nothing to do: no matching row is parked")?;
        }
        return Ok(ExitStatus::Success);
    }
    if !args.apply {
        if json {
            print_json(&Planned { pending: plan.rows })?;
        } else {
            show(&plan)?;
        }
        return Ok(ExitStatus::Failure);
    }
    let requeued = apply(place, args, plan.ids.as_deref()).await?;
    if json {
        print_json(&RequeueResult { requeued })?;
    } else {
        output::print_line(&format!("requeued {}", count(requeued, "row")))?;
    }
    Ok(ExitStatus::Success)
}

fn plan(reader: &SpoolReader, args: &Args) -> anyhow::Result<RequeuePlan> {
    let parked = Filter { topic: None, state: Some(RowState::Parked) };
    if args.all {
        let rows = reader.totals()?.parked;
        let first = if rows == 0 { Vec::new() } else { reader.list(&parked, 0, SHOWN)? };
        return Ok(RequeuePlan { rows, first, ids: None });
    }
    let mut ids = args.ids.clone();
    ids.sort_unstable();
    ids.dedup();
    let (mut first, mut found) = (Vec::new(), Vec::new());
    for id in ids {
        let row = reader.list(&Filter::default(), id.saturating_sub(1), 1)?.pop().filter(|row| row.id == id);
        match row {
            Some(row) if row.state == RowState::Parked => {
                found.push(id);
                if first.len() < SHOWN {
                    first.push(row);
                }
            }
            Some(_) => note(&format!("row {id} is already live"))?,
            None => note(&format!("no row {id}: it was delivered, or never existed"))?,
        }
    }
    Ok(RequeuePlan { rows: found.len() as u64, first, ids: Some(found) })
}

fn show(plan: &RequeuePlan) -> anyhow::Result<()> {
    output::print_line(&table(&plan.first).to_string())?;
    let more = plan.rows.saturating_sub(plan.first.len() as u64);
    if more > 0 {
        output::print_line(&format!("... and {more} more"))?;
    }
    let what = count(plan.rows, "parked row");
    Ok(output::print_line(&format!("pending: {what} would become live; --apply does it"))?)
}

/// Changes the spool directly if no process uses it; otherwise asks the service that does.
async fn apply(place: &SpoolLocation<'_>, args: &Args, ids: Option<&[i64]>) -> anyhow::Result<u64> {
    let dir = place.dir.to_owned();
    // Requeueing adds no rows. A reserve would belong to the user who runs the command.
    let opened = tokio::task::spawn_blocking(move || Spool::open(&dir, SpoolLimits::UNBOUNDED)).await?;
    match opened {
        Ok((spool, _)) => {
            let requeued = spool.requeue(ids).await?;
            spool.close(CLOSE).await?;
            Ok(requeued)
        }
        Err(OpenError::Locked { .. }) => ask(place, args, ids).await,
        Err(error) => Err(error.into()),
    }
}

async fn ask(place: &SpoolLocation<'_>, args: &Args, ids: Option<&[i64]>) -> anyhow::Result<u64> {
    let (client, url) = admin_client(place.config, args.url.as_deref(), "/spool/requeue", TIMEOUT)?;
    let Some(ids) = ids else { return post(&client, &url, &RequeueQuery::All(true)).await };
    let mut requeued = 0;
    for chunk in ids.chunks(AT_ONCE) {
        requeued += post(&client, &url, &RequeueQuery::Ids(chunk)).await?;
    }
    Ok(requeued)
}

async fn post(client: &reqwest::Client, url: &Url, query: &RequeueQuery<'_>) -> anyhow::Result<u64> {
    let answer = cli::ask(client.post(url.clone()).json(query), url, |url| {
        format!(
            "the spool is in use, and no operator's port answers at {url}: give the service's URL with --url"
        )
    });
    let (answer, url) = (answer.await?, printable(url));
    let status = answer.status;
    if status.is_success() {
        let found = answer.json("the number of rows").with_context(|| cli::no_operator(&url))?;
        let JsonObject(RequeueResult { requeued }) = found;
        return Ok(requeued);
    }
    match answer.json::<JsonObject<RequeueError>>("") {
        Ok(JsonObject(refusal)) => {
            bail!("{url} answers {status}: {}", output::escape_controls(&refusal.error))
        }
        Err(_) => bail!("{url} answers {status}: is it the operator's port of hookstream?"),
    }
}
