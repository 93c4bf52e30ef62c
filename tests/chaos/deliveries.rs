//! The deliveries. Each is made only from the seed and its number, so that its expected outcome can be recomputed when its
//! record is read.

use fastrand::Rng;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::{SECRET, hmac, hmac_with};

/// The two providers, as sources of the service.
pub const SOURCES: [&str; 2] = ["datagrid", "grapevine"];

/// Datagrid's event types, which are topics.
pub const DATAGRID: [&str; 5] = [
    "batch_prediction.completed",
    "batch_prediction.failed",
    "batch_prediction.expired",
    "batch_prediction.cancelled",
    "knowledge.processing.completed",
];

/// The topics of all events.
pub fn topics() -> Vec<String> {
    let datagrid = DATAGRID.iter().map(|event_type| format!("datagrid.{event_type}"));
    datagrid.chain([String::from("grapevine.document.changed")]).collect()
}

/// One delivery as its provider sends it; every attempt has the same bytes.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The source.
    pub source: &'static str,
    /// The signature header, if it has one.
    pub header: Option<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// The expected outcome.
    pub fate: Fate,
}

/// The expected outcome of a delivery.
#[derive(Clone, Debug, PartialEq)]
pub enum Fate {
    /// A record with this key in this topic that contains the body's complete tree.
    Event {
        /// The topic.
        topic: String,
        /// The record's key.
        key: String,
        /// The body as a tree.
        tree: Value,
    },
    /// The unchanged body, in its source's dead letters.
    DeadLetter {
        /// The reason in its header.
        reason: &'static str,
    },
    /// Refused, and stored nowhere.
    Forged,
}

/// The digest that identifies a body.
pub fn digest(body: &[u8]) -> [u8; 32] {
    Sha256::digest(body).into()
}

/// The `n`th delivery.
pub fn make(seed: u64, n: u64) -> Delivery {
    let mut rng = Rng::with_seed(seed.rotate_left(32) ^ n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut delivery = match rng.u8(..100) {
        0..50 => datagrid(&mut rng, n),
        50..92 => grapevine(&mut rng, n),
        _ => dead_letter(&mut rng, n),
    };
    if rng.u8(..100) < 8 {
        forge(&mut rng, &mut delivery);
    }
    delivery
}

fn datagrid(rng: &mut Rng, n: u64) -> Delivery {
    let event_type = DATAGRID[rng.usize(..DATAGRID.len())];
    let id = format!("evt_{n}");
    let mut data = match event_type {
        "knowledge.processing.completed" => json!({
            "knowledge_id": format!("know_{}", text(rng)),
            "scope": text(rng),
            "row_counts": {"completed": rng.u32(..), "total": rng.u32(..)},
        }),
        _ => json!({
            "object": "batch_prediction", "id": text(rng), "status": text(rng),
            "model": if rng.bool() { Value::Null } else { text(rng).into() },
            "created_at": format!("2026-04-10T18:{:02}:{:02}.{:03}Z", rng.u8(..60), rng.u8(..60), rng.u16(1..1000)),
            "metadata": {"run": text(rng), "Ключ": text(rng)},
            "request_counts": {"total": rng.u32(..), "succeeded": rng.i32(..)},
        }),
    };
    // Members that no schema contains.
    if rng.bool() {
        data["priority"] = json!({"level": rng.i64(..), "words": [text(rng), text(rng)]});
    }
    let tree = json!({"id": id, "event_type": event_type, "timestamp": 1_775_847_600 + n, "data": data});
    let body = spell(rng, &tree).into_bytes();
    let header = Some(("Datagrid-Signature", datagrid_header(&body, n)));
    let fate = Fate::Event { topic: format!("datagrid.{event_type}"), key: id, tree };
    Delivery { source: "datagrid", header, body, fate }
}

fn datagrid_header(body: &[u8], n: u64) -> String {
    let time = 1_775_847_600 + n;
    let signed = [format!("{time}.").as_bytes(), body].concat();
    format!("t={time},v1={}", hmac(&signed))
}

/// The canonical form is signed, and any spelling is sent.
fn grapevine(rng: &mut Rng, n: u64) -> Delivery {
    let micros = n % 999 + 1 + 1000 * rng.u32(..1000) as u64;
    let mut tree = json!({
        "event": "document.changed",
        "timestamp": format!("2026-01-02T03:04:{:02}.{micros:06}Z", rng.u8(..60)),
        "tenant_id": text(rng),
        "data": {"document_id": format!("{n}/{}.md", text(rng)), "source": "github"},
    });
    if rng.u8(..4) == 0 {
        tree["data"]["size"] = rng.u64(..1 << 60).into();
    }
    let canonical = escaped(&compact(&tree));
    let key = format!("sha256:{}", hex::encode(digest(canonical.as_bytes())));
    let header = Some(("X-Grapevine-Signature", format!("sha256={}", hmac(canonical.as_bytes()))));
    let body = match rng.u8(..3) {
        0 => canonical,
        1 => escaped(&spell(rng, &tree)),
        _ => spell(rng, &tree),
    };
    let fate = Fate::Event { topic: "grapevine.document.changed".into(), key, tree };
    Delivery { source: "grapevine", header, body: body.into_bytes(), fate }
}

/// Signed by the provider, but not an event.
fn dead_letter(rng: &mut Rng, n: u64) -> Delivery {
    let (reason, body) = match rng.u8(..4) {
        0 => ("json_invalid", format!(r#"{{"id":"evt_{n}","event_type":"batch_prediction.fai"#)),
        1 => {
            ("type_unknown", format!(r#"{{"id":"evt_{n}","event_type":"batch_prediction.new","data":{{}}}}"#))
        }
        2 => ("id_missing", format!(r#"{{"event_type":"batch_prediction.failed","data":{{"n":{n}}}}}"#)),
        _ => (
            "shape_mismatch",
            format!(r#"{{"id":"evt_{n}","event_type":"batch_prediction.failed","data":[]}}"#),
        ),
    };
    let body = body.into_bytes();
    let header = Some(("Datagrid-Signature", datagrid_header(&body, n)));
    Delivery { source: "datagrid", header, body, fate: Fate::DeadLetter { reason } }
}

/// A forgery by a sender without the secret.
fn forge(rng: &mut Rng, delivery: &mut Delivery) {
    delivery.fate = Fate::Forged;
    match rng.u8(..4) {
        0 => delivery.header = None,
        1 => {
            // A genuine signature of another body.
            let at = delivery.body.iter().rposition(u8::is_ascii_digit).unwrap_or(0);
            delivery.body[at] = if delivery.body[at] == b'7' { b'8' } else { b'7' };
        }
        2 => {
            let header = delivery.header.as_mut().expect("every delivery has a signature");
            let last = header.1.pop().expect("a digit");
            header.1.push(if last == '0' { '1' } else { '0' });
        }
        _ => {
            let header = delivery.header.as_mut().expect("every delivery has a signature");
            let mac = hmac_with(&format!("{SECRET}."), &delivery.body);
            header.1 = format!("{}={mac}", if delivery.source == "datagrid" { "t=1,v1" } else { "sha256" });
        }
    }
}

/// A random text of characters that JSON can spell in several ways, and of every length in UTF-8.
fn text(rng: &mut Rng) -> String {
    const SAMPLES: [char; 14] =
        ['a', 'Z', '7', ' ', ':', ',', '"', '\\', '\n', '/', 'ü', '文', '\u{2028}', '🦀'];
    (0..rng.usize(1..24)).map(|_| SAMPLES[rng.usize(..SAMPLES.len())]).collect()
}

fn compact(tree: &Value) -> String {
    serde_json::to_string(tree).expect("JSON text")
}

/// The tree as text, with or without white space.
fn spell(rng: &mut Rng, tree: &Value) -> String {
    if rng.bool() { compact(tree) } else { serde_json::to_string_pretty(tree).expect("JSON text") }
}

/// Escapes all non-ASCII characters as `\uXXXX`.
fn escaped(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() {
            out.push(c);
        } else {
            let mut units = [0; 2];
            out.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    out
}
