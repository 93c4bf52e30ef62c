//! The measured groups: a base point, and variations of one dimension each.

use crate::deliveries::Signing;

/// Contenders that are measured in turn.
pub struct Plan {
    /// The name for `--only`.
    pub name: &'static str,
    pub title: &'static str,
    /// An explanation for readers.
    pub note: &'static str,
    /// Deliveries per second; `None` for the maximum.
    pub rate: Option<u32>,
    /// Rounds, and seconds of each measurement, if the defaults do not fit.
    pub length: Option<(usize, f64)>,
    /// Whether it is measured only with `--only`.
    pub on_request: bool,
    pub variants: Vec<Variant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Reads the body and answers.
    Axum,
    /// The same, served by `axum::serve`.
    StockAxum,
    /// Publishes the body unread.
    Relay,
    /// The relay plus the minimum that the guarantee needs.
    Least,
    Hookstream,
    /// Produces at a fixed rate, without HTTP.
    Produce,
}

impl Program {
    /// Whether its topics are created before it starts, and are passed to it.
    pub fn is_given_topics(self) -> bool {
        matches!(self, Self::Relay | Self::Least | Self::Produce)
    }
}

/// One contender.
#[derive(Clone, Debug)]
pub struct Variant {
    pub name: String,
    pub program: Program,
    /// The size of the body.
    pub bytes: usize,
    pub connections: usize,
    /// Threads of the generator.
    pub threads: usize,
    /// The numbers of configured event types, and of those with traffic.
    pub types: usize,
    pub traffic: usize,
    pub signing: Signing,
    /// Properties of librdkafka that differ from the shipped ones.
    pub properties: Vec<(&'static str, &'static str)>,
    /// With a spool, and without a broker.
    pub spool: bool,
    pub against: Vec<(String, String)>,
}

impl Variant {
    /// The base point, with shipped settings.
    fn base(program: Program) -> Self {
        Self {
            name: word(program).into(),
            program,
            bytes: 1024,
            connections: 512,
            threads: 1,
            types: 1,
            traffic: 1,
            signing: Signing::Dominant(1),
            properties: Vec::new(),
            spool: false,
            against: Vec::new(),
        }
    }

    fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    fn against(mut self, column: &str, name: impl Into<String>) -> Self {
        self.against.push((column.into(), name.into()));
        self
    }
}

pub fn word(program: Program) -> &'static str {
    match program {
        Program::Axum => "axum",
        Program::StockAxum => "axum::serve",
        Program::Relay => "relay",
        Program::Least => "the least",
        Program::Hookstream => "hookstream",
        Program::Produce => "rdkafka alone",
    }
}

/// The programs at one point of a dimension, each compared with those before it.
fn point(programs: &[Program], label: &str, change: impl Fn(&mut Variant)) -> Vec<Variant> {
    let name = |program| format!("{}, {label}", word(program)).trim_end_matches(", ").to_owned();
    let variants = programs.iter().enumerate().map(|(n, program)| {
        let mut variant = Variant::base(*program).named(name(*program));
        change(&mut variant);
        programs[..n].iter().rev().fold(variant, |variant, other| variant.against(word(*other), name(*other)))
    });
    variants.collect()
}

const ALL: [Program; 3] = [Program::Axum, Program::Relay, Program::Hookstream];
const PROMISE: [Program; 3] = [Program::Relay, Program::Least, Program::Hookstream];
const BOTH: [Program; 2] = [Program::Relay, Program::Hookstream];

/// The group of starts, which is measured differently.
pub const START: &str = "start";

/// Everything, in the order of the page.
pub fn all() -> Vec<Plan> {
    let plan = |name, title, note, variants| Plan {
        name,
        title,
        note,
        rate: None,
        length: None,
        on_request: false,
        variants,
    };
    vec![
        plan(
            "base",
            "The base point",
            "1 KB, 512 connections, one event type, one secret, shipped settings.",
            point(&ALL, "", |_| ()),
        ),
        plan(
            "least",
            "What the promise costs at least",
            "The base point. The least is the relay plus the signature, one pass of serde_json over the body, the same number of record headers, a limit on the wait, an answer in JSON and the log line.",
            point(&PROMISE, "", |_| ()),
        ),
        plan(
            "yardsticks",
            "The yardsticks themselves",
            "Bare axum with a second thread of the generator, and with axum's own `serve` instead of hookstream's connection loop, which all other contenders use.",
            yardsticks(),
        ),
        plan(
            "sizes",
            "Sizes of the body",
            "The 256 KB bodies consist mostly of the customer's labels, which are a map in the schema.",
            [(200, "0.2 KB"), (1024, "1 KB"), (16 << 10, "16 KB"), (256 << 10, "256 KB")]
                .into_iter()
                .flat_map(|(bytes, label)| point(&ALL, label, |variant| variant.bytes = bytes))
                .collect(),
        ),
        plan(
            "connections",
            "Connections",
            "On each connection, the next request follows the answer to the last. With one connection, every delivery waits for the full `linger.ms`.",
            [1, 64, 512]
                .into_iter()
                .flat_map(|count| point(&ALL, &format!("{count}"), |variant| variant.connections = count))
                .collect(),
        ),
        plan(
            "types",
            "Event types",
            "Each type is a topic of 6 partitions, and librdkafka makes a batch for each partition: with 200 types, most batches have one record, for every contender. The last row has 200 types configured, and traffic on one.",
            types(),
        ),
        plan(
            "secrets",
            "Secrets",
            "Dominant: the last secret in the list signs 95 of 100 deliveries, and the others sign the rest. In turn: each delivery is signed with the next secret.",
            secrets(),
        ),
        plan(
            "linger",
            "linger.ms",
            "The shipped value is 1.",
            ["0", "1", "2", "5"]
                .into_iter()
                .flat_map(|value| {
                    point(&BOTH, value, |variant| variant.properties = vec![("linger.ms", value)])
                })
                .collect(),
        ),
        plan(
            "compression",
            "compression.type",
            "The shipped value is lz4.",
            ["none", "lz4", "zstd", "snappy", "gzip"]
                .into_iter()
                .flat_map(|value| {
                    point(&BOTH, value, |variant| variant.properties = vec![("compression.type", value)])
                })
                .collect(),
        ),
        plan(
            "spool",
            "The spool",
            "No broker answers, so each delivery is synced to disk as a row and answered 202.",
            spool(),
        ),
        Plan {
            rate: Some(1000),
            length: Some((5, 10.0)),
            ..plan(
                "latency",
                "Latency at 1,000 deliveries a second",
                "64 connections. Each time counts from when the delivery was due. rdkafka alone produces the same bodies with the same settings and the same clock; its time ends with the acknowledgement.",
                latency(),
            )
        },
        Plan {
            length: Some((5, 0.0)),
            ..plan(
                START,
                "From start to ready",
                "50 event types with a schema file each, 50 topics of 6 partitions. First: topics are created and schemas registered. Again: both exist already.",
                Vec::new(),
            )
        },
        Plan {
            rate: Some(1000),
            length: Some((30, 60.0)),
            on_request: true,
            ..plan(
                "soak",
                "Half an hour at 1,000 deliveries a second",
                "Resident memory at the end of each minute.",
                paced(Program::Hookstream),
            )
        },
    ]
}

fn yardsticks() -> Vec<Variant> {
    let two = Variant { threads: 2, ..Variant::base(Program::Axum) };
    vec![
        Variant::base(Program::Axum),
        two.named("axum, two generators").against("axum", "axum"),
        Variant::base(Program::StockAxum).against("axum", "axum"),
    ]
}

fn types() -> Vec<Variant> {
    let mut variants = point(&BOTH, "1", |_| ());
    variants.extend(point(&BOTH, "200", |variant| (variant.types, variant.traffic) = (200, 200)));
    let idle = Variant { types: 200, ..Variant::base(Program::Hookstream) };
    variants.push(idle.named("hookstream, 200, traffic of one"));
    for variant in &mut variants[2..] {
        let one = format!("{}, 1", word(variant.program));
        variant.against.push(("one type".into(), one));
    }
    variants
}

fn secrets() -> Vec<Variant> {
    let one = Variant::base(Program::Hookstream).named("1 secret");
    let more = [
        ("2, dominant", Signing::Dominant(2)),
        ("2, in turn", Signing::InTurn(2)),
        ("20, dominant", Signing::Dominant(20)),
        ("20, in turn", Signing::InTurn(20)),
    ];
    let more = more.map(|(name, signing)| {
        Variant { signing, ..Variant::base(Program::Hookstream) }.named(name).against("1 secret", "1 secret")
    });
    [one].into_iter().chain(more).collect()
}

fn spool() -> Vec<Variant> {
    let spooled = Variant { spool: true, ..Variant::base(Program::Hookstream) };
    vec![
        Variant::base(Program::Hookstream).named("direct"),
        spooled.named("spool").against("direct", "direct"),
    ]
}

fn paced(program: Program) -> Vec<Variant> {
    vec![Variant { connections: 64, ..Variant::base(program) }]
}

fn latency() -> Vec<Variant> {
    let all = [Program::Produce, Program::Relay, Program::Hookstream];
    all.into_iter().flat_map(paced).collect()
}
