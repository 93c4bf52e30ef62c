//! The signed text: its parts, and why no two deliveries share one.
//!
//! A signature proves a text, and the text must determine its parts: otherwise an attacker could move bytes from one part
//! to the next under the same signature. So there is one way to read the text: from its start to the body, and from its end
//! back to the body, which occurs once. A header ends where the literal behind it first occurs, or the date of an RFC 3339
//! time; a Unix time beside another variable has a fixed number of digits, an HTTP date always a fixed length, and an RFC 3339
//! time is as long as it can be. A rule
//! that cannot be read so is refused. A delivery is refused if the reading gives other values than its headers, which
//! cannot be decided in the rules: only the provider knows whether an id may contain a dot, and a rule such as
//! `{id}.{timestamp}.{body}` could not be written otherwise.

use http::HeaderName;

use super::header_names::HeaderNames;
use super::signed_time::{self, TimeText};
use crate::config::{self, ConfigErrors};
use crate::names;

/// A piece of the signed text.
#[derive(Debug, PartialEq)]
enum Segment {
    Literal(String),
    Timestamp,
    /// The value of a header, by its index in [`Template::headers`].
    Header(usize),
    Body,
}

impl Segment {
    fn is_literal(&self) -> bool {
        matches!(self, Self::Literal(_))
    }
}

/// The signed text, compiled.
#[derive(Debug, Default)]
pub(super) struct Template {
    segments: Vec<Segment>,
    /// The headers that `{id}` and `{header:NAME}` read, without duplicates.
    pub(super) headers: Vec<HeaderNames>,
    time: TimeText,
}

/// The values of the variables other than `{body}` in one delivery.
#[derive(Debug)]
pub(super) struct Values<'d> {
    pub(super) timestamp: &'d str,
    /// In the order of [`Template::headers`].
    pub(super) headers: Vec<&'d str>,
}

impl Template {
    /// Adds each problem to `problems`; `None` if the text cannot be split into segments.
    pub(super) fn compile(
        rules: &config::Signature,
        id_header: Option<&HeaderNames>,
        time: TimeText,
        place: &str,
        problems: &mut ConfigErrors,
    ) -> Option<Self> {
        let mut template = Self { time, ..Self::default() };
        let mut found = TemplateSources::default();
        let Some(text) = &rules.signed else {
            problems.add(format!("{place}.signed"), "is missing; say what is signed, such as \"{body}\"");
            return None;
        };
        if let Err(message) = template.cut(text, rules, id_header, &mut found) {
            problems.add(format!("{place}.signed"), message);
            return None;
        }
        match template.segments.iter().filter(|segment| **segment == Segment::Body).count() {
            1 => {}
            0 => problems
                .add(format!("{place}.signed"), "must contain {body}: otherwise any body would verify"),
            _ => problems.add(format!("{place}.signed"), "contains {body} more than once"),
        }
        if !template.is_readable() {
            let message = "needs a separator between its variables; only a time ends by itself";
            problems.add(format!("{place}.signed"), message);
        }
        for (used, variable, key, given) in [
            (found.id, "{id}", "id_header", !rules.id_header.is_empty()),
            (found.url, "{url}", "url", rules.url.is_some()),
        ] {
            match (used, given) {
                (true, false) => {
                    problems.add(format!("{place}.signed"), format!("uses {variable}: set {key}"))
                }
                (false, true) => problems
                    .add(format!("{place}.{key}"), format!("is for {variable}, which `signed` does not use")),
                _ => {}
            }
        }
        Some(template)
    }

    /// Splits `{timestamp}.{body}` into segments. A fixed text, such as the URL, is merged with adjacent literals. So is the
    /// method, as no other than POST delivers.
    fn cut(
        &mut self,
        text: &str,
        rules: &config::Signature,
        id_header: Option<&HeaderNames>,
        found: &mut TemplateSources,
    ) -> Result<(), String> {
        let mut rest = text;
        while let Some((literal, tail)) = rest.split_once('{') {
            self.literal(literal);
            let (name, tail) = tail.split_once('}').ok_or("has a { without a }")?;
            match (name, name.strip_prefix("header:")) {
                ("timestamp", _) => self.segments.push(Segment::Timestamp),
                ("body", _) => self.segments.push(Segment::Body),
                ("method", _) => self.literal("POST"),
                ("url", _) => {
                    found.url = true;
                    self.literal(rules.url.as_deref().unwrap_or_default());
                }
                ("id", _) => {
                    found.id = true;
                    if let Some(names) = id_header {
                        self.header(names.clone(), "id_header")?;
                    }
                }
                (_, Some(name)) => {
                    let name = HeaderName::from_bytes(name.to_ascii_lowercase().as_bytes())
                        .ok()
                        .filter(|name| !name.as_str().starts_with(names::HEADER_PREFIX))
                        .ok_or("{header:NAME} is not the name of a provider's header")?;
                    self.header(name.into(), "{header:NAME}")?;
                }
                _ => {
                    return Err(String::from(
                        "knows {body}, {timestamp}, {id}, {url}, {method} and {header:NAME} only",
                    ));
                }
            }
            rest = tail;
        }
        self.literal(rest);
        Ok(())
    }

    fn literal(&mut self, text: &str) {
        match self.segments.last_mut() {
            _ if text.is_empty() => {}
            Some(Segment::Literal(before)) => before.push_str(text),
            _ => self.segments.push(Segment::Literal(text.to_owned())),
        }
    }

    fn header(&mut self, names: HeaderNames, what: &str) -> Result<(), String> {
        if names.iter().any(|name| config::CREDENTIALS.contains(&name.as_str())) {
            return Err(format!(
                "{what} names a header that holds credentials, which a dead letter must not store"
            ));
        }
        let known = self.headers.iter().position(|header| *header == names);
        let at = known.unwrap_or_else(|| {
            self.headers.push(names);
            self.headers.len() - 1
        });
        self.segments.push(Segment::Header(at));
        Ok(())
    }

    /// Whether the end of each variable before the body, and the start of each one behind it, can be found in the text.
    fn is_readable(&self) -> bool {
        let mut behind = false;
        self.pairs().all(|pair| {
            behind |= *pair.0 == Segment::Body;
            match pair {
                (a, b) if a.is_literal() || b.is_literal() => true,
                (Segment::Timestamp, _) => !behind,
                (Segment::Header(_), Segment::Timestamp) => behind || self.time == TimeText::Rfc3339,
                (Segment::Body, Segment::Timestamp) => true,
                _ => false,
            }
        })
    }

    fn pairs(&self) -> impl Iterator<Item = (&Segment, &Segment)> {
        self.segments.iter().zip(self.segments.iter().skip(1))
    }

    /// Whether the signed time must show by itself where it ends, or behind the body starts: no text beside it does.
    pub(super) fn has_open_time(&self) -> bool {
        let continues = |text: &str| self.time == TimeText::Rfc3339 && signed_time::may_continue(text);
        let mut behind = false;
        self.pairs().any(|pair| {
            behind |= *pair.0 == Segment::Body;
            match pair {
                (Segment::Timestamp, Segment::Literal(text)) => !behind && continues(text),
                (Segment::Timestamp, _) => true,
                (Segment::Literal(_), _) => false,
                (_, segment) => *segment == Segment::Timestamp && self.time.is_unix(),
            }
        })
    }

    /// Whether the signed time is part of the text.
    pub(super) fn has_time(&self) -> bool {
        self.segments.contains(&Segment::Timestamp)
    }

    /// Whether the signed text is read as these values, and no others.
    pub(super) fn is_clear(&self, values: &Values<'_>) -> bool {
        let mut behind = false;
        self.pairs().all(|pair| {
            behind |= *pair.0 == Segment::Body;
            match pair {
                (Segment::Body, _) | (_, Segment::Body) => true,
                // Its form was checked, and shows where it ends.
                (Segment::Timestamp, _) if !self.time.is_unix() && !behind => true,
                (Segment::Literal(_), Segment::Timestamp) if !self.time.is_unix() && behind => true,
                (header, Segment::Timestamp)
                    if self.time == TimeText::Rfc3339 && !behind && !header.is_literal() =>
                {
                    let value = self.value(header, values);
                    let text = value.iter().chain(values.timestamp.as_bytes()).copied();
                    (0..value.len()).all(|at| signed_time::length(text.clone().skip(at)).is_none())
                }
                (variable, Segment::Literal(literal)) if !behind => {
                    let value = self.value(variable, values);
                    !(0..value.len()).any(|at| {
                        let rest = value.get(at..).unwrap_or_default();
                        starts_with(rest.iter().chain(literal.as_bytes()), literal.as_bytes().iter())
                    })
                }
                (Segment::Literal(literal), variable) if behind => {
                    let value = self.value(variable, values);
                    !(1..=value.len()).any(|end| {
                        let rest = value.get(..end).unwrap_or_default();
                        let (text, literal) = (rest.iter().rev(), literal.as_bytes().iter().rev());
                        starts_with(text.chain(literal.clone()), literal)
                    })
                }
                _ => true,
            }
        })
    }

    fn value<'a>(&self, segment: &Segment, values: &Values<'a>) -> &'a [u8] {
        match segment {
            Segment::Timestamp => values.timestamp.as_bytes(),
            Segment::Header(at) => values.headers.get(*at).copied().unwrap_or_default().as_bytes(),
            Segment::Literal(_) | Segment::Body => &[],
        }
    }

    /// Whether all characters of the signed text are of a kind, apart from white space, which the canonical form of a body
    /// does not have.
    pub(super) fn is_of(&self, values: &Values<'_>, body: &[u8], kind: fn(u8) -> bool) -> bool {
        let mut text = self.pieces(values, body).flatten();
        !self.segments.is_empty() && text.all(|byte| byte.is_ascii_whitespace() || kind(*byte))
    }

    /// Whether only the body is signed.
    pub(super) fn is_body(&self) -> bool {
        self.segments == [Segment::Body]
    }

    /// The text as in the rules, each variable with its length in this delivery. Values are not shown: an id or a header
    /// may contain what must not be logged.
    pub(super) fn describe(&self, values: &Values<'_>, body: usize) -> String {
        let parts = self.segments.iter().map(|segment| match segment {
            Segment::Literal(text) => format!("`{}`", text.escape_debug()),
            Segment::Timestamp => {
                let unit = if self.time.is_unix() { "digits" } else { "characters" };
                format!("{{timestamp}} ({} {unit})", values.timestamp.len())
            }
            Segment::Header(at) => {
                let name = self.headers.get(*at).map(ToString::to_string).unwrap_or_default();
                format!("{{header:{name}}} ({} bytes)", self.value(segment, values).len())
            }
            Segment::Body => format!("{{body}} ({body} bytes)"),
        });
        parts.collect::<Vec<_>>().join(" ")
    }

    /// The pieces of the text, in order.
    pub(super) fn pieces<'a>(
        &'a self,
        values: &'a Values<'a>,
        body: &'a [u8],
    ) -> impl Iterator<Item = &'a [u8]> {
        self.segments.iter().map(move |segment| match segment {
            Segment::Literal(text) => text.as_bytes(),
            Segment::Body => body,
            variable => self.value(variable, values),
        })
    }
}

/// The variables that the text uses.
#[derive(Default)]
struct TemplateSources {
    id: bool,
    url: bool,
}

fn starts_with<'a>(text: impl Iterator<Item = &'a u8>, with: impl ExactSizeIterator<Item = &'a u8>) -> bool {
    text.take(with.len()).eq(with)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;
    use proptest::sample::select;
    use proptest::test_runner::{Config as Runs, RngAlgorithm, TestRng, TestRunner};

    use super::*;
    use crate::config::{TimestampFormat, TimestampUnit};

    fn compile(signed: &str, format: TimestampFormat) -> Result<(Template, TimeText), String> {
        let rules = config::Signature {
            signed: Some(signed.to_owned()),
            url: signed.contains("{url}").then(|| "u1".to_owned()),
            ..config::Signature::default()
        };
        let (mut problems, time) = (ConfigErrors::default(), TimeText::new(format, TimestampUnit::Seconds));
        let template = Template::compile(&rules, None, time, "signature", &mut problems);
        match template {
            Some(template) if problems.is_empty() => Ok((template, time)),
            _ => Err(problems.to_string()),
        }
    }

    const HTTP_DATE: &str = "Tue, 14 Nov 2023 22:13:20 GMT";

    /// The values of a request: the time, the headers and the body.
    type Request = (String, Vec<String>, String);

    /// Every request that has this signed text and is not refused.
    fn requests(template: &Template, time: TimeText, text: &str) -> Vec<Request> {
        let mut cuts = vec![(0, None::<String>, vec![None::<String>; template.headers.len()], String::new())];
        for segment in &template.segments {
            cuts = cuts
                .into_iter()
                .flat_map(|(at, timestamp, headers, body)| {
                    let lengths = match segment {
                        Segment::Literal(literal) if text[at..].starts_with(literal.as_str()) => {
                            literal.len()..=literal.len()
                        }
                        #[allow(clippy::reversed_empty_ranges, reason = "no length fits")]
                        Segment::Literal(_) => 1..=0,
                        _ => 0..=text.len() - at,
                    };
                    lengths.filter_map(move |length| {
                        let (mut timestamp, mut headers, mut body) =
                            (timestamp.clone(), headers.clone(), body.clone());
                        let value = text[at..at + length].to_owned();
                        match segment {
                            Segment::Literal(_) => {}
                            Segment::Timestamp => {
                                if timestamp.replace(value.clone()).is_some_and(|known| known != value) {
                                    return None;
                                }
                            }
                            Segment::Header(header) => {
                                let known = headers[*header].replace(value.clone());
                                if known.is_some_and(|known| known != value) {
                                    return None;
                                }
                            }
                            Segment::Body => body = value,
                        }
                        Some((at + length, timestamp, headers, body))
                    })
                })
                .collect();
        }
        let whole = cuts.into_iter().filter(|(at, ..)| *at == text.len());
        let whole = whole.map(|(_, timestamp, headers, body)| {
            (timestamp.unwrap_or_default(), headers.into_iter().map(Option::unwrap).collect::<Vec<_>>(), body)
        });
        whole
            .filter(|(timestamp, headers, _)| {
                let values = Values { timestamp, headers: headers.iter().map(String::as_str).collect() };
                let timed = !template.has_time() || time.check(timestamp, template.has_open_time()).is_ok();
                timed && template.is_clear(&values)
            })
            .collect()
    }

    /// Each way to cut a signed text into the parts of the rule is tried, and at most one is accepted: equal signed text
    /// means equal parts, whatever the rule.
    #[test]
    fn no_two_requests_have_the_same_signed_text() {
        println!("seed: [18; 32]");
        let mut runner = TestRunner::new_with_rng(
            Runs { cases: 8000, failure_persistence: None, ..Runs::default() },
            TestRng::from_seed(RngAlgorithm::ChaCha, &[18; 32]),
        );
        let variable = || {
            select(vec![
                "{timestamp}",
                "{header:A}",
                "{header:B}",
                "{url}",
                "{method}",
                ".",
                ":",
                "1",
                "-",
                "Z",
                "aa",
                "",
            ])
        };
        let side = || prop::collection::vec(variable(), 0..4).prop_map(|parts| parts.concat());
        let piece = || {
            let dates = ["2023-11-14T22:13:20", "2023-11-14T22:13:20Z", "2023-11-14T22:13:20.5Z", HTTP_DATE];
            let others = ["1700000000", "1", "17", "a", ".", ":", "-", "Z", "+02:00", ".5", "POST", "u1"];
            select([dates.as_slice(), others.as_slice()].concat())
        };
        let text = |most| prop::collection::vec(piece(), 0..most).prop_map(|pieces| pieces.concat());
        let date =
            select(vec!["", "Z", ".25Z", "+02:00", ".5"]).prop_map(|end| format!("2023-11-14T22:13:20{end}"));
        let unix = select(vec!["1700000000", "170000000", "1"]).prop_map(str::to_owned);
        let formats = [TimestampFormat::Rfc3339, TimestampFormat::Unix, TimestampFormat::HttpDate];
        let requests_of = (side(), side(), select(formats.to_vec()), date, unix, text(3), text(3), text(4));
        let (compiled, accepted) = (Cell::new(0), Cell::new(0));
        runner
            .run(&requests_of, |(before, after, format, date, unix, a, b, body)| {
                let signed = format!("{before}{{body}}{after}");
                let Ok((template, time)) = compile(&signed, format) else { return Ok(()) };
                let values = [a, b];
                let headers = template.headers.iter().map(|name| {
                    let is_a = name.first().is_some_and(|name| name == "a");
                    values[usize::from(!is_a)].as_str()
                });
                let timestamp = match format {
                    TimestampFormat::Rfc3339 => &date,
                    TimestampFormat::Unix => &unix,
                    TimestampFormat::HttpDate => HTTP_DATE,
                };
                let values = Values { timestamp, headers: headers.collect() };
                let text: Vec<u8> = template.pieces(&values, body.as_bytes()).flatten().copied().collect();
                let text = String::from_utf8(text).unwrap();
                let found = requests(&template, time, &text);
                prop_assert!(
                    found.len() <= 1,
                    "{signed} {format:?}: {found:?} all have the signed text {text}"
                );
                compiled.set(compiled.get() + 1);
                accepted.set(accepted.get() + found.len());
                Ok(())
            })
            .unwrap();
        let (compiled, accepted) = (compiled.get(), accepted.get());
        assert!(compiled > 1000 && accepted > 300, "{compiled} rules compiled, {accepted} requests accepted");
    }

    /// Texts that could be cut in two ways, which random rules seldom meet.
    #[test]
    fn texts_with_two_times_or_an_open_fraction_have_one_reading() {
        for (signed, text, readings) in [
            ("{header:A}{timestamp}{body}", "a2023-11-14T22:13:20Z2023-11-14T22:13:20Z", 1),
            ("{timestamp}1{body}", "2023-11-14T22:13:20.511700000000", 0),
            ("{timestamp}1{body}", "2023-11-14T22:13:20.5Z1700000000", 1),
            ("{timestamp}.{body}", "2023-11-14T22:13:20.51.7", 0),
            ("{timestamp}:{body}", "2023-11-14T22:13:20.51:7", 1),
            ("{body}:{timestamp}", "2023-11-14T22:13:20:2023-11-14T22:13:20", 1),
        ] {
            let (template, time) = compile(signed, TimestampFormat::Rfc3339).unwrap();
            let found = requests(&template, time, text);
            assert_eq!(found.len(), readings, "{signed}: {found:?}");
        }
    }

    #[test]
    fn w5_variables_without_a_separator_need_a_time_that_ends_by_itself() {
        use TimestampFormat::{HttpDate, Rfc3339, Unix};
        for (signed, format) in [
            ("{method}{url}{body}{timestamp}", Unix),
            ("{timestamp}{body}", Unix),
            ("{timestamp}{body}", Rfc3339),
            ("{body}{timestamp}", Rfc3339),
            ("{header:A}{timestamp}{body}", Rfc3339),
            ("v1:{timestamp}:{body}", Rfc3339),
            ("{timestamp}{header:A}.{body}", Unix),
            ("{body}{timestamp}", HttpDate),
            ("{timestamp}{body}", HttpDate),
        ] {
            assert!(compile(signed, format).is_ok(), "{signed} {format:?}");
        }
        for (signed, format) in [
            ("{header:A}{timestamp}{body}", Unix),
            ("{header:A}{body}", Rfc3339),
            ("{body}{header:A}", Rfc3339),
            ("{header:A}{header:B}.{body}", Rfc3339),
            ("{body}{timestamp}{header:A}", Rfc3339),
            ("{header:A}{timestamp}{body}", HttpDate),
        ] {
            let problem = compile(signed, format).map(drop).unwrap_err();
            assert!(
                problem.contains("needs a separator between its variables"),
                "{signed} {format:?}: {problem}"
            );
        }
    }
}
