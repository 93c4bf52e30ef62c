//! The signed time: how it is written, where its text ends, and its age.

use jiff::fmt::rfc2822::{DateTimeParser, DateTimePrinter};
use jiff::{SignedDuration, Timestamp};

use super::signature_error::SignatureError;
use crate::config::{TimestampFormat, TimestampUnit};

/// A Unix time in milliseconds has thirteen digits for the next 260 years.
const MAX_DIGITS: usize = 20;

/// The longest RFC 3339 time that is read, with nine digits of a fraction and an offset.
const MAX_RFC3339: usize = 35;

/// `2026-01-02T03:04:05`, with `0` for any digit: what each RFC 3339 time begins with.
const DATE_TIME: &[u8] = b"0000-00-00T00:00:00";

/// Whether an RFC 3339 time without a zone could go on with this text: with its fraction, or the zone.
pub(super) fn may_continue(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_digit() || matches!(first, '.' | 'Z' | '+' | '-'))
}

/// How the rules say that the signed time is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TimeText {
    /// Decimal digits.
    Unix(TimestampUnit),
    /// Date, time of day, and the zone; without a zone, UTC.
    Rfc3339,
    /// As in HTTP's `Date`: `Thu, 04 Jan 2024 18:05:25 GMT` (RFC 9110, 5.6.7), of which only the preferred form is read.
    HttpDate,
}

impl Default for TimeText {
    fn default() -> Self {
        Self::Unix(TimestampUnit::default())
    }
}

impl TimeText {
    pub(super) fn new(format: TimestampFormat, unit: TimestampUnit) -> Self {
        match format {
            TimestampFormat::Unix => Self::Unix(unit),
            TimestampFormat::Rfc3339 => Self::Rfc3339,
            TimestampFormat::HttpDate => Self::HttpDate,
        }
    }

    pub(super) fn is_unix(self) -> bool {
        matches!(self, Self::Unix(_))
    }

    /// The text of `time`.
    pub(super) fn write(self, time: Timestamp) -> String {
        match self {
            Self::Unix(TimestampUnit::Seconds) => time.as_second().to_string(),
            Self::Unix(TimestampUnit::Milliseconds) => time.as_millisecond().to_string(),
            Self::Rfc3339 => time.to_string(),
            Self::HttpDate => http_date(time).unwrap_or_default(),
        }
    }

    /// `text`, if it is such a time. If it is `open`, nothing beside it shows where it ends: a Unix time has the number of
    /// digits then that it has until the year 2286, and an RFC 3339 time its zone.
    pub(super) fn check(self, text: &str, open: bool) -> Result<&str, SignatureError> {
        let is_time = match self {
            Self::Unix(_) if !text.bytes().all(|byte| byte.is_ascii_digit()) => false,
            Self::Unix(unit) if open => text.len() == digits(unit),
            Self::Unix(_) => (1..=MAX_DIGITS).contains(&text.len()),
            Self::Rfc3339 => {
                let is_whole = length(text.bytes()) == Some(text.len());
                text.len() <= MAX_RFC3339 && is_whole && !(open && zone(text).is_none())
            }
            // Its length is fixed, as it is written back.
            Self::HttpDate => read_http_date(text).is_some(),
        };
        is_time.then_some(text).ok_or(SignatureError::TimeMalformed(self.expected(open)))
    }

    fn expected(self, open: bool) -> &'static str {
        match (self, open) {
            (Self::Unix(_), false) => "a number",
            (Self::Unix(TimestampUnit::Seconds), true) => "a number of 10 digits",
            (Self::Unix(TimestampUnit::Milliseconds), true) => "a number of 13 digits",
            (Self::Rfc3339, false) => "an RFC 3339 time",
            (Self::Rfc3339, true) => "an RFC 3339 time with a zone",
            (Self::HttpDate, _) => "a date as in HTTP",
        }
    }

    /// The time from `text` to `now`; `None` if there is no time. One that does not fit in 64 bits saturates.
    pub(super) fn age(self, text: &str, now: Timestamp) -> Option<SignedDuration> {
        if text.is_empty() {
            return None;
        }
        let signed = match self {
            Self::Unix(TimestampUnit::Seconds) => SignedDuration::from_secs(text.parse().unwrap_or(i64::MAX)),
            Self::Unix(TimestampUnit::Milliseconds) => {
                SignedDuration::from_millis(text.parse().unwrap_or(i64::MAX))
            }
            // A date that does not exist, such as 30 February, is no time that could be near.
            Self::Rfc3339 => read(text).map_or(SignedDuration::MAX, Timestamp::as_duration),
            Self::HttpDate => read_http_date(text).map_or(SignedDuration::MAX, Timestamp::as_duration),
        };
        Some(now.as_duration().saturating_sub(signed))
    }
}

/// The digits of a Unix time from 2001 to 2286.
const fn digits(unit: TimestampUnit) -> usize {
    match unit {
        TimestampUnit::Seconds => 10,
        TimestampUnit::Milliseconds => 13,
    }
}

fn read(text: &str) -> Option<Timestamp> {
    match zone(text) {
        Some(_) => text.parse().ok(),
        None => format!("{text}Z").parse().ok(),
    }
}

fn http_date(time: Timestamp) -> Option<String> {
    DateTimePrinter::new().timestamp_to_rfc9110_string(&time).ok()
}

/// The time of a date that is written as HTTP does, to the letter.
fn read_http_date(text: &str) -> Option<Timestamp> {
    let time = DateTimeParser::new().parse_timestamp(text).ok()?;
    http_date(time).is_some_and(|written| written == text).then_some(time)
}

/// The first character of the zone, which a time may lack.
fn zone(text: &str) -> Option<char> {
    text.get(DATE_TIME.len()..)?.chars().find(|char| matches!(char, 'Z' | '+' | '-'))
}

/// The length of the longest RFC 3339 time that `text` begins with; `None` if it begins with none. A time without a zone is
/// one too: Orb sends it.
pub(super) fn length(text: impl Iterator<Item = u8> + Clone) -> Option<usize> {
    let matches = |rest: &mut dyn Iterator<Item = u8>, shape: &[u8]| {
        shape.iter().all(|shape| match (shape, rest.next()) {
            (b'0', Some(byte)) => byte.is_ascii_digit(),
            (shape, byte) => byte == Some(*shape),
        })
    };
    if !matches(&mut text.clone(), DATE_TIME) {
        return None;
    }
    let mut length = DATE_TIME.len();
    let rest = |length: usize| text.clone().skip(length);
    if rest(length).next() == Some(b'.') {
        let fraction = rest(length + 1).take_while(u8::is_ascii_digit).count();
        length += if fraction == 0 { 0 } else { 1 + fraction };
    }
    Some(match rest(length).next() {
        Some(b'Z') => length + 1,
        Some(b'+' | b'-') if matches(&mut rest(length + 1), b"00:00") => length + 6,
        _ => length,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIX: TimeText = TimeText::Unix(TimestampUnit::Seconds);

    /// Times as Python's `datetime.fromisoformat(...).timestamp()` reads them.
    #[test]
    fn rfc_3339_times_are_read_with_fraction_and_zone() {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        for (text, milliseconds) in [
            ("2023-11-14T22:13:20Z", 0),
            ("2023-11-14T22:13:20", 0),
            ("2023-11-14T22:13:19.5Z", 500),
            ("2023-11-14T22:13:20.125", -125),
            ("2023-11-14T22:13:20.634234626Z", -634),
            ("2023-11-15T00:13:20+02:00", 0),
            ("2023-11-14T14:13:21.000-08:00", -1000),
        ] {
            assert_eq!(TimeText::Rfc3339.check(text, false), Ok(text));
            assert_eq!(TimeText::Rfc3339.check(text, true).is_ok(), zone(text).is_some(), "{text}");
            assert_eq!(TimeText::Rfc3339.age(text, now).unwrap().as_millis(), milliseconds, "{text}");
        }
        for text in [
            "",
            "1700000000",
            "2023-11-14",
            "2023-11-14 22:13:20Z",
            "2023-11-14t22:13:20z",
            "2023-11-14T22:13:20.Z",
            "2023-11-14T22:13:20+0200",
            "2023-11-14T22:13:20ZZ",
            "2023-11-14T22:13:20Z ",
            "2023-11-14T22:13:20.0000000000000000000000000Z",
            "+002023-11-14T22:13:20Z",
        ] {
            let error = TimeText::Rfc3339.check(text, false).unwrap_err();
            assert_eq!(error, SignatureError::TimeMalformed("an RFC 3339 time"), "{text}");
        }
        let impossible = TimeText::Rfc3339.age("2023-02-30T22:13:20Z", now).unwrap();
        assert!(impossible.as_hours() < -1_000_000);
    }

    /// The first is RFC 9110's own example, 784111777 by Python's `email.utils.parsedate_to_datetime`.
    #[test]
    fn dates_of_http_are_read_in_one_form() {
        let text = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(TimeText::HttpDate.check(text, false), Ok(text));
        let now = Timestamp::from_second(784_111_777 + 60).unwrap();
        assert_eq!(TimeText::HttpDate.age(text, now), Some(SignedDuration::from_secs(60)));
        for other in [
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Mon, 06 Nov 1994 08:49:37 GMT",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 +0000",
            "sun, 06 nov 1994 08:49:37 gmt",
            " Sun, 06 Nov 1994 08:49:37 GMT",
            "784111777",
            "",
        ] {
            assert!(TimeText::HttpDate.check(other, false).is_err(), "{other}");
        }
    }

    #[test]
    fn a_unix_time_beside_another_variable_has_a_fixed_length() {
        for (text, alone, beside) in [
            ("1700000000", true, true),
            ("170000000", true, false),
            ("17000000001", true, false),
            ("1.7", false, false),
        ] {
            assert_eq!(UNIX.check(text, false).is_ok(), alone, "{text}");
            assert_eq!(UNIX.check(text, true).is_ok(), beside, "{text}");
        }
        let milliseconds = TimeText::Unix(TimestampUnit::Milliseconds);
        assert!(milliseconds.check("1700000000000", true).is_ok());
        assert!(milliseconds.check("1700000000", true).is_err());
    }

    #[test]
    fn what_is_written_is_read() {
        let now: Timestamp = "2026-01-02T03:04:05.678Z".parse().unwrap();
        let milliseconds = TimeText::Unix(TimestampUnit::Milliseconds);
        for text in [UNIX, milliseconds, TimeText::Rfc3339, TimeText::HttpDate] {
            let written = text.write(now);
            assert_eq!(text.check(&written, true), Ok(written.as_str()));
            assert!(text.age(&written, now).unwrap().as_millis() < 1000, "{written}");
        }
    }
}
