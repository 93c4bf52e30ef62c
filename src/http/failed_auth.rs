//! Limits what an address may cost by deliveries that fail verification.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quick_cache::sync::Cache;

use super::connection_counter::network_of;
use super::response::RETRY_AFTER;
use crate::quota::{Rate, nanos};
use crate::sync::atomic::AtomicU64;

/// The limit of remembered addresses; about 10 MB. Beyond it, addresses seen only once are dropped first, so that a
/// client with many networks displaces its own before any that returns repeatedly (S3-FIFO), at a fixed cost for each.
const MAX_ADDRESSES: usize = 65_536;

/// One search over the largest body with many secrets costs more than an address may use in seconds. The cost is known
/// only afterwards, so the address is charged for up to this long: otherwise such searches would be nearly free.
const WORK_DEBT: Duration = Duration::from_secs(60);

/// The rate for small deliveries after [`FailedAuthBudget::Work`] is used up, as a multiple of its rate.
const SMALL_WORK: u64 = 4;

/// The budgets of an address, each with its own rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailedAuthBudget {
    /// The number of deliveries that failed verification.
    Deliveries,
    /// The bytes hashed for them.
    Work,
    /// The bytes hashed for small deliveries, which are still tried when [`FailedAuthBudget::Work`] is used up.
    SmallWork,
}

const BUDGETS: usize = 3;

/// The usage of each budget of an address. An address without an entry has used nothing.
type Used = Arc<[AtomicU64; BUDGETS]>;

/// The usage of all addresses.
#[derive(Debug)]
pub(super) struct FailedAuthLimiter {
    rates: [Option<Rate>; BUDGETS],
    since: Instant,
    used: Cache<IpAddr, Used>,
}

/// The budgets of an address that are used up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct UsedUp([bool; BUDGETS]);

impl UsedUp {
    pub(super) fn contains(self, budget: FailedAuthBudget) -> bool {
        self.0.get(budget as usize).is_some_and(|used_up| *used_up)
    }
}

impl FailedAuthLimiter {
    /// `deliveries` and `work` are per second. The burst of each equals what [`RETRY_AFTER`] restores, so a sender that
    /// honours it has the full burst again. Deliveries beyond the limit block the address only until one more is
    /// allowed: they were in flight when the limit was reached, and others may share the address.
    pub(super) fn new(deliveries: Option<u32>, work: u64) -> Self {
        let rate = |per_second, debt| Rate { per_second, burst: RETRY_AFTER, debt };
        let rates = [
            deliveries.map(|deliveries| rate(deliveries.into(), Duration::ZERO)),
            Some(rate(work, WORK_DEBT)),
            Some(rate(work.saturating_mul(SMALL_WORK), Duration::ZERO)),
        ];
        Self { rates, since: Instant::now(), used: Cache::new(MAX_ADDRESSES) }
    }

    /// Charges `amount` to a budget.
    pub(super) fn add(&self, address: IpAddr, budget: FailedAuthBudget, amount: u64, now: Instant) {
        let Some(Some(rate)) = self.rates.get(budget as usize) else { return };
        let entry = || Ok::<_, Infallible>(Arc::default());
        let Ok(used) = self.used.get_or_insert_with(&network_of(address), entry);
        if let Some(used) = used.get(budget as usize) {
            rate.add(used, amount, self.nanos(now));
        }
    }

    /// The budgets that are used up. Counts nothing.
    pub(super) fn used_up(&self, address: IpAddr, now: Instant) -> UsedUp {
        let Some(used) = self.used.get(&network_of(address)) else { return UsedUp::default() };
        let now = self.nanos(now);
        let mut used_up = UsedUp::default();
        for ((rate, used), used_up) in self.rates.iter().zip(&*used).zip(&mut used_up.0) {
            *used_up = rate.is_some_and(|rate| rate.is_used_up(used, now));
        }
        used_up
    }

    fn nanos(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_used_up(limit: &FailedAuthLimiter, address: &str, now: Instant) -> bool {
        limit.used_up(address.parse().unwrap(), now).contains(FailedAuthBudget::Deliveries)
    }

    fn sent(limit: &FailedAuthLimiter, address: &str, now: Instant) -> usize {
        let counted = (0..1000).take_while(|_| {
            let free = !is_used_up(limit, address, now);
            limit.add(address.parse().unwrap(), FailedAuthBudget::Deliveries, 1, now);
            free
        });
        counted.count()
    }

    #[test]
    fn an_address_has_five_seconds_worth_at_once_then_its_rate_and_networks_of_ipv6_are_one() {
        let limit = FailedAuthLimiter::new(Some(4), 1);
        let start = limit.since + Duration::from_secs(3600);
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        assert_eq!(sent(&limit, "192.0.2.1", at(0)), 20);
        assert_eq!(sent(&limit, "::ffff:192.0.2.1", at(0)), 0, "the same address");
        assert_eq!(sent(&limit, "192.0.2.2", at(0)), 20, "another");
        // However many exceed the limit, one more is allowed after an interval.
        assert_eq!(sent(&limit, "192.0.2.1", at(249)), 0);
        assert_eq!(sent(&limit, "192.0.2.1", at(499)), 1);
        assert_eq!(sent(&limit, "192.0.2.1", at(499 + 5000)), 20, "the full burst after Retry-After");
        assert_eq!(sent(&limit, "2001:db8::1", at(0)), 20);
        assert_eq!(sent(&limit, "2001:db8::ffff:0:0:1", at(0)), 0, "the same network");
        assert_eq!(sent(&limit, "2001:db8:0:1::1", at(0)), 20, "the next one");
        assert!(!is_used_up(&limit, "192.0.2.3", at(0)));
    }

    #[test]
    fn b1_a_costly_search_blocks_the_next_until_it_is_paid_off_and_uses_no_other_budget() {
        let limit = FailedAuthLimiter::new(None, 1000);
        let (address, start) = ("192.0.2.1".parse().unwrap(), limit.since + Duration::from_secs(3600));
        let at = |seconds| start + Duration::from_secs(seconds);
        limit.add(address, FailedAuthBudget::Work, 30_000, start);
        let used_up = |now| limit.used_up(address, now);
        assert!(
            used_up(start).contains(FailedAuthBudget::Work)
                && !used_up(start).contains(FailedAuthBudget::SmallWork)
        );
        assert!(
            used_up(at(25)).contains(FailedAuthBudget::Work),
            "30 seconds' worth, minus the burst of five"
        );
        assert!(!used_up(at(26)).contains(FailedAuthBudget::Work));
        limit.add(address, FailedAuthBudget::SmallWork, 20_000, start);
        assert!(
            used_up(start).contains(FailedAuthBudget::SmallWork),
            "the burst is five seconds of four times the rate"
        );
        assert!(!used_up(start).contains(FailedAuthBudget::Deliveries), "no limit without a rate");
    }

    #[test]
    fn a_flood_of_addresses_is_bounded_and_does_not_free_one_that_keeps_coming() {
        let limit = FailedAuthLimiter::new(Some(1), 1);
        let now = limit.since;
        assert_eq!(sent(&limit, "192.0.2.1", now), 5);
        for network in 0..4 * MAX_ADDRESSES as u128 {
            let address = IpAddr::V6(((0x2001_0db8 << 96) | (network << 64)).into());
            limit.add(address, FailedAuthBudget::Deliveries, 1, now);
            if network % 1000 == 0 {
                assert!(is_used_up(&limit, "192.0.2.1", now), "dropped after {network}");
            }
        }
        assert!(limit.used.len() <= MAX_ADDRESSES, "{}", limit.used.len());
        assert_eq!(sent(&limit, "192.0.2.2", now), 5, "a new address is counted although the table is full");
    }

    #[test]
    fn concurrent_counting_loses_nothing() {
        let limit = FailedAuthLimiter::new(Some(1000), 1);
        let (now, address) = (limit.since, "192.0.2.1".parse().unwrap());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    (0..1000).for_each(|_| limit.add(address, FailedAuthBudget::Deliveries, 1, now))
                });
            }
        });
        assert_eq!(sent(&limit, "192.0.2.1", now), 1000);
    }
}
