//! Each 202 follows the sync of its row, and the directory entries that lead to the row are durable.
//!
//! A kill cannot show this, since the page cache outlives the process. So the program runs under strace, and its system
//! calls show the order: the row's page is written to SQLite's log, then a sync of the log starts and succeeds, then the
//! first byte of the answer is sent. Whether the disk obeys a sync is beyond this check.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context as _;
use hookstream::failpoints::Failpoint;

use crate::provider::{Provider, within};
use crate::service::{Launch, signal};
use crate::support::{PATIENCE, Setup, batch};
use crate::trace::{self, Call};

/// Deliveries and their connections: enough that one sync covers several rows, and that a checkpoint restarts the log.
const DELIVERIES: usize = 480;
const CLIENTS: usize = 8;

/// The longest string that strace prints: more than a page of the log or an answer.
const STRING: &str = "8192";

/// The start of each id; five digits follow.
const PREFIX: &str = "order-evt-";

/// The result of the check; an error instead means that it could not be done.
#[derive(Debug, Default)]
pub struct Verdict {
    /// The checked answers 202.
    pub answered: usize,
    /// Syncs of the log in the trace.
    pub syncs: usize,
    /// The violations, one sentence each.
    pub violations: Vec<String>,
}

/// Fails if an answer was sent before the syncs of its row and of the directories.
pub async fn run(bug: Option<Failpoint>) -> anyhow::Result<()> {
    let verdict = check(bug).await?;
    println!("{:<32}{:>8}", "answered 202", verdict.answered);
    println!("{:<32}{:>8}", "syncs of the log", verdict.syncs);
    println!("{:<32}{:>8}", "violations", verdict.violations.len());
    let first = verdict.violations.first();
    first.map_or(Ok(()), |first| Err(anyhow::anyhow!("wrong order: {first}")))
}

/// Runs the program, with `bug` if there is one, under strace, and checks the trace.
pub async fn check(bug: Option<Failpoint>) -> anyhow::Result<Verdict> {
    anyhow::ensure!(bug.is_none() || cfg!(feature = "failpoints"), "a bug needs --features failpoints");
    check_strace()?;
    let temporary = tempfile::tempdir()?;
    // strace prints canonical paths.
    let dir = temporary.path().canonicalize()?;
    let (spool, file) = (dir.join("spool"), dir.join("trace"));
    let setup = Setup {
        kafka: "127.0.0.1:1".into(),
        rules: "types = [\"batch_prediction.completed\"]".into(),
        tables: format!("[spool]\ndir = \"{}\"\nmin_free = \"1 MiB\"", spool.display()),
        ..Setup::new("datagrid")
    };
    let config = dir.join("hookstream.toml");
    std::fs::write(&config, setup.toml())?;
    let calls = format!("trace={}", trace::CALLS);
    let output = file.display().to_string();
    let under = ["strace", "-f", "-y", "-s", STRING, "-e", &calls, "-e", "signal=none", "-o", &output];
    let launch = Launch {
        config,
        log: dir.join("log"),
        under: under.iter().map(ToString::to_string).collect(),
        bug: bug.map(Failpoint::name),
    };
    let service = launch.start()?;
    // strace forwards no signal while it writes to a file, so the spool's lock gives the program's pid.
    let traced = Traced(std::fs::read_to_string(spool.join("lock"))?.trim().parse()?);
    let provider = Provider::new(service.hooks, &setup.source)?;
    let mut answered = BTreeSet::new();
    let mut ids = (0..).map(|n| format!("{PREFIX}{n:05}"));
    // 503 until the schema has an id.
    within("a 202", PATIENCE, async || {
        let id = ids.next().context("an id")?;
        let answer = provider.send(&id, batch(&id)).await?;
        anyhow::ensure!(matches!(answer.status, 202 | 503), "{answer:?}");
        answered.extend((answer.status == 202).then_some(id));
        Ok(!answered.is_empty())
    })
    .await?;
    for (id, answer) in provider.all(ids.take(DELIVERIES).collect(), CLIENTS, batch).await? {
        anyhow::ensure!(answer.status == 202, "not spooled: {answer:?}");
        answered.insert(id);
    }
    signal(traced.0, "TERM")?;
    let status = service.stop()?;
    std::mem::forget(traced);
    anyhow::ensure!(
        status.success(),
        "hookstream ended with {status}: {}",
        std::fs::read_to_string(launch.log)?
    );
    judge(&file, &spool, &answered)
}

/// The program under strace, which would outlive it.
struct Traced(u32);

impl Drop for Traced {
    fn drop(&mut self) {
        let _ = signal(self.0, "KILL");
    }
}

/// Fails if strace is missing or has no permission to trace.
fn check_strace() -> anyhow::Result<()> {
    let command = Command::new("strace").args(["-o", "/dev/null", "true"]).stdin(Stdio::null()).output();
    let output = command.context("strace cannot be started; install the package strace")?;
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    anyhow::ensure!(
        output.status.success(),
        "strace has no permission to trace (it needs ptrace): {}",
        message.trim()
    );
    Ok(())
}

fn judge(file: &Path, spool: &Path, answered: &BTreeSet<String>) -> anyhow::Result<Verdict> {
    let path = |name: &str| spool.join(name).display().to_string();
    let (dir, log, database) =
        (path("").trim_end_matches('/').to_owned(), path("spool.db-wal"), path("spool.db"));
    let above = spool.parent().map(|above| above.display().to_string()).unwrap_or_default();
    let ours = |call: &Call| {
        call.at == above || call.at.starts_with(&dir) || call.at.starts_with("socket:") && call.is_write()
    };
    let calls = trace::read(BufReader::new(File::open(file)?), ours)?;
    let syncs = |at: &str| calls.iter().filter(|call| call.at == at && call.is_sync()).collect::<Vec<_>>();
    let rows = first_of_each(calls.iter().filter(|call| call.at == log && call.is_write()))?;
    let sends = || calls.iter().filter(|call| call.at.starts_with("socket:"));
    // The first send that contains the id, even if it is not the answer: nothing may reveal it before the sync.
    let answers = first_of_each(sends())?;

    // Checks the test itself: the trace must contain what the senders saw.
    let heads = sends().map(|call| call.text.matches("HTTP/1.1 202").count()).sum::<usize>();
    anyhow::ensure!(heads == answered.len(), "{} answers 202, but {heads} in the trace", answered.len());
    let lost = answered.iter().find(|id| !rows.contains_key(*id) || !answers.contains_key(*id));
    anyhow::ensure!(lost.is_none(), "{lost:?} was answered 202 but is not in the trace of log and sockets");

    let log_syncs = syncs(&log);
    let mut verdict = Verdict { answered: answered.len(), syncs: log_syncs.len(), ..Verdict::default() };
    for id in answered {
        let (row, answer) = (rows[id], answers[id]);
        if !between(row, answer.began, &log_syncs) {
            let places = format!("row at line {}, answer at line {}", row.began + 1, answer.began + 1);
            verdict.violations.push(format!("no sync of the log between row and answer of {id} ({places})"));
        }
    }
    // A synced file without a directory entry is lost too, so each directory must be synced after the creation in it.
    let first = answered.iter().map(|id| answers[id].began).min().context("no answer")?;
    for (created, parent) in [(&dir, &above), (&database, &dir), (&log, &dir)] {
        let creates =
            |call: &&Call| call.at == *created && matches!(&*call.name, "openat" | "mkdir" | "mkdirat");
        let creation = calls
            .iter()
            .find(creates)
            .with_context(|| format!("the trace does not show the creation of {created}"))?;
        if !between(creation, first, &syncs(parent)) {
            verdict
                .violations
                .push(format!("no sync of {parent} between the creation of {created} and the first 202"));
        }
    }
    Ok(verdict)
}

/// Whether one of `syncs` began after the end of `write`, and ended before the line `before`.
fn between(write: &Call, before: usize, syncs: &[&Call]) -> bool {
    let (Some(written), true) = (write.ended, write.result >= 0) else { return false };
    syncs.iter().any(|sync| sync.began > written && sync.ended.is_some_and(|ended| ended < before))
}

/// The first call that contains each id.
fn first_of_each<'a>(calls: impl Iterator<Item = &'a Call>) -> anyhow::Result<BTreeMap<String, &'a Call>> {
    let mut found = BTreeMap::new();
    for call in calls {
        for (at, _) in call.text.match_indices(PREFIX) {
            let id = call
                .text
                .get(at..at + PREFIX.len() + 5)
                .context("an id is cut off; strace must print longer strings")?;
            found.entry(id.to_owned()).or_insert(call);
        }
    }
    Ok(found)
}
