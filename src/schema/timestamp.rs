//! Converts a provider's times to the integers of Avro's types.

use jiff::civil::{self, Date, DateTime};

use super::number;

/// 0000-01-01T00:00:00Z to 9999-12-31T23:59:59Z in seconds: the range of RFC 3339. A number outside it is most likely
/// in another unit.
const SECONDS: std::ops::RangeInclusive<i64> = -62_167_219_200..=253_402_300_799;

/// The resolution of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Milli,
    Micro,
    Nano,
}

impl Unit {
    const fn digits(self) -> u8 {
        match self {
            Self::Milli => 3,
            Self::Micro => 6,
            Self::Nano => 9,
        }
    }

    pub(super) const fn per_second(self) -> i64 {
        match self {
            Self::Milli => 1_000,
            Self::Micro => 1_000_000,
            Self::Nano => 1_000_000_000,
        }
    }
}

/// A time as the integer of an Avro type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AvroTime {
    /// Units since the Unix epoch or since midnight, rounded down.
    pub(super) value: i64,
    /// Whether the value represents exactly what was sent.
    pub(super) exact: bool,
}

/// Parses RFC 3339 with an offset (`2026-01-02T03:04:05.678901Z`). It is stricter than jiff's parser, which accepts
/// more forms: a form that a consumer would not expect stays unchanged in `additional_fields`. A leap second becomes
/// the second before it, and is not exact.
pub(super) fn rfc3339(text: &str, unit: Unit) -> Option<AvroTime> {
    let (civil, rest) = date_time(text, unit)?;
    let offset = match rest {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (two(*h1, *h2)?, two(*m1, *m2)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let seconds = i64::from(hours) * 3600 + i64::from(minutes) * 60;
            if *sign == b'-' { -seconds } else { seconds }
        }
        _ => return None,
    };
    civil.at(offset, unit)
}

/// Parses RFC 3339 without an offset: `2026-01-02T03:04:05.678901`.
pub(super) fn local(text: &str, unit: Unit) -> Option<AvroTime> {
    let (civil, rest) = date_time(text, unit)?;
    if rest.is_empty() { civil.at(0, unit) } else { None }
}

/// Parses a number of seconds, or of milliseconds, since the Unix epoch.
pub(super) fn unix(number: &str, milliseconds: bool, unit: Unit) -> Option<AvroTime> {
    let power = unit.digits() - if milliseconds { 3 } else { 0 };
    let (value, exact) = number::rounded_down(number, power)?;
    SECONDS.contains(&value.div_euclid(unit.per_second())).then_some(AvroTime { value, exact })
}

/// Parses `2026-01-02` as days since the Unix epoch.
pub(super) fn date(text: &str) -> Option<AvroTime> {
    let date = civil_date(text.as_bytes())?;
    Some(AvroTime { value: since_epoch(date.to_datetime(civil::Time::midnight())) / 86_400, exact: true })
}

/// Parses `03:04:05.678901` as units since midnight. Without a date, a leap second is invalid.
pub(super) fn of_day(text: &str, unit: Unit) -> Option<AvroTime> {
    let (clock, rest) = clock(text.as_bytes(), unit)?;
    if !rest.is_empty() || clock.second == 60 {
        return None;
    }
    let seconds = (i64::from(clock.hour) * 60 + i64::from(clock.minute)) * 60 + i64::from(clock.second);
    Some(AvroTime { value: seconds * unit.per_second() + clock.fraction, exact: clock.exact })
}

/// A date and a time of day, without an offset.
struct Local {
    date: Date,
    clock: Clock,
}

struct Clock {
    hour: i8,
    minute: i8,
    /// 60 for a leap second.
    second: i8,
    /// In units, rounded down.
    fraction: i64,
    exact: bool,
}

impl Local {
    /// `offset` is in seconds.
    fn at(&self, offset: i64, unit: Unit) -> Option<AvroTime> {
        let Clock { hour, minute, second, fraction, exact } = self.clock;
        let time = civil::Time::new(hour, minute, second.min(59), 0).ok()?;
        let second_of_epoch = since_epoch(self.date.to_datetime(time)) - offset;
        if !SECONDS.contains(&second_of_epoch) {
            return None;
        }
        let value = second_of_epoch.checked_mul(unit.per_second())?.checked_add(fraction)?;
        Some(AvroTime { value, exact: exact && second < 60 })
    }
}

/// Seconds since the Unix epoch. jiff's timestamps are not used: they end a day before 9999-12-31T23:59:59Z, which many
/// providers send for "never".
fn since_epoch(civil: DateTime) -> i64 {
    civil.duration_since(DateTime::constant(1970, 1, 1, 0, 0, 0, 0)).as_secs()
}

/// Date and time, and the rest of the text.
fn date_time(text: &str, unit: Unit) -> Option<(Local, &[u8])> {
    let (day, rest) = text.as_bytes().split_at_checked(10)?;
    let [b'T' | b't' | b' ', rest @ ..] = rest else { return None };
    let (clock, rest) = clock(rest, unit)?;
    Some((Local { date: civil_date(day)?, clock }, rest))
}

fn civil_date(text: &[u8]) -> Option<Date> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = text else { return None };
    let year = i16::from(two(*y1, *y2)?) * 100 + i16::from(two(*y3, *y4)?);
    Date::new(year, two(*m1, *m2)?, two(*d1, *d2)?).ok()
}

fn clock(text: &[u8], unit: Unit) -> Option<(Clock, &[u8])> {
    let [h1, h2, b':', m1, m2, b':', s1, s2, rest @ ..] = text else { return None };
    let (hour, minute, second) = (two(*h1, *h2)?, two(*m1, *m2)?, two(*s1, *s2)?);
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut clock = Clock { hour, minute, second, fraction: 0, exact: true };
    let [b'.', tail @ ..] = rest else { return Some((clock, rest)) };
    let (written, rest) =
        tail.split_at_checked(tail.iter().take_while(|byte| byte.is_ascii_digit()).count())?;
    if written.is_empty() {
        return None;
    }
    let digits = usize::from(unit.digits());
    for at in 0..digits {
        clock.fraction = clock.fraction * 10 + written.get(at).map_or(0, |digit| i64::from(digit - b'0'));
    }
    clock.exact = written.iter().skip(digits).all(|digit| *digit == b'0');
    Some((clock, rest))
}

/// Two digits as a number.
fn two(tens: u8, ones: u8) -> Option<i8> {
    if !tens.is_ascii_digit() || !ones.is_ascii_digit() {
        return None;
    }
    i8::try_from((tens - b'0') * 10 + (ones - b'0')).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Option<(i64, bool)> {
        rfc3339(text, Unit::Milli).map(|ticks| (ticks.value, ticks.exact))
    }

    #[test]
    fn rfc_3339_is_parsed_as_an_instant() {
        assert_eq!(at("2026-01-02T03:04:05.678Z"), Some((1_767_323_045_678, true)));
        assert_eq!(at("2026-01-02T05:04:05.678000+02:00"), Some((1_767_323_045_678, true)));
        assert_eq!(at("2026-01-02 03:04:05.6Z"), Some((1_767_323_045_600, true)));
        assert_eq!(at("1970-01-01t00:00:00z"), Some((0, true)));
        assert_eq!(at("1970-01-01T00:00:00-00:30"), Some((1_800_000, true)));
        assert_eq!(at("9999-12-31T23:59:59.999Z"), Some((253_402_300_799_999, true)));
        assert_eq!(at("9999-12-31T23:59:59-00:01"), None);
        assert_eq!(at("0000-01-01T00:00:00Z"), Some((-62_167_219_200_000, true)));
    }

    #[test]
    fn a_time_finer_than_a_millisecond_is_rounded_down_and_not_exact() {
        assert_eq!(at("2026-01-02T03:04:05.678901Z"), Some((1_767_323_045_678, false)));
        assert_eq!(at("1969-12-31T23:59:59.9999Z"), Some((-1, false)));
        assert_eq!(at(&format!("1970-01-01T00:00:00.{}1Z", "0".repeat(40))), Some((0, false)));
        assert_eq!(at("2016-12-31T23:59:60Z"), Some((1_483_228_799_000, false)));
    }

    #[test]
    fn other_forms_are_rejected() {
        for text in [
            "",
            "2026-01-02",
            "2026-01-02T03:04:05",
            "2026-01-02T03:04Z",
            "2026-02-30T00:00:00Z",
            "2026-01-02T25:00:00Z",
            "2026-01-02T03:04:05.Z",
            "2026-01-02T03:04:05+0200",
            "2026-01-02T03:04:05+24:00",
            "2026-01-02T03:04:05Z[UTC]",
            "1767323045",
            "２026-01-02T03:04:05Z",
        ] {
            assert_eq!(at(text), None, "{text}");
        }
    }

    #[test]
    fn each_unit_has_its_digits() {
        let text = "2026-01-02T03:04:05.678901234Z";
        assert_eq!(rfc3339(text, Unit::Micro), Some(AvroTime { value: 1_767_323_045_678_901, exact: false }));
        assert_eq!(
            rfc3339(text, Unit::Nano),
            Some(AvroTime { value: 1_767_323_045_678_901_234, exact: true })
        );
        assert_eq!(rfc3339("3000-01-01T00:00:00Z", Unit::Nano), None, "exceeds an i64");
        let local = |text| local(text, Unit::Milli).map(|ticks| ticks.value);
        assert_eq!(local("2026-01-02T03:04:05.678"), Some(1_767_323_045_678));
        assert_eq!(local("2026-01-02T03:04:05Z"), None);
    }

    #[test]
    fn unix_times_are_bounded_by_the_years_of_four_digits() {
        let at =
            |number, milliseconds| unix(number, milliseconds, Unit::Milli).map(|at| (at.value, at.exact));
        assert_eq!(at("1775847600", false), Some((1_775_847_600_000, true)));
        assert_eq!(at("1775847600.0005", false), Some((1_775_847_600_000, false)));
        assert_eq!(at("1775847600123.0", true), Some((1_775_847_600_123, true)));
        assert_eq!(at("-0.5", true), Some((-1, false)));
        assert_eq!(at("253402300799", false), Some((253_402_300_799_000, true)));
        assert_eq!(at("253402300800", false), None);
        assert_eq!(at("1775847600000", false), None, "milliseconds instead of seconds");
        assert_eq!(at("1e400", false), None);
    }

    #[test]
    fn dates_and_times_of_day() {
        for (text, days) in [
            ("1970-01-01", 0),
            ("1969-12-31", -1),
            ("2026-02-28", 20_512),
            ("0000-01-01", -719_528),
            ("9999-12-31", 2_932_896),
        ] {
            assert_eq!(date(text), Some(AvroTime { value: days, exact: true }), "{text}");
        }
        for text in ["2026-02-29", "2026-1-01", "2026-01-01T00:00:00Z", "20260101", "+2026-01-01"] {
            assert_eq!(date(text), None, "{text}");
        }
        assert_eq!(of_day("23:59:59.9999", Unit::Milli), Some(AvroTime { value: 86_399_999, exact: false }));
        assert_eq!(of_day("00:00:01", Unit::Micro), Some(AvroTime { value: 1_000_000, exact: true }));
        for text in ["24:00:00", "23:59:60", "12:00", "12:00:00Z", "12:00:00."] {
            assert_eq!(of_day(text, Unit::Milli), None, "{text}");
        }
    }
}
