//! What other clocks say of ours.
//!
//! Kafka removes a record by its timestamp, and refuses one that is too far from its own clock. Ours may be
//! wrong, so two others are listened to: Kafka's, which an acknowledgement tells where the topic stamps its
//! records itself (`message.timestamp.type=LogAppendTime`), and the registry's, which is the `Date` of its
//! answers. What was heard is kept as a distance to the monotonic clock: no jump of the wall clock moves it.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use http::{HeaderMap, header};
use jiff::fmt::rfc2822;
use jiff::{SignedDuration, Timestamp};

use super::health::PartState;

/// Two clocks that are this near are one: an answer takes its time, and a `Date` has whole seconds.
const AGREE: SignedDuration = SignedDuration::from_secs(60);

/// How far ours may be off before readiness tells.
const TOLERATED: SignedDuration = SignedDuration::from_secs(300);

/// How long a refused timestamp is told after the last one: a topic that refuses is tried more often.
const REFUSED: Duration = Duration::from_secs(60);

/// In milliseconds since 1970: 2020. What shows less is no clock, but one that never was set, or the in-memory
/// Kafka of `dev`.
const PLAUSIBLE: i64 = 1_577_836_800_000;

/// Nothing was heard yet.
const UNKNOWN: i64 = i64::MIN;

/// Whose clock ours is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference {
    /// The broker that appended a record.
    Kafka,
    /// The registry, or what stands before it.
    Registry,
}

impl Reference {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Kafka, Self::Registry];

    /// As the metric's label has it.
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
    /// Whether it is the later one of two clocks that do not agree.
    later: bool,
}

/// The other clocks. All methods are for the hot path: they take no lock.
#[derive(Debug)]
pub struct Clocks {
    start: Instant,
    /// Their time less the monotonic clock's, in milliseconds.
    kafka: AtomicI64,
    registry: AtomicI64,
    /// So late it was before we started, in milliseconds since 1970; 0 where nothing is known of that.
    before: AtomicI64,
    /// Kafka would not have the later one of two.
    later_refused: AtomicBool,
    /// When a timestamp was refused last, by the monotonic clock.
    refused: AtomicI64,
}

impl Default for Clocks {
    fn default() -> Self {
        let unknown = || AtomicI64::new(UNKNOWN);
        let (kafka, registry, refused) = (unknown(), unknown(), unknown());
        let (before, later_refused) = (AtomicI64::new(0), AtomicBool::new(false));
        Self { start: Instant::now(), kafka, registry, before, later_refused, refused }
    }
}

impl Clocks {
    /// The reference's clock showed this a moment ago, in milliseconds since 1970.
    pub fn learn(&self, reference: Reference, ms: i64) {
        if ms >= PLAUSIBLE {
            self.of(reference).store(ms.saturating_sub(self.elapsed()), Ordering::Relaxed);
        }
    }

    /// The registry's answer, or that of what stands before it, tells what time it is there.
    pub fn learn_date(&self, headers: &HeaderMap) {
        let date = headers.get(header::DATE).and_then(|date| rfc2822::parse(date.to_str().ok()?).ok());
        if let Some(date) = date {
            self.learn(Reference::Registry, date.timestamp().as_millisecond());
        }
    }

    /// It was this late already, by a clock that ours is behind if it shows less: that of the files of an
    /// earlier run. Counts until another clock is heard.
    pub fn learn_past(&self, past: Timestamp) {
        self.before.fetch_max(past.as_millisecond(), Ordering::Relaxed);
    }

    /// What a record that is handed over now gets as its Kafka timestamp, where the topic does not stamp it
    /// itself: Kafka's time as far as it is known. Not the receipt: a record that waited in the spool would
    /// have spent its retention there.
    ///
    /// Where only the registry's clock is known and differs from ours, nobody can tell which is wrong. The
    /// later one is taken, since a record that is kept too long is not lost, until Kafka refuses it.
    pub fn stamp(&self, ours: Timestamp) -> Stamp {
        let ours = ours.as_millisecond();
        let distant = |ms: &i64| ms.abs_diff(ours) > AGREE.unsigned_abs().as_millis() as u64;
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

    /// Kafka refused a record for this timestamp.
    pub fn refuse(&self, stamp: Stamp) {
        self.later_refused.store(stamp.later, Ordering::Relaxed);
        self.refused.store(self.elapsed(), Ordering::Relaxed);
    }

    /// How far our clock is ahead of the reference's; `None` while that is not known.
    pub fn ahead(&self, reference: Reference, ours: Timestamp) -> Option<SignedDuration> {
        let theirs = self.now(reference)?;
        Some(SignedDuration::from_millis(ours.as_millisecond().saturating_sub(theirs)))
    }

    /// How far our clock is ahead, and whose it is held against: Kafka's counts before the registry's.
    fn known(&self, ours: Timestamp) -> Option<(Reference, SignedDuration)> {
        Reference::ALL.into_iter().find_map(|reference| Some((reference, self.ahead(reference, ours)?)))
    }

    /// How far off our clock is, and from whose; `None` where it is right, or nobody has told otherwise.
    pub fn off(&self, ours: Timestamp) -> Option<String> {
        let (reference, ahead) = self.known(ours).filter(|(_, ahead)| ahead.abs() > TOLERATED)?;
        let whose = if reference == Reference::Kafka { "Kafka's" } else { "the registry's" };
        let by = SignedDuration::from_secs(ahead.abs().as_secs());
        let side = if ahead.is_negative() { "behind" } else { "ahead of" };
        Some(format!("our clock is {by:#} {side} {whose}"))
    }

    /// Whether our clock is right, for all that is known.
    pub fn judge(&self, ours: Timestamp) -> (PartState, String) {
        let mut why = Vec::new();
        why.extend(self.off(ours).map(|off| format!("{off}: set the one that is wrong")));
        let refused = self.refused.load(Ordering::Relaxed);
        if refused != UNKNOWN && self.elapsed().saturating_sub(refused) < REFUSED.as_millis() as i64 {
            why.push(
                "Kafka refuses records for their timestamp: set our clock, or the topic's \
                 message.timestamp.before.max.ms and message.timestamp.after.max.ms, or let Kafka stamp them \
                 (message.timestamp.type=LogAppendTime)"
                    .into(),
            );
        }
        let state = if why.is_empty() { PartState::Ok } else { PartState::Degraded };
        match self.known(ours) {
            None if why.is_empty() => (state, "no other clock was heard yet".into()),
            _ => (state, why.join("; ")),
        }
    }

    /// What the reference's clock shows now.
    fn now(&self, reference: Reference) -> Option<i64> {
        let distance = self.of(reference).load(Ordering::Relaxed);
        (distance != UNKNOWN).then(|| distance.saturating_add(self.elapsed()))
    }

    fn of(&self, reference: Reference) -> &AtomicI64 {
        match reference {
            Reference::Kafka => &self.kafka,
            Reference::Registry => &self.registry,
        }
    }

    /// Milliseconds by the monotonic clock.
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

    /// The stamp's distance to our clock, in hours.
    fn hours(clocks: &Clocks) -> i64 {
        (clocks.stamp(ours()).ms - OURS + HOUR / 2).div_euclid(HOUR)
    }

    fn clocks(kafka: Option<i64>, registry: Option<i64>) -> Clocks {
        let clocks = Clocks::default();
        let heard = [(Reference::Kafka, kafka), (Reference::Registry, registry)];
        for (reference, hours) in heard {
            hours.into_iter().for_each(|hours| clocks.learn(reference, OURS + hours * HOUR));
        }
        clocks
    }

    #[test]
    fn a2_a_record_is_stamped_by_kafkas_clock_and_else_by_the_later_of_two() {
        // How far Kafka's and the registry's clocks are from ours, and where the stamp is.
        for (kafka, registry, expected) in [
            (None, None, 0),
            (Some(0), None, 0),
            (Some(1440), None, 1440),
            (Some(-2), None, -2),
            (Some(1440), Some(0), 1440),
            (Some(0), Some(1440), 0),
            (None, Some(1440), 1440),
            // The registry is behind: perhaps it is the one that is wrong.
            (None, Some(-2), 0),
            // Never set: the seventies.
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
                // Of a batch that is refused each record says so.
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
        assert_eq!(hours(&clocks), 0, "Kafka refused it: then those were wrong");
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
            (Some(1440), Some(0), "our clock is 1440h behind Kafka's: set the one that is wrong"),
            (None, Some(-2), "our clock is 2h ahead of the registry's: set the one that is wrong"),
        ] {
            let (state, why) = clocks(kafka, registry).judge(ours());
            let off = !expected.is_empty();
            assert_eq!(state, if off { PartState::Degraded } else { PartState::Ok }, "{why}");
            // A millisecond may have passed.
            let why = why.replace("1439h 59m 59s", "1440h").replace("1h 59m 59s", "2h");
            assert!(!off || why == expected, "{why}");
        }
    }

    #[test]
    fn k2b_a_refused_timestamp_is_told_although_no_other_clock_is_known() {
        let clocks = Clocks::default();
        clocks.refuse(clocks.stamp(ours()));
        let (state, why) = clocks.judge(ours());
        assert_eq!(state, PartState::Degraded);
        assert!(why.starts_with("Kafka refuses records for their timestamp"), "{why}");
    }
}
