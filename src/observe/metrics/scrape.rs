//! The text of `/metrics`.

use jiff::Timestamp;
use metrics_exporter_prometheus::PrometheusHandle;

use super::lag::LagSeries;
use super::snapshot::Snapshot;
use super::{HANDLE, IN_FLIGHT, KAFKA_UP, LOG_DROPPED, READINESS, SECRET_END};
use crate::observe::health::{PartState, Readiness};
use crate::observe::log;

/// What is read at a scrape.
pub struct Now<'a> {
    /// Deliveries between their complete body and their end.
    pub in_flight: usize,
    /// Whether a broker answers.
    pub kafka_up: bool,
    /// The readiness of each part.
    pub readiness: &'a Readiness,
    /// The secrets in force that expire.
    pub expiring: Vec<ExpiringSecret<'a>>,
    /// The lag of consumer groups.
    pub lag: &'a LagSeries,
}

/// A secret with `not_after`.
pub struct ExpiringSecret<'a> {
    /// The source.
    pub source: &'a str,
    /// The secret's name.
    pub secret: &'a str,
    /// When it expires.
    pub not_after: Timestamp,
}

/// Renders the text.
pub fn render(now: &Now<'_>) -> String {
    ::metrics::counter!(LOG_DROPPED).absolute(log::dropped());
    super::upkeep();
    let scrape = Snapshot::empty();
    scrape.record(|| {
        ::metrics::gauge!(IN_FLIGHT).set(now.in_flight as f64);
        ::metrics::gauge!(KAFKA_UP).set(f64::from(u8::from(now.kafka_up)));
        for (part, report) in now.readiness.parts() {
            for state in PartState::ALL {
                let labels = [("part", part), ("state", state.label())];
                ::metrics::gauge!(READINESS, &labels).set(f64::from(u8::from(report.state == state)));
            }
        }
        for ExpiringSecret { source, secret, not_after } in &now.expiring {
            let labels = [("source", (*source).to_owned()), ("secret", (*secret).to_owned())];
            ::metrics::gauge!(SECRET_END, &labels).set(super::seconds(*not_after));
        }
    });
    let recorded = HANDLE.get().and_then(Option::as_ref).map(PrometheusHandle::render).unwrap_or_default();
    recorded + &scrape.handle().render() + &now.lag.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::health::Health;

    #[test]
    fn each_part_of_readiness_has_its_state_and_a_secret_has_its_end_only_while_it_is_in_force() {
        let (health, lag) = (Health::new(), LagSeries::default());
        health.durability.put(PartState::Degraded, "1 copy");
        let scrape = |expiring| {
            let readiness = health.readiness();
            render(&Now { in_flight: 0, kafka_up: true, readiness: &readiness, expiring, lag: &lag })
        };
        let not_after = Timestamp::from_second(1_500_000_000).unwrap();
        let text = scrape(vec![ExpiringSecret { source: "shop", secret: "old", not_after }]);
        for (part, _) in health.readiness().parts() {
            let states = text.lines().filter(|line| line.contains(&format!("part=\"{part}\"")));
            let (set, unset): (Vec<_>, Vec<_>) = states.partition(|line| line.ends_with(" 1"));
            assert_eq!((set.len(), unset.len()), (1, 3), "{part}: {set:?} {unset:?}");
        }
        assert!(text.contains("hookstream_readiness{part=\"durability\",state=\"degraded\"} 1\n"), "{text}");
        let end =
            "hookstream_secret_not_after_timestamp_seconds{source=\"shop\",secret=\"old\"} 1500000000\n";
        assert!(text.contains(end), "{text}");
        assert!(!scrape(Vec::new()).contains("secret=\"old\""));
    }
}
