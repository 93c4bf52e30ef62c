//! A secret that is bound to one tenant: a delivery that it signed is refused unless the body names that tenant.
//!
//! If several tenants deliver to one source, each with a secret of its own, a signature alone proves only that one of them
//! made it. The body is read by the same code and over the same bytes as the envelope reads it, so that no spelling can
//! name one tenant here and another in the record: a repeated key on the path is refused, and with `split` every event
//! must match.

use std::sync::Arc;

use serde_json::value::RawValue;

use crate::config::{self, Binds};
use crate::delivery::Delivery;
use crate::json::{self, Object, Pointer};
use crate::outcome::Fault;

/// The binding of one secret.
pub(super) struct Binding {
    /// `None` if the text is not a pointer; the binding then never matches.
    pointer: Option<Pointer>,
    rules: Arc<Binds>,
}

/// Locates the events in a delivery, by the envelope's `payload` and `split`.
#[derive(Debug)]
pub(super) struct EventLocator {
    form: Option<String>,
    split: Option<Pointer>,
}

impl EventLocator {
    pub(super) fn new(rules: &config::EnvelopeConfig) -> Self {
        let form = rules.payload.as_deref().and_then(|payload| payload.strip_prefix("form:"));
        Self { form: form.map(str::to_owned), split: rules.split.as_deref().and_then(Pointer::parse) }
    }
}

/// The value at the pointer in one object, compared with the expected one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BindingMatch {
    Nothing,
    Ours,
    Other,
}

impl Binding {
    pub(super) fn compile(rules: &Arc<Binds>) -> Self {
        Self { pointer: Pointer::parse(&rules.pointer), rules: rules.clone() }
    }

    pub(super) fn rules(&self) -> &Binds {
        &self.rules
    }

    /// Checks that the delivery, whose body is or decodes to `content`, names the tenant. The error is the end of a sentence
    /// and contains nothing of the body. Runs only for a delivery that the secret signed; it is one pass over the body,
    /// which counts as a hash of it.
    pub(super) fn check(
        &self,
        delivery: &Delivery,
        content: Result<&[u8], Fault>,
        bodies: Option<&EventLocator>,
    ) -> Result<(), String> {
        let shown = &self.rules.pointer;
        match bodies.map(|bodies| self.find(delivery, content?, bodies)) {
            Some(Ok(BindingMatch::Ours)) => Ok(()),
            Some(Ok(BindingMatch::Other)) => Err(format!("is bound to another value of {shown}")),
            Some(Ok(BindingMatch::Nothing)) => {
                Err(format!("is bound to a value of {shown}, which is not there"))
            }
            Some(Err(fault)) => {
                let reason = fault.reason.info().label;
                Err(format!("is bound to a value of {shown}, which cannot be read ({reason})"))
            }
            None => Err(format!("is bound to a value of {shown}, which this source does not read")),
        }
    }

    /// In a split delivery, the value at the root applies only to events that have none of their own.
    fn find(
        &self,
        delivery: &Delivery,
        content: &[u8],
        bodies: &EventLocator,
    ) -> Result<BindingMatch, Fault> {
        let payload = delivery.payload(content, bodies.form.as_deref())?;
        let whole = json::check(&payload)?;
        let root = Object::open(whole)?;
        let at_root = self.named(root.as_ref())?;
        let array = match &bodies.split {
            None => return Ok(at_root),
            Some(split) if split.names().is_empty() => Some(whole),
            Some(split) => match &root {
                Some(root) => split.find(root)?,
                None => None,
            },
        };
        // Without such an array the delivery becomes a dead letter of the tenant that the root names.
        let events = array.and_then(json::elements).unwrap_or_default();
        if at_root == BindingMatch::Other || events.is_empty() {
            return Ok(at_root);
        }
        for event in events {
            match (self.named_by(event)?, at_root) {
                (BindingMatch::Nothing, BindingMatch::Ours) | (BindingMatch::Ours, _) => {}
                (other, _) => return Ok(other),
            }
        }
        Ok(BindingMatch::Ours)
    }

    fn named_by(&self, event: &RawValue) -> Result<BindingMatch, Fault> {
        self.named(Object::open(event)?.as_ref())
    }

    fn named(&self, root: Option<&Object<'_>>) -> Result<BindingMatch, Fault> {
        let (Some(root), Some(pointer)) = (root, &self.pointer) else { return Ok(BindingMatch::Nothing) };
        Ok(match pointer.find(root)? {
            None => BindingMatch::Nothing,
            Some(raw) if json::string(raw).is_some_and(|text| text == self.rules.equals) => {
                BindingMatch::Ours
            }
            Some(_) => BindingMatch::Other,
        })
    }
}
