//! `hookstream status`

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use anyhow::{Context as _, bail};
use jiff::{SignedDuration, Timestamp};
use reqwest::Url;

use super::output::{self, TextTable, escape_controls, escape_json, grouped, print_exact, print_line};
use super::{ConfigArgs, ExitStatus, admin_client, no_operator};
use crate::client::{JsonObject, printable};
use crate::http::AdminErrorBody;
use crate::observe::health::{PartState, ReadinessStatus};
use crate::observe::log;
use crate::observe::refusals::RefusalSummary;
use crate::observe::status::{SpoolStatus, Status};

const EXAMPLES: &str = "\
Examples:
  hookstream status                            traffic, refusals and their causes
  hookstream status --secrets                  which secrets are in use, which can be removed
  hookstream status --watch
  hookstream status --url http://10.0.0.7:9464 --json | jq .status

Exit codes: 0 ready, degraded included; 1 not ready; 2 no answer, or another error.";

/// The time limit of a request: the person on call must not wait.
const PATIENCE: Duration = Duration::from_secs(5);

/// The interval of --watch.
const PAUSE: Duration = Duration::from_secs(2);

/// Show the state of a running service: traffic, refusals and their causes
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The URL of the service's operator's port [default: [admin] listen of the configuration]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Show the use of each secret
    #[arg(long)]
    secrets: bool,
    /// Refresh every two seconds
    #[arg(long)]
    watch: bool,
    /// Print the JSON of the service
    #[arg(long)]
    json: bool,
}

/// Prints the status, once or until interrupted.
///
/// # Errors
/// The service cannot be reached, or another program answers.
pub async fn run(config: &ConfigArgs, args: &Args) -> anyhow::Result<ExitStatus> {
    log::init(log::QUIET);
    let (client, url) = admin_client(config, args.url.as_deref(), "/status", PATIENCE)?;
    loop {
        let (text, status) = ask(&client, &url).await?;
        if args.json {
            print_exact(&escape_json(text.trim_end()))?;
        } else {
            show(&status, args)?;
        }
        if !args.watch {
            return Ok(if status.readiness.is_ready() { ExitStatus::Success } else { ExitStatus::Failure });
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn ask(client: &reqwest::Client, url: &Url) -> anyhow::Result<(String, Status)> {
    let answer = super::ask(client.get(url.clone()), url, |url| {
        format!("no service answers at {url}: is it running? --url names another operator's port")
    });
    let (answer, url) = (answer.await?, printable(url));
    let code = answer.status;
    if !code.is_success() {
        match answer.json::<JsonObject<AdminErrorBody>>("a refusal") {
            Ok(JsonObject(AdminErrorBody { error })) => {
                bail!("{url} answers {code}: {}", escape_controls(&error))
            }
            Err(_) => bail!("{url} answers {code}: is it the operator's port of hookstream?"),
        }
    }
    let JsonObject(status) = answer.json("a service's status").with_context(|| no_operator(&url))?;
    let text = String::from_utf8(answer.body).with_context(|| no_operator(&url))?;
    Ok((text, status))
}

const BOLD: Style = Style::new().bold();
const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();
const UNSURE: Style = AnsiColor::Yellow.on_default().bold();

fn show(status: &Status, args: &Args) -> anyhow::Result<()> {
    if args.watch && std::io::stdout().is_terminal() {
        // Moves the cursor to the top and clears the screen.
        write!(output::stdout(), "\x1b[H\x1b[2J")?;
    }
    head(status)?;
    if !status.sources.is_empty() {
        print_line(&traffic(status).to_string())?;
    }
    for (name, source) in &status.sources {
        source.refusals.iter().try_for_each(|refusal| why(name, refusal, status.now))?;
    }
    if args.secrets {
        print_line("")?;
        print_line(&secrets(status).to_string())?;
    }
    print_line("")?;
    parts(status)
}

fn head(status: &Status) -> anyhow::Result<()> {
    let up = span(status.now.duration_since(status.started));
    let config = status.config.as_ref().map_or_else(String::new, |config| {
        let loaded = ago(status.now, Some(config.loaded));
        format!(", config {} loaded {loaded}", escape_controls(&config.hash))
    });
    let (word, style) = match status.readiness.status {
        ReadinessStatus::Ready => ("READY", GOOD),
        ReadinessStatus::Degraded => ("READY, degraded", UNSURE),
        ReadinessStatus::NotReady => ("NOT READY", BAD),
    };
    let version = escape_controls(&status.version);
    Ok(print_line(&format!("hookstream {version}, up {up}{config}.  {style}{word}{style:#}"))?)
}

/// Counts of five minutes, for the person on call, and of an hour, for what happened before.
fn traffic(status: &Status) -> TextTable {
    let mut table = TextTable::new([
        "source",
        "last request",
        "last accepted",
        "5 min: published",
        "spooled",
        "dead",
        "refused",
        "503",
        "1 h: accepted",
        "not accepted",
    ]);
    for (name, source) in &status.sources {
        let (now, hour) = (&source.traffic.last_5_minutes, &source.traffic.last_hour);
        // The provider sends, and nothing is stored.
        let silent =
            now.refused + now.unavailable > 0 && now.published + now.spooled + now.dead_lettered == 0;
        let accepted = ago(status.now, source.traffic.last_accepted);
        table.row([
            name.clone(),
            ago(status.now, source.traffic.last_request),
            if silent { format!("{accepted} !!") } else { accepted },
            grouped(now.published),
            grouped(now.spooled),
            grouped(now.dead_lettered),
            grouped(now.refused),
            grouped(now.unavailable),
            grouped(hour.published + hour.spooled + hour.dead_lettered),
            grouped(hour.refused + hour.unavailable),
        ]);
    }
    table
}

fn why(source: &str, refusal: &RefusalSummary, now: Timestamp) -> anyhow::Result<()> {
    let (source, reason) = (escape_controls(source), escape_controls(&refusal.reason));
    let (count, since) = (grouped(refusal.count), ago(now, Some(refusal.since)));
    print_line(&format!("{BOLD}why{BOLD:#}  {source}  {reason} x{count}, the first {since}"))?;
    if let Some(hint) = &refusal.hint {
        print_line(&format!("     hint: {}", escape_controls(hint)))?;
    }
    Ok(())
}

fn secrets(status: &Status) -> TextTable {
    let mut table = TextTable::new(["source", "secret", "from", "last match", "1 h", "24 h", ""]);
    for (name, source) in &status.sources {
        for secret in &source.secrets {
            table.row([
                name.clone(),
                secret.name.clone(),
                secret.from.clone().unwrap_or_default(),
                ago(status.now, secret.last_match),
                grouped(secret.last_hour),
                grouped(secret.last_day),
                if secret.safe_to_remove { "safe to remove".into() } else { String::new() },
            ]);
        }
    }
    table
}

fn parts(status: &Status) -> anyhow::Result<()> {
    for (name, part) in status.readiness.parts() {
        let (state, style) = match part.state {
            PartState::Ok => ("ok", GOOD),
            PartState::Degraded => ("degraded", UNSURE),
            PartState::Unknown => ("unknown", BAD),
            PartState::Down => ("down", BAD),
        };
        let why = escape_controls(&part.why);
        let line = format!("{name:<11} {style}{state:<9}{style:#} {why}");
        let rows = match &status.spool {
            Some(spool) if name == "spool" => self::rows(spool, status.now),
            _ => String::new(),
        };
        print_line(format!("{line}{rows}").trim_end())?;
    }
    Ok(print_line(&format!("{:<11} {}", "in flight", grouped(status.in_flight as u64)))?)
}

fn rows(spool: &SpoolStatus, now: Timestamp) -> String {
    let live = grouped(spool.live);
    let oldest = spool
        .oldest
        .map_or_else(String::new, |oldest| format!(", the oldest received {}", ago(now, Some(oldest))));
    let parked = match spool.parked {
        0 => String::new(),
        parked => format!("; {} parked: see `hookstream spool --parked`", grouped(parked)),
    };
    format!("{live} rows on their way{oldest}{parked}")
}

/// "4 s ago", or "never" since the service started.
fn ago(now: Timestamp, then: Option<Timestamp>) -> String {
    then.map_or_else(|| "never".to_owned(), |then| format!("{} ago", span(now.duration_since(then))))
}

/// In the largest unit that gives at least 2, so that the text is short and accurate enough.
fn span(duration: SignedDuration) -> String {
    match duration.as_secs().max(0) {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7_200 => format!("{} min", seconds / 60),
        seconds @ ..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        let span = |seconds| super::span(SignedDuration::from_secs(seconds));
        let spans = [-5, 0, 119, 120, 7_199, 7_200, 172_799, 172_800].map(span);
        assert_eq!(spans, ["0 s", "0 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 d"]);
    }
}
