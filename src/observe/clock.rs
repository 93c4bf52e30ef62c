//! Compares the service's clock with other clocks.
//!
//! Kafka removes a record by its timestamp, and refuses one that is too far from its own clock. The local clock
//! may be wrong, so two others are observed. An acknowledgement contains Kafka's time if the topic stamps its
//! records itself (`message.timestamp.type=LogAppendTime`). The registry's time is the `Date` of its answers.
//! Each observation is stored as an offset to the monotonic clock, so that jumps of the wall clock do not change it.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use http::{HeaderMap, header};
use jiff::fmt::rfc2822;
use jiff::{SignedDuration, Timestamp};

/// Clocks within this difference count as equal: an answer takes time, and `Date` has whole seconds.
const TOLERANCE: SignedDuration = SignedDuration::from_secs(60);

/// The difference above which readiness reports the local clock.
const ALARM_OFFSET: SignedDuration = SignedDuration::from_secs(300);

/// How long readiness reports a refused timestamp after the last one; refusing topics are retried more often.
const REFUSED: Duration = Duration::from_secs(60);

/// 2020, in milliseconds since 1970. An earlier time comes from a clock that was never set, or from the in-memory
/// Kafka of `dev`.
const MIN_PLAUSIBLE: i64 = 1_577_836_800_000;

/// No observation yet.
const UNKNOWN: i64 = i64::MIN;

/// The clock that the local clock is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference {
    /// The broker that appended a record.
    Kafka,
    /// The registry, or a proxy in front of it.
    Registry,
}

impl Reference {
    /// All references, the preferred one first.
    pub const ALL: [Self; 2] = [Self::Kafka, Self::Registry];

    /// The value of the metric's label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Registry => "registry",
        }
    }
}

/// A record's Kafka timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// In milliseconds since 1970.
    pub ms: i64,
    /// Whether it is the later of two clocks that disagree.
    later: bool,
}

fn is_near(a: i64, b: i64) -> bool {
    a.abs_diff(b) <= TOLERANCE.unsigned_abs().as_millis() as u64
}

/// Observations of the other clocks. All methods are made for the hot path and take no lock.
#[derive(Debug)]
pub struct Clocks {
    start: Instant,
    /// Each clock minus the monotonic clock, in milliseconds.
    kafka: AtomicI64,
    registry: AtomicI64,
    /// A time that had passed before the start, in milliseconds since 1970; 0 if unknown.
    before: AtomicI64,
    /// Whether Kafka refused the later of two clocks.
    later_refused: AtomicBool,
    /// When Kafka last refused a timestamp, by the monotonic clock.
    refused: AtomicI64,
    /// The last timestamp that Kafka accepted, minus the monotonic clock, in milliseconds.
    accepted: AtomicI64,
}

impl Default for Clocks {
    fn default() -> Self {
        let unknown = || AtomicI64::new(UNKNOWN);
        let (kafka, registry, refused, accepted) = (unknown(), unknown(), unknown(), unknown());
        let (before, later_refused) = (AtomicI64::new(0), AtomicBool::new(false));
        Self { start: Instant::now(), kafka, registry, before, later_refused, refused, accepted }
    }
}

impl Clocks {
    /// Records the reference's current time, in milliseconds since 1970.
    pub fn learn(&self, reference: Reference, ms: i64) {
        if ms >= MIN_PLAUSIBLE {
            self.offset(reference).store(ms.saturating_sub(self.elapsed()), Ordering::Relaxed);
        }
    }

    /// Records the time in the answer of the registry, or of a proxy in front of it.
    pub fn learn_date(&self, headers: &HeaderMap) {
        let date = headers.get(header::DATE).and_then(|date| rfc2822::parse(date.to_str().ok()?).ok());
        if let Some(date) = date {
            self.learn(Reference::Registry, date.timestamp().as_millisecond());
        }
    }

    /// Records a time that has certainly passed, from the files of an earlier run; the local clock is behind if it
    /// shows less. It is used until another clock has been observed.
    pub fn learn_past(&self, past: Timestamp) {
        self.before.fetch_max(past.as_millisecond(), Ordering::Relaxed);
    }

    /// The Kafka timestamp for a record that is handed over now; it counts if the topic does not stamp records
    /// itself. It is Kafka's time, as far as known, and not the time of receipt: a record that waited in the spool
    /// would have used up its retention there.
    ///
    /// If only the registry's clock is known and differs from the local one, either may be wrong. The later one is
    /// used until Kafka refuses it, because a record that is retained too long is not lost.
    pub fn stamp(&self, ours: Timestamp) -> Stamp {
        let ours = ours.as_millisecond();
        let distant = |ms: &i64| !is_near(*ms, ours);
        if let Some(kafka) = self.now(Reference::Kafka) {
            return Stamp { ms: if distant(&kafka) { kafka } else { ours }, later: false };
        }
        let before = || Some(self.before.load(Ordering::Relaxed)).filter(|before| *before > ours);
        match self.now(Reference::Registry).or_else(before).filter(distant) {
            None => Stamp { ms: ours, later: false },
            Some(other) if self.later_refused.load(Ordering::Relaxed) => {
                Stamp { ms: ours.min(other), later: false }
            }
            Some(other) => Stamp { ms: ours.max(other), later: true },
        }
    }

    /// Records that Kafka refused a record because of this timestamp.
    pub fn refuse(&self, stamp: Stamp) {
        self.later_refused.store(stamp.later, Ordering::Relaxed);
        self.refused.store(self.elapsed(), Ordering::Relaxed);
    }

    /// Records that Kafka accepted a record with this timestamp.
    pub fn accept(&self, stamp: Stamp) {
        self.accepted.store(stamp.ms.saturating_sub(self.elapsed()), Ordering::Relaxed);
    }

    /// Whether a refusal of a recent record cannot be due to this timestamp: it agrees with Kafka's clock, or, while that
    /// is unknown, with the last timestamp that Kafka accepted. The price of one value for all topics: a topic with
    /// stricter `message.timestamp.*` than the others may refuse what they accept.
    pub fn is_accepted(&self, stamp: Stamp) -> bool {
        let accepted = self.now(Reference::Kafka).or_else(|| self.current(&self.accepted));
        accepted.is_some_and(|ms| is_near(ms, stamp.ms))
    }

    /// How far the local clock is ahead of the reference; `None` while unknown.
    pub fn ahead(&self, reference: Reference, ours: Timestamp) -> Option<SignedDuration> {
        let theirs = self.now(reference)?;
        Some(SignedDuration::from_millis(ours.as_millisecond().saturating_sub(theirs)))
    }

    /// How far the local clock is ahead of the first known reference; Kafka takes precedence over the registry.
    fn known(&self, ours: Timestamp) -> Option<(Reference, SignedDuration)> {
        Reference::ALL.into_iter().find_map(|reference| Some((reference, self.ahead(reference, ours)?)))
    }

    /// Describes the local clock's error; `None` if it is right or no reference is known.
    pub fn off(&self, ours: Timestamp) -> Option<String> {
        let (reference, ahead) = self.known(ours).filter(|(_, ahead)| ahead.abs() > ALARM_OFFSET)?;
        let reference_name = if reference == Reference::Kafka { "Kafka's" } else { "the registry's" };
        let by = SignedDuration::from_secs(ahead.abs().as_secs());
        let side = if ahead.is_negative() { "behind" } else { "ahead of" };
        Some(format!("hookstream's clock is {by:#} {side} {reference_name}"))
    }

    /// Whether the local clock is right, as far as known. `Ok` says if nothing is known.
    ///
    /// # Errors
    /// What is wrong, with the remedy.
    pub fn judge(&self, ours: Timestamp) -> Result<&'static str, String> {
        let mut why = Vec::new();
        why.extend(self.off(ours).map(|off| format!("{off}: correct the one that is wrong")));
        let refused = self.refused.load(Ordering::Relaxed);
        if refused != UNKNOWN && self.elapsed().saturating_sub(refused) < REFUSED.as_millis() as i64 {
            why.push(
                "Kafka refuses records for their timestamp: correct hookstream's clock, or the topic's \
                message.timestamp.before.max.ms and message.timestamp.after.max.ms, or let Kafka stamp them \
                (message.timestamp.type=LogAppendTime)"
                    .into(),
            );
        }
        match self.known(ours) {
            _ if !why.is_empty() => Err(why.join("; ")),
            None => Ok("no other clock has been observed yet"),
            Some(_) => Ok(""),
        }
    }

    /// The reference's current time.
    fn now(&self, reference: Reference) -> Option<i64> {
        self.current(self.offset(reference))
    }

    /// The current time of a clock, by its offset from the monotonic clock.
    fn current(&self, offset: &AtomicI64) -> Option<i64> {
        let offset = offset.load(Ordering::Relaxed);
        (offset != UNKNOWN).then(|| offset.saturating_add(self.elapsed()))
    }

    fn offset(&self, reference: Reference) -> &AtomicI64 {
        match reference {
            Reference::Kafka => &self.kafka,
            Reference::Registry => &self.registry,
        }
    }

    /// Milliseconds of the monotonic clock since the start.
    fn elapsed(&self) -> i64 {
        i64::try_from(self.start.elapsed().as_millis()).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;
    const OURS: i64 = 1_800_000_000_000;

    fn ours() -> Timestamp {
        Timestamp::from_millisecond(OURS).unwrap()
    }

    #[test]
    fn k2b_a_timestamp_is_accepted_only_near_kafkas_clock_or_one_that_kafka_took() {
        let at = |ms| Stamp { ms, later: false };
        let clocks = Clocks::default();
        assert!(!clocks.is_accepted(at(OURS)), "nothing known");
        clocks.accept(at(OURS));
        assert!(clocks.is_accepted(at(OURS)));
        assert!(!clocks.is_accepted(at(OURS + 2 * HOUR)), "the clock has jumped since");
        clocks.learn(Reference::Kafka, OURS + 2 * HOUR);
        assert!(clocks.is_accepted(at(OURS + 2 * HOUR)), "Kafka's own clock");
        assert!(!clocks.is_accepted(at(OURS)));
    }

    /// The offset of the stamp from the local clock, in hours.
    fn hours(clocks: &Clocks) -> i64 {
        (clocks.stamp(ours()).ms - OURS + HOUR / 2).div_euclid(HOUR)
    }

    fn clocks(kafka: Option<i64>, registry: Option<i64>) -> Clocks {
        let clocks = Clocks::default();
        let references = [(Reference::Kafka, kafka), (Reference::Registry, registry)];
        for (reference, hours) in references {
            hours.into_iter().for_each(|hours| clocks.learn(reference, OURS + hours * HOUR));
        }
        clocks
    }

    #[test]
    fn a2_a_record_is_stamped_by_kafkas_clock_and_else_by_the_later_of_two() {
        // The offsets of Kafka's and the registry's clock from the local one, and the expected stamp.
        for (kafka, registry, expected) in [
            (None, None, 0),
            (Some(0), None, 0),
            (Some(1440), None, 1440),
            (Some(-2), None, -2),
            (Some(1440), Some(0), 1440),
            (Some(0), Some(1440), 0),
            (None, Some(1440), 1440),
            // The registry is behind: perhaps its clock is wrong.
            (None, Some(-2), 0),
            // A clock that was never set shows the seventies.
            (Some(-OURS / HOUR), Some(2), 2),
        ] {
            assert_eq!(hours(&clocks(kafka, registry)), expected, "{kafka:?} {registry:?}");
        }
    }

    #[test]
    fn a2_clocks_that_nearly_agree_leave_ours_alone() {
        for reference in Reference::ALL {
            let clocks = Clocks::default();
            clocks.learn(reference, OURS + 50_000);
            assert_eq!(clocks.stamp(ours()).ms, OURS, "{reference:?}");
        }
    }

    #[test]
    fn a2_where_kafka_refuses_the_later_of_two_it_gets_the_earlier_and_the_other_way_round() {
        for (registry, [later, earlier]) in [(-2, [0, -2]), (2, [2, 0])] {
            let clocks = clocks(None, Some(registry));
            for expected in [later, earlier, later] {
                assert_eq!(hours(&clocks), expected, "{registry}");
                // Each record of a refused batch reports the refusal.
                let stamp = clocks.stamp(ours());
                (0..3).for_each(|_| clocks.refuse(stamp));
            }
        }
    }

    #[test]
    fn a2_before_any_other_clock_was_heard_it_is_no_earlier_than_in_the_run_before() {
        let clocks = clocks(None, None);
        for (past, expected) in [(-2, 0), (1440, 1440), (3, 1440)] {
            clocks.learn_past(Timestamp::from_millisecond(OURS + past * HOUR).unwrap());
            assert_eq!(hours(&clocks), expected);
        }
        clocks.refuse(clocks.stamp(ours()));
        assert_eq!(hours(&clocks), 0, "Kafka refused it, so the files' time was wrong");
        clocks.learn(Reference::Registry, OURS);
        assert_eq!(hours(&clocks), 0);
    }

    #[test]
    fn a2_the_registrys_clock_is_the_date_of_its_answers() {
        for (date, expected) in [
            ("Fri, 15 Jan 2027 10:00:00 GMT", 2),
            ("Friday, 15-Jan-27 10:00:00 GMT", 0),
            ("", 0),
            ("Fri, 15 Jan 9999999 10:00:00 GMT", 0),
        ] {
            let clocks = Clocks::default();
            clocks.learn_date(&HeaderMap::from_iter([(header::DATE, date.parse().unwrap())]));
            assert_eq!(hours(&clocks), expected, "{date}");
        }
    }

    #[test]
    fn a2_a_clock_that_is_off_is_told_with_whose_it_differs_from() {
        for (kafka, registry, expected) in [
            (None, None, ""),
            (Some(0), Some(2), ""),
            (
                Some(1440),
                Some(0),
                "hookstream's clock is 1440h behind Kafka's: correct the one that is wrong",
            ),
            (
                None,
                Some(-2),
                "hookstream's clock is 2h ahead of the registry's: correct the one that is wrong",
            ),
        ] {
            // A millisecond may have passed meanwhile.
            let off = clocks(kafka, registry).judge(ours()).err().unwrap_or_default();
            let off = off.replace("1439h 59m 59s", "1440h").replace("1h 59m 59s", "2h");
            assert_eq!(off, expected);
        }
    }

    #[test]
    fn k2b_a_refused_timestamp_is_told_although_no_other_clock_is_known() {
        let clocks = Clocks::default();
        clocks.refuse(clocks.stamp(ours()));
        let why = clocks.judge(ours()).unwrap_err();
        assert!(why.starts_with("Kafka refuses records for their timestamp"), "{why}");
    }
}
