//! Connections that HTTP itself ends: what arrived could not be read as a request, so no delivery has a log line for it.
//! They are counted by cause, and a bounded number of log lines says what they look like.

use std::net::IpAddr;

use super::report::LogLimiter;
use crate::observe::metrics::{self, Rejected};

/// Recognised by the first bytes of a connection.
const FOREIGN: [(&[u8], Rejected); 4] = [
    // A TLS record of a handshake, versions 3.x.
    (b"\x16\x03", Rejected::Tls),
    (b"PROXY ", Rejected::ProxyProtocol),
    (b"\r\n\r\n\0\r\nQUIT\n", Rejected::ProxyProtocol),
    (b"PRI * HTTP/2", Rejected::Http2),
];

/// The protocol other than HTTP/1 that a connection begins with, if it is a known one.
pub(super) fn foreign(beginning: &[u8]) -> Option<Rejected> {
    FOREIGN.iter().find(|(start, _)| beginning.starts_with(start)).map(|(_, rejected)| *rejected)
}

/// The cause of an error of hyper; `None` for the end of a connection between two requests, and for one whose request
/// has its own log line.
pub(super) fn cause(error: &hyper::Error, in_head: bool) -> Option<Rejected> {
    if error.is_parse_too_large() {
        return Some(Rejected::HeadTooLarge);
    }
    if error.is_parse() {
        return Some(Rejected::Malformed);
    }
    in_head.then_some(Rejected::Incomplete)
}

/// Counts a rejected connection or request, and logs it within a limit. `detail` is the sentence that was answered.
pub(super) fn report(
    limiter: &LogLimiter,
    port: &'static str,
    client: IpAddr,
    cause: Rejected,
    detail: Option<&str>,
) {
    metrics::connection_rejected(port, cause);
    if let Some(left_out) = limiter.take() {
        let left_out = Some(left_out).filter(|count| *count > 0);
        let detail = detail.map(str::trim_end);
        tracing::info!(port, %client, cause = cause.label(), detail, hint = hint(cause), left_out, "rejected before it was a request");
    }
}

fn hint(cause: Rejected) -> &'static str {
    match cause {
        Rejected::Tls => "TLS on a port without TLS: use http://, or set the port's `tls`",
        Rejected::ProxyProtocol => {
            "the PROXY protocol is not supported: switch it off at the load balancer; with X-Forwarded-For and \
             http.trusted_proxies, hookstream knows the client's address"
        }
        Rejected::Http2 => "HTTP/2 is not supported: let the proxy send HTTP/1.1",
        Rejected::Malformed => "it is not HTTP/1.1 as RFC 9112 defines it",
        Rejected::HeadTooLarge => "the request head is larger than http.max_head, or has more than 100 lines",
        Rejected::HeadTimeout => "the request head was not complete within http.head_timeout",
        Rejected::Incomplete => "the client closed the connection within a request head",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w11_other_protocols_are_recognised_by_their_first_bytes() {
        for (beginning, expected) in [
            (b"\x16\x03\x01\x02\x00".as_slice(), Some(Rejected::Tls)),
            (b"PROXY TCP4 192.0.2.1", Some(Rejected::ProxyProtocol)),
            (b"\r\n\r\n\0\r\nQUIT\n\x21", Some(Rejected::ProxyProtocol)),
            (b"PRI * HTTP/2.0\r\n", Some(Rejected::Http2)),
            (b"POST /hooks/x HTTP/1.1", None),
            (b"\r\n\r\nPOST /", None),
            (b"PROXIES", None),
            (b"", None),
        ] {
            assert_eq!(foreign(beginning), expected, "{beginning:?}");
        }
    }
}
