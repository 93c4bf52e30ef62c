//! Measures the time from the start to readiness with 50 schemas.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::deliveries::event_type;
use crate::measure::World;
use crate::process::{self, Process, address, memory_kib, secret_variable};
use crate::results::{Contender, Sample};

const SCHEMAS: usize = 50;

/// The shipped schema; each of the 50 has it with another name, so that all differ.
const SHIPPED: &str = include_str!("../../schemas/datagrid/batch_prediction.avsc");

/// In each round, starts a service twice for a source that is new to Kafka and the registry.
pub fn run(
    world: &World<'_>,
    rounds: usize,
    mut report: impl FnMut(&Sample),
) -> anyhow::Result<(Vec<Contender>, Vec<Sample>)> {
    let mut samples = Vec::new();
    for round in 0..rounds {
        let source = format!("start-{round}");
        let dir = world.dir.join(&source);
        let (hooks, admin) = (address()?, address()?);
        write(world, &dir, &source, hooks, admin)?;
        for contender in ["first", "again"] {
            let sample = start(&dir, contender, round, admin)?;
            report(&sample);
            samples.push(sample);
        }
        world.kafka.clear()?;
    }
    let contender = |name: &str| Contender { name: name.into(), against: Vec::new() };
    Ok((vec![contender("first"), contender("again")], samples))
}

fn start(dir: &Path, contender: &str, round: usize, admin: SocketAddr) -> anyhow::Result<Sample> {
    let began = Instant::now();
    let arguments = ["serve", "-c", "hookstream.toml"].map(String::from);
    let mut process = Process::start(&process::hookstream(), &arguments, 1, dir)?;
    process.ready(admin)?;
    let took = began.elapsed();
    let (rss_kib, peak_kib) = memory_kib(process.pid())?;
    let service_us = process::cpu_us(process.pid())?;
    drop(process);
    std::thread::sleep(Duration::from_millis(200)); // until Kafka has noticed the disconnect
    Ok(Sample {
        contender: contender.into(),
        round,
        seconds: took.as_secs_f64(),
        answered: 0,
        failed: [].into(),
        records: None,
        service_us,
        broker_us: 0,
        generator_us: 0,
        rss_kib,
        peak_kib,
        latency: None,
    })
}

fn write(
    world: &World<'_>,
    dir: &Path,
    source: &str,
    hooks: SocketAddr,
    admin: SocketAddr,
) -> anyhow::Result<()> {
    let schemas = dir.join("schemas").join(source);
    std::fs::create_dir_all(&schemas)?;
    let types: Vec<String> = (1..=SCHEMAS).map(event_type).collect();
    for (n, event_type) in types.iter().enumerate() {
        let text = SHIPPED.replace("\"BatchPrediction\"", &format!("\"BatchPrediction{n}\""));
        anyhow::ensure!(text != SHIPPED, "the shipped schema has been renamed");
        std::fs::write(schemas.join(format!("{event_type}.avsc")), text)?;
    }
    let text = format!(
        "[http]\nlisten = \"{hooks}\"\n[admin]\nlisten = \"{admin}\"\n[kafka]\nbootstrap_servers = \"{}\"\n\
         [registry]\nurl = \"{}\"\n[source.{source}]\npreset = \"datagrid\"\ntypes = {types:?}\n\
         secrets = [{{ env = \"{}\" }}]\n",
        world.kafka.bootstrap,
        world.registry,
        secret_variable(0)
    );
    Ok(std::fs::write(dir.join("hookstream.toml"), text)?)
}
