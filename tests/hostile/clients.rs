//! The behaviour of hostile clients.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::sleep;

use crate::crowd::Shared;
use crate::support::raw::head;

/// A kind of hostile client. The service closes each of their connections sooner or later, and each reconnects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Connects and sends nothing.
    Silent,
    /// Sends half a request head.
    HalfHead,
    /// Sends a complete head, then one byte of the body per second.
    Trickle,
    /// Sends a complete head that declares a large body, but no body.
    Declared,
    /// Sends all of a large body except its end.
    Stalled,
    /// Sends an incomplete head just below the size limit.
    LargeHead,
    /// Sends requests at intervals on one connection.
    KeepAlive,
    /// Sends request after request, and never reads an answer.
    Pipelined,
    /// Sends 1 KB bodies with a forged signature, one every four seconds.
    Forged,
    /// Sends the first bytes of a TLS handshake.
    HalfHello,
    /// Sends the body that is most expensive per byte, with a forged signature, to a source with many secrets, at a rate of
    /// [`Kind::BYTES`] per second.
    Costly,
}

/// The interval between two requests of `Forged`.
const FORGED_PAUSE: Duration = Duration::from_secs(4);

/// The interval between two requests of `KeepAlive`.
const KEPT_PAUSE: Duration = Duration::from_millis(500);

/// Opens a connection from an address of the loopback network.
pub async fn connect(kind: Kind, from: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if kind == Kind::Pipelined {
        // With loopback's huge segments, the kernel would buffer megabytes of answers.
        socket2::SockRef::from(&socket).set_tcp_mss(536)?;
        socket.set_recv_buffer_size(2048)?;
    }
    socket.bind(from)?;
    socket.connect(to).await
}

impl Kind {
    /// The bytes that a costly client sends per second: 100 Mbit.
    const BYTES: usize = 12_500_000;

    /// How long the service tolerates it with the shipped limits: `body_timeout` or `head_timeout`.
    pub fn lifetime(self) -> Duration {
        match self {
            Self::Trickle | Self::Declared | Self::Stalled => Duration::from_secs(2),
            _ => Duration::from_secs(10),
        }
    }

    /// Misbehaves until the service closes the connection.
    pub async fn act(self, mut stream: TcpStream, shared: &Shared, number: usize) -> io::Result<()> {
        let path = &shared.plan.path;
        match self {
            Self::Silent => {}
            Self::HalfHead => stream.write_all(b"POST /hooks/x HT").await?,
            Self::Declared => {
                stream.write_all(head("POST", path, &[("content-length", "900000")]).as_bytes()).await?;
            }
            Self::Stalled => {
                let request = head("POST", path, &[("content-length", "921600")]) + &"x".repeat(890 * 1024);
                // The answer may come before everything is sent.
                let _ = stream.write_all(request.as_bytes()).await;
            }
            Self::LargeHead => {
                let request =
                    format!("POST {path} HTTP/1.1\r\nhost: test\r\nx-padding: {}", "x".repeat(15_000));
                stream.write_all(request.as_bytes()).await?;
            }
            Self::KeepAlive => {
                let (mut reader, mut writer) = stream.split();
                return tokio::select! {
                    ended = read_to_end(&mut reader, shared) => ended,
                    failed = ask(&mut writer, path) => failed,
                };
            }
            // A record with a ClientHello of 508 bytes, of which 2 are sent.
            Self::HalfHello => stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await?,
            Self::Trickle => {
                stream.write_all(head("POST", path, &[("content-length", "1000")]).as_bytes()).await?;
                let (mut reader, mut writer) = stream.split();
                return tokio::select! {
                    ended = read_to_end(&mut reader, shared) => ended,
                    failed = drip(&mut writer) => failed,
                };
            }
            Self::Pipelined => {
                let many = "GET /hooks/x HTTP/1.1\r\nhost: test\r\n\r\n".repeat(20);
                loop {
                    stream.write_all(many.as_bytes()).await?;
                }
            }
            Self::Forged => return forge(stream, shared, number).await,
            Self::Costly => return costly(stream, shared).await,
        }
        read_to_end(&mut stream, shared).await
    }
}

async fn read_to_end(stream: &mut (impl AsyncReadExt + Unpin), shared: &Shared) -> io::Result<()> {
    let mut first = true;
    let mut bytes = [0; 1024];
    loop {
        let length = stream.read(&mut bytes).await?;
        if length == 0 {
            return Ok(());
        }
        if std::mem::take(&mut first) {
            count(&bytes[..length], shared);
        }
    }
}

async fn drip(stream: &mut (impl AsyncWriteExt + Unpin)) -> io::Result<()> {
    loop {
        stream.write_all(b" ").await?;
        sleep(Duration::from_secs(1)).await; // the client's rate
    }
}

async fn ask(stream: &mut (impl AsyncWriteExt + Unpin), path: &str) -> io::Result<()> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n");
    loop {
        stream.write_all(request.as_bytes()).await?;
        sleep(KEPT_PAUSE).await; // the client's rate
    }
}

async fn forge(mut stream: TcpStream, shared: &Shared, number: usize) -> io::Result<()> {
    let body = format!("{{\"id\":\"evt_forged\",\"text\":\"{}\"}}", "x".repeat(990));
    let signature = "0".repeat(64);
    let request = format!(
        "POST {} HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\ndatagrid-signature: t=1775847600,v1={signature}\r\n\r\n{body}",
        shared.plan.path,
        body.len(),
    );
    // The clients start evenly spread over the pause.
    let count_of = |wanted| shared.plan.kinds.iter().find(|(kind, _)| *kind == wanted).map_or(1, |(_, n)| *n);
    sleep(FORGED_PAUSE / count_of(Kind::Forged) as u32 * number as u32).await;
    let mut bytes = [0; 4096];
    loop {
        stream.write_all(request.as_bytes()).await?;
        let length = stream.read(&mut bytes).await?;
        if length == 0 {
            return Ok(());
        }
        count(&bytes[..length], shared);
        sleep(FORGED_PAUSE).await; // the client's rate
    }
}

/// Sends one expensive body, then pauses in proportion to the bytes that were actually sent.
async fn costly(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let start = tokio::time::Instant::now();
    let request = COSTLY.get_or_init(|| {
        let (path, signature) = (format!("{}-many", shared.plan.path), format!("sha256={}", "0".repeat(64)));
        let body = format!("\"{}\"", "\u{7f}".repeat(890 * 1024));
        let headers = [("content-length", &*body.len().to_string()), ("x-grapevine-signature", &*signature)];
        [head("POST", &path, &headers).as_bytes(), body.as_bytes()].concat()
    });
    let mut sent = 0;
    while let Some(rest) = request.get(sent..).filter(|rest| !rest.is_empty()) {
        match stream.write(rest).await {
            Ok(more) => sent += more,
            // The service has already answered.
            Err(_) => break,
        }
    }
    shared.wrote(sent);
    let mut bytes = [0; 1024];
    let length = stream.read(&mut bytes).await.unwrap_or_default();
    count(&bytes[..length], shared);
    let pause = Duration::from_secs_f64(sent as f64 / Kind::BYTES as f64);
    tokio::time::sleep_until(start + pause).await; // the client's rate
    Ok(())
}

/// The request of a costly client.
static COSTLY: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();

/// Counts an answer by its status.
fn count(answer: &[u8], shared: &Shared) {
    let status = answer.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3)).unwrap_or(b"???");
    shared.answered(&String::from_utf8_lossy(status));
}
