//! Plans one subject: compares the local schema with the registry.

use super::{Item, ItemKind, PlanAction, PlanStep};
use crate::schema::SchemaEntry;
use crate::schema::changes::FieldChange;
use crate::schema::promoted_fields::Promoted;
use crate::schema::registry::{AND_REGISTER, Listing};

/// The registry's state of a subject.
pub(in crate::provision) struct RegisteredSubject {
    /// Whether the local schema is registered.
    pub(in crate::provision) listing: Listing,
    /// The compatibility level set on the subject itself.
    pub(in crate::provision) level: Option<String>,
    /// If the local schema is not registered: the last version, and what the local schema changes.
    pub(in crate::provision) latest: Option<Latest>,
}

/// The last version of a subject, compared with the local schema.
pub(in crate::provision) struct Latest {
    pub(in crate::provision) version: u32,
    pub(in crate::provision) fields: Vec<FieldChange>,
    /// Values that the local schema moves out of `additional_fields` into a field.
    pub(in crate::provision) promoted: Vec<Promoted>,
    /// Values that the local schema moves from a field into `additional_fields`.
    pub(in crate::provision) demoted: Vec<Promoted>,
}

/// Plans the subject of the local schema. With `auto_register` off, a missing schema is reported as a fault and
/// nothing changes.
pub(in crate::provision) fn subject(
    local: &SchemaEntry,
    registered: RegisteredSubject,
    auto_register: bool,
) -> Item {
    let SchemaEntry { subject: name, text, level, .. } = local;
    let register = || PlanStep::Register { subject: name.clone(), schema: text.clone(), level: *level };
    let not_registered = || {
        format!(
            "not registered, and [registry] auto_register is false: `hookstream provision --apply{AND_REGISTER}` registers it"
        )
    };
    let mut item = Item::new(ItemKind::Subject, name, PlanAction::Keep);
    if registered.listing == Listing::NoSubject {
        if auto_register {
            item.action = PlanAction::Create;
            item.change("schema", None, "version 1".into());
            item.change("compatibility", None, level.to_string());
            item.steps.push(register());
        } else {
            item.faults.push(not_registered());
        }
        return item;
    }
    // First, so that the registry checks a new schema against this level.
    if registered.level.as_deref() != Some(level.as_str()) {
        let from = registered.level.clone().unwrap_or_else(|| "the registry's default".into());
        if auto_register {
            item.change("compatibility", Some(from), level.to_string());
            item.steps.push(PlanStep::Level(name.clone(), *level));
        } else {
            item.left("compatibility", &from, level.as_str(), "[registry] auto_register is false");
        }
    }
    match &registered.listing {
        Listing::Other { compatible: true, .. } if auto_register => {
            let (from, to) = match &registered.latest {
                Some(Latest { version, .. }) => {
                    (format!("version {version}"), format!("version {}", version + 1))
                }
                None => ("another".to_owned(), "another".to_owned()),
            };
            item.change("schema", Some(from), to);
            item.note(&match registered.level.as_deref() {
                Some("NONE") => "not checked: the current level is NONE".into(),
                Some(level) => format!("{level}: compatible"),
                None => "compatible by the registry's default level".to_owned(),
            });
            item.steps.push(register());
        }
        Listing::Other { compatible: true, .. } => item.faults.push(not_registered()),
        Listing::Other { compatible: false, why } => {
            item.faults.push("the schema is not compatible with the registered versions".into());
            item.faults.extend(why.iter().cloned());
        }
        Listing::Registered(_) | Listing::NoSubject => {}
    }
    if let Some(latest) = registered.latest {
        item.notes = notes(&latest);
        item.fields = latest.fields;
    }
    item.with_action()
}

/// Notes for consumers about the next version.
fn notes(latest: &Latest) -> Vec<String> {
    let next = latest.version + 1;
    let mut notes = Vec::new();
    if latest.fields.is_empty() {
        notes.push("the fields are the same: documentation, names or other attributes differ".to_owned());
    }
    notes.extend(latest.promoted.iter().map(|Promoted { pointer, field, .. }| {
        format!(
            "consumers that read additional_fields['{pointer}'] get null from v{next} on: COALESCE({field}, ...), \
             see docs/schemas.md"
        )
    }));
    notes.extend(latest.demoted.iter().map(|Promoted { pointer, field, .. }| {
        format!("consumers that read {field} find it in additional_fields['{pointer}'] from v{next} on")
    }));
    notes
}
