//! Schemas beside the versions that are kept next to their files: what a registry would refuse shows without
//! one.

use std::collections::BTreeSet;

use super::CheckReport;
use crate::schema::{Schemas, version_files};

/// Adds a problem for each version that a schema is not compatible with, by field, and a note for each
/// schema that has versions and fits them all. One file is told once, however many types it serves.
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
            report.notes.push(format!("{file}: fits its {} kept {noun} ({level})", versions.len()));
        }
    }
}
