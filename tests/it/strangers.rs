//! What a client without a secret can cost the others: CPU time, memory for bodies, log lines.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream;
use reqwest::Client;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::cli::{hookstream, run};
use crate::pressure::connect_from;
use crate::support::process::{Log, Process, serve_with_log};
use crate::support::raw::{head, read_to_end};
use crate::support::{Answer, PATIENCE, SECRET, Setup, batch, datagrid, hmac_with, metric, until};

/// The program as a process that is ready.
struct Program {
    _process: Process,
    _directory: TempDir,
    hooks: SocketAddr,
    admin: String,
    log: Log,
    source: String,
}

impl Program {
    async fn ready(setup: &Setup) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("hookstream.toml");
        std::fs::write(&file, setup.toml()).unwrap();
        let (process, hooks, admin, log) = serve_with_log(&file);
        let (hooks, source) = (hooks.parse().unwrap(), setup.source.clone());
        let program = Self { _process: process, _directory: directory, hooks, admin, log, source };
        until("readiness", async || {
            at("127.0.0.1").get(format!("http://{}/readyz", program.admin)).send().await.unwrap().status()
                == 200
        })
        .await;
        program
    }

    fn url(&self) -> String {
        format!("http://{}/hooks/{}", self.hooks, self.source)
    }

    /// Posts a delivery with Datagrid's signature.
    async fn datagrid(&self, client: &Client, body: String) -> Answer {
        let signature = datagrid(body.as_bytes());
        let request = client.post(self.url()).header("datagrid-signature", signature).body(body);
        Answer::read(request.send().await.unwrap()).await
    }

    async fn metric(&self, name: &str) -> f64 {
        let text = at("127.0.0.1").get(format!("http://{}/metrics", self.admin)).send().await.unwrap();
        metric(&text.text().await.unwrap(), name).unwrap_or_default()
    }

    /// The log lines of deliveries so far.
    fn deliveries(&self) -> Vec<Value> {
        self.log.lock().unwrap().iter().filter(|line| line.get("outcome").is_some()).cloned().collect()
    }
}

/// A client at another address of this machine.
fn at(address: &str) -> Client {
    let address: IpAddr = address.parse().unwrap();
    Client::builder().local_address(address).timeout(PATIENCE).no_proxy().build().unwrap()
}

/// A client that sends part of a larger body, and then nothing.
async fn stalled(program: &Program, address: &str, declared: usize, sent: usize) -> TcpStream {
    let path = format!("/hooks/{}", program.source);
    let request = head("POST", &path, &[("content-length", &declared.to_string())]) + &"x".repeat(sent);
    let mut stream = connect_from(address, program.hooks).await;
    // The server may answer before everything is sent.
    let _ = stream.write_all(request.as_bytes()).await;
    stream
}

#[tokio::test]
async fn b4_a_flood_of_unverified_deliveries_logs_twenty_lines_a_second_for_any_reason() {
    const EACH: usize = 400;
    let mut setup = Setup::new("datagrid");
    setup.rules = String::from("challenge = { query = \"hub.challenge\" }");
    setup.tables = format!(
        "[source.{}-closed]\npreset = \"datagrid\"\nsecrets = [{{ env = \"TEST_SECRET\" }}]\nallow = [\"192.0.2.1\"]",
        setup.source
    );
    setup.http = String::from("max_body = \"100 KiB\"\nmax_body_bytes = \"100 KiB\"\nbody_timeout = \"3s\"");
    let program = Program::ready(&setup).await;
    let before = program.deliveries().len();
    let (start, client) = (Instant::now(), at("127.0.0.2"));
    // This address uses its whole share of the memory for bodies, so the large ones below are refused.
    let _held = stalled(&program, "127.0.0.2", 100 * 1024, 90 * 1024).await;
    let flood = |n: usize| {
        let (url, client) = (program.url(), client.clone());
        async move {
            let request = match n % 6 {
                0 => client.get(format!("{url}?hub.challenge=1158201444")),
                1 => client.post(format!("{url}-none")).body("{}"),
                2 => client.put(&url),
                3 => client.post(&url).header("datagrid-signature", "t=1,v1=00").body("{}"),
                4 => client.post(format!("{url}-closed")).body("{}"),
                _ => client.post(&url).body("x".repeat(50 * 1024)),
            };
            // The answer may be lost if the server does not read a request to its end.
            request.send().await.map(|answer| answer.status().as_u16()).ok()
        }
    };
    let statuses: Vec<_> = stream::iter(0..6 * EACH).map(flood).buffer_unordered(16).collect().await;
    for status in [200, 404, 405, 401, 403, 503] {
        let seen = statuses.iter().filter(|seen| **seen == Some(status)).count();
        assert!(seen > EACH / 20, "{seen} of {status}");
    }
    let lines = program.deliveries().split_off(before);
    let most = 20 * (2 + start.elapsed().as_secs() as usize);
    assert!((20..=most).contains(&lines.len()), "{} lines in {:?}", lines.len(), start.elapsed());
    for line in &lines {
        assert_eq!(line["client"], "127.0.0.2", "{line}");
    }
    assert!(program.metric("hookstream_log_lines_limited_total").await >= (6 * EACH - most) as f64);

    // Every verified delivery is logged, however many arrive, and without its address.
    drop(_held);
    let before = program.deliveries().len();
    let honest = (0..60).map(|n| program.datagrid(&client, batch(&format!("evt_{n}"))));
    for answer in join_all(honest).await {
        answer.is(200, "published", None);
    }
    until("their log lines", async || {
        let lines = program.deliveries().split_off(before);
        let published: Vec<_> = lines.iter().filter(|line| line["outcome"] == "published").collect();
        assert!(published.iter().all(|line| line.get("client").is_none()));
        published.len() == 60
    })
    .await;
}

#[tokio::test]
async fn b5_stalled_bodies_of_one_address_cause_no_503_for_another() {
    let mut setup = Setup::new("datagrid");
    setup.http = String::from("max_body_bytes = \"16 MiB\"\nbody_timeout = \"3s\"");
    let program = Program::ready(&setup).await;
    let (honest, until) = (at("127.0.0.1"), Instant::now() + Duration::from_secs(6));
    let attack = join_all((0..45).map(|_| async {
        while Instant::now() < until {
            let mut stream = stalled(&program, "127.0.0.2", 900 * 1024, 890 * 1024).await;
            let _ = read_to_end(&mut stream).await;
        }
    }));
    let deliver = async {
        let mut n = 0;
        while Instant::now() < until {
            // One in four is large, so that the server has to wait for its body.
            let filler = "x".repeat(if n % 4 == 0 { 700 * 1024 } else { 10 });
            let body = batch(&format!("evt_{n}")).replace("bpred_abc123\",\"st", &format!("{filler}\",\"st"));
            program.datagrid(&honest, body).await.is(200, "published", None);
            n += 1;
        }
        n
    };
    let (_, delivered) = tokio::join!(attack, deliver);
    assert!(delivered > 10, "{delivered}");
    let limited = program.metric("hookstream_unverified_limited_total{cause=\"address_bytes\"}").await;
    assert!(limited > 0.0, "the stalled bodies did not reach the share of their address");
}

#[tokio::test]
async fn b5_refused_bodies_count_as_unverified() {
    let mut setup = Setup::new("datagrid");
    setup.http = String::from(
        "unverified_rate_per_address = 1\nbody_timeout = \"200ms\"\nmax_body = \"100 KiB\"\nmax_body_bytes = \"100 KiB\"",
    );
    let program = Program::ready(&setup).await;
    // A body that is too slow, one declared too large, and one beyond the share of an address.
    for (address, declared, sent) in
        [("127.0.0.2", 1000, 10), ("127.0.0.3", 1 << 30, 0), ("127.0.0.4", 100 * 1024, 60 * 1024)]
    {
        let client = at(address);
        until("the limit", async || {
            let flood = (0..8).map(|_| async {
                drop(read_to_end(&mut stalled(&program, address, declared, sent).await).await);
            });
            join_all(flood).await;
            let answer = program.datagrid(&client, batch("evt_1")).await;
            if answer.status != 200 {
                answer.is(503, "unavailable", Some("address_limited"));
            }
            answer.status == 503
        })
        .await;
    }
    program.datagrid(&at("127.0.0.5"), batch("evt_1")).await.is(200, "published", None);
}

/// Many secrets of one source.
const SECRETS: usize = 20;

fn secret(n: usize) -> String {
    format!("{SECRET}-number-{n}")
}

/// A source with Grapevine's rules, many secrets in files, and a limit of the work per address.
async fn many_secrets(work: &str) -> (Program, TempDir) {
    let secrets = tempfile::tempdir().unwrap();
    for n in 0..SECRETS {
        std::fs::write(secrets.path().join(format!("{n:02}")), secret(n)).unwrap();
    }
    let mut setup = Setup::new("grapevine");
    setup.secrets = format!("[{{ dir = \"{}\" }}]", secrets.path().display());
    setup.http = format!("unverified_work_per_address = \"{work}\"");
    (Program::ready(&setup).await, secrets)
}

impl Program {
    /// A body of this many bytes, mostly non-ASCII, whose canonical form is signed with one of the secrets.
    async fn grapevine(&self, client: &Client, n: usize, bytes: usize) -> Answer {
        let (text, canonical) = ("\u{7f}".repeat(bytes), "\\u007f".repeat(bytes));
        let body = format!("{{\"id\": \"evt_1\", \"text\": \"{text}\"}}");
        let canonical = format!("{{\"id\":\"evt_1\",\"text\":\"{canonical}\"}}");
        let signature = format!("sha256={}", hmac_with(&secret(n), canonical.as_bytes()));
        let request = client.post(self.url()).header("x-grapevine-signature", signature).body(body);
        Answer::read(request.send().await.unwrap()).await
    }

    async fn forged(&self, address: &str, bytes: usize) -> Answer {
        self.grapevine(&at(address), SECRETS, bytes).await
    }
}

fn verified(answer: &Answer) {
    // The content does not matter here: it is not a Grapevine event.
    assert_eq!((answer.status, &answer.body["outcome"]), (200, &Value::from("dead_lettered")), "{answer:?}");
}

/// About 8 MB of hashing: 20 secrets, each over the body and over its canonical form, which is six times as long.
const COSTLY: usize = 50 * 1024;

#[tokio::test]
async fn b1_an_address_over_its_share_is_limited_but_its_small_authentic_deliveries_are_not() {
    let (program, _secrets) = many_secrets("1 MiB").await;
    let client = at("127.0.0.2");
    verified(&program.grapevine(&client, 0, 10).await);
    program.forged("127.0.0.2", COSTLY).await.is(401, "refused", Some("unauthorized"));
    // Answered before the body, which is never sent.
    let answer = read_to_end(&mut stalled(&program, "127.0.0.2", 800 * 1024, 0).await).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("address_limited"), "{answer}");
    assert!(answer.contains("retry-after: 5\r\n"), "{answer}");
    let large = program.grapevine(&client, 0, COSTLY).await;
    large.is(503, "unavailable", Some("address_limited"));
    // A client with the secret has the same address.
    verified(&program.grapevine(&client, 0, 1000).await);
    let small = program.forged("127.0.0.2", 1000).await;
    small.is(503, "unavailable", Some("address_limited"));
    // Other addresses are not affected.
    verified(&program.grapevine(&at("127.0.0.3"), 7, COSTLY).await);
    program.forged("127.0.0.3", 1000).await.is(401, "refused", Some("unauthorized"));
    until("the end of the limit", async || program.grapevine(&client, 0, COSTLY).await.status == 200).await;
    let limited = program.metric("hookstream_unverified_limited_total{cause=\"address_work\"}").await;
    assert!(limited >= 3.0, "{limited}");
    let work = format!("hookstream_unverified_work_bytes_total{{source=\"{}\"}}", program.source);
    assert!(program.metric(&work).await > 7e6, "{}", program.metric(&work).await);
}

#[tokio::test]
async fn b1_verified_deliveries_are_never_charged() {
    let (program, _secrets) = many_secrets("1 MiB").await;
    let client = at("127.0.0.2");
    for n in 0..SECRETS {
        verified(&program.grapevine(&client, n, COSTLY).await);
    }
    program.forged("127.0.0.2", COSTLY).await.is(401, "refused", Some("unauthorized"));
}

#[tokio::test]
async fn b1_many_addresses_cannot_exhaust_a_source_for_its_provider() {
    let (program, _secrets) = many_secrets("1 MiB").await;
    let provider = at("127.0.0.9");
    verified(&program.grapevine(&provider, SECRETS - 1, COSTLY).await);
    verified(&program.grapevine(&provider, 0, COSTLY).await);
    // Each address is within its own share, but together they exceed the source's limit.
    let mut address = 10;
    until("the limit of the source", async || {
        address += 1;
        let answer = program.forged(&format!("127.0.0.{address}"), COSTLY).await;
        if answer.status != 401 {
            answer.is(503, "unavailable", Some("overloaded"));
        }
        answer.status == 503
    })
    .await;
    let limited = program.metric("hookstream_unverified_limited_total{cause=\"source_work\"}").await;
    assert!(limited >= 1.0, "{limited}");
    // The secret that matched last, from any address; and any secret, from an address from which one has matched
    // before.
    verified(&program.grapevine(&at("127.0.0.8"), 0, COSTLY).await);
    verified(&program.grapevine(&provider, SECRETS - 1, COSTLY).await);
}

#[test]
fn b1_check_reports_the_cost_of_a_forged_body() {
    let directory = tempfile::tempdir().unwrap();
    let check = |secrets: usize| {
        for n in 0..secrets {
            std::fs::write(directory.path().join(format!("{n:03}")), secret(n)).unwrap();
        }
        let toml =
            format!("[source.grapevine]\nsecrets = [{{ dir = \"{}\" }}]\n", directory.path().display());
        let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
        std::fs::write(file.path(), toml).unwrap();
        let mut program = hookstream(std::env::temp_dir().as_path());
        let (code, stdout, _) = run(program.args(["check", "-c"]).arg(file.path()));
        assert_eq!(code, 0, "{stdout}");
        stdout
    };
    assert!(!check(1).contains("forged"), "one secret costs too little to report");
    let text = check(100);
    let expected =
        "source grapevine: a forged body of 900 KiB costs about 930 ms of one core with its 100 secrets";
    assert!(text.contains(expected), "{text}");
}
