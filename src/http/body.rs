//! Reads a body within limits of size and time.
//!
//! All bodies share `max_body_bytes`. Until its signature is verified, a body that is large or does not arrive at once
//! also counts against the share of its client's address; after that, against its source's ([`Source::try_acquire`]).
//!
//! [`Source::try_acquire`]: crate::sources::Source::try_acquire

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use tokio::time::timeout_at;

use super::admission;
use super::limits::RequestLimits;
use super::strangers::{Stranger, Strangers};
use crate::observe::metrics::{self, Limited};
use crate::outcome::{Fault, Reason};
use crate::quota::{Usage, UsageGuard};

/// The first reservation for a body, whatever length it declares. A body up to this size that arrives at once is not
/// counted by address: it is verified or refused before another task runs.
const TRUSTED: usize = 16 * 1024;

/// An address may use this fraction of the free bytes: the more addresses use their maximum, the less each of them
/// gets, and a new address always gets some.
const SHARE: usize = 8;

/// The declared length of a body; `None` if it is missing or unreadable.
pub(super) fn declared(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok())
}

/// The bytes in use by all bodies.
#[derive(Debug, Default)]
pub struct BodyBudget {
    all: Arc<Usage>,
    pub(super) strangers: Arc<Strangers>,
}

/// The bytes in use by one body, until dropped.
pub(super) struct Charge {
    all: UsageGuard,
    bytes: usize,
    stranger: Option<(UsageGuard, Stranger)>,
}

impl Charge {
    fn new(bodies: &BodyBudget, limits: &RequestLimits) -> Result<Self, Fault> {
        let all = bodies.all.take(0, limits.max_body_bytes).ok_or_else(all_exceeded)?;
        Ok(Self { all, bytes: 0, stranger: None })
    }

    /// Charges further bytes.
    pub(super) fn grow(
        &mut self,
        more: usize,
        bodies: &BodyBudget,
        limits: &RequestLimits,
    ) -> Result<(), Fault> {
        if let Some((held, _)) = &mut self.stranger
            && !held.grow(more, limits.address_limit(bodies.all.used()))
        {
            return Err(share_exceeded());
        }
        if !self.all.grow(more, limits.max_body_bytes) {
            return Err(all_exceeded());
        }
        self.bytes += more;
        Ok(())
    }

    /// From now on the body also counts against its client's share.
    pub(super) fn count(
        &mut self,
        address: IpAddr,
        bodies: &BodyBudget,
        limits: &RequestLimits,
    ) -> Result<&Stranger, Fault> {
        if self.stranger.is_none() {
            let stranger = bodies.strangers.share(address);
            let held = stranger.bytes.take(self.bytes, limits.address_limit(bodies.all.used()));
            self.stranger = Some((held.ok_or_else(share_exceeded)?, stranger));
        }
        self.stranger.as_ref().map(|(_, stranger)| stranger).ok_or_else(share_exceeded)
    }

    /// Called when the signature is verified: the body does not count against an unknown client any more.
    pub(super) fn verified(&mut self) {
        self.stranger = None;
    }
}

impl RequestLimits {
    /// The limit of one address while `used` bytes are in use; never less than one body.
    fn address_limit(&self, used: usize) -> usize {
        self.max_body.max(self.max_body_bytes.saturating_sub(used) / SHARE)
    }
}

fn all_exceeded() -> Fault {
    metrics::limited(Limited::AllBytes);
    Fault::new(Reason::Overloaded, "max_body_bytes of all bodies")
}

fn share_exceeded() -> Fault {
    metrics::limited(Limited::AddressBytes);
    Fault::new(Reason::AddressLimited, "its share of max_body_bytes")
}

/// A body that was not accepted.
pub(super) struct NotRead {
    pub(super) fault: Fault,
    /// The number of bytes received.
    pub(super) bytes: usize,
}

/// Reads the complete body. It is charged chunk by chunk as it arrives, so that a declared length alone costs nothing.
/// A body in a single chunk is not copied.
///
/// # Errors
/// `body_too_large`, by its declared or its actual length; `body_too_slow`; `body_incomplete`;
/// `overloaded` above `max_body_bytes`; `address_limited` above the share of an address.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Body,
    limits: &RequestLimits,
    until: Instant,
    bodies: &BodyBudget,
    address: IpAddr,
) -> Result<(Bytes, Charge), NotRead> {
    let nothing = |fault| NotRead { fault, bytes: 0 };
    if let Some(length) = declared(headers) {
        admission::check_declared(length, limits.max_body).map_err(nothing)?;
    }
    let mut charge = Charge::new(bodies, limits).map_err(nothing)?;
    match chunks(body, limits, until, bodies, address, &mut charge).await {
        Ok(bytes) => Ok((bytes, charge)),
        Err(fault) => Err(NotRead { fault, bytes: charge.bytes }),
    }
}

async fn chunks(
    mut body: Body,
    limits: &RequestLimits,
    until: Instant,
    bodies: &BodyBudget,
    address: IpAddr,
    charge: &mut Charge,
) -> Result<Bytes, Fault> {
    let max = limits.max_body;
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    loop {
        // The frame is usually there already, and a timer has a cost even if it is not needed.
        let frame = match body.frame().now_or_never() {
            Some(frame) => Ok(frame),
            None => {
                charge.count(address, bodies, limits)?;
                timeout_at(until.into(), body.frame()).await
            }
        };
        let frame = match frame {
            Err(_) => {
                return Err(Fault::new(
                    Reason::BodyTooSlow,
                    format!("{} bytes arrived in time", charge.bytes),
                ));
            }
            Ok(None) => break,
            Ok(Some(Err(_))) => return Err(Reason::BodyIncomplete.into()),
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(data) = frame.into_data() else { continue };
        if charge.bytes + data.len() > max {
            return Err(Fault::new(Reason::BodyTooLarge, format!("more than {max} bytes")));
        }
        if charge.bytes + data.len() > TRUSTED {
            charge.count(address, bodies, limits)?;
        }
        charge.grow(data.len(), bodies, limits)?;
        if first.is_empty() && all.is_empty() {
            first = data;
        } else {
            if all.is_empty() {
                all.reserve(TRUSTED.max(2 * first.len()).min(max));
                all.extend_from_slice(&std::mem::take(&mut first));
            }
            all.extend_from_slice(&data);
        }
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn b5_an_address_gets_its_share_of_the_free_bytes_and_a_new_one_gets_some() {
        const MIB: usize = 1 << 20;
        let limits = RequestLimits {
            max_body: MIB,
            max_body_bytes: 256 * MIB,
            body_timeout: Duration::ZERO,
            reserve: Duration::ZERO,
        };
        let bodies = BodyBudget::default();
        let fill = |address: usize| {
            let address = IpAddr::from([10, 0, 0, address as u8]);
            let mut held = Vec::new();
            loop {
                let mut charge = Charge::new(&bodies, &limits).unwrap();
                if charge.count(address, &bodies, &limits).is_err()
                    || charge.grow(MIB, &bodies, &limits).is_err()
                {
                    return held;
                }
                held.push(charge);
            }
        };
        let mut all = vec![fill(0)];
        assert!((28..=32).contains(&all[0].len()), "an eighth: {} MiB", all[0].len());
        for address in 1..32 {
            all.push(fill(address));
            assert!(!all[address].is_empty(), "address {address} got none");
        }
        assert!(bodies.all.used() < 256 * MIB, "some bytes are free");
        // Verified bodies do not count against their address any more.
        all[0].iter_mut().for_each(Charge::verified);
        assert!(!fill(0).is_empty());
        drop(all);
        assert_eq!(bodies.all.used(), 0);
    }
}
