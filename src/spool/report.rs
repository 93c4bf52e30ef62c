//! Reports of damage, shown until a person removes them.
//!
//! A salvage leaves a report next to the files that it set aside, `spool.db.corrupt-TIME.json`. While one is in the
//! spool's directory, readiness is degraded and `hookstream spool` shows it, over any number of restarts. To
//! acknowledge it, a person removes the report, with or without the files: there is no command and no other state.

use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The prefix of files that were set aside.
pub(super) const ASIDE: &str = "spool.db.corrupt-";

/// The suffix of a report.
pub(super) const REPORT: &str = ".json";

/// The report of a salvage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Salvage {
    /// When the damage was found.
    pub at: Timestamp,
    /// The damage that was found.
    pub cause: String,
    /// Rows in the new file.
    pub kept: u64,
    /// Acknowledged rows that are not in the new file.
    #[serde(flatten)]
    pub lost: Lost,
    /// The damaged file; its log is next to it, if it existed.
    pub aside: PathBuf,
}

/// Bounds for the number of lost rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// The number of rows that are certainly lost.
    #[serde(rename = "lost_at_least")]
    pub least: u64,
    /// The upper bound; `None` if it is unknown.
    #[serde(rename = "lost_at_most")]
    pub most: Option<u64>,
}

impl Lost {
    /// Nothing is known.
    pub(super) const UNKNOWN: Self = Self { least: 0, most: None };
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.least, self.most) {
            (least, Some(most)) if least == most => write!(f, "{least} lost"),
            (least, Some(most)) => write!(f, "{least} to {most} lost"),
            (0, None) => f.write_str("an unknown number lost"),
            (least, None) => write!(f, "an unknown number lost, at least {least}"),
        }
    }
}

impl fmt::Display for Salvage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, cause, kept, lost, aside } = self;
        write!(
            f,
            "acknowledged rows: {lost}, {kept} kept: {cause}, found {at:.0}; check {aside}*, then remove {aside}{REPORT} \
             from the directory",
            aside = aside.display()
        )
    }
}

/// The reports that are in `dir`, oldest first.
///
/// # Errors
/// If the directory cannot be read. A report that cannot be read counts as one of an unknown number.
pub fn reports(dir: &Path) -> io::Result<Vec<Salvage>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let Some(name) = name.to_str() else { continue };
        let Some(aside) = name.strip_suffix(REPORT).filter(|name| name.starts_with(ASIDE)) else { continue };
        let unread = || Salvage {
            at: Timestamp::UNIX_EPOCH,
            cause: String::from("its report cannot be read"),
            kept: 0,
            lost: Lost::UNKNOWN,
            aside: PathBuf::new(),
        };
        found.push(Salvage { aside: dir.join(aside), ..read(&dir.join(name)).unwrap_or_else(unread) });
    }
    found.sort_by(|one, other| one.aside.cmp(&other.aside));
    Ok(found)
}

fn read(path: &Path) -> Option<Salvage> {
    const MAX_BYTES: u64 = 64 * 1024;
    if !fs::symlink_metadata(path).ok()?.is_file() {
        return None;
    }
    let mut text = String::new();
    fs::File::open(path).ok()?.take(MAX_BYTES).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_shows_a_number_a_range_or_unknown_and_never_0_for_unknown() {
        let says = |least, most| Lost { least, most }.to_string();
        assert_eq!(says(0, Some(0)), "0 lost");
        assert_eq!(says(3, Some(3)), "3 lost");
        assert_eq!(says(1, Some(4)), "1 to 4 lost");
        assert_eq!(says(0, None), "an unknown number lost");
        assert_eq!(says(7, None), "an unknown number lost, at least 7");
    }

    #[test]
    fn reports_are_found_in_order_and_an_unreadable_one_counts_as_unknown() {
        let dir = tempfile::tempdir().unwrap();
        let report = Salvage {
            at: "2026-11-30T10:00:00Z".parse().unwrap(),
            cause: "why".into(),
            kept: 5,
            lost: Lost { least: 2, most: Some(2) },
            aside: dir.path().join("spool.db.corrupt-1"),
        };
        let text = serde_json::to_string(&report).unwrap();
        fs::write(dir.path().join("spool.db.corrupt-2.json"), "half a repo").unwrap();
        fs::write(dir.path().join("spool.db.corrupt-1.json"), text).unwrap();
        fs::write(dir.path().join("spool.db.corrupt-0"), "set aside before there were reports").unwrap();
        let found = reports(dir.path()).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0], report);
        assert_eq!(found[1].lost, Lost::UNKNOWN);
    }
}
