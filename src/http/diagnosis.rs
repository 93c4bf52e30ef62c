//! Finds out why deliveries are refused, off the hot path: for log and `/status`, never for the sender.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::HeaderName;
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::body::Charge;
use super::client_address::ClientAddress;
use crate::delivery::{Delivery, DeliveryId};
use crate::outcome::{Fault, Reason};
use crate::sources::{Source, Sources};
use crate::verify::diagnose::{BUDGET, Cause};

/// The limit of refused deliveries that wait for diagnosis. While they wait, their bodies count against
/// `http.max_body_bytes`.
const WAITING: usize = 8;

/// Larger bodies are not diagnosed: each try hashes the complete body.
const MAX_BODY: usize = 256 * 1024;

/// A refused delivery, moved here without a copy.
struct DiagnosisJob {
    source: Arc<Source>,
    delivery: Delivery,
    reason: Reason,
    _charge: Charge,
}

/// The sender's end of the queue, for the hot path.
#[derive(Clone)]
pub struct DiagnosisQueue(mpsc::Sender<DiagnosisJob>);

/// Diagnoses refused deliveries, one after the other.
pub struct Diagnoser {
    refused: mpsc::Receiver<DiagnosisJob>,
    sources: Arc<ArcSwap<Sources>>,
}

/// Creates the queue and its worker; `sources` are those of the running service.
pub fn refusals(sources: Arc<ArcSwap<Sources>>) -> (DiagnosisQueue, Diagnoser) {
    let (sender, refused) = mpsc::channel(WAITING);
    (DiagnosisQueue(sender), Diagnoser { refused, sources })
}

impl DiagnosisQueue {
    /// Counts a refusal, and queues it if its source is due for a diagnosis. Never waits: if the queue is full, the
    /// delivery is not diagnosed.
    pub(super) fn take(&self, source: Arc<Source>, delivery: Delivery, fault: &Fault, charge: Charge) {
        let reason = fault.reason;
        let wanted = source.refusals.count(reason, Timestamp::now());
        let bytes = delivery.body.len();
        if wanted && bytes <= MAX_BODY && source.verifier.repeated_cost(bytes) <= BUDGET as u64 {
            let _ = self.0.try_send(DiagnosisJob { source, delivery, reason, _charge: charge });
        }
    }
}

impl Diagnoser {
    /// Runs until the queue is closed.
    pub async fn run(mut self) {
        while let Some(refused) = self.refused.recv().await {
            let sources = self.sources.load_full();
            // The search is bounded by its budget; it runs on another thread, since it can take many milliseconds.
            if tokio::task::spawn_blocking(move || refused.diagnose(&sources)).await.is_err() {
                tracing::warn!("the diagnosis of a refused delivery failed");
            }
        }
    }
}

impl DiagnosisJob {
    fn diagnose(self, sources: &Sources) {
        let Self { source, delivery, reason, .. } = &self;
        // The current sources: a secret added since is not a cause, and a removed one is remembered.
        let source = sources.get(&source.name).unwrap_or(source);
        let Some(Cause { kind, proven, text, next }) = source.cause(delivery, sources) else { return };
        let refused = source.refusals.explain(*reason, &text, proven);
        let more = match kind {
            "not_found" | "wrong_secret" | "encoding" => {
                "; with a captured request, `hookstream explain` tries more"
            }
            _ => "",
        };
        let next = next + more;
        tracing::warn!(
            source = source.name,
            reason = reason.info().label,
            refused,
            cause = kind,
            hint = text,
            next,
            delivery = %delivery.id,
            "why deliveries are refused"
        );
    }
}

/// Counts a delivery that was refused because of its client's address, and logs a hint from time to time. There is
/// nothing to diagnose beyond the address.
pub(super) fn address_refused(
    source: &Source,
    fault: &Fault,
    client: &ClientAddress,
    header: &HeaderName,
    delivery: DeliveryId,
) {
    let hint = || hint(fault, client, header);
    let Some(refused) = source.refusals.count_known(fault.reason, Timestamp::now(), hint) else { return };
    let (reason, hint) = (fault.reason.info().label, hint());
    tracing::warn!(source = source.name, reason, refused, hint, %delivery, "why deliveries are refused");
}

fn hint(fault: &Fault, client: &ClientAddress, header: &HeaderName) -> String {
    let peer = client.peer;
    match (fault.reason, client.address) {
        // The detail names the limit: of what failed verification, or of the bytes of bodies that are not verified yet.
        (Reason::AddressLimited, _) => format!(
            "{} exceeds {}: if it is a proxy, name it in http.trusted_proxies; otherwise block it",
            client.counted(),
            fault.detail.as_deref().unwrap_or("what one address may use")
        ),
        (_, None) => format!(
            "the trusted proxy {peer} sent no readable {header}; configure it to send its client's address"
        ),
        (_, Some(address)) if address == peer && is_private(address) => {
            format!("{address} is not in `allow`: if it is a proxy, name it in http.trusted_proxies")
        }
        (_, Some(address)) => {
            format!("{address} is not in `allow`: if it is the provider's, add it there")
        }
    }
}

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_private() || address.is_loopback() || address.is_link_local(),
        IpAddr::V6(address) => {
            address.is_unique_local() || address.is_loopback() || address.is_unicast_link_local()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_about_a_limited_address_asserts_no_failed_verification() {
        let peer = "192.0.2.1".parse().unwrap();
        let client = ClientAddress { address: Some(peer), peer };
        for (detail, says) in [
            (
                "its share of max_body_bytes",
                "192.0.2.1 exceeds its share of max_body_bytes: if it is a proxy",
            ),
            (
                "unverified_work_per_address",
                "192.0.2.1 exceeds unverified_work_per_address: if it is a proxy",
            ),
        ] {
            let fault = Fault::new(Reason::AddressLimited, detail);
            let hint = hint(&fault, &client, &HeaderName::from_static("x-forwarded-for"));
            assert!(hint.starts_with(says), "{hint}");
        }
    }
}
