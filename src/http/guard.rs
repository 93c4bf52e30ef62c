//! Access control of the operator's port. Probes are open to anybody. Everything else needs two checks: may the client
//! send this request, and was it sent by a foreign page in an operator's browser?

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::client_address::Peer;
use super::response::refuse;
use super::tls::CurrentTls;
use crate::config::{AdminConfig, Networks};

/// A header required by requests that change something. A page can send it to its own origin only; for any other, the
/// browser asks first (CORS preflight), and is refused.
pub const REQUEST_HEADER: &str = "hookstream-request";

/// Open to other machines, since Prometheus scrapes it, usually without a token. It contains names and counts only.
const OPEN: &str = "/metrics";

/// Who may use the port, and under which names.
pub struct Access {
    ports: CurrentTls,
    /// The clients that need no token.
    without_token: Networks,
    /// In lower case; a leading `*.` matches any subdomain.
    hosts: Vec<String>,
}

impl Access {
    /// Creates the rules from the settings in `[admin]`, and the port's TLS and token.
    pub fn new(rules: &AdminConfig, ports: CurrentTls) -> Self {
        let listen = rules.listen.rsplit_once(':').map_or("", |(host, _)| host);
        let own = ["localhost", "*.localhost", listen].map(str::to_owned);
        let hosts = own.into_iter().chain(rules.hosts.iter().cloned());
        let hosts = hosts.map(|host| host.to_ascii_lowercase()).filter(|host| !host.is_empty());
        Self { ports, without_token: rules.without_token.clone(), hosts: hosts.collect() }
    }

    /// Whether the host is a name of this port. IP addresses always are: DNS rebinding cannot forge them.
    fn knows(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&host);
        let named = |known: &String| match known.strip_prefix('*') {
            Some(end) => host.len() > end.len() && host.ends_with(end),
            None => host == *known,
        };
        bare.parse::<IpAddr>().is_ok() || self.hosts.iter().any(named)
    }
}

/// Passes permitted requests on.
pub(super) async fn guard(State(access): State<Arc<Access>>, request: Request, next: Next) -> Response {
    match check(&access, &request) {
        Ok(()) => next.run(request).await,
        Err(refusal) => *refusal,
    }
}

fn check(access: &Access, request: &Request) -> Result<(), Box<Response>> {
    let refused = |status, why: &str| Err(Box::new(refuse(status, why)));
    let (ports, headers) = (access.ports.load(), request.headers());
    let Some(host) = host(request) else {
        return refused(
            StatusCode::BAD_REQUEST,
            "a request needs exactly one Host header, a name or an address",
        );
    };
    // With TLS, the certificate proves the name.
    if !ports.admin_has_tls() && !access.knows(host.host()) {
        return refused(
            StatusCode::MISDIRECTED_REQUEST,
            "the name in Host is not known to this port: use its address, or add the name to [admin] hosts",
        );
    }
    if !is_same_origin(headers, &host) {
        return refused(StatusCode::FORBIDDEN, "pages of another origin may not send requests to this port");
    }
    if !ports.admit(headers) {
        return unauthorized(
            "this port asks for a token, [admin] bearer: commands send it if the file given by -c contains it",
        );
    }
    if request.method() == Method::POST && !headers.contains_key(REQUEST_HEADER) {
        return refused(
            StatusCode::FORBIDDEN,
            "a request that changes something needs the header hookstream-request: 1",
        );
    }
    let peer = request.extensions().get().map(|Peer(peer)| *peer);
    let is_trusted = peer.is_some_and(|peer| access.without_token.contains(peer));
    if is_trusted || ports.admin_is_guarded() || request.uri().path() == OPEN {
        return Ok(());
    }
    unauthorized(
        "without [admin] bearer, other machines may only use /livez, /readyz and /metrics here: set a token, or add \
         the client's network to [admin] without_token",
    )
}

fn unauthorized(why: &str) -> Result<(), Box<Response>> {
    let mut refusal = refuse(StatusCode::UNAUTHORIZED, why);
    refusal.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    Err(Box::new(refusal))
}

/// The request's Host header, which must be unique.
fn host(request: &Request) -> Option<Authority> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return None };
    Authority::try_from(host.as_bytes()).ok()
}

/// Whether the request comes from a page of this port. Programs send no Origin; a browser sends the page's origin with
/// everything except simple GETs.
fn is_same_origin(headers: &HeaderMap, host: &Authority) -> bool {
    headers.get_all(header::ORIGIN).iter().all(|origin| {
        let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        origin.is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host.as_str()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(listen: &str, hosts: &[&str]) -> Access {
        let rules = AdminConfig {
            listen: listen.to_owned(),
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            without_token: Networks::default(),
            bearer: None,
            tls: None,
        };
        Access::new(&rules, CurrentTls::default())
    }

    #[test]
    fn c6_a_port_is_known_by_addresses_its_own_name_and_the_configured_names() {
        let known = access("ops.internal:9464", &["hookstream", "*.pods.events.svc"]);
        for host in [
            "127.0.0.1",
            "10.0.0.7",
            "[::1]",
            "localhost",
            "LOCALHOST",
            "localhost.",
            "a.localhost",
            "ops.internal",
            "Hookstream",
            "x-0.pods.events.svc",
        ] {
            assert!(known.knows(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evilhookstream",
            "pods.events.svc",
            ".pods.events.svc",
            "x.pods.events.svc.evil.example",
            "127.1.evil",
            "xlocalhost",
        ] {
            assert!(!known.knows(host), "{host}");
        }
        assert!(!access("0.0.0.0:9464", &[]).knows("hookstream"));
    }

    #[test]
    fn c6_only_a_page_of_the_same_host_and_port_is_of_the_same_origin() {
        let host = Authority::from_static("127.0.0.1:9464");
        let is_same = |origins: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for origin in origins {
                headers.append(header::ORIGIN, HeaderValue::from_static(origin));
            }
            is_same_origin(&headers, &host)
        };
        assert!(is_same(&[]) && is_same(&["http://127.0.0.1:9464"]));
        for other in
            ["null", "", "http://127.0.0.1", "http://127.0.0.1:80", "http://evil.example", "127.0.0.1:9464"]
        {
            assert!(!is_same(&[other]), "{other}");
        }
        assert!(!is_same(&["http://127.0.0.1:9464", "http://evil.example"]));
    }
}
