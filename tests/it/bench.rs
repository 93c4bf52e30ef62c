//! Tests the arithmetic and the tables of `bench/compare/`, which has no test harness.

#[path = "../../bench/compare/stats.rs"]
mod stats;

use stats::{Spread, differences, grouped, ratios, spread, table};

#[test]
fn a_spread_has_the_median_the_minimum_and_the_maximum() {
    assert_eq!(spread(&[]), None);
    assert_eq!(spread(&[f64::NAN]), None);
    assert_eq!(spread(&[3.0, 1.0, 10.0]), Some(Spread { median: 3.0, min: 1.0, max: 10.0 }));
    assert_eq!(spread(&[4.0, 1.0, 10.0, 3.0]).unwrap().median, 3.5);
    assert_eq!(format!("{:.1}", spread(&[2.0, 1.0, 1500.0]).unwrap()), "2.0 (1.0 to 1,500.0)");
    assert_eq!(format!("{:.0}", spread(&[7.0]).unwrap()), "7");
}

#[test]
fn ratios_are_taken_within_a_round() {
    // The medians are 20 and 10, although only one round has that ratio.
    let (ours, theirs) = ([10.0, 20.0, 30.0], [10.0, 10.0, 60.0]);
    assert_eq!(ratios(&ours, &theirs), Some(Spread { median: 1.0, min: 0.5, max: 2.0 }));
    assert_eq!(differences(&ours, &theirs), Some(Spread { median: 0.0, min: -30.0, max: 10.0 }));
    // A round that only one of them has does not count.
    assert_eq!(ratios(&[1.0, 2.0], &[1.0]).unwrap().max, 1.0);
}

#[test]
fn numbers_have_thousands_separators() {
    let texts = [(0.0, 0), (999.0, 0), (1000.0, 0), (1234567.891, 2), (-1234.5, 1), (-0.001, 1)];
    let texts = texts.map(|(value, digits)| grouped(value, digits));
    assert_eq!(texts, ["0", "999", "1,000", "1,234,567.89", "-1,234.5", "0.0"]);
}

#[test]
fn a_table_is_markdown_with_right_aligned_figures() {
    let text = |cells: &[&str]| cells.iter().map(|cell| String::from(*cell)).collect::<Vec<_>>();
    let rows = [text(&["µs", "1"]), text(&["relay", "23,456"])];
    let expected = "\
| who   |    n/s |
|-------|-------:|
| µs    |      1 |
| relay | 23,456 |
";
    assert_eq!(table(&text(&["who", "n/s"]), &rows), expected);
}
