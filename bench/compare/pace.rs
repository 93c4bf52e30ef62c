//! Load at a fixed rate, whatever the answers do: each delivery's time counts from when it was due, so
//! that a service that stalls cannot hide it by slowing the load down.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::deliveries::Requests;
use crate::load::{PATIENCE, answer};

/// What a load at a fixed rate came to. Times in microseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Latency {
    /// How many were measured.
    pub count: u64,
    /// From due to answered.
    pub p50: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
    /// From due to sent: the generator's own share, 99th percentile.
    pub late_p99: u64,
    /// Answers by status, warm-up included.
    pub answers: BTreeMap<u16, u64>,
}

/// One run at a fixed rate, and what is known of it so far.
pub struct Pace {
    interval: Duration,
    warm: u64,
    total: u64,
    book: Mutex<Book>,
    all: Condvar,
}

struct Book {
    took: Histogram<u64>,
    late: Histogram<u64>,
    ended: u64,
    answers: BTreeMap<u16, u64>,
}

impl Pace {
    /// The first `warm` are not measured.
    pub fn new(rate: u32, warm: Duration, time: Duration) -> anyhow::Result<Self> {
        let count = |time: Duration| (time.as_secs_f64() * f64::from(rate)) as u64;
        let book =
            Book { took: Histogram::new(3)?, late: Histogram::new(3)?, ended: 0, answers: BTreeMap::new() };
        Ok(Self {
            interval: Duration::from_secs(1) / rate,
            warm: count(warm),
            total: count(warm + time),
            book: Mutex::new(book),
            all: Condvar::new(),
        })
    }

    /// Delivery `n`, which was due then, was answered now.
    pub fn ended(&self, n: u64, due: Instant, status: u16) {
        let took = due.elapsed().as_micros() as u64;
        let mut book = self.book.lock().unwrap();
        if n >= self.warm {
            book.took.record(took).unwrap();
        }
        *book.answers.entry(status).or_default() += 1;
        book.ended += 1;
        if book.ended == self.total {
            self.all.notify_all();
        }
    }

    /// Blocks until all are answered.
    pub fn wait(&self) -> anyhow::Result<Latency> {
        let book = self.book.lock().unwrap();
        let (book, waited) =
            self.all.wait_timeout_while(book, PATIENCE, |book| book.ended < self.total).unwrap();
        anyhow::ensure!(
            !waited.timed_out(),
            "{} of {} were answered within {PATIENCE:?}",
            book.ended,
            self.total
        );
        let at = |q| book.took.value_at_quantile(q);
        Ok(Latency {
            count: book.took.len(),
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: book.took.max(),
            late_p99: book.late.value_at_quantile(0.99),
            answers: book.answers.clone(),
        })
    }
}

/// Calls `send` with each delivery's number and the time it is due, from this thread. The thread sleeps
/// in between, which is 0.1 ms late mostly; a timer of tokio's would be up to 1 ms late.
pub fn pace(pace: &Pace, mut send: impl FnMut(u64, Instant) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let start = Instant::now();
    for n in 0..pace.total {
        let due = start + pace.interval.mul_f64(n as f64);
        let now = Instant::now();
        if due > now {
            std::thread::sleep(due - now);
        }
        if n >= pace.warm {
            pace.book.lock().unwrap().late.record(due.elapsed().as_micros() as u64)?;
        }
        send(n, due)?;
    }
    Ok(())
}

/// Posts at a fixed rate over so many connections, and waits for all answers. Blocks. A delivery that
/// finds no connection free waits for one, and its time counts on.
pub fn post(to: SocketAddr, connections: usize, requests: &Requests, run: Pace) -> anyhow::Result<Latency> {
    let run = Arc::new(run);
    let (free, next) = mpsc::channel();
    let mut lanes = Vec::new();
    for lane in 0..connections {
        let stream = TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        let (sent, begun) = mpsc::channel();
        let (mut reading, free, run) = (stream.try_clone()?, free.clone(), run.clone());
        free.send(lane)?;
        // A thread for each: the reader of an answer is woken by the kernel alone. It ends with its lane.
        std::thread::Builder::new().stack_size(64 * 1024).spawn(move || {
            while let Ok((n, due)) = begun.recv() {
                // A connection that broke has no status.
                run.ended(n, due, answer(&mut reading).unwrap_or(0));
                let _ = free.send(lane);
            }
        })?;
        lanes.push((stream, sent));
    }
    let first = requests.take(run.total as usize);
    pace(&run, |n, due| {
        let lane = next.recv_timeout(PATIENCE)?;
        let (stream, sent) = &mut lanes[lane];
        stream.write_all(requests.get(first + n as usize))?;
        Ok(sent.send((n, due))?)
    })?;
    run.wait()
}
