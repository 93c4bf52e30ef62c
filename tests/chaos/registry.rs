//! A real schema registry that keeps everything in memory, so a kill loses its data.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::Value;

use crate::cluster::ports;
use crate::proxy::Proxy;
use crate::service::signal;
use crate::support::stack;

/// The timeout for the registry to start.
const START: Duration = Duration::from_secs(90);

/// The registry's process and the forwarder in front of it.
#[derive(Debug)]
pub struct Registry {
    /// Between the service and the registry.
    pub proxy: Proxy,
    log: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Registry {
    /// Starts the registry and waits until it answers.
    pub async fn start(dir: &Path) -> anyhow::Result<Self> {
        let port = ports(1)?[0];
        let proxy = Proxy::start(port).await?;
        let mut registry = Self { proxy, log: dir.join("registry.log"), port, child: None };
        registry.run().await?;
        Ok(registry)
    }

    async fn run(&mut self) -> anyhow::Result<()> {
        let jars =
            Path::new(&stack("STACK_LIB")).parent().context("no directory above STACK_LIB")?.join("registry");
        let jar = std::fs::read_dir(jars)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.to_string_lossy().ends_with("-runner.jar"))
            .context("no jar of the registry")?;
        let log = File::create(&self.log)?;
        let mut java = Command::new("nice");
        java.args(["-n", "5"]).arg(stack("JAVA")).args(["-Xmx400m", "-XX:TieredStopAtLevel=1"]);
        java.arg("-Dquarkus.http.host=127.0.0.1").arg(format!("-Dquarkus.http.port={}", self.port));
        java.arg("-jar").arg(jar).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(java.spawn()?);
        let start = Instant::now();
        while self.subjects().await.is_err() {
            let ended = self.child.as_mut().map(Child::try_wait).transpose()?.flatten();
            anyhow::ensure!(ended.is_none(), "the registry ended: see {}", self.log.display());
            anyhow::ensure!(
                start.elapsed() < START,
                "the registry does not answer: see {}",
                self.log.display()
            );
            tokio::time::sleep(Duration::from_millis(50)).await; // polls with a bound
        }
        Ok(())
    }

    /// The URL for the service.
    pub fn url(&self) -> String {
        format!("http://{}/apis/ccompat/v7", self.proxy.address)
    }

    /// Requests a path, bypassing the forwarder.
    async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let url = format!("http://127.0.0.1:{}/apis/ccompat/v7{path}", self.port);
        Ok(reqwest::get(url).await?.error_for_status()?.json().await?)
    }

    async fn subjects(&self) -> anyhow::Result<Vec<String>> {
        Ok(serde_json::from_value(self.get("/subjects").await?)?)
    }

    /// The schema of an id, bypassing the forwarder.
    pub async fn schema(&self, id: u32) -> anyhow::Result<String> {
        let found = self.get(&format!("/schemas/ids/{id}")).await?;
        Ok(found["schema"].as_str().context("no schema")?.to_owned())
    }

    /// All registered schemas with their ids: the archive of the registry's own export.
    pub async fn export(&self) -> anyhow::Result<Vec<u8>> {
        let url = format!("http://127.0.0.1:{}/apis/registry/v2/admin/export", self.port);
        let request = reqwest::Client::new().get(url).header("accept", "application/zip");
        Ok(request.send().await?.error_for_status()?.bytes().await?.to_vec())
    }

    /// Kills the registry and starts an empty one.
    pub async fn wipe(&mut self) -> anyhow::Result<()> {
        self.kill();
        self.run().await
    }

    /// Restores an export in an empty registry. To register the schemas again is no substitute: the ids depend on the
    /// order of registration, and a schema of several subjects takes one for each of them.
    pub async fn restore(&self, export: Vec<u8>) -> anyhow::Result<()> {
        let url = format!("http://127.0.0.1:{}/apis/registry/v2/admin/import", self.port);
        let request = reqwest::Client::new().post(url).header("content-type", "application/zip");
        request.body(export).send().await?.error_for_status()?;
        Ok(())
    }

    /// SIGSTOP or SIGCONT.
    pub fn pause(&self, paused: bool) -> anyhow::Result<()> {
        let child = self.child.as_ref().context("the registry is down")?;
        signal(child.id(), if paused { "STOP" } else { "CONT" })
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.kill();
    }
}
