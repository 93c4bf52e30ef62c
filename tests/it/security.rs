//! Kafka and registry secured as in production: SASL, TLS, user name and password.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hookstream::config::Networks;
use hookstream::dev::registry;
use rustls::pki_types::PrivateKeyDer;

use crate::cli::{hookstream, run};
use crate::support::{SECRET, Setup, batch, kafka, stack};

/// Publishes a delivery through one of the stack's Kafka listeners with these properties.
async fn publishes(listener: &str, properties: &str) {
    let setup = Setup {
        kafka: stack(listener),
        tables: format!("[kafka.properties]\n{properties}"),
        environment: BTreeMap::from([("TEST_KAFKA_PASSWORD".into(), stack("KAFKA_PASSWORD"))]),
        ..Setup::new("datagrid")
    };
    let service = setup.ready().await;
    service.datagrid_post(batch("evt_sasl")).await.is(200, "published", None);
    assert_eq!(kafka::all(&service.topic("batch_prediction.completed")).await.len(), 1);
}

#[tokio::test]
async fn kafka_with_sasl_scram_and_quoted_and_unquoted_property_names() {
    publishes(
        "KAFKA_SCRAM",
        r#"
        security.protocol = "SASL_PLAINTEXT"
        "sasl.mechanism" = "SCRAM-SHA-512"
        sasl.username = "hookstream"
        sasl.password = { env = "TEST_KAFKA_PASSWORD" }
        "#,
    )
    .await;
}

#[tokio::test]
async fn kafka_with_sasl_plain() {
    publishes(
        "KAFKA_SCRAM",
        r#"
        security.protocol = "SASL_PLAINTEXT"
        sasl.mechanism = "PLAIN"
        sasl.username = "hookstream"
        sasl.password = { env = "TEST_KAFKA_PASSWORD" }
        "#,
    )
    .await;
}

#[tokio::test]
async fn kafka_with_tls_and_a_private_ca() {
    let ca = stack("KAFKA_CA");
    publishes(
        "KAFKA_SSL",
        &format!(
            r#"
            security.protocol = "SASL_SSL"
            ssl.ca.location = "{ca}"
            sasl.mechanism = "SCRAM-SHA-512"
            sasl.username = "hookstream"
            sasl.password = {{ env = "TEST_KAFKA_PASSWORD" }}
            "#
        ),
    )
    .await;
}

#[tokio::test]
async fn a_wrong_kafka_password_is_not_ready_and_deliveries_are_answered_503() {
    let setup = Setup {
        kafka: stack("KAFKA_SCRAM"),
        rules: "ack_deadline = \"2500ms\"".into(),
        tables: r#"
            [kafka.properties]
            security.protocol = "SASL_PLAINTEXT"
            sasl.mechanism = "SCRAM-SHA-512"
            sasl.username = "hookstream"
            sasl.password = { env = "TEST_KAFKA_PASSWORD" }
        "#
        .into(),
        environment: BTreeMap::from([("TEST_KAFKA_PASSWORD".into(), "not-the-password".into())]),
        ..Setup::new("datagrid")
    };
    let service = setup.start().await;
    let answer = service.datagrid_post(batch("evt_1")).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    let (status, why) = service.admin("/readyz").await;
    assert_eq!(status, 503);
    assert!(!why.contains("not-the-password"), "{why}");
}

/// The embedded registry behind a check of the `Authorization` header.
async fn guarded_registry(expected: &'static str) -> String {
    async fn guard(State(expected): State<&'static str>, request: Request, next: Next) -> Response {
        match request.headers().get(header::AUTHORIZATION) {
            Some(found) if found == expected => next.run(request).await,
            _ => StatusCode::UNAUTHORIZED.into_response(),
        }
    }
    let router: Router = registry::router().layer(middleware::from_fn_with_state(expected, guard));
    serve(router).await
}

pub async fn serve(router: Router) -> String {
    use hookstream::http::{ConnectionLimits, Phase};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits = ConnectionLimits {
        max_connections: 16,
        max_per_address: None,
        trusted_proxies: Networks::default(),
        head_timeout: Duration::from_secs(5),
        max_head: 16 * 1024,
    };
    let (phase, phases) = tokio::sync::watch::channel(Phase::Serving);
    tokio::spawn(async move {
        hookstream::http::serve(listener, router, limits, || None, phases).await;
        drop(phase);
    });
    format!("http://{address}")
}

pub async fn with_registry(registry: String, lines: &str) {
    let setup = Setup {
        registry: format!("{registry}\"\n{lines}\n# \""),
        environment: BTreeMap::from([("TEST_REGISTRY_SECRET".into(), "registry-secret".into())]),
        ..Setup::new("datagrid")
    };
    let service = setup.ready().await;
    service.datagrid_post(batch("evt_1")).await.is(200, "published", None);
}

#[tokio::test]
async fn a_registry_with_basic_authentication() {
    let expected: &str = format!("Basic {}", BASE64_STANDARD.encode("hookstream:registry-secret")).leak();
    let registry = guarded_registry(expected).await;
    with_registry(
        registry,
        r#"basic_auth = { username = "hookstream", password = { env = "TEST_REGISTRY_SECRET" } }"#,
    )
    .await;
}

#[tokio::test]
async fn a_registry_with_a_bearer_token() {
    let registry = guarded_registry("Bearer registry-secret").await;
    with_registry(registry, r#"bearer = { env = "TEST_REGISTRY_SECRET" }"#).await;
}

/// A builder of a TLS server's configuration.
pub fn tls() -> rustls::ConfigBuilder<rustls::ServerConfig, rustls::WantsVerifier> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap()
}

/// Starts a TLS proxy for `localhost` in front of a server. Returns its URL.
pub async fn behind_tls(server: rustls::ServerConfig, router: Router) -> String {
    let plain = serve(router).await.replace("http://", "");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, plain) = (acceptor.clone(), plain.clone());
            tokio::spawn(async move {
                // The handshake fails here if either side does not trust the other.
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut inner = tokio::net::TcpStream::connect(&plain).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut inner).await;
            });
        }
    });
    format!("https://localhost:{port}")
}

/// The registry behind TLS, with a certificate authority that is not in any system's trust store.
#[tokio::test]
async fn a_registry_with_a_private_ca() {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&key).unwrap();
    let ca = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ca.path(), certificate.pem()).unwrap();
    let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let server = tls().with_no_client_auth();
    let server = server.with_single_cert(vec![certificate.der().clone()], private).unwrap();
    let url = behind_tls(server, registry::router()).await;
    with_registry(url.clone(), &format!("ca_file = \"{}\"", ca.path().display())).await;

    let stranger = Setup { registry: url, ..Setup::new("datagrid") }.start().await;
    stranger.datagrid_post(batch("evt_1")).await.is(503, "unavailable", Some("schema_unknown"));
}

#[test]
fn check_and_serve_report_a_property_that_librdkafka_refuses_without_its_value() {
    let directory = tempfile::tempdir().unwrap();
    let toml = "[source.grapevine]\nsecrets = [{ env = \"TEST_SECRET\" }]\n[kafka.properties]\n\
                \"linger.millis\" = 1\n\"compression.type\" = \"sesame-in-the-wrong-place\"\n\
                \"sasl.mechanism\" = \"OAUTHBEARER\"\n\
                \"sasl.oauthbearer.client.secret\" = { env = \"TEST_SECRET\" }\n";
    std::fs::write(directory.path().join("own.toml"), toml).unwrap();
    let output = |command: &str| {
        let mut program = hookstream(directory.path());
        let (code, stdout, stderr) =
            run(program.args([command, "-c", "own.toml"]).env("TEST_SECRET", SECRET));
        assert!(
            [SECRET, "sesame"].iter().all(|secret| !stdout.contains(secret) && !stderr.contains(secret)),
            "{stdout}{stderr}"
        );
        (code, stdout + &stderr)
    };
    let (code, serve) = output("serve");
    assert!(code == 2 && serve.contains("kafka.properties.linger.millis"), "{serve}");
    let (code, check) = output("check");
    assert_eq!(code, 1, "{check}");
    for expected in [
        "own.toml:4: kafka.properties.linger.millis: librdkafka refuses it: No such configuration property",
        "own.toml:5: kafka.properties.compression.type: librdkafka refuses its value",
        "own.toml:7: kafka.properties.sasl.oauthbearer.client.secret: librdkafka refuses it: ",
        "not supported in this build",
    ] {
        assert!(check.contains(expected), "{expected} is not in\n{check}");
    }
}

#[test]
fn a_secret_that_is_referred_to_by_the_wrong_property_is_not_shown() {
    let directory = tempfile::tempdir().unwrap();
    let toml = "[source.grapevine]\nsecrets = [{ env = \"TEST_SECRET\" }]\n[kafka.properties]\n\
                \"security.protocol\" = \"SASL_PLAINTEXT\"\n\"sasl.username\" = \"user\"\n\
                \"sasl.password\" = { env = \"SASL_PASSWORD\" }\n\
                \"sasl.mechanism\" = { env = \"TEST_SECRET\" }\n";
    std::fs::write(directory.path().join("own.toml"), toml).unwrap();
    for (command, expected) in [
        (&["check"][..], "kafka.properties: librdkafka cannot create a client"),
        (&["serve"], "kafka.properties: librdkafka cannot create a client"),
        (&["tail", "-e", "-o", "start"], "librdkafka refuses [kafka]"),
        (&["lag"], "librdkafka refuses [kafka]"),
        (&["provision"], "librdkafka refuses [kafka]"),
    ] {
        let mut program = hookstream(directory.path());
        program.args(command).args(["-c", "own.toml"]);
        let (code, stdout, stderr) =
            run(program.env("TEST_SECRET", SECRET).env("SASL_PASSWORD", "the-password-of-kafka"));
        assert_ne!(code, 0, "{command:?}");
        assert!(stdout.contains(expected) || stderr.contains(expected), "{command:?}: {stdout}{stderr}");
        assert!(!stdout.contains(SECRET) && !stderr.contains(SECRET), "{command:?}: {stdout}{stderr}");
    }
}
