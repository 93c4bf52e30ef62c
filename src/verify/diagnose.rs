//! Finds out why a signature failed, with what the running service has anyway: its rules and its compiled secrets.
//!
//! Only the verifier decides; this room looks for the cause. Each try is a keyed digest over one text with one key. Their
//! bytes are limited, so that no request can cost more. The output has names, counts, lengths and times, but never a
//! signature (a received one could be right), a secret or a body. What needs the text of the secrets, or a more lenient
//! reading of the headers, is in [`super::explain`].

mod labels;
mod recoded;
mod reserialize;
mod search;

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

pub(super) use labels::is_label;
pub(super) use search::HashBudget;

use super::scheme_verifier::{Removed, SchemeVerifier};
use super::search::{Progress, rank};
use super::signed_time::TimeText;
use super::{SigningKey, Verifier};
use crate::config::TimestampUnit::{Milliseconds, Seconds};
use crate::delivery::Delivery;
use crate::outcome::{Fault, Reason};

/// The bytes that one diagnosis in the running service may hash: about 16 ms of one core at 0.5 us per KB.
pub const BUDGET: usize = 32 * 1024 * 1024;

/// Another source, which the request may be meant for.
pub struct Other<'a> {
    pub source: &'a str,
    /// The source's rules and secrets.
    pub verifier: &'a Verifier,
}

/// The likely cause of a refusal.
#[derive(Debug, Clone, Serialize)]
pub struct Cause {
    /// A label for programs.
    pub kind: &'static str,
    /// Whether a matching digest or the request itself proves it; otherwise it is a guess.
    pub proven: bool,
    /// The cause in one sentence.
    pub text: String,
    /// What to do next.
    pub next: String,
}

impl Cause {
    pub(super) fn shown(kind: &'static str, text: impl Into<String>, next: impl Into<String>) -> Self {
        Self { kind, proven: true, text: text.into(), next: next.into() }
    }

    fn guessed(kind: &'static str, text: impl Into<String>, next: impl Into<String>) -> Self {
        Self { proven: false, ..Self::shown(kind, text, next) }
    }
}

/// The number of removed secrets that a source remembers.
const REMEMBERED: usize = 4;

impl Verifier {
    /// Remembers the last few secrets of `before` that this verifier does not have, so that the diagnosis of a delivery that
    /// is still signed with one of them can name it. `now` is the time of the reload.
    pub fn remember(&mut self, before: &Self, now: Timestamp) {
        for scheme in &mut self.schemes {
            if let Some(before) = before.schemes.iter().find(|before| before.index == scheme.index) {
                scheme.remember(before, now);
            }
        }
    }

    /// The maximum cost of the searches that a diagnosis repeats beside its budget, in bytes of hashing: for the verdict, for
    /// bound secrets, and among several schemes for the one that came furthest.
    pub fn repeated_cost(&self, bytes: usize) -> u64 {
        let searches = if self.schemes.len() > 1 { 3 } else { 2 };
        searches * self.cost(bytes).all
    }

    /// The likely cause of a refusal, which is the fault from [`Verifier::verify`] or about the age: of several schemes, the
    /// first that is shown. `budget` limits the bytes that are hashed to find it.
    pub fn cause(
        &self,
        delivery: &Delivery,
        refusal: &Fault,
        others: &[Other<'_>],
        budget: usize,
    ) -> Option<Cause> {
        let schemes = self.furthest(delivery);
        let budget = budget / schemes.len().max(1);
        first_shown(schemes.iter().filter_map(|scheme| scheme.cause(delivery, refusal, others, budget)))
    }

    /// The schemes whose checks of the delivery came furthest.
    pub(super) fn furthest(&self, delivery: &Delivery) -> Vec<&SchemeVerifier> {
        if self.schemes.len() < 2 {
            return self.schemes.iter().collect();
        }
        let rank = |scheme: &SchemeVerifier| {
            let tried = scheme.verify(delivery, &mut Progress::default());
            tried.map_or_else(|fault| rank(&fault), |_| u8::MAX)
        };
        let ranked: Vec<_> = self.schemes.iter().map(|scheme| (rank(scheme), scheme)).collect();
        let best = ranked.iter().map(|(rank, _)| *rank).max();
        ranked.into_iter().filter(|(rank, _)| Some(*rank) == best).map(|(_, scheme)| scheme).collect()
    }
}

/// The first cause that is more than a guess; otherwise the first.
pub(super) fn first_shown(causes: impl Iterator<Item = Cause>) -> Option<Cause> {
    let mut guess = None;
    for cause in causes {
        if cause.proven {
            return Some(cause);
        }
        guess = guess.or(Some(cause));
    }
    guess
}

impl SchemeVerifier {
    fn remember(&mut self, before: &Self, now: Timestamp) {
        let gone = before.keys.iter().map(|key| Removed { key: Arc::new(key.for_naming()), at: now });
        let mut all: Vec<Removed> = before.removed.iter().cloned().chain(gone).collect();
        all.retain(|old| !self.keys.iter().any(|key| key.is_same(&old.key)));
        let excess = all.len().saturating_sub(REMEMBERED);
        self.removed = all.split_off(excess);
    }

    pub(super) fn cause(
        &self,
        delivery: &Delivery,
        refusal: &Fault,
        others: &[Other<'_>],
        budget: usize,
    ) -> Option<Cause> {
        match refusal.reason {
            Reason::SecretExpired => Some(self.outside(delivery, refusal)),
            Reason::StaleRejected => self.late(delivery),
            Reason::SignatureMissing | Reason::SignatureMalformed | Reason::SignatureMismatch => {
                Some(self.bound(delivery).unwrap_or_else(|| self.search(delivery, others, budget)))
            }
            _ => None,
        }
    }

    /// The right secret, outside its validity window.
    fn outside(&self, delivery: &Delivery, refusal: &Fault) -> Cause {
        let now = delivery.received_at;
        let claim = self.claim(delivery).ok();
        let outside = |key: &SigningKey| !key.window.contains(now);
        let found = claim.and_then(|claim| {
            self.find(delivery, &claim, outside, &mut Progress::default(), None).ok().flatten()
        });
        let from = found.and_then(|pair| self.keys.get(pair.place)?.window.not_before);
        let (kind, next) = match from {
            Some(from) if now < from => (
                "secret_not_yet_valid",
                "have the sender wait with the new secret, or set an earlier not_before",
            ),
            _ => (
                "secret_expired",
                "have the sender switch to a valid secret, or set a later not_after until it does",
            ),
        };
        let detail = refusal.detail.as_deref().unwrap_or("a secret is outside its validity window");
        let text = format!("the signature is right, but {detail}; the delivery came at {}", time(now));
        Cause::shown(kind, text, next)
    }

    /// The right secret, but it is bound to other bodies.
    fn bound(&self, delivery: &Delivery) -> Option<Cause> {
        let next = "have the sender sign with the secret of the tenant that the body names, or correct binds";
        self.broken(delivery).map(|why| Cause::shown("secret_bound", why, next))
    }

    /// Names the secret that made the signature and why its binding does not hold.
    pub(super) fn broken(&self, delivery: &Delivery) -> Option<String> {
        let (claim, mut progress) = (self.claim(delivery).ok()?, Progress::default());
        let _ = self.find(delivery, &claim, |_| true, &mut progress, None);
        progress.broken
    }

    /// The right signature, made too long before or after the receipt.
    fn late(&self, delivery: &Delivery) -> Option<Cause> {
        let claim = self.claim(delivery).ok()?;
        let age = self.scheme.age(&claim, delivery.received_at)?;
        if let Some(unit) = self.unit(claim.values().timestamp, delivery.received_at) {
            return Some(unit);
        }
        let (far, side) =
            (span(age.unsigned_abs().as_secs()), if age.is_negative() { "after" } else { "before" });
        let text = format!("the signature is right, but it was made {far} {side} the delivery came");
        Some(Cause::shown(
            "clock",
            text,
            "compare the clocks of the sender and of this machine; a delivery that was delayed or sent again has \
             its old time: have the sender sign it again, or set a longer tolerance",
        ))
    }

    /// Whether the time is plausible only in the other unit.
    fn unit(&self, timestamp: &str, now: Timestamp) -> Option<Cause> {
        let number: i64 = timestamp.parse().ok()?;
        let near = |read: Option<Timestamp>| {
            read.is_some_and(|read| now.duration_since(read).unsigned_abs().as_secs() < 366 * 24 * 3600)
        };
        let seconds = near(Timestamp::from_second(number).ok());
        let milliseconds = near(Timestamp::from_millisecond(number).ok());
        let (found, read) = match self.scheme.time {
            TimeText::Unix(Seconds) if milliseconds && !seconds => ("milliseconds", "seconds"),
            TimeText::Unix(Milliseconds) if seconds && !milliseconds => ("seconds", "milliseconds"),
            _ => return None,
        };
        let text = format!("the signed time is in {found}, the rules read {read}");
        Some(Cause::shown("timestamp_unit", text, format!("set signature.timestamp_unit = \"{found}\"")))
    }
}

/// UTC, to the second.
pub(super) fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Seconds, and the same span in a larger unit.
pub(super) fn span(seconds: u64) -> String {
    let rough = match seconds {
        0..120 => return format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    };
    format!("{seconds} s ({rough})")
}
