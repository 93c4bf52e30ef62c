//! Prints the report as text.

use anstyle::{AnsiColor, Style};

use super::{DecisionJson, ExplainReport};
use crate::cli::output::{self, escape_controls};

const OK: Style = AnsiColor::Green.on_default();
const NO: Style = AnsiColor::Red.on_default();
const MIND: Style = AnsiColor::Yellow.on_default();
const PLAIN: Style = Style::new();

pub(super) fn report(report: &ExplainReport) -> anyhow::Result<()> {
    let ExplainReport { request, notes, diagnosis, becomes, .. } = report;
    let at = &request.received_at;
    let from = match request.received_at_from {
        "now" => "now; set with --at",
        "har" => "the HAR entry's time",
        _ => "by --at",
    };
    let (method, path, headers, bytes) =
        (&request.method, &request.path, request.headers, request.body_bytes);
    let text =
        format!("{method} {path}, {headers} headers, {bytes} bytes of body; received at {at} ({from})");
    line("request", PLAIN, "", &text)?;
    notes.iter().try_for_each(|note| line("note", MIND, "", note))?;
    for step in &diagnosis.steps {
        let (style, word) = match step.ok {
            Some(true) => (OK, "ok"),
            Some(false) => (NO, "NO"),
            None => (PLAIN, "-"),
        };
        line(step.step, style, word, &step.text)?;
    }
    match diagnosis.reason {
        None => line("verdict", OK, "ok", "the signature is valid")?,
        Some(reason) => {
            let detail = diagnosis.detail.as_deref().map(|detail| format!(": {detail}")).unwrap_or_default();
            line("verdict", NO, "401", &format!("{reason}{detail}"))?;
        }
    }
    if let Some(cause) = &diagnosis.cause {
        line("cause", MIND, "", &cause.text)?;
        line("next", PLAIN, "", &cause.next)?;
    }
    becomes.as_ref().map_or(Ok(()), becoming)
}

fn becoming(becomes: &DecisionJson) -> anyhow::Result<()> {
    let mut text = becomes.outcome.to_owned();
    if let Some(reason) = becomes.reason {
        let detail = becomes.detail.as_deref().map(|detail| format!(": {detail}")).unwrap_or_default();
        text += &format!(" ({reason}{detail})");
    }
    if let Some(topic) = &becomes.topic {
        text += &format!(", topic {topic}");
    }
    if let Some(key) = &becomes.key {
        text += &format!(", key {key}");
    }
    if let Some(records) = becomes.records {
        text += &format!(", {records} records, this the first");
    }
    line("becomes", PLAIN, "", &text)?;
    if !becomes.unsigned.is_empty() {
        let fields = becomes.unsigned.join(", ");
        let text =
            format!("{fields}: not covered by the signature; anybody who has a delivery can change them");
        line("unsigned", MIND, "", &text)?;
    }
    Ok(())
}

/// One line: the label, the verdict and the text.
fn line(what: &str, style: Style, word: &str, text: &str) -> anyhow::Result<()> {
    let text = escape_controls(text);
    Ok(output::print_line(&format!("{what:<10} {style}{word:<4}{style:#} {text}"))?)
}
