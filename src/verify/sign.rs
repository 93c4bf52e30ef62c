//! The verifier's inverse, for `send`, `dev` and tests: what the provider would send.

use http::{HeaderName, HeaderValue};
use jiff::Timestamp;

use super::{Verifier, canonical};
use crate::config::Form;
use crate::outcome::{Fault, Reason};

impl Verifier {
    /// The signature header for `body`, made with the source's first secret at the time `now`. Of
    /// several forms the last is signed: it is the one the provider's own signer makes.
    ///
    /// # Errors
    /// `json_invalid` and its kin where the form to sign does not exist for this body;
    /// `signature_missing` where the source has no secret.
    pub fn sign(&self, body: &[u8], now: Timestamp) -> Result<(HeaderName, HeaderValue), Fault> {
        let form = self.scheme.forms.last().copied().unwrap_or(Form::Raw);
        let signed = match form {
            Form::Raw => body.into(),
            Form::JsonCompactAscii => canonical::json_compact_ascii(body)?,
        };
        let key = self.keys.first().ok_or(Fault::from(Reason::SignatureMissing))?;
        let timestamp = now.as_second().to_string();
        let digest = self.scheme.digest(&key.mac, &timestamp, &signed);
        let value = HeaderValue::try_from(self.scheme.write(&timestamp, &digest))
            .map_err(|_| Fault::new(Reason::SignatureMalformed, "the header's value cannot be written"))?;
        Ok((self.scheme.header.clone(), value))
    }
}
