//! The systemd unit, checked by systemd's own tool. No service manager runs it here.

use std::collections::BTreeMap;
use std::process::Command;

use super::{output, read, repository, stopping};

const UNIT: &str = "deploy/systemd/hookstream.service";

/// The settings of `[Service]`; the last value of a repeated one.
fn service() -> BTreeMap<String, String> {
    let unit = read(UNIT);
    let (_, section) = unit.split_once("\n[Service]\n").unwrap();
    let (section, _) = section.split_once("\n[Install]").unwrap();
    let lines = section.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_once('=')).map(|(key, value)| (key.into(), value.into())).collect()
}

#[test]
fn packages_unit_passes_systemd_analyze_verify() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("hookstream.service");
    // The check needs an existing program, so it uses another path.
    let installed = "/usr/local/bin/hookstream";
    assert!(read(UNIT).contains(installed));
    std::fs::write(&file, read(UNIT).replace(installed, env!("CARGO_BIN_EXE_hookstream"))).unwrap();
    // The tool reports an unknown setting, but exits successfully.
    let (passed, report) = output(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&file));
    let ours: Vec<&str> = report.lines().filter(|line| line.contains("hookstream")).collect();
    assert!(passed && ours.is_empty(), "{report}");
}

#[test]
fn packages_unit_has_a_low_exposure_score() {
    let (passed, report) = output(
        Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--threshold=15", "--no-pager"])
            .arg(repository(UNIT)),
    );
    assert!(passed && report.contains("Overall exposure level"), "{report}");
    // These settings have little weight in the score.
    let unit = read(UNIT);
    for line in ["CapabilityBoundingSet=", "AmbientCapabilities=", "SystemCallFilter=@system-service"] {
        assert!(unit.lines().any(|found| found == line), "{line}");
    }
}

#[test]
fn packages_unit_leaves_time_to_stop_and_keeps_the_spool() {
    let service = service();
    let seconds: u64 = service["TimeoutStopSec"].strip_suffix('s').unwrap().parse().unwrap();
    assert!(seconds > stopping(None).as_secs() + 7, "flush and close take up to 7 s more");
    assert_eq!(service["Environment"], "HOOKSTREAM_SPOOL__DIR=%S/hookstream");
    assert_eq!(service["StateDirectory"], "hookstream");
    assert_eq!(service["ExecReload"], "/bin/kill -HUP $MAINPID");
    assert_eq!(service["DynamicUser"], "yes");
    let descriptors: u64 = service["LimitNOFILE"].parse().unwrap();
    assert!(descriptors >= 20_000, "10,000 connections, and what else is open");
}
