//! Secrets, redacted everywhere, and the environment from which some of them are read.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use zeroize::Zeroizing;

use super::signature::{self, SchemeKey};
use super::{SecretFormat, Signature};

/// The secrets that `dev` signs with if no other is set, by preset. They are public and therefore protect nothing:
/// `serve` refuses them.
pub const DEV_SECRETS: [(&str, &str); 2] =
    [("datagrid", "whsec_hookstream-dev-not-a-secret-datagrid"), ("grapevine", "wh_dev-not-a-secret-000")];

/// The dev secret of any other source.
const DEV_SECRET: &str = "whsec_hookstream-dev-not-a-secret";

/// The dev key of a source whose key is decoded from the secret: the decoded key.
const DEV_KEY: &str = "hookstream-dev-not-a-secret";

/// A signing secret with fewer bytes can be guessed; it is used with a warning.
pub(super) const SHORT: usize = 16;

/// The public dev secret for a source with this preset and these schemes. Like every loaded secret, it contains the
/// decoded keys.
pub fn dev_secret(preset: Option<&str>, schemes: &[Signature]) -> Secret {
    let known = DEV_SECRETS.iter().find(|(name, _)| Some(*name) == preset);
    let text = known.map_or(DEV_SECRET, |(_, value)| value);
    let key = |scheme: &Signature| if scheme.secret_format == SecretFormat::Text { text } else { DEV_KEY };
    Secret::new("dev", text)
        .with_keys(schemes.iter().map(|scheme| Some(key(scheme).as_bytes().to_vec().into())).collect())
}

/// Whether the secret is one of the public dev secrets.
pub(super) fn is_dev(secret: &Secret) -> bool {
    let keys = secret.keys.iter().flatten().map(|key| key.as_slice()).chain([secret.expose()]);
    let known = || DEV_SECRETS.iter().map(|(_, value)| *value).chain([DEV_SECRET, DEV_KEY]);
    keys.into_iter().any(|key| known().any(|value| value.as_bytes() == key))
}

/// Environment variables, of the process or of a test. `Debug` shows only their count.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<OsString, OsString>);

impl Environment {
    /// The variables of this process.
    pub fn from_process() -> Self {
        std::env::vars_os().collect()
    }

    pub(super) fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.0.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()))
    }
}

impl<N: Into<OsString>, V: Into<OsString>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Environment({} variables)", self.0.len())
    }
}

/// When a secret is valid.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ValidityWindow {
    /// The first instant.
    pub not_before: Option<Timestamp>,
    /// The last instant.
    pub not_after: Option<Timestamp>,
}

impl ValidityWindow {
    /// Whether the window contains `now`.
    pub fn contains(&self, now: Timestamp) -> bool {
        self.not_before.is_none_or(|from| from <= now) && self.not_after.is_none_or(|until| now <= until)
    }
}

/// `binds = { pointer = "/tenant_id", equals = "acme" }`: the text that a delivery's body must contain at this place
/// for the secret to be accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binds {
    /// JSON pointer with at least one token.
    pub pointer: String,
    /// The exact text.
    pub equals: String,
}

/// A named secret of a source, the key of its signatures. Clones share the bytes, and the last one overwrites them.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// Shown in log, metric and record header.
    pub name: Arc<str>,
    /// When the secret is valid: always, unless its entry has limits.
    pub window: ValidityWindow,
    /// Which deliveries it may sign: all, unless its entry binds it.
    pub binds: Option<Arc<Binds>>,
    /// The variable or the file that it was read from; `None` for a secret that hookstream generated.
    pub from: Option<Arc<str>>,
    value: Arc<SchemeKey>,
    /// By scheme; empty if every scheme uses the value.
    keys: Arc<[Option<SchemeKey>]>,
}

impl Secret {
    /// A secret that is always valid and not bound; the bytes are used unchanged.
    pub fn new(name: impl Into<Arc<str>>, value: impl AsRef<[u8]>) -> Self {
        Self {
            name: name.into(),
            window: ValidityWindow::default(),
            binds: None,
            from: None,
            value: owned(value.as_ref()),
            keys: Arc::new([]),
        }
    }

    /// The same secret, valid in `window` only.
    pub fn within(self, window: ValidityWindow) -> Self {
        Self { window, ..self }
    }

    /// The same secret, with this binding.
    pub fn bound(self, binds: Option<Arc<Binds>>) -> Self {
        Self { binds, ..self }
    }

    /// The same secret, with the location that it was read from.
    pub(super) fn read_from(self, from: impl Into<Arc<str>>) -> Self {
        Self { from: Some(from.into()), ..self }
    }

    /// The same secret with the keys that its source's schemes decode from the provider's text.
    ///
    /// # Errors
    /// The expected formats, if it is for none of the schemes.
    pub fn decoded(self, schemes: &[Signature]) -> Result<Self, String> {
        signature::keys(schemes, &self.value).map(|keys| self.with_keys(keys))
    }

    /// The value is then the longest key.
    fn with_keys(self, keys: Vec<Option<SchemeKey>>) -> Self {
        let longest = keys.iter().flatten().max_by_key(|key| key.len());
        let value = longest.map_or(self.value, |key| owned(key));
        Self { value, keys: keys.into(), ..self }
    }

    /// The bytes, however a scheme uses them. Never for a log.
    pub fn expose(&self) -> &[u8] {
        &self.value
    }

    /// The keys of the schemes that use it. Never for a log.
    pub fn keys(&self) -> impl Iterator<Item = &[u8]> {
        let value = self.keys.is_empty().then_some(self.value.as_slice());
        self.keys.iter().flatten().map(|key| key.as_slice()).chain(value)
    }

    /// Whether one of the source's schemes uses both secrets.
    pub(super) fn shares_scheme(&self, other: &Self) -> bool {
        let mut schemes = self.keys.iter().zip(&*other.keys);
        self.keys.is_empty() || schemes.any(|(own, other)| own.is_some() && other.is_some())
    }

    /// The key in the source's scheme with this index; `None` if the secret is not for it. For the verifier and the signer;
    /// never for a log.
    pub fn key(&self, scheme: usize) -> Option<&[u8]> {
        if self.keys.is_empty() {
            Some(&self.value)
        } else {
            self.keys.get(scheme)?.as_ref().map(|key| key.as_slice())
        }
    }
}

fn owned(value: &[u8]) -> Arc<SchemeKey> {
    Arc::new(Zeroizing::new(value.to_vec()))
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A password, a token or a related setting, as text. `Debug` shows nothing of it. Clones share the text, and the last
/// one overwrites it.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(Arc<Zeroizing<String>>);

impl SecretText {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Arc::new(Zeroizing::new(text.into())))
    }

    /// The text. For the client that authenticates with it; never for a log.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_names_only() {
        let shown = format!(
            "{:?} {:?} {:?}",
            Secret::new("2026-11", "s3cret"),
            SecretText::new("s3cret"),
            [("A", "s3cret")].into_iter().collect::<Environment>()
        );
        assert!(shown.contains("2026-11") && !shown.contains("s3cret"), "{shown}");
    }

    #[test]
    fn dev_secrets_have_the_form_of_their_provider_and_are_recognised() {
        let scheme = |secret_format| Signature { secret_format, ..Signature::default() };
        for (preset, value) in DEV_SECRETS {
            assert!(value.len() >= SHORT);
            assert!(is_dev(&dev_secret(Some(preset), &[scheme(SecretFormat::Text)])));
        }
        for format in [SecretFormat::Text, SecretFormat::Whsec, SecretFormat::Hex] {
            assert!(is_dev(&dev_secret(None, &[scheme(format)])));
        }
        let grapevine = dev_secret(Some("grapevine"), &[scheme(SecretFormat::Text)]);
        assert_eq!(grapevine.expose().len(), "wh_".len() + 20);
        assert!(!is_dev(&Secret::new("dev", "whsec_of-a-real-provider")));
    }
}
