//! A subject as wished, and as it is.

use super::{Item, ItemKind, PlanAction, PlanStep};
use crate::schema::SchemaEntry;
use crate::schema::changes::FieldChange;
use crate::schema::promoted_fields::Promoted;
use crate::schema::registry::{AND_REGISTER, Listing};

/// What the registry has of a subject.
pub(in crate::provision) struct RegisteredSubject {
    /// Where our schema stands in it.
    pub(in crate::provision) listing: Listing,
    /// The level that was set on the subject itself.
    pub(in crate::provision) level: Option<String>,
    /// Where our schema is another: the last version, and what ours changes of it.
    pub(in crate::provision) latest: Option<Latest>,
}

/// The last version of a subject, beside our schema.
pub(in crate::provision) struct Latest {
    pub(in crate::provision) version: u32,
    pub(in crate::provision) fields: Vec<FieldChange>,
    /// What goes out of `additional_fields`.
    pub(in crate::provision) promoted: Vec<Promoted>,
    /// What goes into it.
    pub(in crate::provision) demoted: Vec<Promoted>,
}

/// A subject with our schema, and what the registry has of it. With `auto_register` off, what is not there
/// is told, and nothing is changed.
pub(in crate::provision) fn subject(
    ours: &SchemaEntry,
    known: RegisteredSubject,
    auto_register: bool,
) -> Item {
    let SchemaEntry { subject: name, text, level, .. } = ours;
    let register = || PlanStep::Register { subject: name.clone(), schema: text.clone(), level: *level };
    let unregistered = || {
        format!(
            "not registered, and [registry] auto_register is false: `hookstream provision --apply{AND_REGISTER}` registers it"
        )
    };
    let mut item = Item::new(ItemKind::Subject, name, PlanAction::Keep);
    if known.listing == Listing::NoSubject {
        if auto_register {
            item.action = PlanAction::Create;
            item.change("schema", None, "version 1".into());
            item.change("compatibility", None, level.to_string());
            item.steps.push(register());
        } else {
            item.faults.push(unregistered());
        }
        return item;
    }
    // First, so that a new schema is judged by it.
    if known.level.as_deref() != Some(level.as_str()) {
        let from = known.level.clone().unwrap_or_else(|| "the registry's default".into());
        if auto_register {
            item.change("compatibility", Some(from), level.to_string());
            item.steps.push(PlanStep::Level(name.clone(), *level));
        } else {
            item.left("compatibility", &from, level.as_str(), "[registry] auto_register is false");
        }
    }
    match &known.listing {
        Listing::Other { compatible: true, .. } if auto_register => {
            let (from, to) = match &known.latest {
                Some(Latest { version, .. }) => {
                    (format!("version {version}"), format!("version {}", version + 1))
                }
                None => ("another".to_owned(), "another".to_owned()),
            };
            item.change("schema", Some(from), to);
            item.note(&match known.level.as_deref() {
                Some("NONE") => "not judged: the level of now is NONE".into(),
                Some(level) => format!("{level}: compatible"),
                None => "compatible by the registry's default level".to_owned(),
            });
            item.steps.push(register());
        }
        Listing::Other { compatible: true, .. } => item.faults.push(unregistered()),
        Listing::Other { compatible: false, why } => {
            item.faults.push("our schema is not compatible with what is registered".into());
            item.faults.extend(why.iter().cloned());
        }
        Listing::Registered(_) | Listing::NoSubject => {}
    }
    if let Some(latest) = known.latest {
        item.notes = notes(&latest);
        item.fields = latest.fields;
    }
    item.judged()
}

/// What consumers are to know of the next version.
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
