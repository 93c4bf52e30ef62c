//! A rolling upgrade: two replicas behind a load balancer, replaced one after the other under load.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::process::{Process, serve};
use crate::support::{PATIENCE, Setup, batch, datagrid, kafka, until};

/// A replica and what the balancer knows of it.
struct Replica {
    process: Process,
    hooks: String,
    admin: String,
    ready: bool,
}

impl Replica {
    fn start(config: &Path) -> Self {
        let (process, hooks, admin) = serve(config);
        Self { process, hooks, admin, ready: false }
    }
}

/// Sends to those that were ready at its last look, as load balancers and Kubernetes' services do.
struct Balancer {
    replicas: Mutex<Vec<Replica>>,
    turn: AtomicUsize,
    client: reqwest::Client,
}

impl Balancer {
    /// Asks each replica's /readyz, for as long as it is polled.
    async fn look(&self) {
        loop {
            let admins: Vec<String> =
                self.replicas.lock().unwrap().iter().map(|one| one.admin.clone()).collect();
            for admin in admins {
                let answer = self.client.get(format!("http://{admin}/readyz")).send().await;
                let ready = answer.is_ok_and(|answer| answer.status() == 200);
                let mut replicas = self.replicas.lock().unwrap();
                replicas.iter_mut().filter(|one| one.admin == admin).for_each(|one| one.ready = ready);
            }
            // The balancer's own pace, part of what is tested; it ends with the test.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn ready(&self) -> usize {
        self.replicas.lock().unwrap().iter().filter(|one| one.ready).count()
    }

    /// The next in turn.
    fn choose(&self) -> String {
        let (replicas, turn) = (self.replicas.lock().unwrap(), self.turn.fetch_add(1, Ordering::Relaxed));
        let ready: Vec<_> = replicas.iter().filter(|one| one.ready).collect();
        ready[turn % ready.len()].hooks.clone()
    }

    /// The old one of this place ends as it is told to; a new one takes its place.
    async fn replace(&self, place: usize, config: &Path) {
        let pid = self.replicas.lock().unwrap()[place].process.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let ended = || self.replicas.lock().unwrap()[place].process.0.try_wait().unwrap();
        until("the old one's end", async || ended().is_some()).await;
        assert_eq!(ended().unwrap().code(), Some(0), "it ends without loss");
        self.replicas.lock().unwrap()[place] = Replica::start(config);
        until("both are ready", async || self.ready() == 2).await;
    }
}

/// Deliveries of one sender, each repeated while it is answered 503; their ids, and how often that was.
async fn send(
    balancer: Arc<Balancer>,
    source: String,
    sender: usize,
    stop: Arc<AtomicBool>,
) -> (Vec<String>, usize) {
    let (mut sent, mut repeated) = (Vec::new(), 0);
    while !stop.load(Ordering::Relaxed) {
        let id = format!("evt_{sender}_{}", sent.len());
        let body = batch(&id);
        loop {
            let url = format!("http://{}/hooks/{source}", balancer.choose());
            let request = balancer.client.post(url).header("Datagrid-Signature", datagrid(body.as_bytes()));
            let answer = request.body(body.clone()).send().await.expect("each delivery is answered");
            match answer.status().as_u16() {
                200 => break,
                503 => {
                    assert!(answer.headers().contains_key("retry-after"));
                    repeated += 1;
                }
                other => panic!("answered {other}"),
            }
        }
        sent.push(id);
    }
    (sent, repeated)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_upgrade_answers_each_delivery_and_loses_none() {
    let setup = Setup::new("datagrid");
    let source = setup.source.clone();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("hookstream.toml");
    // Twenty looks of the balancer.
    let toml = setup.toml().replace("drain_delay = \"0s\"", "drain_delay = \"1s\"");
    std::fs::write(&file, toml).unwrap();
    let balancer = Arc::new(Balancer {
        replicas: Mutex::new(vec![Replica::start(&file), Replica::start(&file)]),
        turn: AtomicUsize::new(0),
        client: reqwest::Client::builder().timeout(PATIENCE).no_proxy().build().unwrap(),
    });
    let looking = tokio::spawn({
        let balancer = balancer.clone();
        async move { balancer.look().await }
    });
    until("both are ready", async || balancer.ready() == 2).await;

    let stop = Arc::new(AtomicBool::new(false));
    let senders: Vec<_> = (0..8)
        .map(|sender| tokio::spawn(send(balancer.clone(), source.clone(), sender, stop.clone())))
        .collect();
    for place in [0, 1] {
        balancer.replace(place, &file).await;
    }
    stop.store(true, Ordering::Relaxed);
    let (mut sent, mut repeated) = (BTreeSet::new(), 0);
    for sender in senders {
        let (ids, times) = sender.await.unwrap();
        sent.extend(ids);
        repeated += times;
    }
    looking.abort();
    println!("{} deliveries, {repeated} answers of 503", sent.len());
    assert!(sent.len() > 200, "{}", sent.len());
    let found = kafka::all(&format!("{source}.batch_prediction.completed")).await;
    let found: BTreeSet<String> = found.into_iter().collect();
    let lost: Vec<_> = sent.difference(&found).collect();
    assert!(lost.is_empty(), "{} of {} lost: {lost:?}", lost.len(), sent.len());
}
