//! Handshakes: requests by which a provider checks the endpoint, and their answers. They are not events.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use serde::Serialize;

use super::field_selector::{EventField, FieldPlace, FieldSelector};
use super::root;
use crate::config::{self, AnswerValue, ChallengeMethod, ConfigErrors, Encoding, TakenValue};
use crate::delivery::Delivery;
use crate::json::{self, Object, Pointer};
use crate::names;
use crate::verify::{Verified, is_challenge};

/// The limit of a value that is taken from a signed request, in bytes.
const MAX_ANSWER: usize = 1024;

/// The limit of a value that is taken from an unsigned request, in bytes.
const MAX_CHALLENGE: usize = 256;

/// The limit of the body of an unsigned request that is read for its value, in bytes.
const MAX_CHALLENGE_BODY: usize = 4096;

/// What a handshake is answered, instead of the usual JSON or in addition to it.
pub struct HandshakeAnswer {
    /// `None` for the usual JSON.
    pub body: Option<AnswerBody>,
    /// Headers in addition to the usual ones.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// The body of an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum AnswerBody {
    /// Plain text.
    Text(String),
    /// JSON text.
    Json(String),
}

/// Shows only the sizes: the values are from the request.
impl fmt::Debug for HandshakeAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = match &self.body {
            Some(AnswerBody::Text(text) | AnswerBody::Json(text)) => text.len(),
            None => 0,
        };
        write!(f, "HandshakeAnswer({bytes} bytes, {} headers)", self.headers.len())
    }
}

/// A source's rules for handshakes, compiled once at start.
#[derive(Debug, Default)]
pub struct Handshakes {
    rules: Vec<SignedRule>,
    challenge: Option<ChallengeRule>,
}

/// A signed delivery that is not an event.
#[derive(Debug)]
struct SignedRule {
    place: FieldSelector,
    equals: String,
    answer: AnswerRule,
}

/// A request that nobody signs.
#[derive(Debug)]
struct ChallengeRule {
    method: Method,
    /// `None` if the method says it all.
    value: Option<ValuePlace>,
    answer: AnswerRule,
}

/// Where a value of a request is.
#[derive(Debug)]
enum ValuePlace {
    Pointer(Pointer),
    Header(HeaderName),
    Query(String),
}

#[derive(Debug, Default)]
struct AnswerRule {
    body: BodyRule,
    headers: Vec<(HeaderName, ValueRule)>,
}

#[derive(Debug, Default)]
enum BodyRule {
    /// The usual JSON.
    #[default]
    Usual,
    Text(ValueRule),
    Json(Vec<(String, ValueRule)>),
}

/// A value of an answer in JSON.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
enum JsonValue {
    Number(i64),
    Text(String),
}

#[derive(Debug)]
enum ValueRule {
    Fixed(JsonValue),
    Taken { place: ValuePlace, hmac: Option<Encoding>, prefix: String },
}

/// Computes the HMAC of a text with the source's secret.
type Keyed<'k> = &'k dyn Fn(&str, Encoding) -> Option<String>;

/// What the values of an answer are taken from.
struct Request<'r> {
    uri: &'r Uri,
    headers: &'r HeaderMap,
    /// Empty if the body has not been read, or is no object.
    body: &'r Object<'r>,
    /// The limit of a value in bytes.
    max: usize,
    keyed: Keyed<'r>,
}

impl Handshakes {
    /// Compiles the rules and reports every problem under the source's `place`.
    pub fn compile(source: &config::SourceConfig, place: &str, problems: &mut ConfigErrors) -> Self {
        let mut rules = Vec::with_capacity(source.handshake.len());
        for (index, handshake) in source.handshake.iter().enumerate() {
            match signed_rule(handshake) {
                Ok(rule) => rules.push(rule),
                Err(message) => problems.add(format!("{place}.handshake.{index}"), message),
            }
        }
        let challenge = source.challenge.as_ref().map(challenge_rule).transpose();
        let challenge = challenge.unwrap_or_else(|message| {
            problems.add(format!("{place}.challenge"), message);
            None
        });
        Self { rules, challenge }
    }

    /// The answer to a verified delivery that is a handshake. `None` for any other delivery, including one without a value
    /// that the answer needs: it may be an event.
    pub fn answer(&self, verified: &Verified<'_>, payload: &[u8]) -> Option<HandshakeAnswer> {
        if self.rules.is_empty() {
            return None;
        }
        let Delivery { uri, headers, .. } = verified.delivery();
        // Most rules read a header and do not need the body.
        let (empty, opened) = (Object::default(), OnceCell::new());
        let open = || opened.get_or_init(|| json::check(payload).and_then(root).unwrap_or_default());
        self.rules.iter().find_map(|rule| {
            let body = if rule.place.pointers().next().is_some() { open() } else { &empty };
            let found = rule.place.text(body, headers, EventField::Id).ok()??;
            if found != rule.equals {
                return None;
            }
            let body = if rule.answer.reads_body() { open() } else { &empty };
            let keyed = |text: &str, encoding| verified.keyed(text, encoding);
            rule.answer.fill(&Request { uri, headers, body, max: MAX_ANSWER, keyed: &keyed })
        })
    }

    /// The answer to a GET or HEAD. Nobody signs it, so anybody who reaches the port can send it: only single short values in
    /// visible ASCII are taken from it.
    pub fn challenge(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        keyed: Keyed<'_>,
    ) -> Option<HandshakeAnswer> {
        let rule = self.challenge.as_ref().filter(|rule| rule.method == method && method != Method::POST)?;
        let body = &Object::default();
        rule.answer(&Request { uri, headers, body, max: MAX_CHALLENGE, keyed })
    }

    /// The answer to a POST. The caller makes sure that it has no signature: with one it is a delivery, which an answer here
    /// would lose.
    pub fn posted_challenge(&self, delivery: &Delivery, keyed: Keyed<'_>) -> Option<HandshakeAnswer> {
        let rule = self.challenge.as_ref().filter(|rule| rule.method == Method::POST)?;
        let Delivery { uri, headers, body, .. } = delivery;
        let mut object = Object::default();
        if rule.reads_body() {
            let short = Some(body).filter(|body| body.len() <= MAX_CHALLENGE_BODY)?;
            object = json::check(short).and_then(root).ok()?;
        }
        rule.answer(&Request { uri, headers, body: &object, max: MAX_CHALLENGE, keyed })
    }

    /// Whether an answer to an unsigned request has the HMAC of one of its values: anybody can have such a value signed.
    pub fn signs_for_anybody(&self) -> bool {
        self.challenge.as_ref().is_some_and(|rule| rule.answer.values().any(ValueRule::is_keyed))
    }
}

impl ChallengeRule {
    fn reads_body(&self) -> bool {
        matches!(self.value, Some(ValuePlace::Pointer(_))) || self.answer.reads_body()
    }

    fn answer(&self, request: &Request<'_>) -> Option<HandshakeAnswer> {
        if let Some(place) = &self.value {
            request.value(place)?;
        }
        self.answer.fill(request)
    }
}

impl AnswerRule {
    fn values(&self) -> impl Iterator<Item = &ValueRule> {
        let body: Vec<&ValueRule> = match &self.body {
            BodyRule::Usual => Vec::new(),
            BodyRule::Text(value) => vec![value],
            BodyRule::Json(members) => members.iter().map(|(_, value)| value).collect(),
        };
        body.into_iter().chain(self.headers.iter().map(|(_, value)| value))
    }

    fn reads_body(&self) -> bool {
        let reads =
            |value: &ValueRule| matches!(value, ValueRule::Taken { place: ValuePlace::Pointer(_), .. });
        self.values().any(reads)
    }

    /// `None` if the request lacks a value.
    fn fill(&self, request: &Request<'_>) -> Option<HandshakeAnswer> {
        let body = match &self.body {
            BodyRule::Usual => None,
            BodyRule::Text(value) => Some(AnswerBody::Text(value.text(request)?)),
            BodyRule::Json(members) => {
                let members: Option<BTreeMap<&str, JsonValue>> =
                    members.iter().map(|(name, value)| Some((name.as_str(), value.json(request)?))).collect();
                Some(AnswerBody::Json(serde_json::to_string(&members?).ok()?))
            }
        };
        let headers = self
            .headers
            .iter()
            .map(|(name, value)| Some((name.clone(), HeaderValue::try_from(value.text(request)?).ok()?)));
        Some(HandshakeAnswer { body, headers: headers.collect::<Option<_>>()? })
    }
}

impl ValueRule {
    fn is_keyed(&self) -> bool {
        matches!(self, Self::Taken { hmac: Some(_), .. })
    }

    fn json(&self, request: &Request<'_>) -> Option<JsonValue> {
        match self {
            Self::Fixed(value) => Some(value.clone()),
            Self::Taken { .. } => self.text(request).map(JsonValue::Text),
        }
    }

    fn text(&self, request: &Request<'_>) -> Option<String> {
        match self {
            Self::Fixed(JsonValue::Text(text)) => Some(text.clone()),
            Self::Fixed(JsonValue::Number(number)) => Some(number.to_string()),
            Self::Taken { place, hmac, prefix } => {
                let value = request.value(place)?;
                let value = match hmac {
                    // An HMAC of any text would be a signature of any delivery.
                    Some(encoding) if is_challenge(value.as_bytes()) => (request.keyed)(&value, *encoding)?,
                    Some(_) => return None,
                    None => value,
                };
                Some(format!("{prefix}{value}"))
            }
        }
    }
}

impl Request<'_> {
    /// The value, if it is there once, and short. Only a value of the body may have other characters than visible ASCII, if
    /// the request is signed.
    fn value(&self, place: &ValuePlace) -> Option<String> {
        let value = match place {
            ValuePlace::Pointer(pointer) => json::string(pointer.find(self.body).ok()??)?.into_owned(),
            ValuePlace::Header(name) => {
                let mut values = self.headers.get_all(name).iter();
                values.next().filter(|_| values.next().is_none())?.to_str().ok()?.to_owned()
            }
            ValuePlace::Query(name) => {
                let query = form_urlencoded::parse(self.uri.query()?.as_bytes());
                let mut found = query.filter(|(found, _)| found == name);
                found.next().filter(|_| found.next().is_none())?.1.into_owned()
            }
        };
        let is_visible = value.bytes().all(|byte| byte.is_ascii_graphic());
        let may_be_any = self.max == MAX_ANSWER && matches!(place, ValuePlace::Pointer(_));
        ((1..=self.max).contains(&value.len()) && (is_visible || may_be_any)).then_some(value)
    }
}

fn pointer(text: &str) -> Result<Pointer, &'static str> {
    let pointer = Pointer::parse(text).filter(|pointer| !pointer.names().is_empty());
    pointer.ok_or("contains an invalid pointer; write it as \"/type\"")
}

fn header(name: &str) -> Result<HeaderName, &'static str> {
    match HeaderName::from_bytes(name.to_ascii_lowercase().as_bytes()) {
        Ok(name) if name.as_str().starts_with(names::HEADER_PREFIX) => {
            Err("reads one of hookstream's own headers; name the provider's")
        }
        Ok(name) => Ok(name),
        Err(_) => Err("names an invalid header"),
    }
}

fn signed_rule(handshake: &config::Handshake) -> Result<SignedRule, &'static str> {
    let when = &handshake.when;
    let places = match (&when.pointer, when.header.as_slice()) {
        (Some(text), []) => vec![FieldPlace::Pointer(pointer(text)?)],
        (None, names @ [_, ..]) => {
            names.iter().map(|name| header(name).map(FieldPlace::Header)).collect::<Result<_, _>>()?
        }
        _ => return Err("needs pointer or header in `when`, but not both"),
    };
    let answer = handshake.answer.as_ref().map(answer_rule).transpose()?.unwrap_or_default();
    Ok(SignedRule { place: FieldSelector(places), equals: when.equals.clone(), answer })
}

fn challenge_rule(challenge: &config::Challenge) -> Result<ChallengeRule, &'static str> {
    let config::Challenge { method, query, header, pointer, answer } = challenge;
    let method = match method {
        ChallengeMethod::Get => Method::GET,
        ChallengeMethod::Head => Method::HEAD,
        ChallengeMethod::Post => Method::POST,
    };
    let place = || place(pointer.as_deref(), header.as_deref(), query.as_deref());
    let value = place()?;
    if matches!(value, Some(ValuePlace::Pointer(_))) && method != Method::POST {
        return Err("reads a body, which only a POST has: set method = \"POST\"");
    }
    if value.is_none() && method == Method::POST {
        return Err("needs query, header or pointer: any POST would be a challenge");
    }
    let answer = match answer {
        Some(answer) => answer_rule(answer)?,
        None => {
            let taken = place()?.map(|place| ValueRule::Taken { place, hmac: None, prefix: String::new() });
            AnswerRule { body: taken.map_or(BodyRule::Usual, BodyRule::Text), headers: Vec::new() }
        }
    };
    if method != Method::POST && answer.reads_body() {
        return Err("answers with a value of the body, which only a POST has");
    }
    Ok(ChallengeRule { method, value, answer })
}

fn answer_rule(answer: &config::AnswerConfig) -> Result<AnswerRule, &'static str> {
    let body = match (&answer.pointer, &answer.text, answer.json.is_empty()) {
        (None, None, true) => BodyRule::Usual,
        (Some(text), None, true) => {
            let place = ValuePlace::Pointer(pointer(text)?);
            BodyRule::Text(ValueRule::Taken { place, hmac: None, prefix: String::new() })
        }
        (None, Some(text), true) => BodyRule::Text(ValueRule::Fixed(JsonValue::Text(text.clone()))),
        (None, None, false) => {
            let members = answer.json.iter().map(|(name, value)| Ok((name.clone(), value_rule(value)?)));
            BodyRule::Json(members.collect::<Result<_, &str>>()?)
        }
        _ => return Err("has more than one of pointer, text and json in `answer`; keep one"),
    };
    let headers = answer.headers.iter().map(|(name, value)| {
        let name = header(name)?;
        let frames =
            [http::header::CONTENT_LENGTH, http::header::TRANSFER_ENCODING, http::header::CONNECTION];
        if frames.contains(&name) {
            return Err("sets a header of `answer` that HTTP itself needs; remove it");
        }
        Ok((name, value_rule(value)?))
    });
    Ok(AnswerRule { body, headers: headers.collect::<Result<_, &str>>()? })
}

fn value_rule(value: &AnswerValue) -> Result<ValueRule, &'static str> {
    Ok(match value {
        AnswerValue::Number(number) => ValueRule::Fixed(JsonValue::Number(*number)),
        AnswerValue::Text(text) => ValueRule::Fixed(JsonValue::Text(text.clone())),
        AnswerValue::Taken(TakenValue { pointer, header, query, hmac, prefix }) => {
            let place = place(pointer.as_deref(), header.as_deref(), query.as_deref())?;
            let place =
                place.ok_or("takes a value of `answer` from nowhere: name its pointer, header or query")?;
            ValueRule::Taken { place, hmac: *hmac, prefix: prefix.clone() }
        }
    })
}

fn place(
    in_body: Option<&str>,
    in_header: Option<&str>,
    in_query: Option<&str>,
) -> Result<Option<ValuePlace>, &'static str> {
    Ok(match (in_body, in_header, in_query) {
        (None, None, None) => None,
        (Some(text), None, None) => Some(ValuePlace::Pointer(pointer(text)?)),
        (None, Some(name), None) => Some(ValuePlace::Header(header(name)?)),
        (None, None, Some("")) => return Err("has an empty query; name its parameter"),
        (None, None, Some(name)) => Some(ValuePlace::Query(name.to_owned())),
        _ => return Err("has more than one of query, header and pointer; keep one"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_has_one_place_and_one_text() {
        let rule = |toml: &str| signed_rule(&toml::from_str(toml).unwrap()).map(drop);
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

    /// The answer to a request without a signature; the HMAC is told by its encoding.
    fn challenged(
        rule: &str,
        method: &Method,
        uri: &str,
        header: Option<&str>,
        body: &str,
    ) -> Option<HandshakeAnswer> {
        let rule = challenge_rule(&toml::from_str(rule).unwrap()).unwrap();
        let handshakes = Handshakes { rules: Vec::new(), challenge: Some(rule) };
        let keyed = |text: &str, encoding: Encoding| Some(format!("{encoding:?}({text})"));
        let uri: Uri = uri.parse().unwrap();
        let mut headers = HeaderMap::new();
        if let Some(value) = header {
            headers.insert("x-challenge", HeaderValue::from_str(value).unwrap());
        }
        let delivery = Delivery {
            id: crate::delivery::DeliveryId::new(),
            uri: uri.clone(),
            headers: headers.clone(),
            body: body.to_owned().into(),
            received_at: jiff::Timestamp::UNIX_EPOCH,
        };
        match *method == Method::POST {
            true => handshakes.posted_challenge(&delivery, &keyed),
            false => handshakes.challenge(method, &uri, &headers, &keyed),
        }
    }

    #[test]
    fn only_a_short_visible_challenge_that_appears_once_is_echoed() {
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
            let found =
                challenged("query = 'hub.challenge'", &Method::GET, &format!("/hooks/x?{query}"), None, "");
            let body = found.and_then(|found| found.body);
            assert_eq!(body, answer.map(|text| AnswerBody::Text(text.to_owned())), "{query}");
        }
        let keyed = |_: &str, _| None;
        let uri = Uri::from_static("/hooks/x?hub.challenge=1");
        assert!(Handshakes::default().challenge(&Method::GET, &uri, &HeaderMap::new(), &keyed).is_none());
    }

    #[test]
    fn a_challenge_is_answered_as_the_provider_wants_it() {
        let json = |text: &str| Some(AnswerBody::Json(text.to_owned()));
        let text = |text: &str| Some(AnswerBody::Text(text.to_owned()));
        let (get, head, post) = (Method::GET, Method::HEAD, Method::POST);
        let rows = [
            // X, LinkedIn, Strava, Okta, Microsoft Graph, monday, Trello
            (
                "query = 'crc_token'\nanswer.json = { response_token = { query = 'crc_token', hmac = 'base64', prefix = 'sha256=' } }",
                (&get, "/?crc_token=abc", None, ""),
                json(r#"{"response_token":"sha256=Base64(abc)"}"#),
            ),
            (
                "query = 'c'\nanswer.json = { challengeCode = { query = 'c' }, challengeResponse = { query = 'c', hmac = 'hex' } }",
                (&get, "/?c=890e4665-4dfe", None, ""),
                json(r#"{"challengeCode":"890e4665-4dfe","challengeResponse":"Hex(890e4665-4dfe)"}"#),
            ),
            (
                "query = 'hub.challenge'\nanswer.json = { 'hub.challenge' = { query = 'hub.challenge' } }",
                (&get, "/?hub.challenge=15f7", None, ""),
                json(r#"{"hub.challenge":"15f7"}"#),
            ),
            (
                "header = 'x-challenge'\nanswer.json = { verification = { header = 'X-Challenge' } }",
                (&get, "/", Some("ok-1"), ""),
                json(r#"{"verification":"ok-1"}"#),
            ),
            (
                "method = 'POST'\nquery = 'validationToken'",
                (&post, "/?validationToken=a%3Ab", None, ""),
                text("a:b"),
            ),
            (
                "method = 'POST'\npointer = '/challenge'\nanswer.json = { challenge = { pointer = '/challenge' } }",
                (&post, "/", None, r#"{"challenge":"3eZb"}"#),
                json(r#"{"challenge":"3eZb"}"#),
            ),
            ("method = 'HEAD'", (&head, "/", None, ""), None),
        ];
        for (rule, (method, uri, header, body), expected) in rows {
            let found = challenged(rule, method, uri, header, body);
            assert_eq!(found.unwrap_or_else(|| panic!("{rule}: no answer")).body, expected, "{rule}");
            let other = if method == get { &head } else { &get };
            assert!(method == post || challenged(rule, other, uri, header, body).is_none(), "{rule}");
        }
        let rule = "method = 'POST'\npointer = '/challenge'";
        let padded = |spaces: usize| format!("{}{{\"challenge\":\"a\"}}", " ".repeat(spaces));
        assert!(challenged(rule, &post, "/", None, &padded(4000)).is_some());
        assert!(challenged(rule, &post, "/", None, &padded(4096)).is_none(), "a long body is not read");
        // Asana's is in a header, in both directions.
        let rule = "method = 'POST'\nheader = 'x-challenge'\nanswer.headers = { 'X-Challenge' = { header = 'X-Challenge' } }";
        let answer = challenged(rule, &post, "/", Some("b537"), "{}").unwrap();
        assert_eq!((answer.body, answer.headers[0].1.to_str().unwrap()), (None, "b537"));
        assert!(challenged(rule, &post, "/", None, "{}").is_none());
    }

    /// Otherwise anybody could have a delivery signed.
    #[test]
    fn nothing_that_could_be_an_event_is_signed_for_anybody() {
        let rule = "query = 'c'\nanswer.json = { r = { query = 'c', hmac = 'hex' } }";
        for value in ["%7B%22a%22%3A1%7D", "a%22b", "a%2Cb", "[1]", "a:b", &"x".repeat(257)] {
            assert!(challenged(rule, &Method::GET, &format!("/?c={value}"), None, "").is_none(), "{value}");
        }
        let rule = challenge_rule(&toml::from_str(rule).unwrap()).unwrap();
        assert!(Handshakes { rules: Vec::new(), challenge: Some(rule) }.signs_for_anybody());
        let rule = challenge_rule(&toml::from_str("query = 'c'").unwrap()).unwrap();
        assert!(!Handshakes { rules: Vec::new(), challenge: Some(rule) }.signs_for_anybody());
    }

    #[test]
    fn rules_of_a_challenge_that_cannot_be_right_are_refused() {
        for (rule, problem) in [
            ("query = ''", "has an empty query"),
            ("method = 'POST'", "needs query, header or pointer"),
            ("pointer = '/a'", "reads a body, which only a POST has"),
            ("query = 'a'\nheader = 'b'", "has more than one of query, header and pointer"),
            (
                "query = 'a'\nanswer = { text = 'x', pointer = '/a' }",
                "has more than one of pointer, text and json",
            ),
            ("query = 'a'\nanswer.json = { a = { prefix = 'x' } }", "takes a value of `answer` from nowhere"),
            ("query = 'a'\nanswer.pointer = '/a'", "answers with a value of the body"),
            ("header = 'Hookstream-Seal'", "reads one of hookstream's own headers"),
            (
                "query = 'a'\nanswer.headers = { Content-Length = '1' }",
                "sets a header of `answer` that HTTP itself needs",
            ),
        ] {
            let found = challenge_rule(&toml::from_str(rule).unwrap()).map(drop).unwrap_err();
            assert!(found.starts_with(problem), "{rule}: {found}");
        }
    }
}
