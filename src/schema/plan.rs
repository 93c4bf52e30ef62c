//! A compiled schema: the tree that the walk follows. It is owned, checked once, and needs no lookups by name.

use std::borrow::Cow;

use super::annotation::{BytesForm, DecimalForm};
use super::timestamp::Unit;
use crate::config::TimeFormat;
use crate::json::JsonKind;

/// A type of the schema.
#[derive(Debug)]
pub(super) enum TypePlan {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Text,
    Uuid {
        /// Whether it is a fixed of 16 bytes; else a string.
        fixed: bool,
    },
    Time(Time),
    Bytes(BytesForm),
    Fixed {
        size: usize,
        form: BytesForm,
    },
    Decimal(DecimalPlan),
    Enum(Box<Enum>),
    Array(Box<TypePlan>),
    Map(Box<TypePlan>),
    /// Its index in [`RecordPlans`]: a name may be used more than once, and within itself.
    Record(usize),
    /// A union of null and one type, with the bytes that select the branch.
    Nullable {
        null: u8,
        value: u8,
        inner: Box<TypePlan>,
    },
    Union(Union),
}

/// The form of a time in Avro and in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Time {
    Instant(Unit, TimeFormat),
    Local(Unit),
    OfDay(Unit),
    Date,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct DecimalPlan {
    /// Total digits: 1 to 38.
    pub(super) precision: u8,
    /// Digits after the point.
    pub(super) scale: u8,
    /// The size of a fixed, in bytes; `None` for bytes.
    pub(super) size: Option<usize>,
    pub(super) form: DecimalForm,
}

#[derive(Debug)]
pub(super) struct Enum {
    pub(super) symbols: Vec<String>,
    /// The index of the symbol that replaces any other text.
    pub(super) default: Option<usize>,
}

/// Any union except that of null and one type.
#[derive(Debug)]
pub(super) struct Union {
    /// The byte that selects null.
    pub(super) null: Option<u8>,
    pub(super) branches: Vec<Branch>,
}

#[derive(Debug)]
pub(super) struct Branch {
    /// The byte that selects the branch.
    pub(super) choice: u8,
    pub(super) node: TypePlan,
}

/// The records of a schema. `None` only while the record is being compiled.
pub(super) type RecordPlans = [Option<RecordPlan>];

/// A record of the schema.
#[derive(Debug)]
pub(super) struct RecordPlan {
    pub(super) fields: Vec<FieldPlan>,
}

/// A field that is read from the body by its key.
#[derive(Debug)]
pub(super) struct FieldPlan {
    pub(super) name: Box<str>,
    /// The member's key in JSON: the field's name, unless an annotation sets another one.
    pub(super) key: Box<str>,
    pub(super) node: TypePlan,
    /// The default in Avro encoding, for a missing field that is not nullable.
    pub(super) default: Option<Box<[u8]>>,
}

impl RecordPlan {
    pub(super) fn knows(&self, key: &str) -> bool {
        self.fields.iter().any(|field| *field.key == *key)
    }
}

impl FieldPlan {
    /// Whether the field can be written if the body has no value for it.
    pub(super) const fn may_be_missing(&self) -> bool {
        self.default.is_some() || self.node.takes_null()
    }
}

impl TypePlan {
    /// The expected type, for messages. Contains nothing of a body.
    pub(super) fn expects(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Null => "null",
            Self::Boolean => "boolean",
            Self::Int => "int",
            Self::Long => "long",
            Self::Float => "float",
            Self::Double => "double",
            Self::Text => "string",
            Self::Uuid { .. } => "a UUID",
            Self::Time(time) => time.expects(),
            Self::Bytes(form) => form.expects(),
            Self::Fixed { size, form } => return format!("{size} bytes as {}", form.expects()).into(),
            Self::Decimal(decimal) => return decimal.expects().into(),
            Self::Enum(_) => "a symbol of the enum",
            Self::Array(_) => "array",
            Self::Map(_) => "map",
            Self::Record(_) => "record",
            Self::Nullable { inner, .. } => return inner.expects(),
            Self::Union(union) => {
                let all: Vec<_> = union.branches.iter().map(|branch| branch.node.expects()).collect();
                return format!("one of: {}", all.join(", ")).into();
            }
        })
    }

    /// Whether null is one of its values.
    pub(super) const fn takes_null(&self) -> bool {
        matches!(self, Self::Null | Self::Nullable { .. } | Self::Union(Union { null: Some(_), .. }))
    }

    /// Whether a value of this JSON kind can fit the type, judged by the kind alone.
    pub(super) fn takes(&self, kind: JsonKind) -> bool {
        match self {
            Self::Null => kind == JsonKind::Null,
            Self::Boolean => kind == JsonKind::Boolean,
            Self::Int | Self::Long | Self::Float | Self::Double => kind == JsonKind::Number,
            Self::Text | Self::Uuid { .. } | Self::Bytes(_) | Self::Fixed { .. } | Self::Enum(_) => {
                kind == JsonKind::String
            }
            Self::Time(time) => kind == time.kind(),
            Self::Decimal(decimal) => kind == decimal.kind(),
            Self::Array(_) => kind == JsonKind::Array,
            Self::Map(_) | Self::Record(_) => kind == JsonKind::Object,
            Self::Nullable { inner, .. } => kind == JsonKind::Null || inner.takes(kind),
            Self::Union(union) => {
                (kind == JsonKind::Null && union.null.is_some())
                    || union.branches.iter().any(|branch| branch.node.takes(kind))
            }
        }
    }
}

impl Time {
    const fn expects(self) -> &'static str {
        match self {
            Self::Instant(_, TimeFormat::Rfc3339) => "an RFC 3339 time with its offset",
            Self::Instant(_, TimeFormat::UnixSeconds) => "a number of seconds since 1970",
            Self::Instant(_, TimeFormat::UnixMilliseconds) => "a number of milliseconds since 1970",
            Self::Local(_) => "an RFC 3339 time without an offset",
            Self::OfDay(_) => "a time of day such as 03:04:05",
            Self::Date => "a date such as 2026-01-02",
        }
    }

    pub(super) const fn kind(self) -> JsonKind {
        match self {
            Self::Instant(_, TimeFormat::UnixSeconds | TimeFormat::UnixMilliseconds) => JsonKind::Number,
            _ => JsonKind::String,
        }
    }
}

impl DecimalPlan {
    fn expects(self) -> String {
        let Self { precision, scale, form, .. } = self;
        match form {
            DecimalForm::Number => format!("a decimal({precision}, {scale})"),
            DecimalForm::String => format!("a decimal({precision}, {scale}) in a string"),
        }
    }

    pub(super) const fn kind(self) -> JsonKind {
        match self.form {
            DecimalForm::Number => JsonKind::Number,
            DecimalForm::String => JsonKind::String,
        }
    }
}
