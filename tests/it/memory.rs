//! Memory of connections and bodies, measured on the real program, and the formula for it in docs/operations.md.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use reqwest::Client;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::pressure::connect_from;
use crate::support::process::{Process, serve};
use crate::support::raw::head;
use crate::support::{PATIENCE, Setup, batch, datagrid, until};
use crate::tls::{Authority, table};

/// The figures in docs/operations.md, which the test compares with these.
const IDLE_MIB: f64 = 64.0;
const CONNECTION_KIB: f64 = 40.0;
const TLS_KIB: f64 = 64.0;
const BODY_FACTOR: f64 = 2.0;
/// 100,000 records of 2.3 KB took 401 MiB resident, measured once; no test fills the queue.
const QUEUE_MIB: f64 = 448.0;

struct Service {
    process: Process,
    hooks: SocketAddr,
    admin: String,
    client: Client,
    source: String,
    _directory: tempfile::TempDir,
}

impl Service {
    async fn ready(http: &str, tables: &str) -> Self {
        // The test's own ends of the connections need files too.
        rlimit::increase_nofile_limit(u64::MAX).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("hookstream.toml");
        let http = format!("head_timeout = \"10m\"\nbody_timeout = \"5m\"\n{http}");
        let rules = String::from("types = [\"batch_prediction.completed\"]\nack_deadline = \"6m\"");
        let setup = Setup { http, rules, tables: tables.into(), ..Setup::new("datagrid") };
        std::fs::write(&file, setup.toml()).unwrap();
        let (process, hooks, admin) = tokio::task::spawn_blocking(move || serve(&file)).await.unwrap();
        let client = Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        let hooks = hooks.parse().unwrap();
        let service = Self { process, hooks, admin, client, source: setup.source, _directory: directory };
        until("readiness", async || {
            let answer = service.client.get(format!("http://{}/readyz", service.admin)).send().await;
            answer.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
        service
    }

    async fn get(&self, path: &str) -> String {
        let answer = self.client.get(format!("http://{}{path}", self.admin)).send().await.unwrap();
        answer.text().await.unwrap()
    }

    /// KiB of `VmRSS`, or of `VmHWM`, its maximum so far.
    fn memory(&self, name: &str) -> f64 {
        let file = Path::new("/proc").join(self.process.0.id().to_string()).join("status");
        let status = std::fs::read_to_string(file).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Waits until the program has accepted this many connections.
    async fn has(&self, connections: usize) {
        until("all connections to be accepted", async || {
            let metrics = self.get("/metrics").await;
            let open =
                metrics.lines().find_map(|line| line.strip_prefix("hookstream_connections{port=\"http\"} "));
            open.is_some_and(|open| open.parse::<usize>().unwrap() >= connections)
        })
        .await;
    }

    async fn connect(&self, count: usize) -> Vec<TcpStream> {
        let mut all = Vec::new();
        for n in 0..count {
            all.push(connect_from(&format!("127.0.0.{}", 2 + n % 8), self.hooks).await);
        }
        self.has(count).await;
        all
    }
}

/// Unread bytes in the kernel for a server: those that it has not read, and those that clients have not sent yet. The
/// whole address is compared: a client at another address may have the server's port number.
fn unread(server: SocketAddr) -> u64 {
    let SocketAddr::V4(server) = server else { panic!("{server} is not in /proc/net/tcp") };
    let server = format!("{:08X}:{:04X}", u32::from_ne_bytes(server.ip().octets()), server.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let hexadecimal = |text: &str| u64::from_str_radix(text, 16).unwrap();
    let lines = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let waiting = lines.map(|line| {
        let (sending, receiving) = line[4].split_once(':').unwrap();
        let receiving = if line[1] == server { hexadecimal(receiving) } else { 0 };
        receiving + if line[2] == server { hexadecimal(sending) } else { 0 }
    });
    waiting.sum()
}

/// Waits until the server has read all sent bytes and has answered a later request.
async fn settle(service: &Service) {
    until("the server to read everything", async || unread(service.hooks) == 0).await;
    for _ in 0..20 {
        service.get("/livez").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b6_a_connection_and_a_body_use_the_memory_that_the_formula_says() {
    const MANY: usize = 2_000;
    let service = Service::ready("", "").await;
    let body = batch("evt_warm");
    for _ in 0..50 {
        let request = service.client.post(format!("http://{}/hooks/{}", service.hooks, service.source));
        let request = request.header("datagrid-signature", datagrid(body.as_bytes())).body(body.clone());
        assert_eq!(request.send().await.unwrap().status(), 200);
    }
    let before = service.memory("VmRSS");
    let each = |after: f64, count: usize| (after - before) / count as f64;

    let mut held = service.connect(MANY).await;
    settle(&service).await;
    let silent = each(service.memory("VmRSS"), MANY);
    let half = format!("POST /hooks/x HTTP/1.1\r\nhost: test\r\nx-padding: {}", "x".repeat(1000));
    for stream in &mut held {
        stream.write_all(half.as_bytes()).await.unwrap();
    }
    settle(&service).await;
    let half_head = each(service.memory("VmRSS"), MANY);
    let rest = "x".repeat(14 * 1024);
    for stream in held.iter_mut().take(MANY / 2) {
        stream.write_all(rest.as_bytes()).await.unwrap();
    }
    settle(&service).await;
    let large_head = each(service.memory("VmRSS"), MANY / 2) - half_head;
    for stream in &mut held {
        stream.write_all(b"\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
    }
    settle(&service).await;
    let kept = each(service.memory("VmRSS"), MANY);
    drop(held);

    // Incomplete bodies of 256 KiB each, whose memory is still in use.
    let others = Service::ready("max_body_bytes = \"64 MiB\"", "").await;
    let before = others.memory("VmRSS");
    let mut held = others.connect(200).await;
    let path = format!("/hooks/{}", others.source);
    let request = head("POST", &path, &[("content-length", "900000")]) + &"x".repeat(256 * 1024);
    for stream in &mut held {
        stream.write_all(request.as_bytes()).await.unwrap();
    }
    settle(&others).await;
    let factor = (others.memory("VmRSS") - before - 200.0 * CONNECTION_KIB) / (200.0 * 256.0);
    println!(
        "idle {:.0} MiB; KiB for each connection: silent {silent:.1}, half a head {half_head:.1}, of 15 KiB {large_head:.1}, kept {kept:.1}; \
         for each byte of a body {factor:.2}",
        before / 1024.0
    );
    assert!(before / 1024.0 <= IDLE_MIB);
    for figure in [silent, half_head, large_head, kept] {
        assert!(figure <= CONNECTION_KIB, "{figure:.1} KiB for a connection");
    }
    assert!(factor <= BODY_FACTOR, "{factor:.2}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b6_a_connection_with_tls_uses_the_memory_that_the_formula_says() {
    const MANY: usize = 500;
    let authority = Authority::new();
    let pair = authority.issue("server", 1);
    let service = Service::ready("", &table("http", &pair)).await;
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let connector = TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth()));
    let connect = async |n: usize| {
        let stream = connect_from(&format!("127.0.0.{}", 2 + n % 8), service.hooks).await;
        let mut stream = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
        stream.write_all(b"GET /hooks/x HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        stream.read_exact(&mut [0; 12]).await.unwrap();
        stream
    };
    let mut held = Vec::new();
    for n in 0..20 {
        held.push(connect(n).await);
    }
    let before = service.memory("VmRSS");
    for n in 0..MANY {
        held.push(connect(n).await);
    }
    settle(&service).await;
    let each = (service.memory("VmRSS") - before) / MANY as f64;
    println!("KiB for each connection with TLS: {each:.1}");
    assert!(each <= TLS_KIB, "{each:.1}");
}

#[test]
fn b6_the_page_and_the_chart_use_the_measured_formula() {
    let read =
        |path: &str| std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let formula = format!(
        "{IDLE_MIB} MiB + {CONNECTION_KIB} KiB x max_connections ({TLS_KIB} KiB with TLS) + {BODY_FACTOR} x max_body_bytes + {QUEUE_MIB} MiB"
    );
    let page = read("docs/operations.md");
    assert!(page.contains(&formula), "{formula}");
    let sum = IDLE_MIB + 10_000.0 * CONNECTION_KIB / 1024.0 + BODY_FACTOR * 256.0 + QUEUE_MIB;
    assert!(page.contains(&format!("{sum:.0} MiB")), "{sum:.0}");
    let values = read("deploy/helm/hookstream/values.yaml");
    let (_, limit) = values.split_once("limits: { memory: ").unwrap();
    let limit: f64 = limit.split_once("Mi }").unwrap().0.parse().unwrap();
    assert!(
        (sum..sum * 1.1).contains(&limit),
        "the chart's limit is {limit} MiB, the formula's sum {sum:.0} MiB"
    );
}

/// Without a cgroup and with an empty producer: compares the program's maximum resident memory with the formula.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b6_the_largest_allowed_load_uses_less_memory_than_the_formula_says() {
    let http = "max_connections = 2000\nmax_body_bytes = \"32 MiB\"\nmax_connections_per_address = 2000";
    let service = Service::ready(http, "").await;
    let mut held = service.connect(1_900).await;
    let path = format!("/hooks/{}", service.source);
    let body = head("POST", &path, &[("content-length", "900000")]) + &"x".repeat(512 * 1024);
    let half = format!("POST {path} HTTP/1.1\r\nhost: test\r\nx-padding: {}", "x".repeat(12 * 1024));
    for (n, stream) in held.iter_mut().enumerate() {
        // More than fit, so some are answered 503 and closed.
        let _ = stream.write_all(if n % 19 == 0 { body.as_bytes() } else { half.as_bytes() }).await;
    }
    settle(&service).await;
    let allowed = IDLE_MIB + 2000.0 * CONNECTION_KIB / 1024.0 + 32.0 * BODY_FACTOR;
    let most = service.memory("VmHWM") / 1024.0;
    println!("resident at most: {most:.0} MiB of {allowed:.0} MiB");
    assert!(most <= allowed, "{most:.0} MiB of {allowed:.0} MiB");
    let body = batch("evt_1");
    let request = service.client.post(format!("http://{}{path}", service.hooks));
    let request = request.header("datagrid-signature", datagrid(body.as_bytes())).body(body);
    let status = request.send().await.unwrap().status();
    // There may be no room for its body.
    assert!([200, 503].contains(&status.as_u16()), "{status}");
}
