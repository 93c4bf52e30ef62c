//! Rejects requests that httparse and hyper accept although RFC 9112 forbids them. If two servers parse the same bytes
//! differently, one of them can be tricked into taking a part of one request for another request.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::extract::Request;
use http::uri::Authority;
use http::{HeaderMap, Version, header};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep_until};

use super::connections::ConnectionEntry;
use super::rejected;

/// How much of a head line is stored: the headers that determine the end of a body are shorter.
const MAX_STORED: usize = 64;

/// The answer to a request with malformed line ends.
pub(super) const LINES: &str = "lines must end in CR and LF\n";

/// Checks the head of a request whose line ends are valid.
///
/// # Errors
/// A sentence for the sender.
pub(super) fn check<B>(request: &Request<B>) -> Result<(), &'static str> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if request.version() >= Version::HTTP_11 => return Err("a request needs a Host header\n"),
        (Some(_), Some(_)) => return Err("a request must have only one Host header\n"),
        (Some(host), None) if !is_host(host.as_bytes()) => {
            return Err("Host must be a name or an address, with an optional port\n");
        }
        _ => {}
    }
    check_coding(request.headers())
}

/// Host may be empty if the target has no authority.
fn is_host(host: &[u8]) -> bool {
    host.is_empty() || (!host.contains(&b'@') && Authority::try_from(host).is_ok())
}

fn check_coding(headers: &HeaderMap) -> Result<(), &'static str> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err("the only supported transfer coding is chunked, once\n"),
    }
}

/// Checks the lines of a stream on their way to hyper, which accepts a bare LF as a line end. An error is recorded with
/// the connection, and the request is refused when hyper has read its head or its body.
///
/// Ends the stream of a connection that is idle for too long, and of one whose head is late.
pub(super) struct Lines<S> {
    stream: S,
    connection: Arc<ConnectionEntry>,
    reader: RequestScanner,
    timer: ReadTimer,
}

impl<S> Lines<S> {
    pub(super) fn new(stream: S, connection: Arc<ConnectionEntry>, timer: ReadTimer) -> Self {
        Self { stream, connection, reader: RequestScanner::default(), timer }
    }
}

/// The time limits of reading: of a head from its first byte, and of the wait for that byte. A body has its own.
pub(super) struct ReadTimer {
    head: Duration,
    idle: Duration,
    /// The number of the request whose head is awaited, and when its first byte arrived; the first request begins with
    /// its connection. `None` outside a head.
    head_began: Option<(u32, Instant)>,
    sleep: Option<Pin<Box<Sleep>>>,
}

/// What has ended.
enum Late {
    Head,
    Idle,
}

impl ReadTimer {
    pub(super) fn new(head: Duration, idle: Duration) -> Self {
        Self { head, idle, head_began: Some((1, Instant::now())), sleep: None }
    }

    /// Records what has been read.
    fn update(&mut self, reader: &RequestScanner) {
        if !reader.in_head() {
            self.head_began = None;
        } else if self.head_began.is_none_or(|(request, _)| request != reader.current()) {
            self.head_began = Some((reader.current(), Instant::now()));
        }
    }

    /// Waits until one of the limits is reached.
    fn poll_late(&mut self, context: &mut Context<'_>, connection: &ConnectionEntry) -> Poll<Late> {
        let (deadline, late) = match (self.head_began, connection.idle_since()) {
            (Some((_, began)), _) => (began + self.head, Late::Head),
            (None, Some(since)) => (since + self.idle, Late::Idle),
            (None, None) => return Poll::Pending,
        };
        let deadline = deadline.into();
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() != deadline {
            sleep.as_mut().reset(deadline);
        }
        sleep.as_mut().poll(context).map(|()| late)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lines<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let Lines { stream, connection, reader, timer } = &mut *self;
        if Pin::new(stream).poll_read(context, buf)?.is_pending() {
            return match ready!(timer.poll_late(context, connection)) {
                // The client has begun a request. One that has sent nothing sees the same orderly end as one that is
                // idle: nothing of it is lost.
                Late::Head if reader.in_head() => {
                    connection.head_late();
                    Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
                }
                Late::Head | Late::Idle => Poll::Ready(Ok(())),
            };
        }
        let read = buf.filled().get(before..).unwrap_or_default();
        if let Some(foreign) = (!reader.begun).then(|| rejected::foreign(read)).flatten() {
            connection.set_foreign(foreign);
        }
        if let Some(request) = reader.read(read) {
            connection.malformed(request);
        }
        // At the end of the stream too: hyper then reports whether it came within a head.
        if !read.is_empty() {
            timer.update(reader);
            connection.set_in_head(reader.in_head());
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

/// Follows requests far enough to know which bytes are lines. It checks line ends only: hyper or [`check`] find other
/// errors of a head.
#[derive(Debug, Default)]
struct RequestScanner {
    /// Whether anything has been read yet.
    begun: bool,
    at: At,
    /// The number of the current request, from 1; 0 before the first.
    request: u32,
    line: LineBuffer,
    body: BodyFraming,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Before a request line: empty lines are allowed here.
    #[default]
    Start,
    Headers,
    /// Bytes of a body, or of a chunk including its line end.
    Bytes(u64),
    ChunkSize,
    Trailers,
    /// The rest of the connection is not parsed. Within a head, hyper may still wait for its end.
    Refused {
        in_head: bool,
    },
}

#[derive(Debug, Default, Clone, Copy)]
enum BodyFraming {
    #[default]
    None,
    Length(u64),
    Chunked,
}

/// The current line so far.
#[derive(Debug)]
struct LineBuffer {
    start: [u8; MAX_STORED],
    length: usize,
    last: u8,
}

impl Default for LineBuffer {
    fn default() -> Self {
        Self { start: [0; MAX_STORED], length: 0, last: 0 }
    }
}

impl LineBuffer {
    fn push(&mut self, bytes: &[u8]) {
        let free = self.start.get_mut(self.length..).unwrap_or_default();
        free.iter_mut().zip(bytes).for_each(|(stored, byte)| *stored = *byte);
        self.length = self.length.saturating_add(bytes.len());
        self.last = bytes.last().copied().unwrap_or(self.last);
    }

    /// Whether it is nothing, or could be the beginning of an empty line.
    fn is_empty(&self) -> bool {
        self.length == 0 || (self.length == 1 && self.last == b'\r')
    }

    /// The line without its end; only the beginning of a long line.
    fn text(&self) -> &[u8] {
        self.start.get(..self.length.saturating_sub(1)).unwrap_or(&self.start)
    }
}

impl RequestScanner {
    /// Whether a part of a head has been read, and not all of it. Empty lines before it count only on a new connection,
    /// where they must not extend the time for its first head; after a body, some clients send one too many.
    fn in_head(&self) -> bool {
        match self.at {
            At::Headers => true,
            At::Refused { in_head } => in_head,
            At::Start if self.request == 0 => self.begun,
            At::Start => !self.line.is_empty(),
            At::Bytes(_) | At::ChunkSize | At::Trailers => false,
        }
    }

    /// The number of the request whose head is being read.
    fn current(&self) -> u32 {
        // A request has no number until its request line is complete.
        self.request + u32::from(self.at == At::Start)
    }

    /// Parses `bytes`. Returns the number of the request with an error, if any.
    fn read(&mut self, mut bytes: &[u8]) -> Option<u32> {
        self.begun |= !bytes.is_empty();
        while !bytes.is_empty() && !matches!(self.at, At::Refused { .. }) {
            if let At::Bytes(remaining) = self.at {
                let length = usize::try_from(remaining).unwrap_or(usize::MAX).min(bytes.len());
                bytes = bytes.get(length..)?;
                self.skip(remaining - length as u64);
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
                self.request = self.current();
                self.at = At::Refused { in_head: matches!(self.at, At::Start | At::Headers) };
                return Some(self.request);
            }
        }
        None
    }

    fn skip(&mut self, remaining: u64) {
        self.at = match (remaining, self.body) {
            (1.., _) => At::Bytes(remaining),
            (0, BodyFraming::Chunked) => At::ChunkSize,
            (0, _) => At::Start,
        };
    }

    /// Parses a complete line; `None` if the rest has more than one interpretation.
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
                    // Including the line end after the chunk.
                    size => self.at = At::Bytes(size.checked_add(2)?),
                }
            }
            At::Trailers if text.is_empty() => self.at = At::Start,
            At::Trailers | At::Bytes(_) | At::Refused { .. } => {}
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
            if length > MAX_STORED {
                return None;
            }
            self.body = BodyFraming::Length(str::from_utf8(value).ok()?.parse().ok()?);
        }
        Some(())
    }
}
