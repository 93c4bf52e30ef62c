//! The programs that hookstream is compared with. Each is a separate process that reads the same configuration file as
//! hookstream. The same code as in hookstream makes its runtime, its connection limits and its producer's properties.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use bytes::Bytes;
use futures_util::future::OptionFuture;
use hookstream::app;
use hookstream::config::{self, Environment, LoadedConfig, Overrides};
use hookstream::http::{self, Phase};
use hookstream::kafka::{ClusterConfig, Producer};
use rdkafka::producer::{FutureProducer, FutureRecord};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::pace::Pace;

/// The arguments of every contender.
#[derive(clap::Args)]
pub struct Args {
    /// The configuration file, as for hookstream.
    #[arg(short)]
    config: PathBuf,
    /// The topics to publish to, in turn.
    #[arg(long)]
    pub topic: Vec<String>,
}

impl Args {
    pub fn load(&self) -> anyhow::Result<LoadedConfig> {
        let overrides = Overrides { file: Some(self.config.clone()), ..Overrides::default() };
        Ok(config::load(&overrides, &Environment::from_process())?)
    }
}

pub fn block_on<T>(program: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(program)
}

/// Reads the body and answers; with `stock`, `axum::serve` serves it.
pub fn axum(args: &Args, stock: bool) -> anyhow::Result<()> {
    let router = Router::new().route("/hooks/{source}", post(async |_body: Bytes| "ok\n"));
    block_on(serve(args.load()?, router, stock))
}

/// Publishes the body unread, and answers when Kafka has acknowledged.
pub fn relay(args: Args) -> anyhow::Result<()> {
    let loaded = args.load()?;
    let relay =
        Arc::new(Relay { producer: producer(&loaded)?, topics: args.topic, next: AtomicUsize::new(0) });
    let router = Router::new().route("/hooks/{source}", post(publish)).with_state(relay);
    block_on(serve(loaded, router, false))
}

struct Relay {
    producer: FutureProducer,
    topics: Vec<String>,
    next: AtomicUsize,
}

async fn publish(State(relay): State<Arc<Relay>>, body: Bytes) -> (StatusCode, &'static str) {
    let n = relay.next.fetch_add(1, Ordering::Relaxed);
    if send(&relay.producer, &relay.topics, n, &body).await {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "no\n")
    }
}

/// Publishes the `n`th record with a unique key. Resolves to whether Kafka has acknowledged it.
fn send(
    producer: &FutureProducer,
    topics: &[String],
    n: usize,
    body: &[u8],
) -> impl Future<Output = bool> + use<> {
    let key = format!("evt_{n:016}");
    let record = FutureRecord::to(&topics[n % topics.len()]).key(&key).payload(body);
    let sent = producer.send_result(record).ok();
    async { matches!(OptionFuture::from(sent).await, Some(Ok(Ok(_)))) }
}

pub fn producer(loaded: &LoadedConfig) -> anyhow::Result<FutureProducer> {
    let kafka = ClusterConfig::new(loaded.config.kafka.bootstrap_servers.clone(), loaded.properties.clone());
    Producer::config(&kafka, app::tuning(&loaded.config))
        .create()
        .context("invalid properties of the producer")
}

pub async fn serve(loaded: LoadedConfig, router: Router, stock: bool) -> anyhow::Result<()> {
    let listen: SocketAddr = loaded.config.http.listen.parse()?;
    let listener = TcpListener::bind(listen).await?;
    if stock {
        #[allow(clippy::disallowed_methods)] // its cost is measured
        axum::serve(listener, router).await?;
        return Ok(());
    }
    let (_phase, phases) = watch::channel(Phase::Serving);
    http::serve(listener, router, app::connections(&loaded.config), || None, phases).await;
    Ok(())
}

/// Produces at a fixed rate, and prints the durations of the acknowledgements as a line of JSON.
pub fn produce(args: &Args, pace: Pace, bytes: usize) -> anyhow::Result<()> {
    let loaded = args.load()?;
    let (producer, body) = (producer(&loaded)?, crate::deliveries::body("produced", "t", bytes));
    let latency = block_on(pace.run(usize::MAX, |n| {
        let sent = send(&producer, &args.topic, n as usize, &body);
        async { if sent.await { 200 } else { 503 } }
    }))?;
    println!("{}", serde_json::to_string(&latency)?);
    Ok(())
}
