//! The security of both ports: certificates, and the operator's token. Read from files, which are reread while the
//! service runs.

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
use zeroize::Zeroizing;

use crate::config::{self, ConfigErrors, LoadedConfig, SecretText};
use crate::files;
use crate::observe::metrics;

/// How long before its end a certificate causes a warning.
const SOON: SignedDuration = SignedDuration::from_hours(14 * 24);

/// Tokens with fewer bytes can be guessed.
const SHORT: usize = 16;

/// The security settings of both ports, with their files read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortSecurity {
    /// `[http.tls]`; `None` for plain HTTP.
    pub hooks: Option<Tls>,
    /// `[admin.tls]`; `None` for plain HTTP.
    pub admin: Option<Tls>,
    /// `[admin] bearer`; without it, the operator's port requires no token.
    pub bearer: Option<Token>,
}

/// The settings for new connections and requests; a reload replaces them.
pub type CurrentTls = Arc<ArcSwap<PortSecurity>>;

impl PortSecurity {
    /// Reads the files. Blocks briefly.
    pub fn read(loaded: &LoadedConfig, problems: &mut ConfigErrors) -> Self {
        let mut tls = |key, rules: &Option<config::TlsConfig>| {
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

    /// Warnings, one sentence each.
    pub fn warnings(&self, now: Timestamp) -> Vec<String> {
        let ends = self.each().filter_map(|(port, tls)| {
            let (until, remaining) = (tls.not_after, tls.not_after.duration_since(now));
            let then = "replace certificate and key, which are reread within 10 s";
            match remaining {
                remaining if remaining > SOON => None,
                remaining if remaining.is_negative() => Some(format!(
                    "{port}.tls: the certificate expired at {until}, and clients refuse it; {then}"
                )),
                // In full days, so that a service logs it once a day.
                remaining => Some(format!(
                    "{port}.tls: the certificate expires at {until}, in {} days; {then}",
                    remaining.as_hours() / 24
                )),
            }
        });
        let short = self.bearer.as_ref().filter(|token| token.bytes < SHORT).map(|token| {
            format!("admin.bearer has only {} bytes; below {SHORT} it can be guessed", token.bytes)
        });
        ends.chain(short).collect()
    }

    /// Sets the metrics of the certificates' expiry.
    pub fn tell(&self) {
        self.each().for_each(|(port, tls)| metrics::certificate(port, tls.not_after));
    }

    fn each(&self) -> impl Iterator<Item = (&'static str, &Tls)> {
        [("http", &self.hooks), ("admin", &self.admin)]
            .into_iter()
            .filter_map(|(port, tls)| Some((port, tls.as_ref()?)))
    }

    /// Whether the operator's port uses TLS.
    pub(super) fn admin_has_tls(&self) -> bool {
        self.admin.is_some()
    }

    /// Whether every request to the operator's port needs a client certificate or a token.
    pub(super) fn admin_is_guarded(&self) -> bool {
        self.bearer.is_some() || self.admin.as_ref().is_some_and(|tls| !tls.clients.is_empty())
    }

    /// Whether a request to the operator's port has the token, if one is required.
    pub(super) fn admit(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.bearer else { return true };
        let mut sent = headers.get_all(header::AUTHORIZATION).iter();
        match (sent.next(), sent.next()) {
            (Some(sent), None) => token.is_in(sent),
            _ => false,
        }
    }
}

/// The TLS settings for [`super::serve()`] of the port that providers call.
pub fn hooks_tls(ports: CurrentTls) -> impl Fn() -> Option<Arc<ServerConfig>> + Send {
    move || ports.load().hooks.as_ref().map(|tls| tls.server.clone())
}

/// The TLS settings for [`super::serve()`] of the operator's port.
pub fn admin_tls(ports: CurrentTls) -> impl Fn() -> Option<Arc<ServerConfig>> + Send {
    move || ports.load().admin.as_ref().map(|tls| tls.server.clone())
}

/// The operator's token, as a digest, so that a comparison reveals neither the first difference nor the length.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    digest: [u8; 32],
    bytes: usize,
}

impl Token {
    /// # Errors
    /// Half a sentence, if a header cannot carry it.
    fn new(text: &SecretText) -> Result<Self, String> {
        let text = text.expose().as_bytes();
        if !text.iter().all(u8::is_ascii_graphic) {
            return Err(
                "the token must be visible ASCII without spaces; make one with `openssl rand -hex 32`".into(),
            );
        }
        Ok(Self { digest: Sha256::digest(text).into(), bytes: text.len() })
    }

    /// Whether the header contains the token. RFC 6750: `Bearer TOKEN`, the scheme in any case.
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

/// A port's certificate and key, ready for handshakes.
#[derive(Clone)]
pub struct Tls {
    /// TLS 1.2 and 1.3, HTTP/1.1.
    server: Arc<ServerConfig>,
    chain: Vec<CertificateDer<'static>>,
    clients: Vec<CertificateDer<'static>>,
    /// When the server's certificate expires.
    pub not_after: Timestamp,
}

/// The key is not compared: it belongs to the certificate.
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
    fn read(key: &str, rules: &config::TlsConfig, problems: &mut ConfigErrors) -> Option<Self> {
        let mut report = |name: &str, message| problems.add(format!("{key}.{name}"), message);
        let chain = certificates(&rules.cert).map_err(|message| report("cert", message)).ok();
        let private = private_key(&rules.key).map_err(|message| report("key", message)).ok();
        let clients = match &rules.client_ca {
            None => Some(Vec::new()),
            Some(path) => certificates(path).map_err(|message| report("client_ca", message)).ok(),
        };
        let (chain, private, clients) = (chain?, private?, clients?);
        let tls = Self::new(chain, private, clients, &rules.cert);
        tls.map_err(|(name, message)| report(name, message)).ok()
    }

    /// # Errors
    /// The setting with the problem, and half a sentence.
    fn new(
        chain: Vec<CertificateDer<'static>>,
        private: PrivateKeyDer<'static>,
        clients: Vec<CertificateDer<'static>>,
        file: &Path,
    ) -> Result<Self, (&'static str, String)> {
        // The provider that reqwest uses, too.
        let provider = Arc::new(crypto::aws_lc_rs::default_provider());
        let not_after = chain.first().and_then(not_after);
        let not_after =
            not_after.ok_or_else(|| ("cert", format!("{} is not an X.509 certificate", file.display())))?;
        let pair = CertifiedKey::from_der(chain.clone(), private, &provider);
        let pair = pair.map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => (
                "key",
                format!("is not the key of the first certificate in {}; use a matching pair", file.display()),
            ),
            rustls::Error::InvalidCertificate(_) => {
                ("cert", format!("{} contains an unusable certificate", file.display()))
            }
            _ => ("key", "is unusable; expected RSA of 2048 bits or more, ECDSA or Ed25519".to_owned()),
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
            let unusable = |_| ("client_ca", "contains no usable CA certificate".to_owned());
            builder.with_client_cert_verifier(verifier.map_err(unusable)?)
        };
        let mut server = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { server: Arc::new(server), chain, clients, not_after })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let read = files::read(path, files::MAX_PEM);
    read.map_err(|error| {
        format!("{} cannot be read ({error}); create it, or allow hookstream to read it", path.display())
    })
}

/// Reads a file with at least one certificate.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = read(path)?;
    let read: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&pem).collect();
    match read {
        Ok(list) if !list.is_empty() => Ok(list),
        _ => Err(format!("{} contains no valid certificates in PEM", path.display())),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    // The text of a PEM error could contain a line of the file.
    PrivateKeyDer::from_pem_slice(&Zeroizing::new(read(path)?)).map_err(|_| {
        format!("{} contains no private key in PEM; keys with a passphrase are not supported", path.display())
    })
}

fn not_after(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

/// The first DNS name of the certificate at `path`, by which a client must call its server.
pub fn dns_name(path: &Path) -> Option<String> {
    let chain = certificates(path).ok()?;
    let (_, certificate) = x509_parser::parse_x509_certificate(chain.first()?).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| match name {
        // A wildcard matches any name in its place.
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
    fn the_complete_token_is_required_exactly_once() {
        let ports = ports("0123456789abcdef");
        assert!(admits(&ports, &["Bearer 0123456789abcdef"]));
        assert!(admits(&ports, &["bearer  0123456789abcdef"]));
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdef0",
            "Basic 0123456789abcdef",
        ] {
            assert!(!admits(&ports, &[wrong]), "{wrong}");
        }
        assert!(!admits(&ports, &[]));
        assert!(!admits(&ports, &["Bearer 0123456789abcdef", "Bearer 0123456789abcdef"]));
        assert!(admits(&PortSecurity::default(), &[]), "no token is required");
    }

    #[test]
    fn a_token_is_never_shown_and_a_short_one_causes_a_warning() {
        let ports = ports("hunter2");
        assert!(!format!("{ports:?}").contains("hunter2"));
        let warnings = ports.warnings(Timestamp::now());
        assert!(matches!(&warnings[..], [warning] if warning.contains("only 7 bytes")), "{warnings:?}");
        assert!(Token::new(&SecretText::new("two words")).unwrap_err().contains("visible ASCII"));
    }
}
