//! The signed text: its parts, and why no two deliveries share one.
//!
//! A signature proves a text, and the text must determine its parts: otherwise an attacker could move bytes from one part
//! to the next under the same signature. So any two variables have a literal between them, `{body}` occurs once, a value
//! before the body never contains the literal that follows it, and a value after the body never the literal that precedes
//! it. The last two are checked for each delivery instead of in the rules: only the provider knows whether an id may
//! contain a dot, and a rule such as `{id}.{timestamp}.{body}` could not be written otherwise.

use http::HeaderName;

use super::header_names::HeaderNames;
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

/// The signed text, compiled.
#[derive(Debug, Default)]
pub(super) struct Template {
    segments: Vec<Segment>,
    /// The headers that `{id}` and `{header:NAME}` read, without duplicates.
    pub(super) headers: Vec<HeaderNames>,
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
        place: &str,
        problems: &mut ConfigErrors,
    ) -> Option<Self> {
        let mut template = Self::default();
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
        if template.ambiguous() {
            problems.add(format!("{place}.signed"), "needs a separator between its variables");
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

    /// Splits `{timestamp}.{body}` into segments. A fixed text, such as the URL, is merged with adjacent literals.
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
                        "knows {body}, {timestamp}, {id}, {url} and {header:NAME} only",
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

    /// Whether two variables are adjacent.
    fn ambiguous(&self) -> bool {
        let variable = |segment: &Segment| !matches!(segment, Segment::Literal(_));
        self.pairs().any(|(a, b)| variable(a) && variable(b))
    }

    fn pairs(&self) -> impl Iterator<Item = (&Segment, &Segment)> {
        self.segments.iter().zip(self.segments.iter().skip(1))
    }

    /// Whether the signed time is part of the text.
    pub(super) fn has_time(&self) -> bool {
        self.segments.contains(&Segment::Timestamp)
    }

    /// Whether each value is delimited by its literals without ambiguity.
    pub(super) fn is_clear(&self, values: &Values<'_>) -> bool {
        let mut behind = false;
        self.pairs().all(|pair| {
            behind |= *pair.0 == Segment::Body;
            match pair {
                (Segment::Body, _) | (_, Segment::Body) => true,
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

    /// Whether only the body is signed.
    pub(super) fn is_body(&self) -> bool {
        self.segments == [Segment::Body]
    }

    /// The text as in the rules, each variable with its length in this delivery. Values are not shown: an id or a header
    /// may contain what must not be logged.
    pub(super) fn describe(&self, values: &Values<'_>, body: usize) -> String {
        let parts = self.segments.iter().map(|segment| match segment {
            Segment::Literal(text) => format!("`{}`", text.escape_debug()),
            Segment::Timestamp => format!("{{timestamp}} ({} digits)", values.timestamp.len()),
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
