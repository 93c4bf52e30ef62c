//! Limits the work of verification. Small work runs on the async worker that read the body; work that may be costly
//! runs on a small pool of threads, so that forged bodies do not hold up the deliveries of others:
//!
//! | what is tried | where |
//! |---|---|
//! | the secret and the form that matched last, up to [`INLINE`] | on the async worker |
//! | all others, up to [`INLINE`] together | on the async worker |
//! | the one that matched last over a large body | the pool's slots for likely searches |
//! | all others | the pool's slots for the rest; for addresses verified before, the slots for likely searches |
//!
//! An address may use a part of the pool's slots at a time, so the queue alternates between addresses. Work for a
//! delivery that fails verification is charged to the address and to the source, in bytes of hashing. After an address
//! has used up its budget, its deliveries are answered 503 before their body is read, except small ones: those are
//! still tried with the secret that matched last, so that authentic deliveries of the same address are accepted. After
//! a source has used up its budget, it still tries what matched last, and everything for addresses verified before.

use std::net::IpAddr;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Instant;

use http::StatusCode;
use jiff::Timestamp;
use quick_cache::sync::Cache;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::spawn_blocking;
use tokio::time::timeout_at;

use super::body::{BodyBudget, Charge};
use super::client_address::{ClientAddress, ClientResolver};
use super::connection_counter::network_of;
use super::failed_auth::{FailedAuthBudget, UsedUp};
use super::limits::RequestLimits;
use crate::delivery::{Deadline, Delivery};
use crate::observe::clock::Clocks;
use crate::observe::metrics::{self, Limited};
use crate::outcome::{Fault, Reason};
use crate::sources::Source;
use crate::verify::{Cost, SecretSearch};

/// The bytes of hashing that an async worker does itself: about 0.15 ms. Switching to another thread costs up to a
/// tenth of that on an idle machine, and more on a busy one.
const INLINE: u64 = 128 * 1024;

/// The work of a small delivery, which is tried even if the address's budget of work is used up.
const SMALL: u64 = 64 * 1024;

/// The limit of remembered addresses that were verified by a costly search.
const KNOWN: usize = 16_384;

fn cores() -> usize {
    available_parallelism().map_or(1, usize::from)
}

/// The work that a client may still cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Allowance {
    /// A complete search.
    All,
    /// The secret that matched last, for a small body.
    Small,
}

/// The limits of verification, and the pool's slots.
pub struct Verification {
    likely: Semaphore,
    rest: Semaphore,
    known: Cache<IpAddr, ()>,
}

/// The context of a verification.
pub(super) struct Asked<'a> {
    pub(super) source: &'a Arc<Source>,
    pub(super) client: &'a ClientAddress,
    pub(super) allowance: Allowance,
    pub(super) deadline: Deadline,
    pub(super) callers: &'a ClientResolver,
    pub(super) bodies: &'a BodyBudget,
    pub(super) limits: &'a RequestLimits,
    pub(super) clocks: &'a Clocks,
}

/// The result of a verification.
#[expect(
    clippy::large_enum_variant,
    reason = "the large variant is the usual one; a box would be an allocation for each"
)]
pub(super) enum Authentication {
    /// A secret of the source signed it; the fault is set if the signature is too old.
    Verified(SecretSearch, Option<Fault>),
    /// No secret signed it, as far as the search went. Without the delivery if the search was aborted.
    Unverified(Option<Delivery>, Fault),
}

impl Default for Verification {
    fn default() -> Self {
        Self {
            likely: Semaphore::new(cores()),
            rest: Semaphore::new((cores() / 2).max(1)),
            known: Cache::new(KNOWN),
        }
    }
}

impl ClientResolver {
    /// The work still allowed to a client; `likely` is the minimum that its delivery costs.
    ///
    /// # Errors
    /// `address_limited`
    pub(super) fn allowance(&self, client: &ClientAddress, likely: u64) -> Result<Allowance, Fault> {
        let used_up = self.used_up(client);
        if used_up == UsedUp::default() {
            return Ok(Allowance::All);
        }
        if used_up.contains(FailedAuthBudget::Deliveries) {
            metrics::limited(Limited::AddressDeliveries);
            return Err(Fault::new(Reason::AddressLimited, "unverified_rate_per_address"));
        }
        if used_up.contains(FailedAuthBudget::Work)
            && (used_up.contains(FailedAuthBudget::SmallWork) || likely > SMALL)
        {
            return Err(work_exceeded());
        }
        Ok(if used_up.contains(FailedAuthBudget::Work) { Allowance::Small } else { Allowance::All })
    }
}

fn work_exceeded() -> Fault {
    metrics::limited(Limited::AddressWork);
    Fault::new(Reason::AddressLimited, "unverified_work_per_address")
}

impl Verification {
    /// Finds the secret that signed the delivery, within the limits. Work without a match is charged.
    pub(super) async fn verify(
        &self,
        delivery: Delivery,
        charge: &mut Charge,
        asked: &Asked<'_>,
    ) -> Authentication {
        let (search, found) = self.search(SecretSearch::new(delivery), charge, asked).await;
        let verified = search.as_ref().and_then(SecretSearch::verified);
        let checked = match (found, verified) {
            (Ok(()), Some(verified)) => {
                let checked = asked.source.judge_age(&verified);
                checked.map_err(|fault| asked.or_clock_off(fault, verified.delivery().received_at))
            }
            (Ok(()), None) => Err(Reason::SignatureMismatch.into()),
            (Err(fault), _) => Err(fault),
        };
        match (checked, search) {
            (Ok(stale), Some(search)) => {
                charge.verified();
                Authentication::Verified(search, stale)
            }
            (checked, search) => {
                let fault = checked.err().unwrap_or_else(|| Reason::SignatureMismatch.into());
                // Nobody is charged for an authentic delivery that only the service's clock makes stale.
                if fault.reason != Reason::ClockOff {
                    asked.charge(search.as_ref().map_or(0, SecretSearch::work), &fault);
                }
                Authentication::Unverified(search.map(SecretSearch::into_delivery), fault)
            }
        }
    }

    /// Returns the search, `None` if it was aborted, and why no secret was found.
    async fn search(
        &self,
        mut search: SecretSearch,
        charge: &mut Charge,
        asked: &Asked<'_>,
    ) -> (Option<SecretSearch>, Result<(), Fault>) {
        let verifier = &asked.source.verifier;
        let cost = verifier.cost(search.delivery().body.len());
        if cost.likely <= INLINE {
            match verifier.likely(&mut search) {
                Ok(true) => return (Some(search), Ok(())),
                Ok(false) if asked.allowance == Allowance::Small => {
                    return (Some(search), Err(work_exceeded()));
                }
                Ok(false) if cost.all <= INLINE => {
                    let found = verifier.all(&mut search, None);
                    return (Some(search), found);
                }
                Ok(false) => {}
                Err(fault) => return (Some(search), Err(fault)),
            }
        }
        let mut search = Some(search);
        let found = self.in_pool(&mut search, cost, charge, asked).await;
        (search, found)
    }

    /// Searches in the pool. Takes a slot of the address first, so that the queue for the pool alternates between
    /// addresses.
    async fn in_pool(
        &self,
        search: &mut Option<SecretSearch>,
        cost: Cost,
        charge: &mut Charge,
        asked: &Asked<'_>,
    ) -> Result<(), Fault> {
        let until = asked.deadline.kafka;
        let address = asked.client.counted();
        let stranger = charge.count(address, asked.bodies, asked.limits)?;
        let _address_slot = slot(&stranger.searches, until).await?;
        // Earlier deliveries of the address may have used up its budget while this one waited.
        if asked.callers.used_up(asked.client).contains(FailedAuthBudget::Work) {
            return Err(work_exceeded());
        }
        // If there is hardly more to try, a second job would cost more than it saves.
        let single_job = cost.all <= 2 * cost.likely;
        if single_job || cost.likely > INLINE {
            let _slot = slot(&self.likely, until).await?;
            let job = if single_job { PoolJob::All } else { PoolJob::Likely };
            if run_job(search, asked.source, job, until).await? || single_job {
                return Ok(());
            }
        }
        let network = network_of(address);
        let known = self.known.get(&network).is_some();
        let _slot = slot(if known { &self.likely } else { &self.rest }, until).await?;
        if !known && asked.source.unverified.is_used_up() {
            metrics::limited(Limited::SourceWork);
            return Err(Fault::new(Reason::Overloaded, "the source's budget for unverified work is used up"));
        }
        run_job(search, asked.source, PoolJob::All, until).await?;
        self.known.insert(network, ());
        Ok(())
    }
}

/// The extent of a search in the pool.
#[derive(Clone, Copy)]
enum PoolJob {
    Likely,
    All,
}

/// Waits for a slot until the given time.
async fn slot(slots: &Semaphore, until: Instant) -> Result<SemaphorePermit<'_>, Fault> {
    match timeout_at(until.into(), slots.acquire()).await {
        Ok(Ok(slot)) => Ok(slot),
        _ => {
            metrics::limited(Limited::Queue);
            Err(Fault::new(Reason::Overloaded, "no verification slot was free in time"))
        }
    }
}

/// Continues the search on a thread of the pool. Returns whether it found a secret. `search` is left empty only if the
/// search was aborted.
async fn run_job(
    search: &mut Option<SecretSearch>,
    source: &Arc<Source>,
    job: PoolJob,
    until: Instant,
) -> Result<bool, Fault> {
    let aborted = || Fault::new(Reason::Overloaded, "the search for its secret was aborted");
    let (mut moved, source) = (search.take().ok_or_else(aborted)?, source.clone());
    let work = move || {
        let found = match job {
            PoolJob::Likely => source.verifier.likely(&mut moved),
            PoolJob::All => source.verifier.all(&mut moved, Some(until)).map(|()| true),
        };
        (moved, found)
    };
    let (moved, found) = spawn_blocking(work).await.map_err(|_| aborted())?;
    *search = Some(moved);
    found
}

impl Asked<'_> {
    /// If the service's clock is off, it cannot decide that a delivery is stale: the sender should retry.
    fn or_clock_off(&self, fault: Fault, received_at: Timestamp) -> Fault {
        let off = (fault.reason == Reason::StaleRejected).then(|| self.clocks.off(received_at)).flatten();
        off.map_or(fault, |off| Fault::new(Reason::ClockOff, off))
    }

    /// Charges the work spent on a delivery that failed verification.
    fn charge(&self, work: u64, fault: &Fault) {
        self.source.unverified.add(work);
        let small = self.allowance == Allowance::Small;
        self.callers.charge(
            self.client,
            if small { FailedAuthBudget::SmallWork } else { FailedAuthBudget::Work },
            work,
        );
        // The service's own faults do not count as the client's attempts.
        if fault.reason.info().status == StatusCode::UNAUTHORIZED {
            self.callers.charge(self.client, FailedAuthBudget::Deliveries, 1);
        }
        metrics::unverified_work(&self.source.name, work);
    }
}
