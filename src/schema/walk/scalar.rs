//! Values that contain no other values.

use serde_json::value::RawValue;

use super::{EventEncoder, WalkError, misfit};
use crate::config::TimeFormat;
use crate::json::{self, JsonKind};
use crate::schema::annotation::DecimalForm;
use crate::schema::places::ValuePath;
use crate::schema::plan::{DecimalPlan, Time, TypePlan};
use crate::schema::{number, timestamp};

const TOO_LARGE: &str = "a number out of range";
const OTHER_TEXT: &str = "another string";

impl<'d> EventEncoder<'_, 'd> {
    /// Writes a value. Returns whether the written value represents exactly what was sent.
    pub(super) fn scalar(
        &mut self,
        node: &TypePlan,
        raw: &'d RawValue,
        at: &ValuePath<'_>,
    ) -> Result<bool, WalkError> {
        let kind = JsonKind::of(raw);
        if !node.takes(kind) {
            return Err(misfit(at, node, kind.name()));
        }
        match (node, kind) {
            (TypePlan::Boolean, _) => self.out.push(u8::from(raw.get() == "true")),
            (TypePlan::Time(time), JsonKind::Number) => return self.unix(node, *time, raw.get(), at),
            (TypePlan::Decimal(decimal), JsonKind::Number) => self.decimal(node, decimal, raw.get(), at)?,
            (_, JsonKind::Number) => return self.number(node, raw.get(), at),
            (_, JsonKind::String) => {
                let text = json::string(raw).ok_or_else(|| misfit(at, node, "half a surrogate pair"))?;
                return self.string(node, &text, at);
            }
            // Null, which has no bytes. Types with inner values are handled by the caller.
            _ => {}
        }
        Ok(true)
    }

    fn number(&mut self, node: &TypePlan, text: &str, at: &ValuePath<'_>) -> Result<bool, WalkError> {
        match node {
            TypePlan::Float => {
                let (value, exact) = number::float(text).ok_or_else(|| misfit(at, node, TOO_LARGE))?;
                self.out.extend_from_slice(&value.to_le_bytes());
                Ok(exact)
            }
            TypePlan::Double => {
                let (value, exact) = number::double(text).ok_or_else(|| misfit(at, node, TOO_LARGE))?;
                self.out.extend_from_slice(&value.to_le_bytes());
                Ok(exact)
            }
            node => {
                let value = number::integer(text)
                    .filter(|value| matches!(node, TypePlan::Long) || i32::try_from(*value).is_ok())
                    .ok_or_else(|| misfit(at, node, "a number with a fraction or out of range"))?;
                self.long(value);
                Ok(true)
            }
        }
    }

    fn unix(
        &mut self,
        node: &TypePlan,
        time: Time,
        text: &str,
        at: &ValuePath<'_>,
    ) -> Result<bool, WalkError> {
        let ticks = match time {
            Time::Instant(unit, format) => {
                timestamp::unix(text, format == TimeFormat::UnixMilliseconds, unit)
            }
            _ => None,
        };
        let ticks = ticks.ok_or_else(|| misfit(at, node, "a number outside the years 0000 to 9999"))?;
        self.long(ticks.value);
        Ok(ticks.exact)
    }

    /// Never rounds: a schema uses decimal in order to retain all digits.
    fn decimal(
        &mut self,
        node: &TypePlan,
        decimal: &DecimalPlan,
        text: &str,
        at: &ValuePath<'_>,
    ) -> Result<(), WalkError> {
        let value = number::unscaled(text, decimal.scale)
            .filter(|value| value.unsigned_abs() < 10_u128.pow(decimal.precision.into()))
            .ok_or_else(|| misfit(at, node, "a number with more digits"))?;
        let bytes = value.to_be_bytes();
        match decimal.size {
            // As few bytes as the sign allows, as other Avro writers do.
            None => {
                let sign = if value < 0 { 0xff } else { 0 };
                let spare = bytes.windows(2).take_while(
                    |pair| matches!(pair, [first, next] if *first == sign && (next ^ sign) & 0x80 == 0),
                );
                self.bytes(bytes.get(spare.count()..).unwrap_or_default());
            }
            Some(size) => {
                let padding = size.saturating_sub(bytes.len());
                self.out.extend(std::iter::repeat_n(if value < 0 { 0xff } else { 0 }, padding));
                self.out.extend_from_slice(bytes.get(bytes.len().saturating_sub(size)..).unwrap_or_default());
            }
        }
        Ok(())
    }

    fn string(&mut self, node: &TypePlan, text: &str, at: &ValuePath<'_>) -> Result<bool, WalkError> {
        let other = || misfit(at, node, OTHER_TEXT);
        match node {
            TypePlan::Text => self.text(text),
            TypePlan::Time(time) => {
                let ticks = match time {
                    Time::Instant(unit, _) => timestamp::rfc3339(text, *unit),
                    Time::Local(unit) => timestamp::local(text, *unit),
                    Time::OfDay(unit) => timestamp::of_day(text, *unit),
                    Time::Date => timestamp::date(text),
                };
                let ticks = ticks.ok_or_else(other)?;
                self.long(ticks.value);
                return Ok(ticks.exact);
            }
            TypePlan::Uuid { fixed } => {
                let bytes = uuid(text).ok_or_else(other)?;
                if *fixed {
                    self.out.extend_from_slice(&bytes);
                } else {
                    self.text(text);
                }
                // Readers return it in lower case.
                return Ok(!text.bytes().any(|byte| byte.is_ascii_uppercase()));
            }
            TypePlan::Bytes(form) => self.bytes(&form.read(text).ok_or_else(other)?),
            TypePlan::Fixed { size, form } => {
                let bytes = form.read(text).filter(|bytes| bytes.len() == *size);
                self.out.extend_from_slice(&bytes.ok_or_else(other)?);
            }
            TypePlan::Enum(schema) => {
                let known = schema.symbols.iter().position(|symbol| symbol == text);
                self.index(known.or(schema.default).ok_or_else(other)?);
                return Ok(known.is_some());
            }
            TypePlan::Decimal(decimal) if decimal.form == DecimalForm::String => {
                let number = json::check(text.as_bytes()).ok();
                let number = number
                    .filter(|raw| JsonKind::of(raw) == JsonKind::Number && raw.get().len() == text.len());
                self.decimal(node, decimal, number.ok_or_else(other)?.get(), at)?;
            }
            _ => return Err(other()),
        }
        Ok(true)
    }
}

/// `f81d4fae-7dec-11d0-a765-00a0c91e6bf6`, in either case: no braces, no `urn:uuid:`.
fn uuid(text: &str) -> Option<[u8; 16]> {
    uuid::Uuid::try_parse(text).ok().filter(|_| text.len() == 36).map(uuid::Uuid::into_bytes)
}
