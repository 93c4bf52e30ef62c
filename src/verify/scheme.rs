//! The configured rules of a signature: which header carries it, in which format, and what is signed.

use http::{HeaderMap, HeaderName};
use jiff::{SignedDuration, Timestamp};

use super::digest::{self, Digest, DigestFormat, Signer};
use super::header_names::HeaderNames;
use super::signature_error::SignatureError;
use super::signed_time::TimeText;
use super::template::{Template, Values};
use crate::config::{self, BodyForm, ConfigErrors, Encoding, SignatureKind, TimestampFormat};

/// The maximum number of signatures read from one header: it bounds the work for a refused request.
pub(super) const MAX_SIGNATURES: usize = 8;

/// What may separate the parts of a list.
pub(super) const BETWEEN: &[char] = &[' ', ',', ';'];

#[derive(Debug)]
pub(super) struct Scheme {
    pub(super) header: HeaderNames,
    pub(super) layout: HeaderFormat,
    pub(super) written: DigestFormat,
    pub(super) timestamp_header: Option<HeaderNames>,
    pub(super) time: TimeText,
    /// Whether nothing beside the signed time shows where it ends.
    pub(super) has_open_time: bool,
    pub(super) id_header: Option<HeaderNames>,
    pub(super) template: Template,
    pub(super) forms: Vec<BodyForm>,
    /// The request headers that the rules read, without duplicates and without the header of a token.
    pub(super) headers: Vec<HeaderName>,
    pub(super) kind: SignatureKind,
    /// The headers of tokens in any of the source's schemes, which no record may contain.
    pub(super) tokens: Vec<HeaderName>,
}

/// The format of the signature header.
#[derive(Debug)]
pub(super) enum HeaderFormat {
    /// `<prefix><signature>`
    Plain { prefix: String },
    /// `key=value` parts in any order, separated by commas, semicolons or spaces. Unknown keys are ignored: the provider may add
    /// some.
    List { signature: String, timestamp: Option<String> },
    /// Space-separated `version,signature` parts. Unknown versions are ignored: the provider may add some.
    Versions { version: String },
    /// `<prefix><the secret itself>`
    Token { prefix: String },
}

/// The signatures and signed values that a request claims.
#[derive(Debug)]
pub(super) struct Claim<'d> {
    signatures: Vec<Digest>,
    values: Values<'d>,
}

impl Claim<'_> {
    /// One to [`MAX_SIGNATURES`].
    pub(super) fn signatures(&self) -> &[Digest] {
        &self.signatures
    }

    /// The signed values other than the body.
    pub(super) fn values(&self) -> &Values<'_> {
        &self.values
    }
}

impl HeaderNames {
    /// The value of the header that counts, which must occur exactly once.
    pub(super) fn single<'d>(&self, headers: &'d HeaderMap) -> Result<&'d str, SignatureError> {
        let name = self.of(headers).ok_or_else(|| SignatureError::HeaderMissing(self.clone()))?;
        let mut values = headers.get_all(name).iter();
        let value = values.next().ok_or_else(|| SignatureError::HeaderMissing(self.clone()))?;
        if values.next().is_some() {
            return Err(SignatureError::HeaderRepeated(name.clone()));
        }
        value.to_str().map_err(|_| SignatureError::HeaderNotAscii(name.clone()))
    }
}

impl Scheme {
    pub(super) fn compile(
        rules: &config::Signature,
        place: &str,
        problems: &mut ConfigErrors,
    ) -> Option<Self> {
        let before = problems.len();
        let mut header =
            |key: &str, names: &[String]| HeaderNames::compile(names, &format!("{place}.{key}"), problems);
        let signature = header("header", &rules.header);
        let timestamp_header = header("timestamp_header", &rules.timestamp_header);
        let id_header = header("id_header", &rules.id_header);
        if rules.header.is_empty() {
            problems.add(format!("{place}.header"), "names no header");
        }
        let layout = layout(rules, place, problems);
        let time_text = TimeText::new(
            rules.timestamp_format.unwrap_or_default(),
            rules.timestamp_unit.unwrap_or_default(),
        );
        let template = match rules.kind {
            SignatureKind::Hmac => Template::compile(rules, id_header.as_ref(), time_text, place, problems),
            SignatureKind::Token | SignatureKind::Bearer | SignatureKind::Basic => {
                token_alone(rules, place, problems);
                Some(Template::default())
            }
        };
        if let (SignatureKind::Hmac, Some(template)) = (rules.kind, &template) {
            time(rules, template.has_time(), place, problems);
        }
        if rules.forms.is_empty() {
            problems
                .add(format!("{place}.forms"), "must name at least one form of the body, such as \"raw\"");
        }
        if problems.len() > before {
            return None;
        }
        let (header, template) = (signature?, template?);
        let mut headers = Vec::new();
        let own = (rules.kind == SignatureKind::Hmac).then_some(&header);
        let all = own.into_iter().chain(&timestamp_header).chain(&template.headers);
        for name in all.flat_map(HeaderNames::iter) {
            if !headers.contains(name) {
                headers.push(name.clone());
            }
        }
        Some(Self {
            header,
            layout: layout?,
            written: DigestFormat {
                hash: rules.hash.unwrap_or_default(),
                encoding: rules.encoding.unwrap_or_default(),
            },
            timestamp_header,
            time: time_text,
            has_open_time: template.has_open_time(),
            id_header,
            template,
            forms: rules.forms.clone(),
            headers,
            kind: rules.kind,
            tokens: Vec::new(),
        })
    }

    /// The headers of a token, which is a credential.
    pub(super) fn token_headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.header.iter().filter(|_| self.is_token())
    }

    /// Reads the claimed signatures and the values that are signed with the body.
    pub(super) fn claim<'d>(&self, headers: &'d HeaderMap) -> Result<Claim<'d>, SignatureError> {
        self.claim_in(&self.header, headers)
    }

    /// As [`Scheme::claim`], with the signatures of another header.
    pub(super) fn claim_in<'d>(
        &self,
        header: &HeaderNames,
        headers: &'d HeaderMap,
    ) -> Result<Claim<'d>, SignatureError> {
        let value = header.single(headers)?.trim();
        let (signatures, listed) = match &self.layout {
            HeaderFormat::Plain { prefix } => {
                // HaloPSA writes a space behind the prefix.
                let digits =
                    value.strip_prefix(prefix.as_str()).ok_or(SignatureError::PrefixMissing)?.trim_start();
                (vec![self.written.read(digits).ok_or_else(|| self.undecodable())?], None)
            }
            HeaderFormat::Token { prefix } => {
                let (before, token) =
                    value.split_at_checked(prefix.len()).ok_or(SignatureError::PrefixMissing)?;
                // The name of an HTTP authentication scheme has no case.
                let is_prefix = match self.kind.authorization() {
                    Some(_) => before.eq_ignore_ascii_case(prefix),
                    None => before == prefix,
                };
                if !is_prefix {
                    return Err(SignatureError::PrefixMissing);
                }
                (vec![digest::token(token.as_bytes())], None)
            }
            HeaderFormat::List { signature, timestamp } => {
                let header = || header.of(headers).cloned().map_or_else(|| header.clone(), HeaderNames::from);
                self.list(header, value, signature, timestamp.as_deref())?
            }
            HeaderFormat::Versions { version } => (self.versions(value, version)?, None),
        };
        let timestamp = match &self.timestamp_header {
            Some(name) => Some(name.single(headers)?),
            None => listed,
        };
        let timestamp = timestamp.map(|text| self.check_time(text)).transpose()?.unwrap_or_default();
        let values = Values {
            timestamp,
            headers: self
                .template
                .headers
                .iter()
                .map(|name| name.single(headers))
                .collect::<Result<_, _>>()?,
        };
        if !self.template.is_clear(&values) {
            return Err(SignatureError::AmbiguousSeparator);
        }
        Ok(Claim { signatures, values })
    }

    /// `t=1775847600,v1=<hex>,v1=<hex>`, or with semicolons as with Paddle: during a rotation the list has a signature for each secret, as with Outpost
    /// without repeating the key, or as with Persona a set of parts for each, separated by spaces, all with the same time. A
    /// signature that cannot be decoded is skipped if another can.
    fn list<'d>(
        &self,
        header: impl Fn() -> HeaderNames,
        value: &'d str,
        signature: &str,
        timestamp: Option<&str>,
    ) -> Result<(Vec<Digest>, Option<&'d str>), SignatureError> {
        let (mut read, mut time) = (Signatures::default(), None);
        let repeated = || SignatureError::TimeRepeated(header());
        let mut key = "";
        for set in value.split_ascii_whitespace() {
            let mut own = None;
            // One character, since that is much cheaper to find than one of two.
            let between = if set.contains(';') { ';' } else { ',' };
            for part in set.split(between).filter(|part| !part.is_empty()) {
                let value = match part.split_once('=') {
                    // A part without a key is one more signature; what may look like a key is its padding.
                    Some((_, value)) if key == signature && value.trim_matches('=').is_empty() => part,
                    Some((found, value)) => {
                        key = found;
                        value
                    }
                    None if key == signature => part,
                    None => continue,
                };
                if key == signature {
                    read.add(self.written, value)?;
                } else if Some(key) == timestamp && own.replace(value).is_some() {
                    return Err(repeated());
                }
            }
            if own.is_some_and(|own| time.replace(own).is_some_and(|other| other != own)) {
                return Err(repeated());
            }
        }
        let signatures = read.all(self)?;
        match (timestamp, time) {
            (Some(_), None) => Err(SignatureError::TimeMissing(header())),
            (_, time) => Ok((signatures, time)),
        }
    }

    /// `v1,<base64> v1,<base64> v1a,<base64>`
    fn versions(&self, value: &str, version: &str) -> Result<Vec<Digest>, SignatureError> {
        let mut read = Signatures::default();
        for (found, value) in value.split(' ').filter_map(|part| part.split_once(',')) {
            if found == version {
                read.add(self.written, value)?;
            }
        }
        read.all(self)
    }

    /// The signature header that the rules expect, in words.
    pub(super) fn expected(&self) -> String {
        let bytes = self.written.length();
        let text = match self.written.encoding {
            Encoding::Hex => format!("{} hex digits", 2 * bytes),
            Encoding::Base64 => format!("{} characters of base64", bytes.div_ceil(3) * 4),
            Encoding::Base64url => format!("{bytes} bytes in base64url"),
        };
        let text = format!("{text} (HMAC with {})", digest::hash_name(self.written.hash));
        let (before, text) = match &self.layout {
            HeaderFormat::Token { prefix } => (prefix.clone(), String::from("the secret itself")),
            HeaderFormat::Plain { prefix } => (prefix.clone(), text),
            HeaderFormat::List { signature, timestamp: Some(timestamp) } => {
                return format!("`{timestamp}=<time>,{signature}=<signature>` with {text}");
            }
            HeaderFormat::List { signature, timestamp: None } => (format!("{signature}="), text),
            HeaderFormat::Versions { version } => (format!("{version},"), text),
        };
        if before.is_empty() { text } else { format!("`{before}` and {text}") }
    }

    fn undecodable(&self) -> SignatureError {
        SignatureError::Undecodable { encoding: self.written.encoding, bytes: self.written.length() }
    }

    /// The digest that `mac`'s secret gives to the signed text.
    pub(super) fn digest(&self, mac: &Signer, claim: &Claim<'_>, body: &[u8]) -> Digest {
        self.digest_of(mac, &claim.values, body)
    }

    /// Whether the request contains the secret itself instead of a signature.
    pub(super) fn is_token(&self) -> bool {
        matches!(self.layout, HeaderFormat::Token { .. })
    }

    /// The text of the signed time, if it is written as the rules say.
    pub(super) fn check_time<'d>(&self, text: &'d str) -> Result<&'d str, SignatureError> {
        self.time.check(text, self.has_open_time)
    }

    /// The time from signing to `now`; negative if the signed time is in the future. `None` if no time is signed. A time
    /// that does not fit in 64 bits saturates.
    pub(super) fn age(&self, claim: &Claim<'_>, now: Timestamp) -> Option<SignedDuration> {
        self.time.age(claim.values.timestamp, now)
    }

    pub(super) fn digest_of(&self, mac: &Signer, values: &Values<'_>, body: &[u8]) -> Digest {
        mac.digest(self.template.pieces(values, body))
    }
}

/// Collects the signatures of one header.
#[derive(Default)]
struct Signatures {
    read: usize,
    signatures: Vec<Digest>,
}

impl Signatures {
    fn add(&mut self, written: DigestFormat, text: &str) -> Result<(), SignatureError> {
        self.read += 1;
        if self.read > MAX_SIGNATURES {
            return Err(SignatureError::TooManySignatures(MAX_SIGNATURES));
        }
        if self.signatures.capacity() == 0 {
            self.signatures.reserve_exact(1);
        }
        self.signatures.extend(written.read(text));
        Ok(())
    }

    fn all(self, scheme: &Scheme) -> Result<Vec<Digest>, SignatureError> {
        match (self.read, self.signatures.is_empty()) {
            (0, _) => Err(SignatureError::NoSignature),
            (_, true) => Err(scheme.undecodable()),
            _ => Ok(self.signatures),
        }
    }
}

fn layout(rules: &config::Signature, place: &str, problems: &mut ConfigErrors) -> Option<HeaderFormat> {
    let prefix = || rules.prefix.clone().unwrap_or_default();
    let plain = match rules.kind {
        SignatureKind::Hmac => HeaderFormat::Plain { prefix: prefix() },
        SignatureKind::Token => return Some(HeaderFormat::Token { prefix: prefix() }),
        SignatureKind::Bearer | SignatureKind::Basic => {
            if rules.prefix.is_some() {
                let message =
                    "does not go with kind = \"bearer\" or \"basic\", which have their own; remove it";
                problems.add(format!("{place}.prefix"), message);
            }
            let prefix = rules.kind.authorization().unwrap_or_default().to_owned();
            return Some(HeaderFormat::Token { prefix });
        }
    };
    let mut wrong = |key: &str, message: &str| {
        problems.add(format!("{place}.{key}"), message);
        None
    };
    let names = [
        ("signature_key", &rules.signature_key),
        ("timestamp_key", &rules.timestamp_key),
        ("signature_version", &rules.signature_version),
    ];
    if let Some((key, _)) = names.into_iter().find(|(_, name)| name.as_deref() == Some("")) {
        return wrong(key, "is empty; remove it, or name the part of the header");
    }
    match (&rules.prefix, &rules.signature_key, &rules.timestamp_key, &rules.signature_version) {
        (_, None, None, None) => Some(plain),
        (None, Some(signature), timestamp, None) => {
            Some(HeaderFormat::List { signature: signature.clone(), timestamp: timestamp.clone() })
        }
        (None, None, None, Some(version)) => Some(HeaderFormat::Versions { version: version.clone() }),
        (Some(_), ..) => wrong("prefix", "goes with a plain header only: remove it, or the keys of the list"),
        (None, None, Some(_), _) => wrong("timestamp_key", "needs signature_key beside it"),
        (None, Some(_), _, Some(_)) => {
            wrong("signature_version", "excludes signature_key; keep the one that the header looks like")
        }
    }
}

fn time_is_unix(rules: &config::Signature) -> bool {
    rules.timestamp_format.unwrap_or_default() == TimestampFormat::Unix
}

/// The signed time has exactly one source, and `signed` uses it.
fn time(rules: &config::Signature, used: bool, place: &str, problems: &mut ConfigErrors) {
    let sources = [
        ("timestamp_key", rules.timestamp_key.is_some()),
        ("timestamp_header", !rules.timestamp_header.is_empty()),
    ];
    match (sources.iter().filter(|(_, given)| *given).count(), used) {
        (2, _) => {
            problems.add(format!("{place}.timestamp_header"), "excludes timestamp_key; keep one of them");
        }
        (0, true) | (1, false) => problems.add(
            format!("{place}.signed"),
            "must use {timestamp} if timestamp_key or timestamp_header is set, and not otherwise",
        ),
        (0, false) if rules.timestamp_unit.is_some() => {
            problems
                .add(format!("{place}.timestamp_unit"), "is for {timestamp}, which `signed` does not use");
        }
        (0, false) if rules.timestamp_format.is_some() => {
            problems
                .add(format!("{place}.timestamp_format"), "is for {timestamp}, which `signed` does not use");
        }
        _ if rules.timestamp_key.is_some() && rules.timestamp_format == Some(TimestampFormat::HttpDate) => {
            problems.add(
                format!("{place}.timestamp_key"),
                "names a part of a list, and a date of HTTP has a comma",
            );
        }
        _ if rules.timestamp_unit.is_some() && !time_is_unix(rules) => {
            problems
                .add(format!("{place}.timestamp_unit"), "is for a Unix time; remove it, or timestamp_format");
        }
        _ => {}
    }
}

/// A token signs nothing: settings about a signed text would promise protection that it does not give.
fn token_alone(rules: &config::Signature, place: &str, problems: &mut ConfigErrors) {
    for (key, given) in [
        ("signature_key", rules.signature_key.is_some()),
        ("timestamp_key", rules.timestamp_key.is_some()),
        ("signature_version", rules.signature_version.is_some()),
        ("timestamp_header", !rules.timestamp_header.is_empty()),
        ("timestamp_unit", rules.timestamp_unit.is_some()),
        ("timestamp_format", rules.timestamp_format.is_some()),
        ("id_header", !rules.id_header.is_empty()),
        ("url", rules.url.is_some()),
        ("hash", rules.hash.is_some()),
        ("encoding", rules.encoding.is_some()),
        ("signed", rules.signed.is_some()),
        ("forms", rules.forms != [BodyForm::Raw]),
    ] {
        if given {
            problems.add(
                format!("{place}.{key}"),
                "does not go with this kind: a token signs nothing; remove one of them",
            );
        }
    }
}
