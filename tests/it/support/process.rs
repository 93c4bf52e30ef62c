//! The real program as a process.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::SECRET;

/// A `serve` process, killed if the test ends early.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the program in the directory of its configuration. Returns the addresses of its two ports, from its log.
pub fn serve(config: &std::path::Path) -> (Process, String, String) {
    let (process, hooks, admin, _) = serve_with_log(config);
    (process, hooks, admin)
}

/// The lines of a log so far.
pub type Log = Arc<Mutex<Vec<Value>>>;

/// Like [`serve`], and returns the log.
pub fn serve_with_log(config: &std::path::Path) -> (Process, String, String, Log) {
    serve_under(config, &[])
}

/// Like [`serve`] with a hard limit of open files, and without inheriting this process's files: librdkafka's pipes, of
/// which other tests have many, would be inherited.
pub fn serve_with_open_files(files: u64, config: &std::path::Path) -> (Process, String, String, Log) {
    let close = "for fd in /proc/$$/fd/*; do fd=${fd##*/}; (( fd > 2 )) && eval \"exec $fd>&-\"; done";
    let script = format!("{close}; ulimit -n {files} && exec \"$0\" \"$@\"");
    serve_under(config, &["bash".into(), "-c".into(), script])
}

/// Like [`serve`], run by a wrapper command such as `env` with variables; empty for none.
pub fn serve_under(config: &std::path::Path, under: &[String]) -> (Process, String, String, Log) {
    let program = env!("CARGO_BIN_EXE_hookstream");
    let mut words = under.iter().map(String::as_str).chain([program]);
    let mut child = Command::new(words.next().unwrap())
        .args(words)
        .args(["serve", "-c"])
        .arg(config)
        .current_dir(config.parent().unwrap())
        .env("TEST_SECRET", SECRET)
        .env("HOOKSTREAM_PORT", "tcp://10.0.0.1:80")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut lines = lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    let process = Process(child);
    let log = Log::default();
    let listening = lines.by_ref().find(|line| {
        log.lock().unwrap().push(line.clone());
        line["message"] == "listening"
    });
    let listening = listening.expect("a log line with the addresses");
    // Keeps reading, so that the pipe does not fill up.
    std::thread::spawn({
        let log = log.clone();
        move || lines.for_each(|line| log.lock().unwrap().push(line))
    });
    let text = |key: &str| listening[key].as_str().unwrap().to_owned();
    (process, text("hooks"), text("admin"), log)
}
