//! Bytes on a connection -> requests.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use hookstream::config::Networks;
use hookstream::http::{ConnectionLimits, Phase, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// Method, target and body.
type Read = (String, String, Vec<u8>);

struct Server {
    runtime: Runtime,
    address: std::net::SocketAddr,
    read: Arc<Mutex<Vec<Read>>>,
    _phase: watch::Sender<Phase>,
}

static SERVER: OnceLock<Server> = OnceLock::new();

/// The router gets the requests that a strict parser reads, with the same bodies, and no others.
pub fn run(data: &[u8]) {
    let server = SERVER.get_or_init(start);
    server.read.lock().unwrap().clear();
    server.runtime.block_on(async {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        // The server may close the connection before the end.
        let _ = stream.write_all(data).await;
        let _ = stream.shutdown().await;
        let end = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut Vec::new())).await;
        assert!(end.is_ok(), "an idle connection must end");
    });
    let read = std::mem::take(&mut *server.read.lock().unwrap());
    let strict = strictly(data);
    assert!(read.len() <= strict.len(), "{read:?} has more requests than {strict:?}");
    assert_eq!(read, strict[..read.len()]);
}

fn start() -> Server {
    let runtime = Runtime::new().unwrap();
    let read = Arc::<Mutex<Vec<Read>>>::default();
    let (phase, phases) = watch::channel(Phase::Serving);
    let router = Router::new().fallback(take).with_state(read.clone());
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let limits = ConnectionLimits {
        max_connections: 16,
        max_per_address: None,
        trusted_proxies: Networks::default(),
        head_timeout: Duration::from_secs(10),
        max_head: 16 * 1024,
    };
    runtime.spawn(serve(listener, router, limits, || None, phases));
    Server { runtime, address, read, _phase: phase }
}

async fn take(State(read): State<Arc<Mutex<Vec<Read>>>>, request: Request) -> StatusCode {
    let (head, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, 1 << 20).await else { return StatusCode::BAD_REQUEST };
    read.lock().unwrap().push((head.method.to_string(), head.uri.to_string(), body.to_vec()));
    StatusCode::OK
}

/// The requests that are valid by RFC 9112, up to the first invalid one.
pub fn strictly(mut data: &[u8]) -> Vec<Read> {
    let mut requests = Vec::new();
    while let Some((request, rest)) = request(data) {
        requests.push(request);
        data = rest;
    }
    requests
}

/// The line up to CR LF; neither may occur alone.
fn line(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = data.iter().position(|byte| matches!(byte, b'\r' | b'\n'))?;
    let rest = data[end..].strip_prefix(b"\r\n")?;
    Some((&data[..end], rest))
}

fn request(mut data: &[u8]) -> Option<(Read, &[u8])> {
    while let Some(rest) = data.strip_prefix(b"\r\n") {
        data = rest;
    }
    let (first, mut data) = line(data)?;
    let mut parts = str::from_utf8(first).ok()?.split(' ');
    let (method, target, version) = (parts.next()?, parts.next()?, parts.next()?);
    let is_1_1 = version == "HTTP/1.1";
    if parts.next().is_some() || !(is_1_1 || version == "HTTP/1.0") {
        return None;
    }
    let (mut hosts, mut codings, mut lengths) = (0, Vec::new(), Vec::new());
    loop {
        let (header, rest) = line(data)?;
        data = rest;
        if header.is_empty() {
            break;
        }
        let colon = header.iter().position(|&byte| byte == b':')?;
        let (name, value) = (&header[..colon], header[colon + 1..].trim_ascii());
        let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        if name.is_empty() || !name.iter().all(is_token) {
            return None;
        }
        match name.to_ascii_lowercase().as_slice() {
            b"host" => hosts += 1,
            b"transfer-encoding" => codings.push(value.to_ascii_lowercase()),
            b"content-length" => lengths.push(value),
            _ => {}
        }
    }
    if hosts > 1 || (is_1_1 && hosts == 0) {
        return None;
    }
    // In its normalized form.
    let target = target.parse::<axum::http::Uri>().ok()?.to_string();
    let read = |body: &[u8]| (method.to_owned(), target.clone(), body.to_vec());
    if !codings.is_empty() {
        let (body, rest) = (is_1_1 && codings == [b"chunked"]).then(|| chunked(data))??;
        // With a content-length as well, the connection must end after this request.
        return Some((read(&body), if lengths.is_empty() { rest } else { &[] }));
    }
    let Some(length) = lengths.first() else { return Some((read(&[]), data)) };
    let digits = !length.is_empty() && length.iter().all(u8::is_ascii_digit);
    if !digits || lengths.iter().any(|other| number(other) != number(length)) {
        return None;
    }
    let (body, rest) = data.split_at_checked(number(length)?)?;
    Some((read(body), rest))
}

fn number(digits: &[u8]) -> Option<usize> {
    str::from_utf8(digits).ok()?.parse().ok()
}

fn chunked(mut data: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut body = Vec::new();
    loop {
        let (size, rest) = line(data)?;
        let digits = size.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let size = usize::from_str_radix(str::from_utf8(&size[..digits]).ok()?, 16).ok()?;
        if size == 0 {
            data = rest;
            break;
        }
        let (chunk, rest) = rest.split_at_checked(size)?;
        body.extend_from_slice(chunk);
        data = rest.strip_prefix(b"\r\n")?;
    }
    loop {
        let (trailer, rest) = line(data)?;
        data = rest;
        if trailer.is_empty() {
            return Some((body, data));
        }
    }
}
