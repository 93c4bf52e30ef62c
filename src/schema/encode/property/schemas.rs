//! Random schemas.

use super::oracle::WITH_DEFAULT;

/// Generates schemas as JSON.
pub(super) struct Schemas {
    pub(super) rng: fastrand::Rng,
    names: usize,
    /// Records being generated: a nested field may be a nullable one of these.
    open: Vec<String>,
    /// The contents of the field being generated.
    holds: Holds,
    /// Whether an object may match another branch than the generator intended.
    pub(super) shapes: bool,
}

#[derive(Default)]
struct Holds {
    time: bool,
    bytes: bool,
    decimal: bool,
}

impl Schemas {
    pub(super) fn new(rng: fastrand::Rng) -> Self {
        Self { rng, names: 0, open: Vec::new(), holds: Holds::default(), shapes: false }
    }

    fn name(&mut self, first: &str) -> String {
        self.names += 1;
        format!("{first}{}", self.names)
    }

    /// Fields of a record, with records down to `depth`.
    pub(super) fn fields(&mut self, depth: usize) -> String {
        let count = self.rng.usize(0..4);
        (0..count).map(|_| self.field(depth)).collect::<Vec<_>>().join(",")
    }

    fn field(&mut self, depth: usize) -> String {
        let name = self.name("f");
        if self.rng.u8(0..8) == 0 {
            let enumeration = self.name("E");
            let types = [
                (r#""string""#.to_owned(), r#""x""#),
                (r#""long""#.to_owned(), "-3"),
                (r#"{"type":"map","values":"double"}"#.to_owned(), r#"{"a":0.5}"#),
                (r#"["int","null"]"#.to_owned(), "7"),
                (format!(r#"{{"type":"enum","name":"{enumeration}","symbols":["A","B"]}}"#), r#""B""#),
            ];
            let (kind, default) = self.rng.choice(types).unwrap();
            return format!(r#"{{"name":"{name}{WITH_DEFAULT}","type":{kind},"default":{default}}}"#);
        }
        let outer = std::mem::take(&mut self.holds);
        let kind = self.kind(depth, true);
        let holds = std::mem::replace(&mut self.holds, outer);
        let mut field = format!(r#"{{"name":"{name}","type":{kind}"#);
        let mut annotate = |name: &str, values: &[&str]| {
            let value = self.rng.choice(values).unwrap();
            field.push_str(&format!(r#","hookstream.{name}":"{value}""#));
        };
        if holds.time {
            annotate("time", &["rfc3339", "unix_seconds", "unix_milliseconds"]);
        }
        if holds.bytes {
            annotate("bytes", &["base64", "base64url", "hex"]);
        }
        if holds.decimal {
            annotate("decimal", &["number", "string"]);
        }
        if self.rng.u8(0..6) == 0 {
            field.push_str(&format!(r#","hookstream.json":"{name}-/~ü""#));
        }
        field + "}"
    }

    fn kind(&mut self, depth: usize, union: bool) -> String {
        let kinds: u8 = if depth == 0 { 12 } else { 17 };
        match self.rng.u8(0..kinds) {
            0..=3 if union => {
                let kind = self.kind(depth, false);
                if kind == r#""null""# { kind } else { format!(r#"["null",{kind}]"#) }
            }
            0..=1 => format!(
                "\"{}\"",
                self.rng.choice(["boolean", "int", "long", "float", "double", "null"]).unwrap()
            ),
            2..=3 => r#""string""#.to_owned(),
            4..=9 => self.logical(),
            10 | 11 if union => self.union(depth),
            12 | 10 => format!(r#"{{"type":"array","items":{}}}"#, self.kind(depth.saturating_sub(1), true)),
            13 | 11 => format!(r#"{{"type":"map","values":{}}}"#, self.kind(depth.saturating_sub(1), true)),
            14 if union && !self.open.is_empty() => {
                format!(r#"["null","{}"]"#, self.rng.choice(&self.open).unwrap())
            }
            _ => self.record(depth.saturating_sub(1)),
        }
    }

    fn record(&mut self, depth: usize) -> String {
        let name = self.name("R");
        self.open.push(name.clone());
        let outer = std::mem::take(&mut self.holds);
        let fields = self.fields(depth);
        self.holds = outer;
        self.open.pop();
        format!(r#"{{"type":"record","name":"{name}","fields":[{fields}]}}"#)
    }

    fn logical(&mut self) -> String {
        let name = self.name("N");
        let (base, logical) = match self.rng.u8(0..15) {
            0..=3 => {
                self.holds.time = true;
                (
                    "long",
                    self.rng.choice(["timestamp-millis", "timestamp-micros", "timestamp-nanos"]).unwrap(),
                )
            }
            4 => (
                "long",
                self.rng.choice(["local-timestamp-millis", "local-timestamp-micros", "time-micros"]).unwrap(),
            ),
            5 => ("int", self.rng.choice(["date", "time-millis"]).unwrap()),
            6 => ("string", "uuid"),
            7 => return format!(r#"{{"type":"fixed","name":"{name}","size":16,"logicalType":"uuid"}}"#),
            8 => return self.bytes(),
            9 => {
                self.holds.bytes = true;
                return format!(r#"{{"type":"fixed","name":"{name}","size":{}}}"#, self.rng.u8(0..5));
            }
            10..=12 => return self.decimal(&name),
            _ => {
                let default = if self.rng.bool() { r#","default":"OTHER""# } else { "" };
                return format!(r#"{{"type":"enum","name":"{name}","symbols":["A","OTHER"]{default}}}"#);
            }
        };
        format!(r#"{{"type":"{base}","logicalType":"{logical}"}}"#)
    }

    fn bytes(&mut self) -> String {
        self.holds.bytes = true;
        r#""bytes""#.to_owned()
    }

    fn decimal(&mut self, name: &str) -> String {
        self.holds.decimal = true;
        let precision = self.rng.usize(1..=38);
        let scale = self.rng.usize(0..=precision);
        let base = match self.rng.bool() {
            true => r#""bytes""#.to_owned(),
            false => format!(r#""fixed","name":"{name}","size":{}"#, self.rng.usize(16..20)),
        };
        format!(r#"{{"type":{base},"logicalType":"decimal","precision":{precision},"scale":{scale}}}"#)
    }

    /// A union has at most one of each unnamed type, and any number of named ones.
    fn union(&mut self, depth: usize) -> String {
        let mut types = vec![r#""string""#.to_owned(), r#""boolean""#.to_owned()];
        for kind in [["int", "long"], ["float", "double"]] {
            types.push(format!("\"{}\"", self.rng.choice(kind).unwrap()));
        }
        if self.rng.bool() {
            types.push(r#""null""#.to_owned());
        }
        let outer = std::mem::take(&mut self.holds);
        let list = format!(r#"{{"type":"array","items":{}}}"#, self.kind(depth.saturating_sub(1), true));
        if !self.holds.time && !self.holds.bytes && !self.holds.decimal {
            types.push(list);
        }
        self.holds = outer;
        let name = self.name("N");
        types.push(format!(r#"{{"type":"enum","name":"{name}","symbols":["A","B"]}}"#));
        let objects = self.rng.usize(0..3);
        for _ in 0..objects {
            types.push(self.record(depth.saturating_sub(1)));
        }
        if self.rng.u8(0..4) == 0 {
            types.push(r#"{"type":"map","values":["null","long"]}"#.to_owned());
        }
        self.rng.shuffle(&mut types);
        types.truncate(self.rng.usize(1..=types.len()));
        let objects =
            types.iter().filter(|kind| kind.contains("\"record\"") || kind.contains("\"map\"")).count();
        self.shapes |= objects > 1;
        format!("[{}]", types.join(","))
    }
}
