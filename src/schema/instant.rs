//! A provider's time text as the milliseconds that the schema's type holds.

use jiff::civil::DateTime;
use jiff::tz::Offset;

/// A time read from text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instant {
    /// Since the Unix epoch, rounded down.
    pub(super) milliseconds: i64,
    /// Whether the milliseconds say all that the text does.
    pub(super) exact: bool,
}

/// Reads RFC 3339 with its offset (`2026-01-02T03:04:05.678901Z`). Narrower than jiff's parser,
/// which takes more forms: a form that a consumer would not expect stays as it was sent, in
/// `additional_fields`. A leap second is the second before it, and not exact.
pub(super) fn parse(text: &str) -> Option<Instant> {
    let bytes = text.as_bytes();
    let (head, mut rest) = bytes.split_at_checked(19)?;
    let [
        y1,
        y2,
        y3,
        y4,
        b'-',
        mo1,
        mo2,
        b'-',
        d1,
        d2,
        b'T' | b't' | b' ',
        h1,
        h2,
        b':',
        mi1,
        mi2,
        b':',
        s1,
        s2,
    ] = head
    else {
        return None;
    };
    let mut exact = true;
    let mut fraction = 0;
    if let [b'.', tail @ ..] = rest {
        let digits = tail.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (written, after) = tail.split_at_checked(digits)?;
        if written.is_empty() {
            return None;
        }
        for at in 0..3 {
            fraction = fraction * 10 + written.get(at).map_or(0, |digit| i64::from(digit - b'0'));
        }
        exact = written.iter().skip(3).all(|digit| *digit == b'0');
        rest = after;
    }
    let offset = match rest {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (two(*h1, *h2)?, two(*m1, *m2)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let seconds = i32::from(hours) * 3600 + i32::from(minutes) * 60;
            if *sign == b'-' { -seconds } else { seconds }
        }
        _ => return None,
    };
    let year = i16::from(two(*y1, *y2)?) * 100 + i16::from(two(*y3, *y4)?);
    let mut second = two(*s1, *s2)?;
    if second == 60 {
        (second, exact) = (59, false);
    }
    let civil =
        DateTime::new(year, two(*mo1, *mo2)?, two(*d1, *d2)?, two(*h1, *h2)?, two(*mi1, *mi2)?, second, 0)
            .ok()?;
    let instant = Offset::from_seconds(offset).ok()?.to_timestamp(civil).ok()?;
    Some(Instant { milliseconds: instant.as_second() * 1000 + fraction, exact })
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
        parse(text).map(|instant| (instant.milliseconds, instant.exact))
    }

    #[test]
    fn rfc_3339_is_read_by_instant() {
        assert_eq!(at("2026-01-02T03:04:05.678Z"), Some((1_767_323_045_678, true)));
        assert_eq!(at("2026-01-02T05:04:05.678000+02:00"), Some((1_767_323_045_678, true)));
        assert_eq!(at("2026-01-02 03:04:05.6Z"), Some((1_767_323_045_600, true)));
        assert_eq!(at("1970-01-01t00:00:00z"), Some((0, true)));
        assert_eq!(at("1970-01-01T00:00:00-00:30"), Some((1_800_000, true)));
    }

    #[test]
    fn what_is_finer_than_a_millisecond_is_rounded_down_and_said() {
        assert_eq!(at("2026-01-02T03:04:05.678901Z"), Some((1_767_323_045_678, false)));
        assert_eq!(at("1969-12-31T23:59:59.9999Z"), Some((-1, false)));
        assert_eq!(at(&format!("1970-01-01T00:00:00.{}1Z", "0".repeat(40))), Some((0, false)));
        assert_eq!(at("2016-12-31T23:59:60Z"), Some((1_483_228_799_000, false)));
    }

    #[test]
    fn other_forms_are_no_time() {
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
}
