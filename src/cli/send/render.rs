//! Formats the answer of one delivery, with a hint on what to do about it.

use anstyle::AnsiColor;

use super::target::SendTarget;
use crate::cli::output::escape_controls;
use crate::client::printable;
use crate::config::Binds;
use crate::load::{Answer, NoAnswer};

/// The hint if nothing listens at the address.
pub(super) const NOT_RUNNING: &str =
    "is `hookstream serve` or `hookstream dev` running? Use --url for another address";

/// The answer in one line, and below it the ids of the event and the delivery.
pub(super) fn text(answer: &Answer, id: Option<&str>) -> String {
    let ms = millis(answer.took.as_secs_f64() * 1000.0);
    let Some(known) = &answer.known else {
        let style = AnsiColor::Red.on_default();
        let excerpt = excerpt(answer);
        return format!(
            "{style}{}{style:#}  not an answer from hookstream  {ms}\n     {}",
            answer.status,
            escape_controls(&excerpt)
        );
    };
    let colour = match (answer.is_success(), &known.reason) {
        (true, None) => AnsiColor::Green,
        (true, Some(_)) => AnsiColor::Yellow,
        (false, _) => AnsiColor::Red,
    };
    let style = colour.on_default();
    let mut text = format!("{style}{}{style:#}  {}", answer.status, escape_controls(&known.outcome));
    if let Some(reason) = &known.reason {
        text += &format!("  {}", escape_controls(reason));
    }
    if let (Some(topic), Some(partition), Some(offset)) = (&known.topic, known.partition, known.offset) {
        text += &format!("  {} [{partition}] @{offset}", escape_controls(topic));
    }
    text += &format!("  {ms}");
    if let Some(id) = known.id.as_deref().or(id) {
        text += &format!("\n     id        {}", escape_controls(id));
    }
    if let (Some(delivery), Some(_)) = (&answer.delivery, &known.reason) {
        text += &format!("\n     delivery  {}  (see the service's log)", escape_controls(delivery));
    }
    text
}

/// The answer as one JSON line: status, latency and delivery id before the members of the service's answer, unknown ones
/// included; the answer of another server as text.
pub(super) fn json(answer: &Answer) -> String {
    let quoted = |text: &str| serde_json::to_string(text).unwrap_or_default();
    let mut line =
        format!("{{\"status\":{},\"ms\":{:.3},", answer.status, answer.took.as_secs_f64() * 1000.0);
    if let Some(delivery) = &answer.delivery {
        line += &format!("\"delivery\":{},", quoted(delivery));
    }
    let body = String::from_utf8_lossy(&answer.body);
    match (&answer.known, body.trim().strip_prefix('{')) {
        // Between the members only: strings of JSON contain none of these.
        (Some(_), Some(members)) => line + &members.replace(['\n', '\r', '\t'], " "),
        _ => format!("{line}\"body\":{}}}", quoted(&body)),
    }
}

/// The first line of another server's answer, cut off after 100 characters.
fn excerpt(answer: &Answer) -> String {
    let text = String::from_utf8_lossy(&answer.body);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("(empty)");
    match line.char_indices().nth(100) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line.to_owned(),
    }
}

/// Milliseconds with three significant digits, so that runs can be compared by eye.
pub(super) fn millis(ms: f64) -> String {
    match ms {
        ms if ms < 10.0 => format!("{ms:.2} ms"),
        ms if ms < 100.0 => format!("{ms:.1} ms"),
        ms => format!("{ms:.0} ms"),
    }
}

/// A hint on what to do about an answer.
pub(super) fn hint(target: &SendTarget, answer: &Answer) -> Option<String> {
    let name = &target.name;
    if answer.known.is_none() {
        return Some(
            "the answer is not hookstream's: another server listens there, or a proxy answers itself; use --url for \
             another address"
                .to_owned(),
        );
    }
    match answer.status {
        401 if target.uses_dev_secret() => Some(format!(
            "signed with the public dev secret: if the service has another secret, give `send` the same one, as \
             configured in source.{name}.secrets"
        )),
        401 => {
            let binds = target.secret.binds.as_deref();
            let bound = binds.map(|binds| {
                let Binds { pointer, equals } = binds;
                format!(
                    ", which is valid only for a body with \"{equals}\" at {pointer}; if the body has it,"
                )
            });
            Some(format!(
                "signed with the secret {}{} the service has another value for it, does not have it, or has another \
                 time: its log says which",
                target.secret.name,
                bound.as_deref().unwrap_or(";")
            ))
        }
        404 => Some(format!(
            "the service has no source at {}: its configuration differs, or the source {name} is off there for lack of a \
             secret",
            target.url.path()
        )),
        503 => {
            let seconds = answer.retry_after.as_ref()?;
            Some(format!("retry after {} s, as the service asks", escape_controls(seconds)))
        }
        _ => None,
    }
}

pub(super) fn unanswered(target: &SendTarget, id: Option<&str>, none: &NoAnswer) -> String {
    let next = match (none.read, id) {
        (false, _) => NOT_RUNNING.to_owned(),
        (true, Some(id)) => format!("the service may have accepted the event nevertheless: {id}"),
        (true, None) => "the service may have accepted the event nevertheless".to_owned(),
    };
    format!("no answer from {}: {none}\n  {next}", printable(&target.url))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::target::tests::target;
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer::of_test(status, body, Duration::from_micros(1500))
    }

    fn plain(answer: &Answer) -> String {
        anstream::adapter::strip_str(&text(answer, Some("evt_1"))).to_string()
    }

    #[test]
    fn answers_are_formatted_on_one_line() {
        let body =
            r#"{"outcome":"published","id":"evt_\u001b[1m","topic":"github.push","partition":1,"offset":0}"#;
        let expected = "200  published  github.push [1] @0  1.50 ms\n     id        evt_\\u{1b}[1m";
        assert_eq!(plain(&answer(200, body)), expected);
        let body = r#"{"outcome":"refused","reason":"unauthorized"}"#;
        let expected = "401  refused  unauthorized  1.50 ms\n     id        evt_1\n     \
                        delivery  0193  (see the service's log)";
        assert_eq!(plain(&answer(401, body)), expected);
        let expected = "502  not an answer from hookstream  1.50 ms\n     <h1>Bad</h1>";
        assert_eq!(plain(&answer(502, "<h1>Bad</h1>")), expected);
    }

    #[test]
    fn the_json_of_an_answer_keeps_members_that_are_not_known() {
        let answer = answer(200, "{\"outcome\":\"published\",\n \"offset\":7, \"later\":{\"a\":[1.10]}}\n");
        assert_eq!(
            json(&answer),
            r#"{"status":200,"ms":1.500,"delivery":"0193","outcome":"published",  "offset":7, "later":{"a":[1.10]}}"#
        );
        assert_eq!(answer.known.unwrap().offset, Some(7));
    }

    #[test]
    fn the_answer_of_another_server_is_text() {
        let page = answer(200, "<html>\n<h1>\"Bad\" gateway</h1>");
        assert_eq!(
            json(&page),
            r#"{"status":200,"ms":1.500,"delivery":"0193","body":"<html>\n<h1>\"Bad\" gateway</h1>"}"#
        );
        assert_eq!(excerpt(&page), "<html>");
        assert_eq!(excerpt(&answer(200, "")), "(empty)");
        assert_eq!(excerpt(&answer(200, &"ü".repeat(101))), format!("{}…", "ü".repeat(100)));
    }

    #[test]
    fn latencies_have_three_digits() {
        assert_eq!([0.2114, 9.994, 12.34, 4000.4].map(millis), ["0.21 ms", "9.99 ms", "12.3 ms", "4000 ms"]);
    }

    #[test]
    fn hints_name_the_secret_and_never_show_it() {
        let secret = ("DATAGRID_WEBHOOK_SECRET", "whsec_of-a-real-provider");
        let own = target("datagrid", &[secret], &[], None).unwrap();
        let refused = answer(401, r#"{"outcome":"refused"}"#);
        let hint_of_own = hint(&own, &refused).unwrap();
        assert!(hint_of_own.contains(secret.0) && !hint_of_own.contains(secret.1), "{hint_of_own}");
        assert!(
            hint(&target("datagrid", &[], &[], None).unwrap(), &refused)
                .unwrap()
                .contains("public dev secret")
        );
        let mut bound = own;
        let binds = Binds { pointer: "/tenant_id".into(), equals: "acme".into() };
        bound.secret = bound.secret.bound(Some(binds.into()));
        let hint_of_bound = hint(&bound, &refused).unwrap();
        assert!(hint_of_bound.contains("only for a body with \"acme\" at /tenant_id"), "{hint_of_bound}");
        assert_eq!(hint(&bound, &answer(200, r#"{"outcome":"published"}"#)), None);
    }

    #[test]
    fn the_shown_address_has_no_password() {
        let url = Some("http://user:hidden@127.0.0.1:1/a?token=hidden");
        let target = target("datagrid", &[], &[], url).unwrap();
        assert_eq!(printable(&target.url), "http://127.0.0.1:1/a");
    }
}
