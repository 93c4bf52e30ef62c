//! A spool on a file system that is full.

/// Not written yet.
pub async fn run() -> anyhow::Result<()> {
    anyhow::bail!("not written yet")
}
