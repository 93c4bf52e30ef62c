//! Signs as the provider does, for `send`, `dev` and tests.

use http::{HeaderMap, HeaderValue};
use jiff::Timestamp;
use uuid::Uuid;

use super::header_names::HeaderNames;
use super::scheme::HeaderFormat;
use super::template::Values;
use super::{SchemeVerifier, Verifier, canonical};
use crate::config::BodyForm;
use crate::outcome::{Fault, Reason};

impl Verifier {
    /// Adds the headers that the provider would send with `body` by the first scheme for which a secret is valid at `now`:
    /// signature, time and id, made with the first such secret. If none is valid, those of the first secret. An existing
    /// id, or other signed header, is signed as it is. If the rules name several forms of the body, the last one is
    /// signed: it is the form that the provider's signer makes.
    ///
    /// # Errors
    /// `json_invalid`, `json_too_deep` or `duplicate_key` if the body does not have the form to sign; `signature_missing` if
    /// the source has no secret, or a signed header is missing; `signature_malformed` if the provider could not have sent
    /// such headers.
    pub fn sign(&self, body: &[u8], now: Timestamp, headers: &mut HeaderMap) -> Result<(), Fault> {
        let scheme = self.schemes.iter().find(|scheme| scheme.has_key_at(now)).or(self.schemes.first());
        scheme.ok_or(Fault::from(Reason::SignatureMissing))?.sign(body, now, headers)
    }

    /// The headers of a delivery by each scheme for which a secret is valid at `now`: those of the request, and what
    /// [`Verifier::sign`] adds.
    pub fn sign_by_each(
        &self,
        body: &[u8],
        now: Timestamp,
        headers: &HeaderMap,
    ) -> impl Iterator<Item = Result<HeaderMap, Fault>> {
        self.schemes.iter().filter(move |scheme| scheme.has_key_at(now)).map(move |scheme| {
            let mut headers = headers.clone();
            scheme.sign(body, now, &mut headers).map(|()| headers)
        })
    }
}

impl SchemeVerifier {
    fn has_key_at(&self, now: Timestamp) -> bool {
        self.keys.iter().any(|key| key.window.contains(now))
    }

    fn sign(&self, body: &[u8], now: Timestamp, headers: &mut HeaderMap) -> Result<(), Fault> {
        let Self { scheme, keys, .. } = self;
        let key = keys.iter().find(|key| key.window.contains(now)).or(keys.first());
        let key = key.ok_or(Fault::from(Reason::SignatureMissing))?;
        let header = scheme.header.first().ok_or(Fault::from(Reason::SignatureMissing))?;
        if let Some(token) = &key.token {
            headers.insert(header, token.clone());
            return Ok(());
        }
        let form = scheme.forms.last().copied().unwrap_or(BodyForm::Raw);
        let signed = match form {
            BodyForm::Raw => body.into(),
            BodyForm::JsonCompactAscii => canonical::json_compact_ascii(body)?,
        };
        let timestamp = scheme.time.write(now);
        if let Some(name) = scheme.timestamp_header.as_ref().and_then(HeaderNames::first) {
            headers.insert(name, value(&timestamp)?);
        }
        let id = scheme.id_header.as_ref().filter(|names| names.of(headers).is_none());
        if let Some(name) = id.and_then(HeaderNames::first) {
            headers.insert(name, value(&format!("msg_{}", Uuid::now_v7().simple()))?);
        }
        let values = scheme.template.headers.iter().map(|names| {
            names.single(headers).map_err(|_| {
                Fault::new(Reason::SignatureMissing, format!("{names} is signed; add it to the headers"))
            })
        });
        let values = Values { timestamp: &timestamp, headers: values.collect::<Result<_, _>>()? };
        let digest = scheme.written.write(&scheme.digest_of(&key.mac, &values, &signed));
        let written = match &scheme.layout {
            HeaderFormat::Plain { prefix } | HeaderFormat::Token { prefix } => format!("{prefix}{digest}"),
            HeaderFormat::List { signature, timestamp: Some(key) } => {
                format!("{key}={timestamp},{signature}={digest}")
            }
            HeaderFormat::List { signature, timestamp: None } => format!("{signature}={digest}"),
            HeaderFormat::Versions { version } => format!("{version},{digest}"),
        };
        headers.insert(header, value(&written)?);
        scheme.claim(headers)?;
        Ok(())
    }
}

fn value(text: &str) -> Result<HeaderValue, Fault> {
    HeaderValue::try_from(text)
        .map_err(|_| Fault::new(Reason::SignatureMalformed, "the header's value cannot be written"))
}
