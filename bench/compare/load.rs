//! The load of the benchmarks, over plain sockets and with only as much parsing as needed to count answers correctly. The
//! load of `hookstream send` (`hookstream::load`) uses several times as much processor time, which all processes share.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::deliveries::Requests;

/// The timeout of an answer. Very long, since the machine may be suspended for minutes.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// Connections are opened in batches of this size with this pause between them: tokio's listener queues 128 connections, and
/// the kernel drops further ones, which are retried after a second. The measurement must not include that.
const BATCH: usize = 32;
const BATCH_PAUSE: Duration = Duration::from_millis(10);

/// The result of a load.
#[derive(Debug, Default)]
pub struct Ended {
    /// From the first request to the last answer.
    pub took: Duration,
    /// Answers by status; 0 for broken connections.
    pub answers: BTreeMap<u16, u64>,
}

/// Sends for this time, on each connection the next request after the answer to the last, and waits for the last answers.
/// Blocks. Each thread has its own runtime. Calls `started` when all connections are open, before the first request.
pub fn run(
    to: SocketAddr,
    connections: usize,
    threads: usize,
    requests: &Arc<Requests>,
    time: Duration,
    started: impl FnOnce(),
) -> anyhow::Result<Ended> {
    let threads = threads.min(connections);
    let (ready, go) = (Barrier::new(threads + 1), Barrier::new(threads + 1));
    std::thread::scope(|scope| {
        let share = |thread: usize| connections / threads + usize::from(thread < connections % threads);
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let (ready, go) = (&ready, &go);
                scope.spawn(move || worker(to, share(thread), requests.clone(), time, ready, go))
            })
            .collect();
        ready.wait();
        started();
        let start = Instant::now();
        go.wait();
        let mut ended = Ended::default();
        for worker in workers {
            let answers =
                worker.join().map_err(|_| anyhow::anyhow!("a thread of the generator failed"))??;
            for (status, count) in answers {
                *ended.answers.entry(status).or_default() += count;
            }
        }
        ended.took = start.elapsed();
        Ok(ended)
    })
}

type Answers = BTreeMap<u16, u64>;

fn worker(
    to: SocketAddr,
    connections: usize,
    requests: Arc<Requests>,
    time: Duration,
    ready: &Barrier,
    go: &Barrier,
) -> anyhow::Result<Answers> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut open = Vec::new();
    let connected = runtime.block_on(async {
        for n in 0..connections {
            if n % BATCH == BATCH - 1 {
                tokio::time::sleep(BATCH_PAUSE).await;
            }
            open.push(Connection::open(to).await?);
        }
        Ok::<_, std::io::Error>(())
    });
    // Even after a failure, else the other threads would wait forever.
    ready.wait();
    go.wait();
    connected?;
    let until = Instant::now() + time;
    runtime.block_on(async move {
        let tasks: Vec<_> =
            open.into_iter().map(|one| tokio::spawn(connection(one, requests.clone(), until))).collect();
        let mut answers = Answers::new();
        for task in tasks {
            for (status, count) in tokio::time::timeout(time + PATIENCE, task).await?? {
                *answers.entry(status).or_default() += count;
            }
        }
        Ok(answers)
    })
}

async fn connection(mut connection: Connection, requests: Arc<Requests>, until: Instant) -> Answers {
    let mut answers = Answers::new();
    while Instant::now() < until {
        let n = requests.take(1);
        let status = connection.exchange(requests.get(n)).await.unwrap_or(0);
        *answers.entry(status).or_default() += 1;
        if status == 0 {
            break;
        }
    }
    answers
}

/// A connection for one request at a time.
pub struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    pub async fn open(to: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, read: vec![0; 4096] })
    }

    /// Sends a request. Returns the status of its answer.
    pub async fn exchange(&mut self, request: &[u8]) -> anyhow::Result<u16> {
        self.stream.write_all(request).await?;
        let mut filled = 0;
        loop {
            let count = self.stream.read(&mut self.read[filled..]).await?;
            anyhow::ensure!(count > 0, "the connection was closed");
            filled += count;
            if let Some(status) = parse(&self.read[..filled])? {
                return Ok(status);
            }
        }
    }
}

/// The status, once the answer is complete.
fn parse(read: &[u8]) -> anyhow::Result<Option<u16>> {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut answer = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = answer.parse(read)? else { return Ok(None) };
    let header = |name: &str| answer.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
    let length =
        header("content-length").and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok());
    let length: usize = length.context("an answer without content-length")?;
    if read.len() < head + length {
        return Ok(None);
    }
    let close = header("connection").is_some_and(|header| header.value.eq_ignore_ascii_case(b"close"));
    anyhow::ensure!(!close, "the service closes the connection");
    Ok(answer.code)
}
