//! Verifying within bounds. What is small is verified by the async worker that has read it; what may be costly goes to a
//! small pool of threads, so that no forged body holds up the deliveries of others:
//!
//! | what is tried | where |
//! |---|---|
//! | the secret and the form that matched last, up to [`INLINE`] | at once |
//! | all others, up to [`INLINE`] together | at once |
//! | the one that matched last over a large body | the pool's places for likely searches |
//! | all others | the pool's places for the rest, or of an address that they verified before, the likely ones |
//!
//! An address has a part of the pool's places at a time, so the queue goes round between addresses. What does not
//! verify is charged to the address and to the source, in bytes of hashing. An address that has used up its budget is
//! answered 503 before its body is read, but for what is small: that is still tried with the secret that matched last,
//! so that an authentic delivery of the same address comes in all the same. A source that has used up its budget still
//! has tried what matched last, and everything for addresses that verified before.

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
use super::ingest::Limits;
use crate::delivery::{Deadline, Delivery};
use crate::observe::clock::Clocks;
use crate::observe::metrics::{self, Limited};
use crate::outcome::{Fault, Reason};
use crate::sources::Source;
use crate::verify::{Cost, SecretSearch};

/// Bytes of hashing that an async worker does by itself: some 0.15 ms. A turn of another thread costs up to a tenth of
/// that where the machine is idle, and more where it is not.
const INLINE: u64 = 128 * 1024;

/// What is small, of an address whose work is used up.
const SMALL: u64 = 64 * 1024;

/// Addresses that have verified by a costly search.
const KNOWN: usize = 16_384;

fn cores() -> usize {
    available_parallelism().map_or(1, usize::from)
}

/// Costly searches of one address at a time.
pub(super) fn per_address() -> usize {
    (cores() / 2).max(1)
}

/// What a client may still cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Allowance {
    /// All that it takes.
    All,
    /// The secret that matched last over a small body.
    Small,
}

/// The bounds of verifying.
pub struct Verification {
    likely: Semaphore,
    rest: Semaphore,
    known: Cache<IpAddr, ()>,
}

/// Who asks for a verification, and against what it counts.
pub(super) struct Asked<'a> {
    pub(super) source: &'a Arc<Source>,
    pub(super) client: &'a ClientAddress,
    pub(super) allowance: Allowance,
    pub(super) deadline: Deadline,
    pub(super) callers: &'a ClientResolver,
    pub(super) bodies: &'a BodyBudget,
    pub(super) limits: &'a Limits,
    pub(super) clocks: &'a Clocks,
}

/// What became of it.
pub(super) enum Authentication {
    /// A secret of the source signed it; with what becomes of its age.
    Verified(SecretSearch, Option<Fault>),
    /// None did, as far as it was tried. Without the delivery where its search broke off.
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
    /// What is left to a client; `likely` is what its delivery would cost at the least.
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
            return Err(past_work());
        }
        Ok(if used_up.contains(FailedAuthBudget::Work) { Allowance::Small } else { Allowance::All })
    }
}

fn past_work() -> Fault {
    metrics::limited(Limited::AddressWork);
    Fault::new(Reason::AddressLimited, "unverified_work_per_address")
}

impl Verification {
    /// Finds who signed the delivery, within the bounds. What does not verify is charged.
    pub(super) async fn verify(
        &self,
        delivery: Delivery,
        charge: &mut Charge,
        asked: &Asked<'_>,
    ) -> Authentication {
        let (search, found) = self.search(SecretSearch::new(delivery), charge, asked).await;
        let verified = search.as_ref().and_then(SecretSearch::verified);
        let judged = match (found, verified) {
            (Ok(()), Some(verified)) => {
                let judged = asked.source.judge_age(&verified);
                judged.map_err(|fault| asked.unless_ours(fault, verified.delivery().received_at))
            }
            (Ok(()), None) => Err(Reason::SignatureMismatch.into()),
            (Err(fault), _) => Err(fault),
        };
        match (judged, search) {
            (Ok(stale), Some(search)) => {
                charge.verified();
                Authentication::Verified(search, stale)
            }
            (judged, search) => {
                let fault = judged.err().unwrap_or_else(|| Reason::SignatureMismatch.into());
                // Of one that is authentic nobody is charged with our clock.
                if fault.reason != Reason::ClockOff {
                    asked.charge(search.as_ref().map_or(0, SecretSearch::work), &fault);
                }
                Authentication::Unverified(search.map(SecretSearch::into_delivery), fault)
            }
        }
    }

    /// What was tried so far, `None` where that broke off, and why nothing was found.
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
                Ok(false) if asked.allowance == Allowance::Small => return (Some(search), Err(past_work())),
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

    /// With a place among its address's own first, so that the queue for the pool goes round between addresses.
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
        let _own = place(&stranger.searches, until).await?;
        // Those of the address that came before may have used it up.
        if asked.callers.used_up(asked.client).contains(FailedAuthBudget::Work) {
            return Err(past_work());
        }
        // Where there is hardly more to try, a second turn would cost more than it is good for.
        let at_once = cost.all <= 2 * cost.likely;
        if at_once || cost.likely > INLINE {
            let _place = place(&self.likely, until).await?;
            let tried = if at_once { PoolJob::All } else { PoolJob::Likely };
            if turn(search, asked.source, tried, until).await? || at_once {
                return Ok(());
            }
        }
        let network = network_of(address);
        let known = self.known.get(&network).is_some();
        let _place = place(if known { &self.likely } else { &self.rest }, until).await?;
        if !known && asked.source.unverified.is_used_up() {
            metrics::limited(Limited::SourceWork);
            return Err(Fault::new(Reason::Overloaded, "what the source may cost unverified is used up"));
        }
        turn(search, asked.source, PoolJob::All, until).await?;
        self.known.insert(network, ());
        Ok(())
    }
}

/// What a turn in the pool is for.
#[derive(Clone, Copy)]
enum PoolJob {
    Likely,
    All,
}

/// Waits for a place until then.
async fn place(places: &Semaphore, until: Instant) -> Result<SemaphorePermit<'_>, Fault> {
    match timeout_at(until.into(), places.acquire()).await {
        Ok(Ok(place)) => Ok(place),
        _ => {
            metrics::limited(Limited::Queue);
            Err(Fault::new(Reason::Overloaded, "no place to verify it came free in time"))
        }
    }
}

/// Goes on with the search on a thread of its own; whether it is found. `search` is left empty only where that broke
/// off.
async fn turn(
    search: &mut Option<SecretSearch>,
    source: &Arc<Source>,
    tried: PoolJob,
    until: Instant,
) -> Result<bool, Fault> {
    let broke_off = || Fault::new(Reason::Overloaded, "the search for its secret broke off");
    let (mut moved, source) = (search.take().ok_or_else(broke_off)?, source.clone());
    let work = move || {
        let found = match tried {
            PoolJob::Likely => source.verifier.likely(&mut moved),
            PoolJob::All => source.verifier.all(&mut moved, Some(until)).map(|()| true),
        };
        (moved, found)
    };
    let (moved, found) = spawn_blocking(work).await.map_err(|_| broke_off())?;
    *search = Some(moved);
    found
}

impl Asked<'_> {
    /// By a clock that is off nobody can tell that a delivery is stale: its sender is to come again.
    fn unless_ours(&self, fault: Fault, received_at: Timestamp) -> Fault {
        let off = (fault.reason == Reason::StaleRejected).then(|| self.clocks.off(received_at)).flatten();
        off.map_or(fault, |off| Fault::new(Reason::ClockOff, off))
    }

    /// Counts what was spent on a delivery that did not verify.
    fn charge(&self, work: u64, fault: &Fault) {
        self.source.unverified.add(work);
        let small = self.allowance == Allowance::Small;
        self.callers.charge(
            self.client,
            if small { FailedAuthBudget::SmallWork } else { FailedAuthBudget::Work },
            work,
        );
        // What is ours to be blamed for is no try of theirs.
        if fault.reason.info().status == StatusCode::UNAUTHORIZED {
            self.callers.charge(self.client, FailedAuthBudget::Deliveries, 1);
        }
        metrics::unverified_work(&self.source.name, work);
    }
}
