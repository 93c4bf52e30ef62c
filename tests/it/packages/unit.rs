//! The systemd unit, checked by systemd's own tool. No service manager runs it here.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, chown, symlink};
use std::process::Command;

use hookstream::spool::{Spool, SpoolLimits};

use super::{output, read, repository, stopping};
use crate::cli::{hookstream, run};
use crate::support::PATIENCE;

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

#[test]
fn packages_unit_and_docs_name_the_directory_for_the_spools_commands() {
    let option = format!("--dir /var/lib/{}", service()["StateDirectory"]);
    for (file, command) in [
        (UNIT, "hookstream spool "),
        ("docs/deploy.md", "hookstream spool "),
        ("docs/deploy.md", "hookstream spool requeue --all --apply "),
        ("docs/runbook.md", "hookstream spool "),
    ] {
        assert!(read(file).contains(&format!("{command}{option}")), "{file}: {command}{option}");
    }
}

/// With `DynamicUser=yes`, the state directory is a link to a private directory of another user. Root's commands must
/// leave every file to that user, or the service could not start any more. Only root can give files to another user.
#[tokio::test]
async fn packages_unit_keeps_its_files_when_an_operator_runs_the_spools_commands() {
    let var = tempfile::tempdir().unwrap();
    let (private, linked) = (var.path().join("private"), var.path().join("hookstream"));
    std::fs::create_dir(&private).unwrap();
    symlink(&private, &linked).unwrap();
    chown(&private, Some(61_184), Some(61_184)).expect("root's rights: run this test as root");
    let (spool, _) = Spool::open(&linked, SpoolLimits::UNBOUNDED).unwrap();
    spool.close(PATIENCE).await.unwrap();
    let work = var.path().to_owned();
    let commands = tokio::task::spawn_blocking(move || {
        for arguments in [&["spool"][..], &["spool", "requeue", "--all", "--apply"]] {
            let (code, stdout, stderr) = run(hookstream(&work).args(arguments).args(["--dir", "hookstream"]));
            assert_eq!(code, 0, "{arguments:?}: {stdout}{stderr}");
        }
    });
    commands.await.unwrap();
    for entry in std::fs::read_dir(&private).unwrap().map(Result::unwrap) {
        assert_eq!(entry.metadata().unwrap().uid(), 61_184, "{}", entry.path().display());
    }
}
