//! A client that can misbehave: it writes any bytes to a socket.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::PATIENCE;

/// Opens a connection and writes `bytes`.
pub async fn open(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

/// Reads until the server closes the connection. Fails if it does not.
pub async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut all)).await;
    match read.expect("the end of the connection") {
        Ok(_) => {}
        // Unread bytes of the request turn the close into a reset.
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("{error}"),
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// Reads one answer, by its length. The connection stays open.
pub async fn read_answer(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let read = timeout(PATIENCE, async {
        loop {
            let text = String::from_utf8_lossy(&all).into_owned();
            let length = text
                .to_lowercase()
                .split_once("content-length: ")
                .and_then(|(_, rest)| rest.split("\r\n").next()?.parse::<usize>().ok());
            let head = text.find("\r\n\r\n").map(|end| end + 4);
            if let (Some(head), Some(length)) = (head, length)
                && all.len() >= head + length
            {
                return text;
            }
            assert!(stream.read_buf(&mut all).await.unwrap() > 0, "the connection ended: {text}");
        }
    });
    read.await.expect("an answer")
}

/// Sends one request on a new connection. Returns the answer as text.
pub async fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    read_to_end(&mut open(address, bytes).await).await
}

/// A request's head; the connection is closed after its answer.
pub fn head(method: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head + "\r\n"
}
