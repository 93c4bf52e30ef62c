//! Faults of the spool's files and disk: a restart finds every delivery that was answered 2xx, or its loss is reported.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::cli::{hookstream, run};
use crate::spool::{keys, waiting, with_spool};
use crate::support::process::{Log, Process, serve_under};
use crate::support::{PATIENCE, Setup, batch, datagrid, until};

/// The program with a spool and without Kafka.
struct Program {
    process: Process,
    hooks: String,
    admin: String,
    log: Log,
}

struct Fixture {
    dir: tempfile::TempDir,
    source: String,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut setup = Setup::new("datagrid");
        setup.rules = "types = [\"batch_prediction.completed\"]".into();
        setup.tables =
            format!("[spool]\ndir = \"{}\"\nmin_free = \"1 MiB\"", dir.path().join("spool").display());
        setup.kafka = "127.0.0.1:1".into();
        std::fs::write(dir.path().join("hookstream.toml"), setup.toml()).unwrap();
        Self { source: setup.source.clone(), dir }
    }

    fn spool(&self) -> PathBuf {
        self.dir.path().join("spool")
    }

    fn start(&self, under: &[&str]) -> Program {
        let config = self.dir.path().join("hookstream.toml");
        let under: Vec<String> = under.iter().map(|&word| word.to_owned()).collect();
        let (process, hooks, admin, log) = serve_under(&config, &under);
        Program { process, hooks, admin, log }
    }

    async fn post(&self, program: &Program, id: &str) -> u16 {
        let body = batch(id);
        let request = client().post(format!("http://{}/hooks/{}", program.hooks, self.source));
        let signed = request.header("Datagrid-Signature", datagrid(body.as_bytes()));
        signed.body(body).send().await.unwrap().status().as_u16()
    }

    async fn listed(&self) -> (i32, String) {
        let (home, dir) = (self.dir.path().to_owned(), self.spool());
        let asked =
            tokio::task::spawn_blocking(move || run(hookstream(&home).args(["spool", "--dir"]).arg(dir)));
        let (code, stdout, stderr) = asked.await.unwrap();
        (code, stdout + &stderr)
    }
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().timeout(PATIENCE).no_proxy().build().unwrap()
}

impl Program {
    async fn get(&self, path: &str) -> Value {
        let text =
            client().get(format!("http://{}{path}", self.admin)).send().await.unwrap().text().await.unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// The spool's state in `/readyz`, and the reason.
    async fn spool(&self) -> (String, String) {
        let part = self.get("/readyz").await["parts"]["spool"].clone();
        let text = |key: &str| part[key].as_str().unwrap_or_default().to_owned();
        (text("state"), text("why"))
    }

    fn kill(&mut self) {
        self.process.0.kill().unwrap();
        self.process.0.wait().unwrap();
    }
}

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a1_spool_damage_is_reported_everywhere_until_its_report_is_removed() {
    let fixture = Fixture::new();
    let mut program = fixture.start(&[]);
    until("a spooled delivery", async || fixture.post(&program, "evt_0").await == 202).await;
    for n in 1..40 {
        assert_eq!(fixture.post(&program, &format!("evt_{n}")).await, 202);
    }
    let rows = program.get("/status").await["spool"]["live"].as_u64().unwrap();
    program.kill();
    flip(&fixture.spool().join("spool.db-wal"));
    // The log is also truncated, so that rows are lost for certain.
    let log = std::fs::File::options().write(true).open(fixture.spool().join("spool.db-wal")).unwrap();
    log.set_len(log.metadata().unwrap().len() * 2 / 3).unwrap();

    for start in ["first", "next"] {
        let mut program = fixture.start(&[]);
        until("a degraded spool", async || program.spool().await.0 == "degraded").await;
        let (_, why) = program.spool().await;
        let status = program.get("/status").await;
        let damage = &status["spool"]["damage"][0];
        let (kept, lost) = (damage["kept"].as_u64().unwrap(), damage["lost_at_least"].as_u64().unwrap());
        assert_eq!(damage["lost_at_most"], lost, "{start}: {status}");
        assert_eq!((kept + lost, status["spool"]["live"].as_u64()), (rows, Some(kept)), "{start}: {status}");
        assert!(lost > 0 && why.contains(&format!("{lost} lost, {kept} kept")), "{start}: {why}");
        let is_report =
            |line: &Value| line["level"] == "ERROR" && line["lost_at_least"] == lost && line["kept"] == kept;
        assert_eq!(program.log.lock().unwrap().iter().any(is_report), start == "first", "{:?}", program.log);
        let (code, text) = fixture.listed().await;
        assert!(code == 0 && text.contains(&format!("{lost} lost, {kept} kept")), "{text}");
        let metrics = client().get(format!("http://{}/metrics", program.admin)).send().await.unwrap();
        assert!(metrics.text().await.unwrap().contains("hookstream_spool_damage_reports 1"));
        if start == "next" {
            let report = format!("{}.json", damage["aside"].as_str().unwrap());
            std::fs::remove_file(report).unwrap();
            until("the end of the report", async || program.spool().await.0 == "ok").await;
        }
        program.kill();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a1_a_first_run_that_was_killed_and_lost_its_log_is_salvaged_at_the_next_start() {
    let fixture = Fixture::new();
    let mut program = fixture.start(&[]);
    until("a spooled delivery", async || fixture.post(&program, "evt_0").await == 202).await;
    program.kill();
    // The tables were still in the log only: the database looks like another program's, or like an empty one.
    std::fs::File::create(fixture.spool().join("spool.db-wal")).unwrap();
    let program = fixture.start(&[]);
    until("a degraded spool", async || program.spool().await.0 == "degraded").await;
    assert!(program.spool().await.1.contains("1 lost, 0 kept"), "{:?}", program.spool().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_with_an_empty_directory_says_that_the_spool_is_new() {
    let fixture = Fixture::new();
    let starts = || {
        let mut program = fixture.start(&[]);
        let lines = program.log.lock().unwrap().clone();
        program.kill();
        let said = |line: &Value| line["message"].as_str().unwrap().starts_with("created a new spool");
        lines.iter().filter(|line| line["level"] == "WARN" && said(line)).count()
    };
    assert_eq!((starts(), starts()), (1, 0));
    let disk = fixture.dir.path().join("disk");
    std::fs::rename(fixture.spool(), &disk).unwrap();
    std::fs::create_dir(fixture.spool()).unwrap();
    assert_eq!(starts(), 1, "its disk is not mounted");
    std::fs::remove_dir_all(fixture.spool()).unwrap();
    std::fs::rename(&disk, fixture.spool()).unwrap();
    assert_eq!(starts(), 0);
}

#[tokio::test]
async fn a3_unlinked_spool_files_stop_the_spool_and_their_rows_still_drain() {
    let dir = tempfile::tempdir().unwrap();
    let (service, kafka) = with_spool(dir.path(), "").await;
    kafka.broker_down().unwrap();
    for n in 0..3 {
        service.datagrid_post(batch(&format!("evt_{n}"))).await.is(202, "spooled", None);
    }
    for name in ["spool.db", "spool.db-wal", "spool.db-shm"] {
        std::fs::remove_file(dir.path().join(name)).unwrap();
    }
    for n in 3..6 {
        service.datagrid_post(batch(&format!("evt_{n}"))).await.is(503, "unavailable", Some("spool_error"));
    }
    until("the end of readiness", async || {
        let (status, text) = service.admin("/readyz").await;
        status == 503 && text.contains("was removed while in use") && text.contains("then restart")
    })
    .await;
    // All services of this process have the same metrics, and those with a sound spool set it to 1.
    until("the metric", async || service.metric("hookstream_spool_up").await == Some(0.0)).await;
    kafka.broker_up().unwrap();
    until("an empty spool", async || waiting(&service) == 0).await;
    let found = keys(&kafka, &service.topic("batch_prediction.completed")).await;
    assert!(["evt_0", "evt_1", "evt_2"].iter().all(|id| found.iter().any(|found| found == id)), "{found:?}");
    // While Kafka is available, nothing needs the spool.
    until("a degraded service", async || {
        service.admin("/readyz").await.1.contains("\"status\":\"degraded\"")
    })
    .await;
    service.datagrid_post(batch("evt_6")).await.is(200, "published", None);
}

/// Ends the program that runs under strace, since it would outlive strace.
struct Traced(PathBuf);

impl Drop for Traced {
    fn drop(&mut self) {
        if let Ok(pid) = std::fs::read_to_string(self.0.join("lock")) {
            let _ = Command::new("kill").args(["-9", pid.trim()]).status();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c5_readiness_reports_a_disk_that_fails_with_eio_until_a_write_succeeds() {
    let fixture = Fixture::new();
    // Fails each thread's syncs from the 60th on; only the writer makes that many.
    let inject = "inject=fsync,fdatasync:error=EIO:when=60..66";
    let program = fixture.start(&[
        "strace",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "trace=fsync,fdatasync",
        "-e",
        inject,
    ]);
    let _traced = Traced(fixture.spool());
    until("a spooled delivery", async || fixture.post(&program, "evt_0").await == 202).await;
    assert_eq!(program.spool().await.0, "ok");
    let mut sent = 0;
    until("a failing disk", async || {
        sent += 1;
        fixture.post(&program, &format!("evt_{sent}")).await == 503
    })
    .await;
    assert!(sent > 10, "{sent}");
    until("the end of readiness", async || {
        let (state, why) = program.spool().await;
        state == "down" && why.contains("I/O error")
    })
    .await;
    // Without any delivery in between.
    until("a healthy spool", async || program.spool().await.0 == "ok").await;
    assert_eq!(fixture.post(&program, "evt_after").await, 202);
}
