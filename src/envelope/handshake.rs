//! Handshakes: requests by which a provider checks the endpoint. They are not events.

use std::cell::OnceCell;

use http::HeaderName;

use super::field_selector::{EventField, FieldPlace, FieldSelector};
use super::root;
use crate::config::{self, ConfigErrors};
use crate::json::{self, Pointer};
use crate::names;
use crate::verify::Verified;

/// The limit of an echoed text, in bytes.
const MAX_ANSWER: usize = 1024;

/// The limit of a text echoed to an unsigned request, in bytes.
const MAX_CHALLENGE: usize = 256;

/// A source's rules for handshakes, compiled once at start.
#[derive(Debug, Default)]
pub struct Handshakes {
    rules: Vec<Rule>,
    /// The query parameter of a GET that is echoed.
    challenge: Option<String>,
}

#[derive(Debug)]
struct Rule {
    place: FieldSelector,
    equals: String,
    answer: Option<Pointer>,
}

impl Handshakes {
    /// Compiles the rules and reports every problem under the source's `place`.
    pub fn compile(source: &config::SourceConfig, place: &str, problems: &mut ConfigErrors) -> Self {
        let mut rules = Vec::with_capacity(source.handshake.len());
        for (index, handshake) in source.handshake.iter().enumerate() {
            match rule(handshake) {
                Ok(rule) => rules.push(rule),
                Err(message) => problems.add(format!("{place}.handshake.{index}"), message),
            }
        }
        let challenge = source.challenge.as_ref().map(|challenge| challenge.query.clone());
        if challenge.as_ref().is_some_and(String::is_empty) {
            problems.add(format!("{place}.challenge.query"), "is empty; name the query's parameter");
        }
        Self { rules, challenge }
    }

    /// The answer to a verified delivery that is a handshake: a text to echo, or none. `None` for any other delivery,
    /// including one without the text to echo: it may be an event.
    pub fn answer(&self, verified: &Verified<'_>, payload: &[u8]) -> Option<Option<String>> {
        if self.rules.is_empty() {
            return None;
        }
        let delivery = verified.delivery();
        // Most rules read a header and do not need the body.
        let (empty, opened) = (json::Object::default(), OnceCell::new());
        let open = || opened.get_or_init(|| json::check(payload).and_then(root).unwrap_or_default());
        self.rules.iter().find_map(|rule| {
            let body = if rule.place.pointers().next().is_some() { open() } else { &empty };
            let found = rule.place.text(body, &delivery.headers, EventField::Type).ok()??;
            if found != rule.equals {
                return None;
            }
            let Some(pointer) = &rule.answer else { return Some(None) };
            let text = json::string(pointer.find(open()).ok()??)?;
            (text.len() <= MAX_ANSWER).then(|| Some(text.into_owned()))
        })
    }

    /// The text to echo for a GET's query. Nobody signs it, so anybody who reaches the port can send it: only a single
    /// short parameter in visible ASCII is echoed.
    pub fn challenge(&self, query: &str) -> Option<String> {
        let wanted = self.challenge.as_deref()?;
        let mut found = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == wanted);
        let (_, text) = found.next().filter(|_| found.next().is_none())?;
        let fits = (1..=MAX_CHALLENGE).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        fits.then(|| text.into_owned())
    }
}

fn rule(handshake: &config::Handshake) -> Result<Rule, &'static str> {
    let pointer = |text: &str| {
        let pointer = Pointer::parse(text).filter(|pointer| !pointer.names().is_empty());
        pointer.ok_or("contains an invalid pointer; write it as \"/type\"")
    };
    let when = &handshake.when;
    let header = |name: &String| match HeaderName::from_bytes(name.to_ascii_lowercase().as_bytes()) {
        Ok(name) if name.as_str().starts_with(names::HEADER_PREFIX) => {
            Err("reads one of hookstream's own headers; name the provider's")
        }
        Ok(name) => Ok(FieldPlace::Header(name)),
        Err(_) => Err("names an invalid header"),
    };
    let places = match (&when.pointer, when.header.as_slice()) {
        (Some(text), []) => vec![FieldPlace::Pointer(pointer(text)?)],
        (None, names @ [_, ..]) => names.iter().map(header).collect::<Result<_, _>>()?,
        _ => return Err("needs pointer or header in `when`, but not both"),
    };
    let answer = handshake.answer.as_ref().map(|answer| pointer(&answer.pointer)).transpose()?;
    let place = FieldSelector(places);
    Ok(Rule { place, equals: when.equals.clone(), answer })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_has_one_place_and_one_text() {
        let rule = |toml: &str| rule(&toml::from_str(toml).unwrap()).map(drop);
        assert_eq!(rule("when = { header = \"X-Event\", equals = \"ping\" }"), Ok(()));
        let answer = "when = { pointer = \"/type\", equals = \"x\" }\nanswer = { pointer = \"/challenge\" }";
        assert_eq!(rule(answer), Ok(()));
        for (toml, problem) in [
            ("when = { equals = \"x\" }", "needs pointer or header"),
            ("when = { pointer = \"/a\", header = \"b\", equals = \"x\" }", "needs pointer or header"),
            ("when = { pointer = \"type\", equals = \"x\" }", "contains an invalid pointer"),
            ("when = { header = \"x y\", equals = \"x\" }", "names an invalid header"),
            (
                "when = { header = \"Hookstream-Event\", equals = \"x\" }",
                "reads one of hookstream's own headers",
            ),
            (
                "when = { header = \"x\", equals = \"x\" }\nanswer = { pointer = \"\" }",
                "contains an invalid pointer",
            ),
        ] {
            assert!(rule(toml).unwrap_err().starts_with(problem), "{toml}");
        }
    }

    #[test]
    fn only_a_short_visible_challenge_that_appears_once_is_echoed() {
        let handshakes = Handshakes { rules: Vec::new(), challenge: Some("hub.challenge".to_owned()) };
        let longest = "x".repeat(256);
        for (query, answer) in [
            ("hub.mode=subscribe&hub.challenge=1158201444", Some("1158201444")),
            ("hub%2Echallenge=a%2Bb%3D", Some("a+b=")),
            (&format!("hub.challenge={longest}"), Some(longest.as_str())),
            (&format!("hub.challenge=x{longest}"), None),
            ("hub.challenge=a&hub.challenge=a", None),
            ("hub.challenge=", None),
            ("hub.challenge=a+b", None),
            ("hub.challenge=a%0d%0ab", None),
            ("hub.challenge=%c3%bc", None),
            ("hub.challenge=%ff", None),
            ("challenge=a", None),
            ("", None),
        ] {
            assert_eq!(handshakes.challenge(query).as_deref(), answer, "{query}");
        }
        assert_eq!(Handshakes::default().challenge("hub.challenge=1"), None);
    }
}
