//! Random schemas with every type, each with a body that fits and one with noise: nothing panics, and the published
//! record contains everything that was sent.
//!
//!     HOOKSTREAM_PAIRS=100000 cargo test --lib pairs -- --nocapture
//!
//! HOOKSTREAM_SEED sets the seed; a failure prints the seed that reproduces it.

use apache_avro::Schema;
use apache_avro::schema::ResolvedSchema;

use super::super::tests::schema;
use super::bodies::Bodies;
use super::oracle::{Json, decoded, together};
use super::schemas::Schemas;
use crate::json::check;
use crate::outcome::Reason;

/// Below this depth, every nullable value is null.
const DEPTH: usize = 5;

/// Prints the seed if the pair panics.
struct Running(u64);

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("to run it alone: HOOKSTREAM_SEED={} HOOKSTREAM_PAIRS=2 cargo test --lib pairs", self.0);
        }
    }
}

fn body(data: Json) -> String {
    let text = |text: &str| Json::Text(text.to_owned());
    let members = [
        ("data", data),
        ("id", text("e")),
        ("event_type", text("t")),
        ("timestamp", Json::Number("0".into())),
    ];
    let mut out = String::new();
    Json::Members(members.map(|(key, value)| (key.to_owned(), value)).into()).print(&mut out);
    out
}

#[derive(Default, Debug)]
struct Tally {
    pairs: u64,
    /// Without anything in `additional_fields`.
    typed: u64,
    /// With something in `additional_fields`.
    kept: u64,
    dead_letters: u64,
}

fn pair(schema: &Schema, body: &str, must_fit: bool, tally: &mut Tally) {
    tally.pairs += 1;
    let (data, additional) = match decoded(schema, body) {
        Ok(read) => read,
        Err(fault) => {
            assert!(!must_fit, "{fault}: {body}\n{schema:?}");
            assert_eq!(fault.reason, Reason::ShapeMismatch, "{body}\n{schema:?}");
            tally.dead_letters += 1;
            return;
        }
    };
    assert!(additional.is_empty() || !must_fit, "kept {additional:?} of {body}\n{schema:?}");
    *(if additional.is_empty() { &mut tally.typed } else { &mut tally.kept }) += 1;
    let again = together(data, &additional).unwrap_or_else(|why| panic!("{why}: {body}\n{schema:?}"));
    let sent = Json::parse(check(body.as_bytes()).unwrap());
    assert!(again.same(&sent), "sent {body}\nread {again:?}\n{schema:?}");
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn pairs_of_schema_and_body_neither_panic_nor_lose_anything() {
    let (pairs, first) = (setting("HOOKSTREAM_PAIRS", 3000), setting("HOOKSTREAM_SEED", 20_261_124_000_000));
    println!("{pairs} pairs, seed {first}");
    let (mut tally, began) = (Tally::default(), std::time::Instant::now());
    for seed in first..first + pairs / 2 {
        let _running = Running(seed);
        let rng = fastrand::Rng::with_seed(seed);
        let mut made = Schemas::new(rng);
        let schema = schema(&made.fields(3));
        let Schema::Record(root) = &schema else { panic!("no record") };
        let Schema::Record(data) = &root.fields.iter().find(|field| field.name == "data").unwrap().schema
        else {
            panic!("no record")
        };
        let names = ResolvedSchema::new(&schema).unwrap();
        for noise in [false, true] {
            let mut bodies = Bodies { rng: &mut made.rng, names: names.get_names(), noise };
            let body = body(bodies.record(data, DEPTH));
            pair(&schema, &body, !noise && !made.shapes, &mut tally);
        }
    }
    println!("{tally:?} in {} s", began.elapsed().as_secs());
    // The test proves something only if all three outcomes are frequent enough.
    assert!(
        tally.typed * 3 > pairs && tally.kept * 10 > pairs && tally.dead_letters * 200 > pairs,
        "{tally:?}"
    );
}
