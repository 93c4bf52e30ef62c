//! Numbers as decimal text. Nothing is converted to a float unless the schema's type is one: 2^53 + 1 and 0.1 keep the
//! value that the sender wrote.

use std::io::Write as _;

/// Limit on a written exponent. It is far above any digit count that a body can contain, so that clamping never turns a
/// value into one that fits a type.
const EXPONENT_BOUND: i64 = 1_000_000_000_000_000;

/// Digits that always fit an i128. It is also the widest decimal of most readers.
pub(super) const MAX_DIGITS: i64 = 38;

/// The value of a JSON number: `digits * 10^exponent` without leading or trailing zeros. It is a slice of the text:
/// parsing and comparing allocate nothing, whatever the exponent is.
#[derive(Clone, Copy)]
struct Decimal<'t> {
    negative: bool,
    /// The text from the first to the last digit that is not zero, possibly with a point in it. Empty for zero.
    digits: &'t str,
    exponent: i64,
}

impl<'t> Decimal<'t> {
    /// `text` is a JSON number.
    fn parse(text: &'t str) -> Self {
        let (negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, written) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let fraction = mantissa.split_once('.').map_or(0, |(_, fraction)| fraction.len());
        let significant = mantissa.trim_start_matches(['0', '.']);
        if significant.is_empty() {
            return Self { negative: false, digits: "", exponent: 0 };
        }
        // With a point, the trimmed text includes the zeros before it ("100.0").
        let digits = significant.trim_end_matches(['0', '.']);
        let cut = significant.get(digits.len()..).map_or(0, count_digits);
        let exponent = exponent(written) - signed(fraction) + signed(cut);
        Self { negative, digits, exponent }
    }

    fn each(self) -> impl Iterator<Item = u8> + 't {
        self.digits.bytes().filter(|byte| *byte != b'.')
    }

    fn equals(self, other: Decimal<'_>) -> bool {
        self.negative == other.negative && self.exponent == other.exponent && self.each().eq(other.each())
    }

    /// The value times `10^power`, rounded down, and whether it is exact. `None` from 10^38 on.
    fn scaled(self, power: i64) -> Option<(i128, bool)> {
        if self.digits.is_empty() {
            return Some((0, true));
        }
        let exponent = self.exponent + power;
        let integer_digits = signed(count_digits(self.digits)) + exponent;
        if integer_digits > MAX_DIGITS {
            return None;
        }
        // The remaining digits end in one that is not zero, so the value is not exact.
        let taken = usize::try_from(integer_digits).unwrap_or(0);
        let value = self.each().take(taken).fold(0_i128, |sum, digit| sum * 10 + i128::from(digit - b'0'));
        let Ok(zeros) = u32::try_from(exponent) else {
            return Some((if self.negative { -value - 1 } else { value }, false));
        };
        let value = value * 10_i128.pow(zeros);
        Some((if self.negative { -value } else { value }, true))
    }
}

fn count_digits(text: &str) -> usize {
    text.len() - usize::from(text.as_bytes().contains(&b'.'))
}

fn signed(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX).min(EXPONENT_BOUND)
}

fn exponent(written: &str) -> i64 {
    let (negative, digits) = match written.as_bytes() {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        all => (false, all),
    };
    let size = digits
        .iter()
        .fold(0_i64, |sum, digit| (sum * 10 + i64::from(digit.wrapping_sub(b'0'))).min(EXPONENT_BOUND));
    if negative { -size } else { size }
}

/// A JSON number as an integer, by its value: `1`, `-0`, `1.0`, `1e3`, `100e-2`. `None` if it is not an integer or out
/// of range.
pub(super) fn integer(text: &str) -> Option<i64> {
    // The common spelling first; text that Rust rejects may still be an integer by value.
    text.parse().ok().or_else(|| i64::try_from(unscaled(text, 0)?).ok())
}

/// A JSON number's value times `10^scale` as an integer. `None` if it is not an integer, or from 10^38 on.
pub(super) fn unscaled(text: &str, scale: u8) -> Option<i128> {
    Decimal::parse(text).scaled(i64::from(scale)).filter(|(_, exact)| *exact).map(|(value, _)| value)
}

/// A JSON number's value times `10^power`, rounded down, and whether that is exact.
pub(super) fn rounded_down(text: &str, power: u8) -> Option<(i64, bool)> {
    let (value, exact) = Decimal::parse(text).scaled(i64::from(power))?;
    Some((i64::try_from(value).ok()?, exact))
}

/// The double nearest to a JSON number, and whether its shortest text has the same decimal value. `None` if it is out
/// of range.
pub(super) fn double(text: &str) -> Option<(f64, bool)> {
    let value: f64 = text.parse().ok().filter(|value: &f64| value.is_finite())?;
    Some((value, is_short(text, 15) || round_trips(text, format_args!("{value:e}"))))
}

/// As [`double`], in single precision.
pub(super) fn float(text: &str) -> Option<(f32, bool)> {
    let value: f32 = text.parse().ok().filter(|value: &f32| value.is_finite())?;
    Some((value, is_short(text, 6) || round_trips(text, format_args!("{value:e}"))))
}

/// Whether the text has so few digits that it always survives a round trip: 15 for a double, 6 for a float (`DBL_DIG`
/// and `FLT_DIG` in C). Most prices do.
fn is_short(text: &str, digits: usize) -> bool {
    text.len() <= digits && !text.bytes().any(|byte| matches!(byte, b'e' | b'E'))
}

fn round_trips(text: &str, shortest: std::fmt::Arguments<'_>) -> bool {
    // 17 digits, point, two signs, exponent: at most 32 bytes.
    let mut buffer = [0_u8; 32];
    let mut rest = buffer.as_mut_slice();
    if rest.write_fmt(shortest).is_err() {
        return false;
    }
    let used = 32 - rest.len();
    let shortest = buffer.get(..used).and_then(|bytes| std::str::from_utf8(bytes).ok());
    shortest.is_some_and(|shortest| Decimal::parse(text).equals(Decimal::parse(shortest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_recognised_by_value() {
        for (text, value) in [
            ("1", 1),
            ("-0", 0),
            ("0.000", 0),
            ("0e99999999999999999999999", 0),
            ("1.0", 1),
            ("1e3", 1000),
            ("1E+3", 1000),
            ("100e-2", 1),
            ("-12.50e1", -125),
            ("0.0012e4", 12),
            ("1000000000000000000000e-3", 1_000_000_000_000_000_000),
            ("9223372036854775807", i64::MAX),
            ("9223372036854775807.0", i64::MAX),
            ("-9223372036854775808", i64::MIN),
            ("-9.223372036854775808e18", i64::MIN),
            ("9007199254740993", 9_007_199_254_740_993),
        ] {
            assert_eq!(integer(text), Some(value), "{text}");
        }
        for text in [
            "0.5",
            "1e-1",
            "9223372036854775808",
            "-9223372036854775809",
            "1e19",
            "1e400",
            "1e999999999999999999999",
            "1e-999999999999999999999",
            "1.00000000000000000000000000000000001",
        ] {
            assert_eq!(integer(text), None, "{text}");
        }
    }

    #[test]
    fn scaled_values_are_rounded_down_and_report_whether_they_are_exact() {
        for (text, power, value) in [
            ("1775847600", 3, (1_775_847_600_000, true)),
            ("1775847600.5", 3, (1_775_847_600_500, true)),
            ("1.7758476e9", 0, (1_775_847_600, true)),
            ("-0.25", 3, (-250, true)),
            ("0.0009", 3, (0, false)),
            ("-0.0009", 3, (-1, false)),
            ("-1.9999", 3, (-2000, false)),
            ("1e-999999999999999999999", 9, (0, false)),
            ("9223372036854775807", 0, (i64::MAX, true)),
        ] {
            assert_eq!(rounded_down(text, power), Some(value), "{text}");
        }
        assert_eq!(rounded_down("9223372036854775808", 0), None);
        assert_eq!(unscaled("12.5", 2), Some(1250));
        assert_eq!(unscaled("-1.25e1", 1), Some(-125));
        assert_eq!(unscaled("12.505", 2), None);
        let most = "9".repeat(38);
        assert_eq!(unscaled(&most, 0), Some(10_i128.pow(38) - 1));
        assert_eq!(unscaled(&most, 1), None);
    }

    #[test]
    fn a_double_reports_whether_the_digits_round_trip() {
        for text in [
            "0.1",
            "1.10",
            "-0",
            "0.0",
            "1e5",
            "100e-2",
            "1e23",
            "9007199254740992",
            "1.7976931348623157e308",
        ] {
            assert!(double(text).unwrap().1, "{text}");
        }
        for text in ["9007199254740993", "0.1000000000000000055", "12345678901234567890", "1e-400"] {
            assert!(!double(text).unwrap().1, "{text}");
        }
        assert_eq!(double("1e-400").unwrap().0, 0.0);
        assert_eq!(double("9007199254740993").unwrap().0, 9_007_199_254_740_992.0);
        for text in ["1e400", "-1e400", "1e999999999999999999999"] {
            assert!(double(text).is_none(), "{text}");
        }
    }

    /// Compares the quick check with the full one, on numbers of the maximum length.
    #[test]
    fn every_short_number_round_trips() {
        let mut random = fastrand::Rng::with_seed(20_261_125);
        for _ in 0..20_000 {
            let digits = |n: usize, random: &mut fastrand::Rng| -> String {
                (0..n).map(|_| random.digit(10)).collect()
            };
            for (most, single) in [(15, false), (6, true)] {
                let whole = random.usize(1..most - 2);
                let fraction = random.usize(1..most - whole - 1);
                let sign = if random.bool() { "-" } else { "" };
                let text = format!("{sign}{}.{}", digits(whole, &mut random), digits(fraction, &mut random));
                assert!(is_short(&text, most), "{text}");
                let back = if single {
                    let value: f32 = text.parse().unwrap();
                    round_trips(&text, format_args!("{value:e}"))
                } else {
                    let value: f64 = text.parse().unwrap();
                    round_trips(&text, format_args!("{value:e}"))
                };
                assert!(back, "{text}");
            }
        }
        assert!(!is_short("1e400", 15) && !is_short("1E-9", 15));
    }

    #[test]
    fn a_float_is_checked_in_single_precision() {
        assert_eq!(float("0.1"), Some((0.1, true)));
        assert_eq!(float("16777217"), Some((16_777_216.0, false)));
        assert_eq!(float("1e39"), None);
    }

    #[test]
    fn huge_exponents_neither_overflow_nor_equal_each_other_by_chance() {
        let (big, bigger) = ("1e999999999999999999999", "1e-999999999999999999999");
        assert!(!Decimal::parse(big).equals(Decimal::parse(bigger)));
        assert!(Decimal::parse("0.00e7").equals(Decimal::parse("-0")));
        let long = format!("0.{}1e100001", "0".repeat(100_000));
        assert_eq!(integer(&long), Some(1));
    }
}
