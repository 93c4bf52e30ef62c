//! Formats the answer of one delivery, with a hint on what to do about it.

use anstyle::AnsiColor;

use super::post::{SendAnswer, SendError};
use super::summary;
use super::target::SendTarget;
use crate::cli::output::escape_controls;
use crate::client::printable;
use crate::config::Binds;

/// The hint if nothing listens at the address.
pub(super) const NOT_RUNNING: &str =
    "is `hookstream serve` or `hookstream dev` running? Use --url for another address";

/// The answer in one line, and below it the ids of the event and the delivery.
pub(super) fn text(answer: &SendAnswer, id: Option<&str>) -> String {
    let ms = summary::millis(answer.took.as_secs_f64() * 1000.0);
    let Some(known) = &answer.known else {
        let style = AnsiColor::Red.on_default();
        let excerpt = answer.excerpt();
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

/// A hint on what to do about an answer.
pub(super) fn hint(target: &SendTarget, answer: &SendAnswer) -> Option<String> {
    let name = &target.name;
    if answer.known.is_none() {
        return Some(
            "this address is not the ingest port of hookstream: use --url for another one".to_owned(),
        );
    }
    match answer.status {
        401 if target.uses_dev_secret() => Some(format!(
            "signed with the public dev secret, but the service has another secret: give `send` the same secret, as \
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
                "signed with the secret {}{} the service has another value for it, or does not have it",
                target.secret.name,
                bound.as_deref().unwrap_or(";")
            ))
        }
        404 => Some(format!(
            "the service has no source {name}: its configuration differs, or the source is off for lack of a secret"
        )),
        503 => {
            let seconds = answer.retry_after.as_ref()?;
            Some(format!("retry after {} s, as the service asks", escape_controls(seconds)))
        }
        _ => None,
    }
}

pub(super) fn unanswered(target: &SendTarget, id: Option<&str>, none: &SendError) -> String {
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

    fn answer(status: u16, body: &str) -> SendAnswer {
        SendAnswer::of_test(status, body, Duration::from_micros(1500))
    }

    fn plain(answer: &SendAnswer) -> String {
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
