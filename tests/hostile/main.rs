//! Honest clients must not be affected by many hostile ones. This is a separate binary, so that no other test runs during
//! the measurements; the hostile crowd is another process of the same executable.
// Tests may panic on the first failure, and may read answers as trees.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_types,
    clippy::disallowed_methods
)]
#![allow(clippy::print_stdout, unreachable_pub)]

mod clients;
mod compare;
mod crowd;
mod honest;
// tests/chaos uses these modules too, and parts only it uses.
#[allow(dead_code)]
mod service;
#[path = "../it/support/mod.rs"]
#[allow(dead_code)]
mod support;

use std::collections::BTreeSet;

use clients::Kind;
use compare::compare;
use crowd::{Plan, enough_files};
use honest::Honest;
use libtest_mimic::{Arguments, Trial};
use service::Service;
use support::{PATIENCE, Setup, kafka};
use tokio::runtime::Builder;
use tokio::sync::Mutex;

/// Measurements run one after the other.
static ALONE: Mutex<()> = Mutex::const_new(());

fn main() {
    if let Some(plan) = crowd::plan_from_environment() {
        return crowd::run(plan);
    }
    let mut arguments = Arguments::from_args();
    // With one thread, the tests' output would be mixed with the harness's lines.
    arguments.test_threads = Some(2);
    let trials = vec![
        trial(
            "eight_thousand_hostile_connections_do_not_double_the_p99_of_honest_clients",
            eight_thousand_connections,
        ),
        trial(
            "a_thousand_unfinished_tls_handshakes_do_not_double_the_p99_of_honest_clients",
            a_thousand_handshakes,
        ),
        trial("b1_four_attackers_without_a_secret_do_not_double_the_p99_of_honest_clients", four_attackers),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

fn trial<F: Future<Output = ()>>(name: &str, test: impl FnOnce() -> F + Send + 'static) -> Trial {
    Trial::test(name, || {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(async {
            let _alone = ALONE.lock().await;
            test().await;
        });
        Ok(())
    })
}

/// A service with the shipped limits, and the plan of a crowd of these kinds.
async fn service_and_plan(setup: Setup, kinds: Vec<(Kind, usize)>) -> (Service, Plan) {
    let path = format!("/hooks/{}", setup.source);
    enough_files(kinds.iter().map(|(_, count)| count).sum());
    let service = Service::ready(&setup).await;
    let plan = Plan { to: service.hooks, path, kinds, addresses: 8, opens: 3_000 };
    (service, plan)
}

/// Checks that the topic contains exactly the events of the honest clients.
async fn check_topic(source: &str, honest: &Honest) {
    let found = kafka::all(&format!("{source}.batch_prediction.completed")).await;
    let found: BTreeSet<String> = found.into_iter().collect();
    assert!(found == honest.sent, "{} in the topic, but {} sent", found.len(), honest.sent.len());
}

async fn eight_thousand_connections() {
    let mut setup = Setup::new("datagrid");
    let source = setup.source.clone();
    // More than the honest clients need until their ack deadline, but fewer than the crowd's slow bodies, which must not
    // occupy slots.
    setup.rules = String::from("max_in_flight = 500");
    let kinds = vec![
        (Kind::Silent, 3_700),
        (Kind::HalfHead, 3_400),
        (Kind::Trickle, 300),
        (Kind::Declared, 300),
        (Kind::Pipelined, 100),
        (Kind::Forged, 200),
    ];
    let (service, plan) = service_and_plan(setup, kinds).await;
    let mut honest = Honest::new(format!("http://{}{}", service.hooks, plan.path), || {
        reqwest::Client::builder().timeout(PATIENCE).no_proxy()
    });

    let compared = compare(&service, &plan, &mut honest, 3).await;
    compared.assert_unaffected();
    // An unoptimised build used 24 to 37 KiB per connection, and more after some rounds.
    assert!(compared.memory() < plan.connections() * 48, "{} KiB", compared.memory());

    check_topic(&source, &honest).await;
    let metrics = service.metrics().await;
    let count = |outcome, reason| metrics.deliveries(&source, outcome, reason);
    let (forged, slow) = (count("refused", "signature_mismatch"), count("refused", "body_too_slow"));
    println!("refused: {forged} signature_mismatch, {slow} body_too_slow");
    assert_eq!(count("published", ""), honest.sent.len());
    assert!(forged >= 100 && slow >= 100, "the limits did not apply to the crowd");
    assert_eq!(metrics.of_source(&source, "unavailable"), 0, "a delivery was refused for lack of a slot");
}

async fn a_thousand_handshakes() {
    let mut setup = Setup::new("datagrid");
    let source = setup.source.clone();
    let directory = tempfile::tempdir().unwrap();
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    std::fs::write(path("tls.crt"), certified.cert.pem()).unwrap();
    std::fs::write(path("tls.key"), certified.signing_key.serialize_pem()).unwrap();
    setup.tables = format!("[http.tls]\ncert = \"{}\"\nkey = \"{}\"", path("tls.crt"), path("tls.key"));
    let (service, plan) = service_and_plan(setup, vec![(Kind::Silent, 500), (Kind::HalfHello, 500)]).await;
    let trusted = reqwest::Certificate::from_pem(certified.cert.pem().as_bytes()).unwrap();
    let url = format!("https://localhost:{}{}", service.hooks.port(), plan.path);
    let mut honest = Honest::new(url, || {
        reqwest::Client::builder().timeout(PATIENCE).no_proxy().tls_certs_only([trusted.clone()])
    });

    compare(&service, &plan, &mut honest, 1).await.assert_unaffected();
    check_topic(&source, &honest).await;
    let failed = service.metrics().await.plain("hookstream_tls_handshakes_failed_total");
    assert!(failed >= plan.connections(), "{failed} failed handshakes");
}

/// The number of secrets of the attacked source.
const SECRETS: usize = 100;

async fn four_attackers() {
    let mut setup = Setup::new("datagrid");
    let source = setup.source.clone();
    let secrets = tempfile::tempdir().unwrap();
    for n in 0..SECRETS {
        std::fs::write(secrets.path().join(format!("{n:03}")), format!("wh_secret-number-{n}")).unwrap();
    }
    let attacked = format!("{source}-many");
    setup.tables = format!(
        "[source.{attacked}]\npreset = \"grapevine\"\nsecrets = [{{ dir = \"{}\" }}]",
        secrets.path().display()
    );
    let (service, plan) = service_and_plan(setup, vec![(Kind::Costly, 4)]).await;
    let mut honest = Honest::new(format!("http://{}{}", service.hooks, plan.path), || {
        reqwest::Client::builder().timeout(PATIENCE).no_proxy()
    });

    let compared = compare(&service, &plan, &mut honest, 3).await;
    compared.assert_unaffected();
    check_topic(&source, &honest).await;
    let metrics = service.metrics().await;
    let (tried, limited) =
        (metrics.of_source(&attacked, "refused"), metrics.of_source(&attacked, "unavailable"));
    println!("attackers: {tried} bodies tried, {limited} refused");
    assert!(tried + limited > 20, "the attack ended early");
    assert!(limited > tried, "{tried} tried, {limited} refused");
}
