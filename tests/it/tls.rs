//! TLS on both ports, and the operator's token, with real listeners and generated certificates.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use reqwest::tls::{TlsInfo, Version};
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::cli::{hookstream, run};
use crate::support::raw::{self, head};
use crate::support::{Answer, PATIENCE, Service, Setup, batch, datagrid, process, until};

const TOKEN: &str = "operator-token-0123456789";

/// A certificate authority and a directory with its certificates.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, dir }
    }

    /// Writes `NAME.pem` and `NAME.key`: chain and key for `localhost`, with this serial number.
    pub fn issue(&self, name: &str, serial: u64) -> (PathBuf, PathBuf) {
        self.issue_until(name, serial, None)
    }

    fn issue_until(&self, name: &str, serial: u64, end: Option<(i32, u8, u8)>) -> (PathBuf, PathBuf) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.serial_number = Some(serial.into());
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        if let Some((year, month, day)) = end {
            params.not_after = rcgen::date_time_ymd(year, month, day);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let (chain, private) = (self.path(&format!("{name}.pem")), self.path(&format!("{name}.key")));
        std::fs::write(&chain, certificate.pem() + &self.issuer.pem()).unwrap();
        std::fs::write(&private, key.serialize_pem()).unwrap();
        (chain, private)
    }

    /// The authority's own certificate.
    pub fn certificate(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A client that trusts only this authority.
    pub fn client(&self) -> reqwest::ClientBuilder {
        let ca = reqwest::Certificate::from_pem(self.issuer.pem().as_bytes()).unwrap();
        reqwest::Client::builder().no_proxy().timeout(PATIENCE).tls_certs_only([ca]).tls_info(true)
    }

    /// The serial number of the certificate on a new connection to the port.
    async fn serial(&self, port: u16) -> u64 {
        let client = self.client().build().unwrap();
        let answer = client.get(format!("https://localhost:{port}/hooks/x")).send().await.unwrap();
        serial(&answer)
    }
}

fn serial(answer: &reqwest::Response) -> u64 {
    let der = answer.extensions().get::<TlsInfo>().unwrap().peer_certificate().unwrap();
    let (_, certificate) = x509_parser::parse_x509_certificate(der).unwrap();
    certificate.raw_serial().iter().fold(0, |serial, byte| serial << 8 | u64::from(*byte))
}

pub fn table(name: &str, (cert, key): &(PathBuf, PathBuf)) -> String {
    format!("[{name}.tls]\ncert = \"{}\"\nkey = \"{}\"\n", cert.display(), key.display())
}

pub async fn with_tls(authority: &Authority, http: &str) -> Service {
    let pair = authority.issue("server", 1);
    Setup { tables: table("http", &pair), http: http.into(), ..Setup::new("datagrid") }.ready().await
}

pub async fn deliver(client: &reqwest::Client, service: &Service, id: &str) -> (Answer, u64) {
    let body = batch(id);
    let url = format!("https://localhost:{}/hooks/{}", service.hooks().port(), service.source);
    let signature = datagrid(body.as_bytes());
    let answer = client.post(url).header("datagrid-signature", signature).body(body).send().await.unwrap();
    let serial = serial(&answer);
    (Answer::read(answer).await, serial)
}

#[tokio::test]
async fn tls_1_2_and_1_3_work_for_clients_that_trust_the_certificate() {
    let authority = Authority::new();
    let service = with_tls(&authority, "").await;
    for (version, id) in [(Version::TLS_1_2, "evt_12"), (Version::TLS_1_3, "evt_13")] {
        let client = authority.client().tls_version_min(version).tls_version_max(version).build().unwrap();
        deliver(&client, &service, id).await.0.is(200, "published", None);
    }
    let stranger = Authority::new().client().build().unwrap();
    let url = format!("https://localhost:{}/hooks/x", service.hooks().port());
    assert!(stranger.get(&url).send().await.unwrap_err().is_connect());

    let ends = jiff::Timestamp::now().as_second() as f64 + 365.0 * 86_400.0;
    let metrics = service.admin("/metrics").await.1;
    let line = metrics
        .lines()
        .find(|line| line.starts_with("hookstream_tls_not_after_timestamp_seconds{port=\"http\"}"));
    let expiry: f64 = line.unwrap().rsplit_once(' ').unwrap().1.parse().unwrap();
    assert!(expiry > ends, "the test's certificate expires in 4096: {expiry}");
    assert!(metrics.contains("hookstream_tls_handshakes_failed_total"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_renewed_under_load_and_no_request_fails() {
    let authority = Authority::new();
    let service = Arc::new(with_tls(&authority, "").await);
    let going = Arc::new(AtomicBool::new(true));
    let done = Arc::new(AtomicUsize::new(0));
    let mut senders = Vec::new();
    for n in 0..4 {
        // Half of the clients keep their connection, half make a new one for each delivery.
        let pooled = if n % 2 == 0 { 1 } else { 0 };
        let client = authority.client().pool_max_idle_per_host(pooled).build().unwrap();
        let (service, going, done) = (service.clone(), going.clone(), done.clone());
        senders.push(tokio::spawn(async move {
            let mut seen = Vec::new();
            while going.load(Ordering::Relaxed) {
                let (answer, serial) = deliver(&client, &service, &format!("evt_{n}_{}", seen.len())).await;
                answer.is(200, "published", None);
                seen.push(serial);
                done.fetch_add(1, Ordering::Relaxed);
            }
            seen
        }));
    }
    let more = async |count: usize| {
        let until_now = done.load(Ordering::Relaxed);
        until("load", async || done.load(Ordering::Relaxed) >= until_now + count).await;
    };
    more(20).await;
    for serial in [2, 3, 4] {
        authority.issue("server", serial);
        service.app.reload.now().await.unwrap();
        assert_eq!(authority.serial(service.hooks().port()).await, serial, "a new connection");
        more(20).await;
    }
    going.store(false, Ordering::Relaxed);
    for (n, sender) in senders.into_iter().enumerate() {
        let seen = sender.await.expect("200 for every request");
        if n % 2 == 0 {
            assert!(seen.iter().all(|serial| *serial == 1), "a connection keeps its certificate: {seen:?}");
        } else {
            assert!(seen.contains(&4), "{seen:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mismatched_certificate_and_key_are_refused_and_the_old_pair_stays() {
    let authority = Authority::new();
    let service = with_tls(&authority, "").await;
    let port = service.hooks().port();
    let key = std::fs::read(authority.path("server.key")).unwrap();
    authority.issue("server", 2);
    std::fs::write(authority.path("server.key"), key).unwrap();
    let error = service.app.reload.now().await.unwrap_err().to_string();
    assert!(error.contains("http.tls.key") && error.contains("use a matching pair"), "{error}");
    assert_eq!(authority.serial(port).await, 1);
    std::fs::write(authority.path("server.pem"), "no PEM").unwrap();
    std::fs::remove_file(authority.path("server.key")).unwrap();
    let error = service.app.reload.now().await.unwrap_err().to_string();
    assert!(error.contains("2 problems") && error.contains("no valid certificates in PEM"), "{error}");
    assert!(error.contains("server.key cannot be read"), "{error}");
    assert_eq!(authority.serial(port).await, 1);
    authority.issue("server", 3);
    service.app.reload.now().await.unwrap();
    assert_eq!(authority.serial(port).await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_without_tls_or_stalled_in_the_handshake_are_disconnected_and_delay_nobody() {
    let authority = Authority::new();
    let service = with_tls(
        &authority,
        "head_timeout = \"2s\"\nmax_connections = 600\nmax_connections_per_address = 600",
    )
    .await;
    let answer = raw::exchange(service.hooks(), head("GET", "/hooks/x", &[]).as_bytes()).await;
    assert!(!answer.contains("HTTP/1.1"), "{answer:?}");

    // Only the first bytes of a ClientHello.
    let stalled = Instant::now();
    let mut held: Vec<TcpStream> = Vec::new();
    for _ in 0..500 {
        held.push(raw::open(service.hooks(), &[22, 3, 1, 2, 0, 1]).await);
    }
    let client = authority.client().pool_max_idle_per_host(0).build().unwrap();
    let mut slowest = Duration::ZERO;
    for n in 0..20 {
        let start = Instant::now();
        deliver(&client, &service, &format!("evt_{n}")).await.0.is(200, "published", None);
        slowest = slowest.max(start.elapsed());
    }
    // No connection waits for a stalled one.
    assert!(slowest < Duration::from_secs(2), "an honest client waited {slowest:?}");
    let mut first = held.remove(0);
    let mut rest = Vec::new();
    tokio::time::timeout(PATIENCE, first.read_to_end(&mut rest))
        .await
        .expect("the end of the connection")
        .ok();
    assert!(
        stalled.elapsed() >= Duration::from_secs(2),
        "closed before its timeout: {:?}",
        stalled.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operators_port_requires_its_token_except_for_probes() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let mut setup = Setup::new("datagrid");
    setup.tables = format!("[admin.bearer]\nfile = \"{}\"", file.display());
    let service = setup.ready().await;
    let ask = async |path: &str, token: Option<&str>| {
        let mut request = service.client.get(format!("http://{}{path}", service.app.admin));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        request.send().await.unwrap()
    };
    for path in ["/livez", "/readyz"] {
        assert_eq!(ask(path, None).await.status(), 200, "{path}");
    }
    for path in ["/", "/status", "/metrics"] {
        assert_eq!(ask(path, Some(TOKEN)).await.status(), 200, "{path}");
        for token in [None, Some("wrong"), Some(&TOKEN[1..])] {
            let answer = ask(path, token).await;
            assert_eq!(answer.status(), 401, "{path} {token:?}");
            assert_eq!(answer.headers()["www-authenticate"], "Bearer");
            assert!(!answer.text().await.unwrap().contains(TOKEN));
        }
    }
    let requeue = service.client.post(format!("http://{}/spool/requeue", service.app.admin));
    assert_eq!(requeue.body("{}").send().await.unwrap().status(), 401);

    std::fs::write(&file, "the-next-token-0123456789").unwrap();
    service.app.reload.now().await.unwrap();
    assert_eq!(ask("/status", Some(TOKEN)).await.status(), 401, "the old token");
    assert_eq!(ask("/status", Some("the-next-token-0123456789")).await.status(), 200);
}

#[tokio::test]
async fn the_operators_port_requires_client_certificates() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let pair = authority.issue("admin", 7);
    let mut setup = Setup::new("datagrid");
    setup.tables = table("admin", &pair) + &format!("client_ca = \"{}\"", clients.path("ca.pem").display());
    let service = setup.ready().await;
    let url = format!("https://localhost:{}/status", service.app.admin.port());
    let with = |issuer: &Authority| {
        let (chain, key) = issuer.issue("client", 8);
        let pem = [std::fs::read(chain).unwrap(), std::fs::read(key).unwrap()].concat();
        authority.client().identity(reqwest::Identity::from_pem(&pem).unwrap()).build().unwrap()
    };
    assert_eq!(with(&clients).get(&url).send().await.unwrap().status(), 200);
    assert!(with(&authority).get(&url).send().await.is_err(), "a certificate of another authority");
    assert!(authority.client().build().unwrap().get(&url).send().await.is_err(), "no certificate");
}

/// Runs `hookstream` with the configuration `file` in its directory.
async fn command(file: &Path, arguments: &[&str], token: &str) -> (i32, String, String) {
    let (file, token) = (file.to_owned(), token.to_owned());
    let arguments: Vec<String> = arguments.iter().map(|&text| text.to_owned()).collect();
    let work = move || {
        let mut command = hookstream(file.parent().unwrap());
        run(command.args(arguments).arg("-c").arg(&file).env("ADMIN_TOKEN", token).env("TEST_SECRET", "x"))
    };
    let (code, stdout, stderr) = tokio::task::spawn_blocking(work).await.unwrap();
    println!("{stdout}{stderr}");
    assert!(!format!("{stdout}{stderr}").contains(TOKEN));
    (code, stdout, stderr)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_connects_to_a_secured_port_as_configured() {
    let authority = Authority::new();
    let pair = authority.issue("admin", 7);
    let mut setup = Setup::new("datagrid");
    let bearer = "[admin.bearer]\nenv = \"ADMIN_TOKEN\"\n";
    setup.tables = bearer.to_owned() + &table("admin", &pair);
    setup.environment = [("ADMIN_TOKEN".to_owned(), TOKEN.to_owned())].into();
    let service = setup.ready().await;
    let port = service.app.admin.port();
    let file = authority.path("hookstream.toml");
    let listen = format!("[admin]\nlisten = \"0.0.0.0:{port}\"\n");
    std::fs::write(&file, listen + bearer + &table("admin", &pair)).unwrap();

    let (code, stdout, _) = command(&file, &["status"], TOKEN).await;
    assert!(code == 0 && stdout.contains("READY"), "{stdout}");
    let (code, _, stderr) = command(&file, &["status"], "another-token-0123456789").await;
    assert!(code == 2 && stderr.contains("asks for a token"), "{stderr}");
    let (code, _, stderr) = command(&file, &["status"], "").await;
    assert!(code == 2 && stderr.contains("ADMIN_TOKEN is set but empty"), "{stderr}");
    // A certificate from another authority is not trusted, whatever its name.
    let stranger = Authority::new();
    let other = stranger.issue("admin", 9);
    let listen = format!("[admin]\nlisten = \"0.0.0.0:{port}\"\n");
    std::fs::write(&file, listen + bearer + &table("admin", &other)).unwrap();
    let (code, _, stderr) = command(&file, &["status"], TOKEN).await;
    assert!(code == 2 && stderr.contains("certificate"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_reports_a_bad_certificate_with_its_line_and_one_that_expires_soon() {
    let authority = Authority::new();
    let file = authority.path("hookstream.toml");
    let source = "[source.datagrid]\nsecrets = [{ env = \"TEST_SECRET\" }]\n";
    let (cert, key) = authority.issue("server", 1);
    let other = authority.issue("other", 2);
    std::fs::write(&file, table("http", &(cert, other.1)) + source).unwrap();
    let (code, stdout, _) = command(&file, &["check"], "").await;
    assert!(code == 1 && stdout.contains("hookstream.toml:3: http.tls.key: is not the key of"), "{stdout}");
    assert!(key.exists());

    let ended = authority.issue_until("ended", 3, Some((2024, 1, 1)));
    std::fs::write(&file, table("http", &ended) + source).unwrap();
    let (code, stdout, _) = command(&file, &["check"], "").await;
    assert!(code == 0 && stdout.contains("http.tls: the certificate expired at 2024-01-01"), "{stdout}");
    let soon = (jiff::Zoned::now().date()).checked_add(jiff::Span::new().days(9)).unwrap();
    let end = (soon.year().into(), soon.month().unsigned_abs(), soon.day().unsigned_abs());
    let ending = authority.issue_until("ending", 4, Some(end));
    std::fs::write(&file, table("admin", &ending) + source).unwrap();
    let (_, stdout, _) = command(&file, &["check"], "").await;
    assert!(
        stdout.contains("admin.tls: the certificate expires at") && stdout.contains("in 8 days"),
        "{stdout}"
    );
}

/// With the real program, which watches its files.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_certificate_is_loaded_automatically_and_no_log_shows_the_token() {
    let authority = Authority::new();
    let pair = authority.issue("server", 1);
    let setup = Setup::new("datagrid");
    let token = authority.path("token");
    std::fs::write(&token, TOKEN).unwrap();
    let bearer = format!("[admin.bearer]\nfile = \"{}\"\n", token.display());
    let file = authority.path("hookstream.toml");
    std::fs::write(&file, setup.toml() + "\n" + &bearer + &table("http", &pair)).unwrap();
    let (_process, hooks, admin, log) =
        tokio::task::spawn_blocking(move || process::serve_with_log(&file)).await.unwrap();
    let port: u16 = hooks.rsplit_once(':').unwrap().1.parse().unwrap();
    assert_eq!(authority.serial(port).await, 1);
    authority.issue("server", 2);
    until("the new certificate", async || authority.serial(port).await == 2).await;
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
    let url = format!("http://{admin}/status");
    assert_eq!(client.get(&url).bearer_auth("wrong").send().await.unwrap().status(), 401);
    assert_eq!(client.get(&url).bearer_auth(TOKEN).send().await.unwrap().status(), 200);
    let log = format!("{:?}", log.lock().unwrap());
    assert!(log.contains("reloaded") && !log.contains(TOKEN), "{log}");
}
