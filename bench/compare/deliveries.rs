//! The deliveries: Datagrid's, made and signed before the measurements, as complete requests in memory.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// The size of one set in bytes, which has fewer of larger bodies, and its maximum number of requests.
const SET: usize = 48 << 20;
const MOST: usize = 20_000;

/// The deliveries in a hundred that the dominant secret signs.
const DOMINANT: usize = 95;

/// The secrets that sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signing {
    /// The last of this many secrets signs 95 of 100 deliveries, and the others sign the rest in turn.
    Dominant(usize),
    /// This many secrets sign in turn.
    InTurn(usize),
}

impl Signing {
    /// The number of secrets.
    pub fn secrets(self) -> usize {
        match self {
            Self::Dominant(count) | Self::InTurn(count) => count,
        }
    }

    fn secret(self, n: usize) -> String {
        secret(match self {
            Self::Dominant(1) => 0,
            Self::Dominant(count) if n % 100 < DOMINANT => count - 1,
            Self::Dominant(count) => n % (count - 1),
            Self::InTurn(count) => n % count,
        })
    }
}

/// The `n`th secret of a source.
pub fn secret(n: usize) -> String {
    format!("a secret of the benchmarks, number {n:03}")
}

/// The `n`th event type of the source.
pub fn event_type(n: usize) -> String {
    // All use the shipped schema `batch_prediction.avsc`.
    if n == 0 { "batch_prediction.completed".into() } else { format!("batch_prediction.t{n:03}") }
}

/// Signed requests, which the senders take in turn. After the last, the first one is sent again, so ids repeat; no contender
/// checks for that.
pub struct Requests {
    all: Vec<Vec<u8>>,
    next: AtomicUsize,
}

impl Requests {
    /// Makes the requests for a source, with bodies of this size and this many event types.
    pub fn make(source: &str, bytes: usize, types: usize, signing: Signing) -> Self {
        let count = (SET / bytes.max(1)).min(MOST);
        let make = |n: usize| {
            let body = body(&format!("evt_{n:016}"), &event_type(n % types), bytes);
            request(source, &signing.secret(n), &body)
        };
        Self { all: (0..count).map(make).collect(), next: AtomicUsize::new(0) }
    }

    /// Reserves this many numbers, and returns the first.
    pub fn take(&self, count: usize) -> usize {
        self.next.fetch_add(count, Ordering::Relaxed)
    }

    /// The complete request with this number.
    pub fn get(&self, n: usize) -> &[u8] {
        &self.all[n % self.all.len()]
    }
}

fn request(source: &str, secret: &str, body: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(b"1775847600.");
    mac.update(body);
    let signature = hex::encode(mac.finalize().into_bytes());
    let mut request = format!(
        "POST /hooks/{source} HTTP/1.1\r\nhost: 127.0.0.1\r\nuser-agent: Datagrid-Webhooks/1.0\r\n\
         content-type: application/json\r\ndatagrid-signature: t=1775847600,v1={signature}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

/// A body of exactly this size, if that is enough for an event: the provider's example, shortened for small sizes, and with
/// more of the customer's labels for large ones.
pub fn body(id: &str, event_type: &str, bytes: usize) -> Vec<u8> {
    let head = format!(r#"{{"id":"{id}","event_type":"{event_type}","timestamp":1775847600,"data":{{"#);
    let mut text = head + r#""id":"bpred_abc123","object":"batch_prediction","status":"completed","#;
    if bytes >= 1000 {
        text += r#""model":"magpie-1.1","completion_window":"24h","created_at":"2026-04-10T18:12:04.118Z","in_progress_at":"2026-04-10T18:12:31.502Z","finalizing_at":"2026-04-10T18:59:12.870Z","completed_at":"2026-04-10T19:00:00.000Z","failed_at":null,"expired_at":null,"expires_at":"2026-04-11T18:12:04.118Z","cancelling_at":null,"cancelled_at":null,"request_counts":{"total":1200,"processing":0,"succeeded":1197,"errored":3,"canceled":0,"expired":0},"results_url":"/v1/batch-predictions/bpred_abc123/results","error":null,"#;
    }
    text += r#""metadata":{"#;
    // Repeated words as in real text, but different bodies, so that they compress like real JSON.
    let mut rng = fastrand::Rng::with_seed(
        id.bytes().fold(7, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into())),
    );
    let mut n = 0;
    while text.len() + 60 + 5 < bytes {
        let _ =
            write!(text, r#""label_{n:05}":"{} {} {:08x}","#, word(&mut rng), word(&mut rng), rng.u32(..));
        n += 1;
    }
    let rest = bytes.saturating_sub(text.len() + r#""p":""}}}"#.len());
    let _ = write!(text, r#""p":"{}"}}}}}}"#, "x".repeat(rest));
    text.into_bytes()
}

fn word(rng: &mut fastrand::Rng) -> &'static str {
    const WORDS: [&str; 16] = [
        "invoice",
        "extraction",
        "nightly",
        "berlin",
        "priority",
        "review",
        "customer",
        "draft",
        "archive",
        "shipment",
        "contract",
        "pending",
        "renewal",
        "europe",
        "import",
        "quality",
    ];
    WORDS[rng.usize(..WORDS.len())]
}
