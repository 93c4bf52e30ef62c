//! An HTTP server that answers everything in one wrong way.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A text in each answer that no output may contain.
pub const PLANTED: &str = "planted-secret";

/// The fault of the answers.
#[derive(Clone, Copy, Debug)]
pub enum Trick {
    /// A redirect to a URL that contains a secret.
    Redirect,
    /// An HTML page with status 200.
    Html,
    /// An array instead of an object, with a number that would deserialize into a struct.
    Array,
    /// A body of ten megabytes.
    Huge,
    /// One byte at a time, with pauses.
    Drip,
    /// Not JSON, with a matching content type.
    WrongType,
    /// A body that ends before its declared length.
    Truncated,
}

impl Trick {
    pub const ALL: [Self; 7] =
        [Self::Redirect, Self::Html, Self::Array, Self::Huge, Self::Drip, Self::WrongType, Self::Truncated];

    /// Part of the error message of hookstream's clients.
    pub fn message(self) -> &'static str {
        match self {
            Self::Redirect => {
                "it redirects (302 Found) to http://127.0.0.1:1/elsewhere, and redirects are not followed"
            }
            Self::Html => "received an HTML page (200 OK, text/html)",
            Self::Array => "received a JSON array (200 OK, application/json)",
            Self::Huge => "the answer is longer than 8 MiB",
            Self::Drip => "operation timed out",
            Self::WrongType => "received something that is not JSON (200 OK, image/png)",
            Self::Truncated => "the answer is incomplete",
        }
    }

    async fn answer(self, stream: &mut TcpStream) -> std::io::Result<()> {
        let head = |content_type: &str, length: usize| {
            format!(
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n"
            )
        };
        let whole = |content_type: &str, body: &str| head(content_type, body.len()) + body;
        let text = match self {
            Self::Redirect => format!(
                "HTTP/1.1 302 Found\r\nconnection: close\r\ncontent-length: 0\r\n\
                 location: http://user:{PLANTED}@127.0.0.1:1/elsewhere?token={PLANTED}#{PLANTED}\r\n\r\n"
            ),
            Self::Html => whole("text/html", &format!("<html>Log in, {PLANTED}</html>")),
            Self::Array => whole("application/json", "[1]"),
            Self::Huge => whole(
                "application/json",
                &format!("{{\"id\":1,\"{PLANTED}\":\"{}\"}}", "x".repeat(10_000_000)),
            ),
            Self::WrongType => whole("image/png", &format!("\u{1}PNG {PLANTED}")),
            Self::Truncated => head("application/json", 1_000) + &format!("{{\"id\":1,\"{PLANTED}\":"),
            Self::Drip => head("application/json", 100_000) + "{",
        };
        stream.write_all(text.as_bytes()).await?;
        if matches!(self, Self::Drip) {
            loop {
                stream.write_all(b" ").await?;
                tokio::time::sleep(Duration::from_millis(100)).await; // the fault itself
            }
        }
        stream.shutdown().await
    }
}

/// Serves until the test's runtime ends. Returns the base URL.
pub async fn hostile(trick: Trick) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A client may close the connection in the middle.
            tokio::spawn(async move { serve(stream, trick).await.ok() });
        }
    });
    format!("http://{address}")
}

/// Reads one request to its end: unread bytes would turn the close into a reset.
async fn serve(stream: TcpStream, trick: Trick) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).await?;
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    reader.read_exact(&mut vec![0; length]).await?;
    trick.answer(reader.get_mut()).await
}
