//! Files for installation: the Helm chart, the systemd unit, the compose file, completions and manual pages.
//!
//! `./tests/run` provides helm (`HOOKSTREAM_TEST_HELM`) and `systemd-analyze`; without them these tests fail.

mod chart;
mod compose;
mod shells;
mod unit;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use hookstream::config::{self, Environment, Overrides, Secrets};

/// A path in the repository.
fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Runs a command. Returns whether it succeeded, and its output.
fn output(command: &mut Command) -> (bool, String) {
    let output =
        command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; run this with ./tests/run"));
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

/// The time that a stop may take with this configuration, before the producer's flush and the spool's close.
fn stopping(file: Option<&Path>) -> Duration {
    let overrides =
        Overrides { file: file.map(Path::to_owned), secrets: Secrets::Unread, ..Overrides::default() };
    let variables = [("REGISTRY_PASSWORD", "of-the-registry")].into_iter().collect::<Environment>();
    let http = config::load(&overrides, &variables).unwrap().config.http;
    http.drain_delay + http.shutdown_timeout
}
