//! Why deliveries are refused, found off the hot path: for log and `/status`, never for the sender.

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

/// Refused deliveries that wait to be looked at. Their bodies count among those of
/// `http.max_body_bytes` for that long.
const WAITING: usize = 8;

/// Larger bodies are not looked at: each try is a digest over the whole.
const MAX_BODY: usize = 256 * 1024;

/// How often the verifier's own search is made once more: for the verdict, and for secrets that are bound.
const SEARCHES: u64 = 3;

/// A refused delivery, moved here from its task: nothing is copied.
struct DiagnosisJob {
    source: Arc<Source>,
    delivery: Delivery,
    reason: Reason,
    _charge: Charge,
}

/// Where the hot path leaves what it refused.
#[derive(Clone)]
pub struct DiagnosisQueue(mpsc::Sender<DiagnosisJob>);

/// Finds the causes, one after the other.
pub struct Diagnoser {
    refused: mpsc::Receiver<DiagnosisJob>,
    sources: Arc<ArcSwap<Sources>>,
}

/// Both ends; `sources` are those of the running service.
pub fn refusals(sources: Arc<ArcSwap<Sources>>) -> (DiagnosisQueue, Diagnoser) {
    let (sender, refused) = mpsc::channel(WAITING);
    (DiagnosisQueue(sender), Diagnoser { refused, sources })
}

impl DiagnosisQueue {
    /// Counts a refusal, and hands it over if it is its source's turn. Never waits: what finds no
    /// place is not looked at.
    pub(super) fn take(&self, source: Arc<Source>, delivery: Delivery, fault: &Fault, charge: Charge) {
        let reason = fault.reason;
        let wanted = source.refusals.count(reason, Timestamp::now());
        let bytes = delivery.body.len();
        let searches = SEARCHES * source.verifier.cost(bytes).all;
        if wanted && bytes <= MAX_BODY && searches <= BUDGET as u64 {
            let _ = self.0.try_send(DiagnosisJob { source, delivery, reason, _charge: charge });
        }
    }
}

impl Diagnoser {
    /// Ends with the service.
    pub async fn run(mut self) {
        while let Some(refused) = self.refused.recv().await {
            let sources = self.sources.load_full();
            // It ends by itself at its budget; on its own thread, since that may be many milliseconds.
            if tokio::task::spawn_blocking(move || refused.look(&sources)).await.is_err() {
                tracing::warn!("a refusal could not be looked at");
            }
        }
    }
}

impl DiagnosisJob {
    fn look(self, sources: &Sources) {
        let Self { source, delivery, reason, .. } = &self;
        // Those of now: a secret that was added meanwhile is no cause, one that was removed is known.
        let source = sources.get(&source.name).unwrap_or(source);
        let found = source.diagnose(delivery, sources, BUDGET);
        let Some(Cause { kind, proven, text, next }) = found.cause else { return };
        let refused = source.refusals.explain(*reason, &text, proven);
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

/// Counts a delivery that its caller's address kept out, and says now and then what to do: which address it was is
/// all that there is to find.
pub(super) fn kept_out(
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
        (Reason::AddressLimited, _) => format!(
            "{} sent more that did not verify than http.{} allows: if it is a proxy, name it in \
             http.trusted_proxies, else close the way to it",
            client.counted(),
            fault.detail.as_deref().unwrap_or("unverified_work_per_address")
        ),
        (_, None) => format!(
            "the trusted proxy {peer} told no {header} that can be read; let it write its client's address"
        ),
        (_, Some(address)) if address == peer && is_private(address) => {
            format!(
                "{address} called, which is not in `allow`: if it is a proxy, name it in http.trusted_proxies"
            )
        }
        (_, Some(address)) => {
            format!("{address} called, which is not in `allow`: if it is the provider, add it there")
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
