//! Parses `-o`, the position at which reading starts.

use jiff::Timestamp;

use crate::kafka::Start;

/// Numbers below are seconds since 1970 (up to the year 5138), others are milliseconds (from 1973).
const SECONDS: i64 = 100_000_000_000;

/// Parses `start`, `end`, `-N` and `@TIME`.
pub(super) fn parse(text: &str, now: Timestamp) -> Result<Start, String> {
    match text {
        "start" => return Ok(Start::Beginning),
        "end" => return Ok(Start::End),
        _ => {}
    }
    if let Some(time) = text.strip_prefix('@') {
        return self::time(time, now).map(Start::Time);
    }
    let count = text.strip_prefix('-').and_then(|count| count.parse().ok()).filter(|count| *count > 0);
    count.map(Start::Last).ok_or_else(|| {
        "expected `start`, `end`, `-N` (the last N records of each partition) or `@TIME`".to_owned()
    })
}

/// Parses an RFC 3339 time, a duration before `now`, or a number of seconds or milliseconds since 1970.
pub(in crate::cli) fn time(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let read = || {
        if let Some(ago) = text.strip_prefix('-') {
            let ago = jiff::SignedDuration::try_from(humantime::parse_duration(ago).ok()?).ok()?;
            return now.checked_sub(ago).ok();
        }
        match text.parse::<i64>() {
            Ok(seconds) if seconds < SECONDS => Timestamp::from_second(seconds).ok(),
            Ok(milliseconds) => Timestamp::from_millisecond(milliseconds).ok(),
            Err(_) => text.parse().ok(),
        }
    };
    // Negative timestamps mean the start and the end in Kafka's protocol.
    read().filter(|time| time.as_millisecond() >= 0).ok_or_else(|| {
        "expected a time such as `@-10m`, `@2026-11-22T02:00:00Z` (with a time zone) or `@1795312800`"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Start, String> {
        super::parse(text, "2026-11-22T03:00:00Z".parse().unwrap())
    }

    #[test]
    fn each_form_is_parsed() {
        assert_eq!(parse("start"), Ok(Start::Beginning));
        assert_eq!(parse("end"), Ok(Start::End));
        assert_eq!(parse("-1"), Ok(Start::Last(1)));
        assert_eq!(parse("-20"), Ok(Start::Last(20)));
        let two = Start::Time("2026-11-22T02:00:00Z".parse().unwrap());
        for same in [
            "@2026-11-22T02:00:00Z",
            "@2026-11-22T03:00+01:00",
            "@-1h",
            "@-60m",
            "@1795312800",
            "@1795312800000",
        ] {
            assert_eq!(parse(same), Ok(two), "{same}");
        }
        assert_eq!(parse("@0"), Ok(Start::Time(Timestamp::UNIX_EPOCH)));
    }

    #[test]
    fn the_error_about_other_text_lists_the_forms() {
        for bad in ["", "-", "-0", "--1", "5", "+5", "-1.5", "-5000000000", "latest", "Start", "start "] {
            assert!(parse(bad).unwrap_err().contains("-N"), "{bad}");
        }
        for bad in
            ["@", "@-", "@yesterday", "@2026-11-22", "@2026-11-22T02:00:00", "@-10", "@-900000y", "@-90y"]
        {
            assert!(parse(bad).unwrap_err().contains("@-10m"), "{bad}");
        }
    }
}
