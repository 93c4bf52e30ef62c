//! Compares schemas with the versions stored next to their files, to find what a registry would refuse without
//! having one.

use std::collections::BTreeSet;

use super::CheckReport;
use crate::schema::{Schemas, version_files};

/// Adds a problem for each field that makes a schema incompatible with a stored version, and a note for each schema
/// that is compatible with all its versions. A file that serves several types is reported once.
pub(super) fn compare(schemas: &Schemas, report: &mut CheckReport) {
    let mut seen = BTreeSet::new();
    for schema in schemas.iter() {
        let Some(file) = schema.file.as_ref().filter(|file| seen.insert((*file).clone())) else { continue };
        let versions = match version_files::read(file) {
            Ok(versions) => versions,
            Err(why) => {
                report.problems.push(why);
                continue;
            }
        };
        let (file, level) = (file.display(), schema.level);
        let against = version_files::incompatibilities(level, &schema.schema, &versions);
        for (path, faults) in &against {
            let path = path.display();
            let lines =
                faults.iter().map(|fault| format!("{file}: not compatible with {path} ({level}): {fault}"));
            report.problems.extend(lines);
        }
        if against.is_empty() && !versions.is_empty() {
            let noun = if versions.len() == 1 { "version" } else { "versions" };
            report
                .notes
                .push(format!("{file}: compatible with its {} stored {noun} ({level})", versions.len()));
        }
    }
}
