//! How our two ports are secured: certificates, and the operator's token. Read from files, and read
//! again while the service runs.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderValue, header};
use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig, crypto};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use x509_parser::extensions::GeneralName;

use crate::config::{self, ConfigErrors, LoadedConfig, SecretText};
use crate::files;
use crate::observe::metrics;

/// From so long before its end on, a certificate is spoken of.
const SOON: SignedDuration = SignedDuration::from_hours(14 * 24);

/// Below this many bytes, a token can be guessed.
const SHORT: usize = 16;

/// What the configuration says of both ports' security, its files read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortSecurity {
    /// `[http.tls]`; `None` for plain HTTP.
    pub hooks: Option<Tls>,
    /// `[admin.tls]`, likewise.
    pub admin: Option<Tls>,
    /// `[admin] bearer`; without one, the operator's port asks for none.
    pub bearer: Option<Token>,
}

/// What new connections and requests are judged by; a reload swaps it.
pub type CurrentTls = Arc<ArcSwap<PortSecurity>>;

impl PortSecurity {
    /// Reads the files. Blocks, for moments.
    pub fn read(loaded: &LoadedConfig, problems: &mut ConfigErrors) -> Self {
        let mut tls = |key, rules: &Option<config::Tls>| {
            rules.as_ref().and_then(|rules| Tls::read(key, rules, problems))
        };
        let hooks = tls("http.tls", &loaded.config.http.tls);
        let admin = tls("admin.tls", &loaded.config.admin.tls);
        let bearer = match loaded.admin_bearer() {
            None => None,
            Some(token) => token
                .and_then(|text| Token::new(&text))
                .map_err(|message| problems.add("admin.bearer", message))
                .ok(),
        };
        Self { hooks, admin, bearer }
    }

    /// What is no problem and still worth a word, one sentence each.
    pub fn warnings(&self, now: Timestamp) -> Vec<String> {
        let ends = self.each().filter_map(|(port, tls)| {
            let (until, left) = (tls.not_after, tls.not_after.duration_since(now));
            let then = "put the next pair in its place, which is read within 10 s";
            match left {
                left if left > SOON => None,
                left if left.is_negative() => {
                    Some(format!("{port}.tls: the certificate ended at {until}, clients refuse it; {then}"))
                }
                // In whole days, so that a service says it once a day.
                left => Some(format!(
                    "{port}.tls: the certificate ends at {until}, in {} days; {then}",
                    left.as_hours() / 24
                )),
            }
        });
        let short = self.bearer.as_ref().filter(|token| token.bytes < SHORT).map(|token| {
            format!("admin.bearer has only {} bytes; below {SHORT} it can be guessed", token.bytes)
        });
        ends.chain(short).collect()
    }

    /// Tells the metrics when the certificates end.
    pub fn tell(&self) {
        self.each().for_each(|(port, tls)| metrics::certificate(port, tls.not_after));
    }

    fn each(&self) -> impl Iterator<Item = (&'static str, &Tls)> {
        [("http", &self.hooks), ("admin", &self.admin)]
            .into_iter()
            .filter_map(|(port, tls)| Some((port, tls.as_ref()?)))
    }

    /// Whether the operator's port has TLS.
    pub(super) fn admin_has_tls(&self) -> bool {
        self.admin.is_some()
    }

    /// Whether nobody gets as far as a request to the operator's port without a certificate, or through it without a
    /// token.
    pub(super) fn admin_is_guarded(&self) -> bool {
        self.bearer.is_some() || self.admin.as_ref().is_some_and(|tls| !tls.clients.is_empty())
    }

    /// Whether a request to the operator's port brings the token, if one is asked for.
    pub(super) fn admit(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.bearer else { return true };
        let mut sent = headers.get_all(header::AUTHORIZATION).iter();
        match (sent.next(), sent.next()) {
            (Some(sent), None) => token.is_in(sent),
            _ => false,
        }
    }
}

/// For [`super::serve`] of the port that providers call.
pub fn hooks_tls(ports: CurrentTls) -> impl Fn() -> Option<Arc<ServerConfig>> + Send {
    move || ports.load().hooks.as_ref().map(|tls| tls.server.clone())
}

/// For [`super::serve`] of the operator's port.
pub fn admin_tls(ports: CurrentTls) -> impl Fn() -> Option<Arc<ServerConfig>> + Send {
    move || ports.load().admin.as_ref().map(|tls| tls.server.clone())
}

/// The operator's token, as a digest, so that a comparison shows neither the first difference nor
/// the length.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    digest: [u8; 32],
    bytes: usize,
}

impl Token {
    /// # Errors
    /// Half a sentence, when no header could carry it.
    fn new(text: &SecretText) -> Result<Self, String> {
        let text = text.expose().as_bytes();
        if !text.iter().all(u8::is_ascii_graphic) {
            return Err(
                "the token must be visible ASCII without spaces; make one with `openssl rand -hex 32`".into(),
            );
        }
        Ok(Self { digest: Sha256::digest(text).into(), bytes: text.len() })
    }

    /// RFC 6750: `Bearer TOKEN`, the scheme in any case.
    fn is_in(&self, value: &HeaderValue) -> bool {
        let Some((scheme, sent)) = value.as_bytes().split_at_checked("Bearer ".len()) else { return false };
        let digest: [u8; 32] = Sha256::digest(sent.trim_ascii()).into();
        scheme.eq_ignore_ascii_case(b"Bearer ") && bool::from(digest.ct_eq(&self.digest))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// One port's certificate and key, ready for handshakes.
#[derive(Clone)]
pub struct Tls {
    /// TLS 1.2 and 1.3, HTTP/1.1.
    server: Arc<ServerConfig>,
    chain: Vec<CertificateDer<'static>>,
    clients: Vec<CertificateDer<'static>>,
    /// When the server's certificate ends.
    pub not_after: Timestamp,
}

/// The key is not compared: it is that of the certificate.
impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        (&self.chain, &self.clients) == (&other.chain, &other.clients)
    }
}

impl Eq for Tls {}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

impl Tls {
    fn read(key: &str, rules: &config::Tls, problems: &mut ConfigErrors) -> Option<Self> {
        let mut told = |name: &str, message| problems.add(format!("{key}.{name}"), message);
        let chain = certificates(&rules.cert).map_err(|message| told("cert", message)).ok();
        let private = private_key(&rules.key).map_err(|message| told("key", message)).ok();
        let clients = match &rules.client_ca {
            None => Some(Vec::new()),
            Some(path) => certificates(path).map_err(|message| told("client_ca", message)).ok(),
        };
        let (chain, private, clients) = (chain?, private?, clients?);
        let made = Self::new(chain, private, clients, &rules.cert);
        made.map_err(|(name, message)| told(name, message)).ok()
    }

    /// # Errors
    /// The setting to blame, and half a sentence.
    fn new(
        chain: Vec<CertificateDer<'static>>,
        private: PrivateKeyDer<'static>,
        clients: Vec<CertificateDer<'static>>,
        file: &Path,
    ) -> Result<Self, (&'static str, String)> {
        // The provider that reqwest brings as well.
        let provider = Arc::new(crypto::aws_lc_rs::default_provider());
        let not_after = chain.first().and_then(not_after);
        let not_after =
            not_after.ok_or_else(|| ("cert", format!("{} is no X.509 certificate", file.display())))?;
        let pair = CertifiedKey::from_der(chain.clone(), private, &provider);
        let pair = pair.map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => (
                "key",
                format!(
                    "is not the key of the first certificate in {}; give the two that belong together",
                    file.display()
                ),
            ),
            rustls::Error::InvalidCertificate(_) => {
                ("cert", format!("{} has a certificate that cannot be used", file.display()))
            }
            _ => ("key", "cannot be used; expected RSA of 2048 bits or more, ECDSA or Ed25519".to_owned()),
        })?;
        let builder =
            ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| ("cert", error.to_string()))?;
        let builder = if clients.is_empty() {
            builder.with_no_client_auth()
        } else {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(clients.iter().cloned());
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            let unusable = |_| ("client_ca", "has no certificate that can be an authority".to_owned());
            builder.with_client_cert_verifier(verifier.map_err(unusable)?)
        };
        let mut server = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { server: Arc::new(server), chain, clients, not_after })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let read = files::read(path, files::MAX_PEM);
    read.map_err(|error| format!("{} cannot be read ({error}); create it, or let us read it", path.display()))
}

/// At least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = read(path)?;
    let read: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&pem).collect();
    match read {
        Ok(list) if !list.is_empty() => Ok(list),
        _ => Err(format!("{} holds no certificates in PEM, or broken ones", path.display())),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    // The text of a PEM error could hold a line of the file.
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|_| {
        format!("{} holds no private key in PEM; keys with a passphrase cannot be read", path.display())
    })
}

fn not_after(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

/// The first DNS name that the certificate at `path` is for: what a client has to call its server.
pub fn dns_name(path: &Path) -> Option<String> {
    let chain = certificates(path).ok()?;
    let (_, certificate) = x509_parser::parse_x509_certificate(chain.first()?).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| match name {
        // A wildcard is for any name in its place.
        GeneralName::DNSName(name) => Some(name.replacen('*', "hookstream", 1)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(token: &str) -> PortSecurity {
        let token = Token::new(&SecretText::new(token)).unwrap();
        PortSecurity { bearer: Some(token), ..PortSecurity::default() }
    }

    fn admits(ports: &PortSecurity, values: &[&'static str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_static(value));
        }
        ports.admit(&headers)
    }

    #[test]
    fn the_token_is_asked_for_whole_and_once() {
        let asking = ports("0123456789abcdef");
        assert!(admits(&asking, &["Bearer 0123456789abcdef"]));
        assert!(admits(&asking, &["bearer  0123456789abcdef"]));
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdef0",
            "Basic 0123456789abcdef",
        ] {
            assert!(!admits(&asking, &[wrong]), "{wrong}");
        }
        assert!(!admits(&asking, &[]));
        assert!(!admits(&asking, &["Bearer 0123456789abcdef", "Bearer 0123456789abcdef"]));
        assert!(admits(&PortSecurity::default(), &[]), "none is asked for");
    }

    #[test]
    fn a_token_shows_nowhere_and_a_short_one_is_spoken_of() {
        let asking = ports("hunter2");
        assert!(!format!("{asking:?}").contains("hunter2"));
        let warnings = asking.warnings(Timestamp::now());
        assert!(matches!(&warnings[..], [warning] if warning.contains("only 7 bytes")), "{warnings:?}");
        assert!(Token::new(&SecretText::new("two words")).unwrap_err().contains("visible ASCII"));
    }
}
