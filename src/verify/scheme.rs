//! The declared rules of a signature: where it stands in the request, and over what it runs.

use hmac::{Hmac, Mac};
use http::{HeaderMap, HeaderName};
use sha2::Sha256;

use super::Digest;
use crate::config::{self, Form, Problems};
use crate::outcome::{Fault, Reason};

/// How many signatures are read from one header: it bounds the work for a refused request.
pub(super) const MAX_SIGNATURES: usize = 8;

/// A unix time in seconds has ten digits for the next 260 years.
const MAX_TIMESTAMP: usize = 20;

#[derive(Debug)]
pub(super) struct Scheme {
    pub(super) header: HeaderName,
    layout: Layout,
    template: Vec<Segment>,
    pub(super) forms: Vec<Form>,
}

/// How the header carries the signature.
#[derive(Debug)]
enum Layout {
    /// `<prefix><hex>`
    Plain { prefix: String },
    /// `key=value` parts with commas between, in any order; unknown keys are the provider's to add.
    List { signature: String, timestamp: Option<String> },
}

/// A piece of the signed text.
#[derive(Debug, PartialEq)]
enum Segment {
    Literal(String),
    Timestamp,
    Body,
}

/// What a request claims.
#[derive(Debug)]
pub struct Claim<'d> {
    signatures: Vec<Digest>,
    pub(super) timestamp: &'d str,
}

impl Claim<'_> {
    /// The claimed signatures, one to eight.
    pub fn signatures(&self) -> &[Digest] {
        &self.signatures
    }
}

impl Scheme {
    pub(super) fn compile(rules: &config::Signature, place: &str, problems: &mut Problems) -> Option<Self> {
        let before = problems.len();
        let header = HeaderName::from_bytes(rules.header.to_ascii_lowercase().as_bytes());
        if header.is_err() {
            problems.add(format!("{place}.header"), "is no name of an HTTP header");
        }
        let layout = match (&rules.prefix, &rules.signature_key, &rules.timestamp_key) {
            (prefix, None, None) => Layout::Plain { prefix: prefix.clone().unwrap_or_default() },
            (None, Some(signature), timestamp) => {
                Layout::List { signature: signature.clone(), timestamp: timestamp.clone() }
            }
            (Some(_), _, _) => {
                problems.add(
                    format!("{place}.prefix"),
                    "goes with a plain header only: remove it, or the keys of the list",
                );
                return None;
            }
            (None, None, Some(_)) => {
                problems.add(format!("{place}.timestamp_key"), "needs signature_key beside it");
                return None;
            }
        };
        let template = template(&rules.signed);
        let uses = |segment: &Segment| template.as_ref().is_ok_and(|template| template.contains(segment));
        match &template {
            Err(message) => problems.add(format!("{place}.signed"), message.clone()),
            Ok(_) if !uses(&Segment::Body) => {
                problems.add(format!("{place}.signed"), "must contain {body}: else any body would verify");
            }
            Ok(template) if ambiguous(template) => {
                problems.add(format!("{place}.signed"), "needs a separator between its variables");
            }
            Ok(_) => {}
        }
        let has_time = matches!(&layout, Layout::List { timestamp: Some(_), .. });
        if uses(&Segment::Timestamp) != has_time {
            problems.add(
                format!("{place}.signed"),
                "uses {timestamp} if and only if timestamp_key says where it stands",
            );
        }
        if rules.forms.is_empty() {
            problems
                .add(format!("{place}.forms"), "must name at least one form of the body, such as \"raw\"");
        }
        if problems.len() > before {
            return None;
        }
        Some(Self { header: header.ok()?, layout, template: template.ok()?, forms: rules.forms.clone() })
    }

    /// Reads the claim. A header that stands twice is malformed: which one counts would be a guess.
    pub(super) fn claim<'d>(&self, headers: &'d HeaderMap) -> Result<Claim<'d>, Fault> {
        let malformed = |detail: &'static str| Fault::new(Reason::SignatureMalformed, detail);
        let mut values = headers.get_all(&self.header).iter();
        let value = values.next().ok_or(Fault::from(Reason::SignatureMissing))?;
        if values.next().is_some() {
            return Err(malformed("the header stands twice"));
        }
        let value = value.to_str().map_err(|_| malformed("the header is not ASCII"))?.trim();
        match &self.layout {
            Layout::Plain { prefix } => {
                let digits = value.strip_prefix(prefix.as_str()).ok_or(malformed("the prefix is missing"))?;
                let signature = digest(digits).ok_or(malformed("not 64 hex digits"))?;
                Ok(Claim { signatures: vec![signature], timestamp: "" })
            }
            Layout::List { signature, timestamp } => list(value, signature, timestamp.as_deref()),
        }
    }

    /// The digest that `mac`'s secret gives to the signed text.
    pub(super) fn digest(&self, mac: &Hmac<Sha256>, timestamp: &str, body: &[u8]) -> Digest {
        let mut mac = mac.clone();
        for segment in &self.template {
            mac.update(match segment {
                Segment::Literal(text) => text.as_bytes(),
                Segment::Timestamp => timestamp.as_bytes(),
                Segment::Body => body,
            });
        }
        mac.finalize().into_bytes().into()
    }

    /// The header's value for a signature: the inverse of [`Scheme::claim`].
    pub(super) fn write(&self, timestamp: &str, digest: &Digest) -> String {
        let digits = hex::encode(digest);
        match &self.layout {
            Layout::Plain { prefix } => format!("{prefix}{digits}"),
            Layout::List { signature, timestamp: Some(key) } => {
                format!("{key}={timestamp},{signature}={digits}")
            }
            Layout::List { signature, timestamp: None } => format!("{signature}={digits}"),
        }
    }
}

/// `t=1775847600,v1=<hex>,v1=<hex>`: while a secret rotates, several signatures stand in it. A
/// part that is no signature of ours is skipped as long as one remains.
fn list<'d>(value: &'d str, signature: &str, timestamp: Option<&str>) -> Result<Claim<'d>, Fault> {
    let malformed = |detail: &'static str| Fault::new(Reason::SignatureMalformed, detail);
    let (mut signatures, mut read, mut time) = (Vec::with_capacity(1), 0_usize, None);
    for (key, value) in value.split(',').filter_map(|part| part.trim().split_once('=')) {
        if key == signature {
            read += 1;
            if read > MAX_SIGNATURES {
                return Err(malformed("more than 8 signatures"));
            }
            signatures.extend(digest(value));
        } else if Some(key) == timestamp {
            let digits = !value.is_empty()
                && value.len() <= MAX_TIMESTAMP
                && value.bytes().all(|b| b.is_ascii_digit());
            if !digits {
                return Err(malformed("the time is no number of seconds"));
            }
            if time.replace(value).is_some() {
                return Err(malformed("the time stands twice"));
            }
        }
    }
    if read == 0 {
        return Err(malformed("no signature in the list"));
    }
    if signatures.is_empty() {
        return Err(malformed("not 64 hex digits"));
    }
    match (timestamp, time) {
        (Some(_), None) => Err(malformed("no time in the list")),
        (_, time) => Ok(Claim { signatures, timestamp: time.unwrap_or_default() }),
    }
}

/// 64 hex digits, in either case.
fn digest(digits: &str) -> Option<Digest> {
    let mut digest = Digest::default();
    hex::decode_to_slice(digits, &mut digest).ok()?;
    Some(digest)
}

/// Cuts `{timestamp}.{body}` into its segments.
fn template(text: &str) -> Result<Vec<Segment>, String> {
    let mut segments = Vec::new();
    let mut rest = text;
    while let Some((literal, tail)) = rest.split_once('{') {
        if !literal.is_empty() {
            segments.push(Segment::Literal(literal.to_owned()));
        }
        let (name, tail) = tail.split_once('}').ok_or("has a { without its }")?;
        segments.push(match name {
            "timestamp" => Segment::Timestamp,
            "body" => Segment::Body,
            _ => return Err(String::from("knows {timestamp} and {body} only")),
        });
        rest = tail;
    }
    if !rest.is_empty() {
        segments.push(Segment::Literal(rest.to_owned()));
    }
    Ok(segments)
}

/// Two variables side by side: bytes could wander from one to the other under one signature.
fn ambiguous(template: &[Segment]) -> bool {
    let variable = |segment: &Segment| !matches!(segment, Segment::Literal(_));
    template.iter().zip(template.iter().skip(1)).any(|(a, b)| variable(a) && variable(b))
}
