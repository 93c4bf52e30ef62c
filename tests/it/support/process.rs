//! The real program as a process.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use super::SECRET;

/// A `serve` of its own, killed when the test ends early.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the program beside its configuration and reads from its log where it listens: hooks and admin.
pub fn serve(config: &std::path::Path) -> (Process, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_hookstream"))
        .args(["serve", "-c"])
        .arg(config)
        .current_dir(config.parent().unwrap())
        .env("TEST_SECRET", SECRET)
        .env("HOOKSTREAM_PORT", "tcp://10.0.0.1:80")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let process = Process(child);
    let listening = log
        .by_ref()
        .map(Result::unwrap)
        .find(|line| line.contains("listening"))
        .expect("the program says where it listens");
    // The pipe must not fill up.
    std::thread::spawn(move || log.for_each(drop));
    let line: serde_json::Value = serde_json::from_str(&listening).unwrap();
    let text = |key: &str| line[key].as_str().unwrap().to_owned();
    (process, text("hooks"), text("admin"))
}
