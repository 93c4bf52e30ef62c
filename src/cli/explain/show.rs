//! Prints the report as text.

use anstyle::{AnsiColor, Style};

use super::{DecisionJson, ExplainReport};
use crate::cli::output::{self, escape_controls};

const OK: Style = AnsiColor::Green.on_default();
const NO: Style = AnsiColor::Red.on_default();
const MIND: Style = AnsiColor::Yellow.on_default();
const PLAIN: Style = Style::new();

pub(super) fn report(report: &ExplainReport) -> anyhow::Result<()> {
    let ExplainReport { request, notes, answer, diagnosis, becomes, otherwise, .. } = report;
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
    let signature = match diagnosis.reason {
        None => "the signature is valid".to_owned(),
        Some(reason) => with_detail(reason, diagnosis.detail.as_deref()),
    };
    // What is refused for something else, or is for another source, is nevertheless examined as one of this source.
    let is_about_signature = becomes.is_some() || answer.reason == diagnosis.reason;
    match (answer.reason, answer.accepts()) {
        (_, true) if is_about_signature => line("verdict", OK, "ok", &signature)?,
        (reason, accepts) => {
            let text = match reason {
                Some(reason) => with_detail(reason, answer.detail.as_deref()),
                None => answer.detail.clone().or(answer.outcome.map(str::to_owned)).unwrap_or_default(),
            };
            line("verdict", if accepts { OK } else { NO }, &answer.status.to_string(), &text)?;
        }
    }
    if !is_about_signature && !diagnosis.valid {
        line("otherwise", NO, "401", &signature)?;
    }
    if let Some(cause) = &diagnosis.cause {
        line("cause", MIND, "", &cause.text)?;
        line("next", PLAIN, "", &cause.next)?;
    }
    becomes.as_ref().map_or(Ok(()), |becomes| becoming("becomes", becomes))?;
    otherwise.as_ref().map_or(Ok(()), |becomes| becoming("otherwise", becomes))
}

fn with_detail(reason: &str, detail: Option<&str>) -> String {
    format!("{reason}{}", detail.map(|detail| format!(": {detail}")).unwrap_or_default())
}

fn becoming(label: &str, becomes: &DecisionJson) -> anyhow::Result<()> {
    let mut text = becomes.outcome.to_owned();
    if let Some(reason) = becomes.reason {
        text += &format!(" ({})", with_detail(reason, becomes.detail.as_deref()));
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
    line(label, PLAIN, "", &text)?;
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
