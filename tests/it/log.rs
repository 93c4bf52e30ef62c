//! A blocked log does not delay deliveries.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::process::Process;
use crate::support::{PATIENCE, SECRET, Setup, batch, datagrid, until};

/// Enough that their log lines are more than three times the capacity of a pipe.
const DELIVERIES: usize = 600;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_log_delays_no_delivery_and_no_shutdown() {
    let setup = Setup::new("datagrid");
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(file.path(), setup.toml()).unwrap();
    let mut process = Process(
        Command::new(env!("CARGO_BIN_EXE_hookstream"))
            .args(["serve", "-c"])
            .arg(file.path())
            .env("TEST_SECRET", SECRET)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut log = BufReader::new(process.0.stderr.take().unwrap());
    let hooks = loop {
        let mut line = String::new();
        assert!(log.read_line(&mut line).unwrap() > 0, "no log line with the addresses");
        let line: Value = serde_json::from_str(&line).unwrap();
        if line["message"] == "listening" {
            break line["hooks"].as_str().unwrap().to_owned();
        }
    };
    // From here on nobody reads the open pipe, so it fills up.
    let client = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build().unwrap();
    let url = format!("http://{hooks}/hooks/{}", setup.source);
    for n in 0..DELIVERIES {
        let body = batch(&format!("evt_{n}"));
        let request = client.post(&url).header("Datagrid-Signature", datagrid(body.as_bytes())).body(body);
        let answer = request.send().await.unwrap_or_else(|error| panic!("delivery {n}: {error}"));
        // 503 until the service is ready.
        assert!([200, 503].contains(&answer.status().as_u16()), "delivery {n}: {}", answer.status());
    }
    let pid = process.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let ended = tokio::time::timeout(Duration::from_secs(20), async {
        until("the end of the program", async || process.0.try_wait().unwrap().is_some()).await;
    });
    ended.await.expect("a shutdown in time");
    assert_eq!(process.0.wait().unwrap().code(), Some(0));
    drop(log);
}
