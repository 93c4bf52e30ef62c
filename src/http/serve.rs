//! Accepts and serves connections with hyper's http1 builder. `axum::serve` limits neither connections nor the time of a
//! head, and its graceful shutdown waits for half-open clients.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, Method, StatusCode, header};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;
use tower::Service as _;

use super::Phase;
use super::client_address::Peer;
use super::connections::{ConnectionEntry, Connections};
use super::{rejected, wire};
use crate::observe::metrics::{self, Rejected};

/// The time for a closing connection to finish its answer.
const CLOSING: Duration = Duration::from_secs(1);

/// The pause after a failed accept, usually for lack of file descriptors: time for connections to end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The interval between log lines about it.
const ACCEPT_LINES: Duration = Duration::from_secs(10);

/// Serves until the phase is [`Phase::Closing`]; returns when every connection has ended. `tls` is called for each new
/// connection; `None` is plain HTTP.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    connections: impl Into<Arc<Connections>>,
    tls: impl Fn() -> Option<Arc<ServerConfig>> + Send,
    phase: watch::Receiver<Phase>,
) {
    let connections = connections.into();
    let tasks = TaskTracker::new();
    let mut closing = phase.clone();
    let accept = async {
        let mut logged_at: Option<Instant> = None;
        loop {
            let (stream, client) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    if logged_at.is_none_or(|logged_at| logged_at.elapsed() > ACCEPT_LINES) {
                        tracing::warn!(%error, "cannot accept a connection");
                        logged_at = Some(Instant::now());
                    }
                    connections.evict();
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Some(slot) = connections.place(client.ip()).await else {
                refuse(&stream);
                continue;
            };
            let session = Session {
                peer: client.ip(),
                router: router.clone(),
                connections: connections.clone(),
                connection: slot.connection.clone(),
            };
            let (tls, phase) = (tls(), phase.clone());
            tasks.spawn(async move {
                tokio::select! {
                    // An answer is sent before its connection is closed.
                    biased;
                    () = session.run(stream, tls, phase) => {}
                    () = slot.connection.evicted.notified() => {}
                }
            });
        }
    };
    tokio::select! {
        () = accept => {}
        _ = closing.wait_for(|phase| *phase == Phase::Closing) => {}
    }
    tasks.close();
    tasks.wait().await;
}

/// Closes with a reset: an orderly close would leave a socket in TIME_WAIT for each connection of a client that opens
/// too many.
fn refuse(stream: &TcpStream) {
    metrics::connection_refused();
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Serves one connection.
#[derive(Clone)]
struct Session {
    peer: IpAddr,
    router: Router,
    connections: Arc<Connections>,
    connection: Arc<ConnectionEntry>,
}

impl Session {
    async fn run(self, stream: TcpStream, tls: Option<Arc<ServerConfig>>, mut phase: watch::Receiver<Phase>) {
        let head_timeout = self.connections.limits.head_timeout;
        // Small answers should not wait for each other; if the option fails, the socket works all the same.
        let _ = stream.set_nodelay(true);
        // `Lines` limits reading; the kernel closes a connection whose client does not read its answers.
        #[cfg(target_os = "linux")]
        let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(head_timeout));
        let Some(tls) = tls else { return self.exchange(stream, phase).await };
        let handshake = tokio::time::timeout(head_timeout, TlsAcceptor::from(tls).accept(stream));
        let accepted = tokio::select! {
            accepted = handshake => accepted,
            _ = phase.wait_for(|phase| *phase == Phase::Closing) => return,
        };
        match accepted {
            Ok(Ok(stream)) => self.exchange(stream, phase).await,
            // Any client can cause this, so it is counted but not logged.
            _ => metrics::handshake_failed(),
        }
    }

    /// Reads requests and writes answers.
    async fn exchange(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        mut phase: watch::Receiver<Phase>,
    ) {
        let limits = &self.connections.limits;
        let timer = wire::ReadTimer::new(limits.head_timeout, self.connections.lifetime.idle);
        let mut builder = http1::Builder::new();
        builder.max_buf_size(limits.max_head);
        // hyper has one time limit for an idle connection and for a head; `Lines` has one for each.
        builder.header_read_timeout(None);
        // A client may close its side after the request; it still gets the answer.
        builder.half_close(true);
        let stream = wire::Lines::new(stream, self.connection.clone(), timer);
        let (peer, connections, connection) = (self.peer, self.connections.clone(), self.connection.clone());
        let service = service_fn(move |request| self.clone().answer(request));
        let served = builder.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(served);
        tokio::select! {
            ended = served.as_mut() => {
                if let Some(cause) = connection.rejected(ended.err().as_ref()) {
                    rejected::report(&connections.rejections, connections.port(), peer, cause, None);
                }
                return;
            }
            _ = phase.wait_for(|phase| *phase == Phase::Closing) => {}
        }
        served.as_mut().graceful_shutdown();
        let _ = tokio::time::timeout(CLOSING, served).await;
    }

    async fn answer(mut self, request: Request<Incoming>) -> Result<Response, Evicted> {
        let connection = self.connection;
        if !connection.head_complete() {
            return Err(Evicted);
        }
        let well_formed = if connection.is_malformed() { Err(wire::LINES) } else { wire::check(&request) };
        if let Err(why) = well_formed {
            metrics::malformed();
            let (limiter, port) = (&self.connections.rejections, self.connections.port());
            rejected::report(limiter, port, self.peer, Rejected::Malformed, Some(why));
            return Ok(bad_request(why));
        }
        let is_post = request.method() == Method::POST;
        let mut request = request.map(|body| Body::new(Receiving { body, connection: connection.clone() }));
        request.extensions_mut().insert(Peer(self.peer));
        // For a body that is not read, or is empty.
        if request.body().is_end_stream() && !connection.body_complete() {
            return Err(Evicted);
        }
        let mut response = self.router.call(request).await.unwrap_or_else(|never: Infallible| match never {});
        // A POST is answered 2xx only if it was verified; on the operator's port, only if it was permitted.
        if let Some(cause) = connection.answered(is_post && response.status().is_success()) {
            metrics::connections_closed(self.connections.port(), cause, 1);
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }
}

/// Refuses the request and closes the connection: where its next request begins is ambiguous.
fn bad_request(why: &'static str) -> Response {
    let mut response = (StatusCode::BAD_REQUEST, why).into_response();
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The connection's slot belongs to another connection now.
#[derive(Debug, thiserror::Error)]
#[error("the connection was closed in favour of another")]
struct Evicted;

/// A request's body, which reports its completion: after that, its connection is not evicted.
struct Receiving {
    body: Incoming,
    connection: Arc<ConnectionEntry>,
}

impl hyper::body::Body for Receiving {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let ended = match &frame {
            None => true,
            Some(Ok(_)) => self.body.is_end_stream(),
            Some(Err(_)) => false,
        };
        if self.connection.is_malformed() {
            return Poll::Ready(Some(Err(wire::LINES.into())));
        }
        if ended && !self.connection.body_complete() {
            return Poll::Ready(Some(Err(Evicted.into())));
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
