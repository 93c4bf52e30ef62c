//! Many deliveries: the load, the file of `--ids`, and the summary.

use std::io::{self, Write as _};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::StreamExt as _;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::Sender;
use super::render::{NOT_RUNNING, millis};
use crate::cli::output::{self, TextTable, grouped};
use crate::cli::serve::Signals;
use crate::load::{self, Answer, AnswerKind, LoadPlan, NoAnswer, Tally};

/// Adds a line to the file of `--ids`, which is there to compare with the topics: id, status and outcome, separated by
/// tabs. Ids contain no tabs or line ends: the service uses the digest for an id with control characters.
///
/// # Errors
/// The file cannot be written.
pub(super) fn add_id(
    file: &mut dyn io::Write,
    id: Option<&str>,
    result: &Result<Answer, NoAnswer>,
) -> anyhow::Result<()> {
    let id = id.unwrap_or("-");
    match result {
        Ok(answer) => writeln!(file, "{id}\t{}\t{}", answer.status, answer.word().unwrap_or("-")),
        Err(none) => writeln!(file, "{id}\t-\t{}", none.word),
    }
    .context("cannot write the file of --ids")
}

/// Sends all deliveries and waits for their answers. Ctrl-C stops sending and waits for the deliveries in progress; a
/// second Ctrl-C stops waiting.
///
/// # Errors
/// The body cannot be signed, or the file of ids cannot be written.
pub(super) async fn run(
    sender: Sender,
    plan: LoadPlan,
    ids: &mut dyn io::Write,
) -> anyhow::Result<SendSummary> {
    let (sender, mut signals, stop) = (Arc::new(sender), Signals::new()?, CancellationToken::new());
    let (start, begun, mut tally) = (Instant::now(), AtomicU64::new(0), Tally::new()?);
    let mut results = pin!(load::run(plan, stop.clone(), |_, due| {
        begun.fetch_add(1, Ordering::Relaxed);
        let sender = sender.clone();
        async move { sender.one(due).await }
    }));
    let bar =
        output::progress_bar(plan.count, "{bar:30} {human_pos} of {human_len}  {rate}  {eta} left{msg}");
    loop {
        tokio::select! {
            ended = results.next() => {
                let Some(ended) = ended else { break };
                let (id, result) = ended.context("a delivery's task failed")??;
                add_id(ids, id.as_deref(), &result)?;
                tally.add(&result);
                match tally.failed() {
                    0 => {}
                    failed => bar.set_message(format!("  {failed} not 2xx")),
                }
                bar.inc(1);
            }
            () = signals.next() => {
                if stop.is_cancelled() {
                    break;
                }
                stop.cancel();
                let text = "stopping: waiting for the deliveries in progress; Ctrl-C again stops waiting";
                bar.suspend(|| writeln!(output::stderr(), "{text}"))?;
            }
        }
    }
    bar.finish_and_clear();
    match begun.load(Ordering::Relaxed) - tally.sent() {
        0 => {}
        left => drop(tally.kinds.insert(AnswerKind::none("not_awaited"), left)),
    }
    Ok(SendSummary { plan, tally, took: start.elapsed() })
}

/// The answers, and the time from the first delivery to the last answer.
pub(super) struct SendSummary {
    plan: LoadPlan,
    pub(super) tally: Tally,
    took: Duration,
}

/// The summary as a JSON line.
#[derive(Serialize)]
struct Summary<'a> {
    sent: u64,
    not_2xx: u64,
    seconds: f64,
    per_second: f64,
    answers: Vec<SummaryRow<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ms: Option<Latency>,
}

#[derive(Serialize)]
struct SummaryRow<'a> {
    #[serde(flatten)]
    kind: &'a AnswerKind,
    count: u64,
}

#[derive(Serialize)]
struct Latency {
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
}

impl SendSummary {
    /// Deliveries per second.
    fn rate(&self) -> f64 {
        match self.took.as_secs_f64() {
            0.0 => 0.0,
            seconds => self.tally.sent() as f64 / seconds,
        }
    }

    /// `None` without answers.
    fn latency(&self) -> Option<Latency> {
        let at = |quantile| self.tally.latency(quantile);
        Some(Latency { p50: at(0.5)?, p90: at(0.9)?, p99: at(0.99)?, max: at(1.0)? })
    }

    /// Prints the summary, and to standard error what is remarkable about it.
    ///
    /// # Errors
    /// The output cannot be written.
    pub(super) fn print(&self, json: bool) -> anyhow::Result<()> {
        match json {
            true => output::print_json(&self.json())?,
            false => output::print_line(&self.text())?,
        }
        let (mut err, plan, sent) = (output::stderr(), &self.plan, self.tally.sent());
        if sent < plan.count {
            let [sent, count] = [sent, plan.count].map(grouped);
            writeln!(err, "stopped: {sent} of {count} were sent")?;
        } else if let Some(rate) =
            plan.rate.filter(|rate| self.rate() < rate * 0.95 && self.took.as_secs() > 0)
        {
            writeln!(err, "note: slower than --rate {rate}; a higher --concurrency may help")?;
        }
        let refused = AnswerKind::none("connection_refused");
        if self.tally.kinds.keys().eq([&refused]) {
            writeln!(err, "hint: {NOT_RUNNING}")?;
        }
        Ok(())
    }

    fn text(&self) -> String {
        let mut table = TextTable::new(["status", "outcome", "reason", "count"]);
        for (kind, count) in &self.tally.kinds {
            let status = kind.status.map_or("-".to_owned(), |status| status.to_string());
            table.row([&status, &kind.outcome, kind.reason.as_deref().unwrap_or("-"), &grouped(*count)]);
        }
        let mut text = format!(
            "{table}\n\n{} sent in {:.2} s: {}/s, at most {} at a time",
            grouped(self.tally.sent()),
            self.took.as_secs_f64(),
            grouped(self.rate().round() as u64),
            self.plan.concurrency
        );
        if let Some(Latency { p50, p90, p99, max }) = self.latency() {
            let [p50, p90, p99, max] = [p50, p90, p99, max].map(millis);
            text += &format!("\nlatency  p50 {p50}  p90 {p90}  p99 {p99}  max {max}");
        }
        text
    }

    fn json(&self) -> Summary<'_> {
        Summary {
            sent: self.tally.sent(),
            not_2xx: self.tally.failed(),
            seconds: (self.took.as_secs_f64() * 1e3).round() / 1e3,
            per_second: (self.rate() * 10.0).round() / 10.0,
            answers: self
                .tally
                .kinds
                .iter()
                .map(|(kind, count)| SummaryRow { kind, count: *count })
                .collect(),
            latency_ms: self.latency(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::atomic::AtomicUsize;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::super::target::tests::target;
    use super::*;

    /// Answers every tenth request with 503, the others with 200.
    #[derive(Default)]
    struct Service {
        taken: AtomicUsize,
        open: AtomicUsize,
        most: AtomicUsize,
    }

    impl Service {
        async fn serve(self: Arc<Self>, listener: TcpListener) {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(self.clone().answer(stream));
            }
        }

        async fn answer(self: Arc<Self>, mut stream: TcpStream) -> std::io::Result<()> {
            let mut read = Vec::new();
            loop {
                // The sample's only `}}` is at its end.
                while !read.ends_with(b"}}") {
                    if stream.read_buf(&mut read).await? == 0 {
                        return Ok(());
                    }
                }
                read.clear();
                self.most.fetch_max(self.open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                let status = if self.taken.fetch_add(1, Ordering::SeqCst) % 10 == 9 { 503 } else { 200 };
                self.open.fetch_sub(1, Ordering::SeqCst);
                let answer = format!("HTTP/1.1 {status} .\r\ncontent-length: 2\r\n\r\n{{}}");
                stream.write_all(answer.as_bytes()).await?;
            }
        }
    }

    #[tokio::test]
    async fn each_delivery_is_a_new_event_and_its_answer_is_written_with_its_id() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = listener.local_addr().unwrap().to_string();
        let service = Arc::new(Service::default());
        tokio::spawn(service.clone().serve(listener));
        let target = target("datagrid", &[], &[], Some(&url)).unwrap();
        let (_, body) = super::super::sample_of(&target, None).unwrap();
        let plan = LoadPlan { count: 100, concurrency: 4, rate: None };
        let maker = super::super::DeliveryGenerator::new(&target, body.into(), None, true).unwrap();
        let client = super::super::client(&target.url, Duration::from_secs(10), plan.concurrency).unwrap();
        let sender = Sender { maker, client, url: target.url, with_ids: true };
        let mut ids = Vec::new();
        let tally = run(sender, plan, &mut ids).await.unwrap().tally;

        assert_eq!((tally.sent(), tally.failed()), (100, 10));
        assert_eq!(service.taken.load(Ordering::SeqCst), 100);
        assert!(service.most.load(Ordering::SeqCst) <= 4);
        let ids = String::from_utf8(ids).unwrap();
        let lines: Vec<Vec<&str>> = ids.lines().map(|line| line.split('\t').collect()).collect();
        assert_eq!(lines.iter().map(|line| line[0]).collect::<HashSet<_>>().len(), 100);
        assert_eq!(lines.iter().filter(|line| line[1] == "503").count(), 10);
    }

    fn summary(bodies: &[(u16, &str)]) -> SendSummary {
        let mut tally = Tally::new().unwrap();
        for (took, (status, body)) in (1..).zip(bodies) {
            tally.add(&Ok(Answer::of_test(*status, body, Duration::from_millis(took))));
        }
        let plan = LoadPlan { count: 4, concurrency: 2, rate: None };
        SendSummary { plan, tally, took: Duration::from_millis(500) }
    }

    const PUBLISHED: (u16, &str) = (200, r#"{"outcome":"published"}"#);
    const REFUSED: (u16, &str) = (401, r#"{"outcome":"refused","reason":"unauthorized"}"#);
    const STRANGE: (u16, &str) = (502, "<html>");

    #[test]
    fn answers_of_one_kind_are_counted_together() {
        let summary = summary(&[PUBLISHED, REFUSED, PUBLISHED, STRANGE]);
        assert_eq!((summary.tally.sent(), summary.tally.failed()), (4, 2));
        let text = anstream::adapter::strip_str(&summary.text()).to_string();
        let expected = [
            "status  outcome    reason        count",
            "   200  published  -                 2",
            "   401  refused    unauthorized      1",
            "   502  unknown    -                 1",
            "",
            "4 sent in 0.50 s: 8/s, at most 2 at a time",
            "latency  p50 2.00 ms  p90 4.00 ms  p99 4.00 ms  max 4.00 ms",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn json_has_the_same_numbers_on_one_line() {
        assert_eq!(
            serde_json::to_string(&summary(&[PUBLISHED, REFUSED]).json()).unwrap(),
            r#"{"sent":2,"not_2xx":1,"seconds":0.5,"per_second":4.0,"answers":[{"status":200,"outcome":"published","count":1},{"status":401,"outcome":"refused","reason":"unauthorized","count":1}],"latency_ms":{"p50":1.0,"p90":2.0,"p99":2.0,"max":2.0}}"#
        );
    }

    #[test]
    fn without_an_answer_there_is_no_latency() {
        let mut summary = summary(&[]);
        summary.tally.kinds.insert(AnswerKind::none("not_awaited"), 2);
        assert_eq!((summary.tally.sent(), summary.tally.failed()), (2, 2));
        assert!(!serde_json::to_string(&summary.json()).unwrap().contains("latency"));
        assert!(!summary.text().contains("latency"));
    }
}
