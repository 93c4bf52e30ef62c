//! Limits the work of verification. Small work runs on the async worker that read the body; work that may be costly
//! runs on a small pool of threads, so that forged bodies do not hold up the deliveries of others:
//!
//! | what is tried | where |
//! |---|---|
//! | the secret and the form that matched last, up to [`INLINE`] | on the async worker |
//! | all others, up to [`INLINE`] together | on the async worker |
//! | the one that matched last over a large body | the pool's slots for likely searches |
//! | all others | the pool's slots for the rest; for addresses verified before, the slots for likely searches |
//! | to decode a compressed body whose signature covers what it decodes to | as all others |
//! | to decode any other compressed body, once it is verified | the pool's slots for likely searches |
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

/// About the number of bytes that are hashed in the time it takes to decode one.
const DECODING: u64 = 8;

/// A compressed body decodes to at most this many times its length: the limit of DEFLATE.
const LARGEST_RATIO: u64 = 1032;

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

fn source_exceeded() -> Fault {
    metrics::limited(Limited::SourceWork);
    Fault::new(Reason::Overloaded, "the source's budget for unverified work is used up")
}

impl Verification {
    /// Finds the secret that signed the delivery, within the limits. Work without a match is charged.
    pub(super) async fn verify(
        &self,
        delivery: Delivery,
        charge: &mut Charge,
        asked: &Asked<'_>,
    ) -> Authentication {
        let decodes_first = asked.source.verifies_decoded(&delivery);
        let search = match decodes_first {
            true => match self.decode_unverified(delivery, charge, asked).await {
                Ok(search) => search,
                Err(fault) => return Authentication::Unverified(None, fault),
            },
            false => SecretSearch::new(delivery),
        };
        let (mut search, found) = self.search(search, charge, asked).await;
        let is_found = found.is_ok();
        let decoded = match found {
            Ok(()) => self.decode_verified(&mut search, asked).await,
            Err(fault) => Err(fault),
        };
        let bytes = *decoded.as_ref().unwrap_or(&0);
        let verified = search.as_ref().filter(|_| decoded.is_ok()).and_then(SecretSearch::verified);
        let checked = match (decoded, verified) {
            (Ok(_), Some(verified)) => {
                let checked = asked.source.judge_age(&verified);
                checked.map_err(|fault| asked.or_clock_off(fault, verified.delivery().received_at))
            }
            (Ok(_), None) => Err(Reason::SignatureMismatch.into()),
            (Err(fault), _) => Err(fault),
        };
        match (checked, search) {
            (Ok(stale), Some(search)) => {
                charge.verified();
                if decodes_first {
                    self.known.insert(network_of(asked.client.counted()), ());
                }
                match charge.grow(bytes, asked.bodies, asked.limits) {
                    Ok(()) => Authentication::Verified(search, stale),
                    Err(fault) => Authentication::Unverified(None, fault),
                }
            }
            (checked, search) => {
                let fault = checked.err().unwrap_or_else(|| Reason::SignatureMismatch.into());
                // Nobody is charged for an authentic delivery that only the service's clock makes stale, or that had to
                // wait too long for its decoding.
                if fault.reason != Reason::ClockOff && !(is_found && fault.reason == Reason::Overloaded) {
                    asked.charge(search.as_ref().map_or(0, SecretSearch::work), &fault);
                }
                Authentication::Unverified(search.map(SecretSearch::into_delivery), fault)
            }
        }
    }

    /// Decodes a body that must be decoded before it can be verified. That is unverified work: it waits for a slot like
    /// a search, its bytes count against the client's share, and it is charged unless the delivery verifies. After the
    /// address or the source has used up its budget, a body is decoded as far as a small delivery may go.
    async fn decode_unverified(
        &self,
        delivery: Delivery,
        charge: &mut Charge,
        asked: &Asked<'_>,
    ) -> Result<SecretSearch, Fault> {
        let (sent, until) = (delivery.body.len() as u64, asked.deadline.kafka);
        let known = self.is_known(asked);
        let source_used_up = !known && asked.source.unverified.is_used_up();
        let small = asked.allowance == Allowance::Small || source_used_up;
        let max = asked.source.max_body();
        let max = if small { max.min((SMALL / DECODING) as usize) } else { max };
        let decoded = {
            let stranger = charge.count(asked.client.counted(), asked.bodies, asked.limits)?;
            let _address_slot = slot(&stranger.searches, until).await?;
            let _slot = slot(if known || small { &self.likely } else { &self.rest }, until).await?;
            spawn_blocking(move || delivery.into_decoded(max)).await.map_err(|_| aborted())?
        };
        match decoded {
            Ok(delivery) => {
                charge.grow(delivery.body.len(), asked.bodies, asked.limits)?;
                let work = DECODING * delivery.body.len() as u64;
                Ok(SecretSearch::after(delivery, work))
            }
            Err(fault) => {
                asked.charge(DECODING * (LARGEST_RATIO * sent).min(max as u64), &fault);
                asked.callers.charge(asked.client, FailedAuthBudget::Deliveries, 1);
                Err(match asked.allowance {
                    _ if !small || fault.reason != Reason::BodyTooLarge => fault,
                    Allowance::Small => work_exceeded(),
                    Allowance::All => source_exceeded(),
                })
            }
        }
    }

    /// Decodes the body of a delivery whose secret was found. Returns the bytes that this takes.
    async fn decode_verified(
        &self,
        search: &mut Option<SecretSearch>,
        asked: &Asked<'_>,
    ) -> Result<usize, Fault> {
        if !search.as_ref().is_some_and(SecretSearch::is_encoded) {
            return Ok(search.as_ref().map_or(0, SecretSearch::decode));
        }
        let _slot = slot(&self.likely, asked.deadline.kafka).await?;
        let moved = search.take().ok_or_else(aborted)?;
        let decode = move || (moved.decode(), moved);
        let (bytes, moved) = spawn_blocking(decode).await.map_err(|_| aborted())?;
        *search = Some(moved);
        Ok(bytes)
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
        let known = self.is_known(asked);
        let _slot = slot(if known { &self.likely } else { &self.rest }, until).await?;
        if !known && asked.source.unverified.is_used_up() {
            return Err(source_exceeded());
        }
        run_job(search, asked.source, PoolJob::All, until).await?;
        self.known.insert(network_of(address), ());
        Ok(())
    }

    /// Whether costly work for the client's address was followed by a verified delivery before.
    fn is_known(&self, asked: &Asked<'_>) -> bool {
        self.known.get(&network_of(asked.client.counted())).is_some()
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

fn aborted() -> Fault {
    Fault::new(Reason::Overloaded, "the delivery's work in the pool was aborted")
}

/// Continues the search on a thread of the pool. Returns whether it found a secret. `search` is left empty only if the
/// search was aborted.
async fn run_job(
    search: &mut Option<SecretSearch>,
    source: &Arc<Source>,
    job: PoolJob,
    until: Instant,
) -> Result<bool, Fault> {
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
