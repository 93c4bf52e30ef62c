//! What httparse and hyper read more kindly than RFC 9112 has it. Where two servers read the same bytes differently,
//! one of them can be made to take a part of one request for another request.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::extract::Request;
use http::uri::Authority;
use http::{HeaderMap, Version, header};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connections::ConnectionEntry;

/// What is kept of a line in a head: the names and values that say where a body ends are shorter.
const KEPT: usize = 64;

/// Why a request is refused whose lines are not.
pub(super) const LINES: &str = "a line ends in CR and LF\n";

/// Why a head is refused whose lines are fine.
///
/// # Errors
/// A sentence for the sender.
pub(super) fn check<B>(request: &Request<B>) -> Result<(), &'static str> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if request.version() >= Version::HTTP_11 => return Err("a request has a Host header\n"),
        (Some(_), Some(_)) => return Err("a request has one Host header\n"),
        (Some(host), None) if !is_host(host.as_bytes()) => {
            return Err("Host is a name or an address, and a port\n");
        }
        _ => {}
    }
    check_coding(request.headers())
}

/// Empty where the target has no authority.
fn is_host(host: &[u8]) -> bool {
    host.is_empty() || (!host.contains(&b'@') && Authority::try_from(host).is_ok())
}

fn check_coding(headers: &HeaderMap) -> Result<(), &'static str> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err("the one transfer coding is chunked, and only once\n"),
    }
}

/// A stream whose lines are looked at on their way to hyper, which takes a bare LF for the end of one. What is wrong is
/// noted with the connection, and the request refused when hyper has read its head, or its body.
pub(super) struct Lines<S> {
    stream: S,
    connection: Arc<ConnectionEntry>,
    reader: RequestScanner,
}

impl<S> Lines<S> {
    pub(super) fn new(stream: S, connection: Arc<ConnectionEntry>) -> Self {
        Self { stream, connection, reader: RequestScanner::default() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lines<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buf))?;
        if let Some(request) = self.reader.read(buf.filled().get(before..).unwrap_or_default()) {
            self.connection.malformed(request);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Lines<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Follows requests far enough to know which bytes are lines. It judges the ends of lines only: what else is wrong with
/// a head, hyper or [`check`] find.
#[derive(Debug, Default)]
struct RequestScanner {
    at: At,
    /// The one that is being read, from 1; 0 before the first.
    request: u32,
    line: LineBuffer,
    body: BodyFraming,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Before a request line: empty lines may stand there.
    #[default]
    Start,
    Headers,
    /// Bytes of a body, or of a chunk with its line end.
    Bytes(u64),
    ChunkSize,
    Trailers,
    /// Nobody reads on.
    Refused,
}

#[derive(Debug, Default, Clone, Copy)]
enum BodyFraming {
    #[default]
    None,
    Length(u64),
    Chunked,
}

/// A line so far.
#[derive(Debug)]
struct LineBuffer {
    start: [u8; KEPT],
    length: usize,
    last: u8,
}

impl Default for LineBuffer {
    fn default() -> Self {
        Self { start: [0; KEPT], length: 0, last: 0 }
    }
}

impl LineBuffer {
    fn push(&mut self, bytes: &[u8]) {
        let free = self.start.get_mut(self.length..).unwrap_or_default();
        free.iter_mut().zip(bytes).for_each(|(kept, byte)| *kept = *byte);
        self.length = self.length.saturating_add(bytes.len());
        self.last = bytes.last().copied().unwrap_or(self.last);
    }

    /// Without its end; of a long one the beginning.
    fn text(&self) -> &[u8] {
        self.start.get(..self.length.saturating_sub(1)).unwrap_or(&self.start)
    }
}

impl RequestScanner {
    /// Follows `bytes`; the number of the request in which something is wrong.
    fn read(&mut self, mut bytes: &[u8]) -> Option<u32> {
        while !bytes.is_empty() && self.at != At::Refused {
            if let At::Bytes(left) = self.at {
                let some = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                bytes = bytes.get(some..)?;
                self.skip(left - some as u64);
                continue;
            }
            let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
                self.line.push(bytes);
                return None;
            };
            let (line, rest) = bytes.split_at(end);
            self.line.push(line);
            bytes = rest.get(1..)?;
            let complete = std::mem::take(&mut self.line);
            if complete.last != b'\r' || self.line(complete.text(), complete.length).is_none() {
                // Before its request line is complete a request has no number yet.
                let request = self.request + u32::from(self.at == At::Start);
                self.at = At::Refused;
                return Some(request);
            }
        }
        None
    }

    fn skip(&mut self, left: u64) {
        self.at = match (left, self.body) {
            (1.., _) => At::Bytes(left),
            (0, BodyFraming::Chunked) => At::ChunkSize,
            (0, _) => At::Start,
        };
    }

    /// A complete line; `None` where nobody could read on from there in one way only.
    fn line(&mut self, text: &[u8], length: usize) -> Option<()> {
        match self.at {
            At::Start if text.is_empty() => {}
            At::Start => {
                self.request += 1;
                (self.at, self.body) = (At::Headers, BodyFraming::None);
            }
            At::Headers if text.is_empty() => match self.body {
                BodyFraming::None | BodyFraming::Length(0) => self.at = At::Start,
                BodyFraming::Length(length) => self.at = At::Bytes(length),
                BodyFraming::Chunked => self.at = At::ChunkSize,
            },
            At::Headers => self.header(text, length)?,
            At::ChunkSize => {
                let digits = text.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(text.len());
                let size = str::from_utf8(text.get(..digits)?).ok()?;
                match u64::from_str_radix(size, 16).ok()? {
                    0 => self.at = At::Trailers,
                    // And the line's end behind it.
                    size => self.at = At::Bytes(size.checked_add(2)?),
                }
            }
            At::Trailers if text.is_empty() => self.at = At::Start,
            At::Trailers | At::Bytes(_) | At::Refused => {}
        }
        Some(())
    }

    fn header(&mut self, text: &[u8], length: usize) -> Option<()> {
        let Some(colon) = text.iter().position(|byte| *byte == b':') else { return Some(()) };
        let (name, value) = text.split_at(colon);
        let value = value.get(1..)?.trim_ascii();
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.body = BodyFraming::Chunked;
        } else if name.eq_ignore_ascii_case(b"content-length") && !matches!(self.body, BodyFraming::Chunked) {
            if length > KEPT {
                return None;
            }
            self.body = BodyFraming::Length(str::from_utf8(value).ok()?.parse().ok()?);
        }
        Some(())
    }
}
