//! Accepting and serving connections: hyper's http1 builder with timers. `axum::serve` sets no
//! timer, and its graceful shutdown waits for half-open clients.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::Phase;
use super::addresses::Addresses;
use super::callers::Peer;
use crate::config::Networks;
use crate::observe::metrics;

/// How long a closing connection may take to finish its answer.
const CLOSING: Duration = Duration::from_secs(1);

/// After a failed accept (out of file descriptors, mostly): time for connections to end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Bounds of a listener's connections.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    /// Open at a time; past it, new ones wait in the listener's queue.
    pub max_connections: usize,
    /// Of these, from one client address; past it, a new one is closed at once. `None` for no
    /// bound of its own.
    pub max_per_address: Option<usize>,
    /// Whose connections are many clients': `max_per_address` leaves them out.
    pub trusted_proxies: Networks,
    /// From the first byte, or the end of the answer before, to the complete head. The same again
    /// for a TLS handshake before it.
    pub head_timeout: Duration,
    /// The head, in bytes.
    pub max_head: usize,
}

impl ConnectionLimits {
    fn most_of(&self, address: IpAddr) -> usize {
        let bound = self.max_per_address.filter(|_| !self.trusted_proxies.contains(address));
        bound.unwrap_or(usize::MAX)
    }
}

/// Serves until the phase is [`Phase::Closing`]; returns when every connection has ended. `tls` is
/// asked for each new connection; `None` is plain HTTP.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: ConnectionLimits,
    tls: impl Fn() -> Option<Arc<ServerConfig>> + Send,
    phase: watch::Receiver<Phase>,
) {
    let places = Arc::new(Semaphore::new(limits.max_connections));
    let connections = TaskTracker::new();
    let addresses = Arc::new(Addresses::default());
    let mut closing = phase.clone();
    let accept = async {
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { break };
            match listener.accept().await {
                Ok((stream, client)) => {
                    let most = limits.most_of(client.ip());
                    let Some(counted) = addresses.count(client.ip(), most) else {
                        refuse(&stream);
                        continue;
                    };
                    let served =
                        connection(stream, client.ip(), tls(), router.clone(), limits.clone(), phase.clone());
                    connections.spawn(async move {
                        served.await;
                        drop((place, counted));
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        () = accept => {}
        _ = closing.wait_for(|phase| *phase == Phase::Closing) => {}
    }
    connections.close();
    connections.wait().await;
}

/// Closes with a reset: an orderly close would leave the port waiting, for each connection of a
/// client that opens too many.
fn refuse(stream: &TcpStream) {
    metrics::connection_refused();
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

async fn connection(
    stream: TcpStream,
    peer: IpAddr,
    tls: Option<Arc<ServerConfig>>,
    router: Router,
    limits: ConnectionLimits,
    mut phase: watch::Receiver<Phase>,
) {
    // Small answers should not wait for each other; a socket that refuses works all the same.
    let _ = stream.set_nodelay(true);
    // hyper bounds reading; a client that never reads its answers is the kernel's to let go.
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(limits.head_timeout));
    let Some(tls) = tls else { return exchange(stream, peer, router, limits, phase).await };
    let handshake = tokio::time::timeout(limits.head_timeout, TlsAcceptor::from(tls).accept(stream));
    let shaken = tokio::select! {
        shaken = handshake => shaken,
        _ = phase.wait_for(|phase| *phase == Phase::Closing) => return,
    };
    match shaken {
        Ok(Ok(stream)) => exchange(stream, peer, router, limits, phase).await,
        // Whoever finds the port can cause it: a count, and no line in the log.
        _ => metrics::handshake_failed(),
    }
}

/// Requests and answers on one connection.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: IpAddr,
    router: Router,
    limits: ConnectionLimits,
    mut phase: watch::Receiver<Phase>,
) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.head_timeout).max_buf_size(limits.max_head);
    let router = router.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        request
    });
    let served = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(served);
    tokio::select! {
        // A client's broken connection is no event of ours: its delivery has its own log line.
        _ = served.as_mut() => return,
        _ = phase.wait_for(|phase| *phase == Phase::Closing) => {}
    }
    served.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(CLOSING, served).await;
}
