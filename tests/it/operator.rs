//! The operator's port and browsers: a page of another site must not act in the operator's name.

use reqwest::{Method, StatusCode};

use crate::spool::with_spool;
use crate::support::raw;
use crate::support::{Service, on_embedded_with};

/// Status and text of the answer to a request with these headers.
async fn ask(service: &Service, method: &str, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let mut request = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
    if !headers.iter().any(|(name, _)| *name == "host") {
        request.push_str(&format!("host: {}\r\n", service.app.admin));
    }
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    let body = if method == "POST" { "{\"all\":true}" } else { "" };
    request.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
    let answer = raw::exchange(service.app.admin, request.as_bytes()).await;
    (answer["HTTP/1.1 ".len()..][..3].parse().unwrap(), answer)
}

#[tokio::test]
async fn c6_a_foreign_host_name_is_refused_except_for_probes() {
    let (service, _kafka) = on_embedded_with(|setup| {
        setup.admin = "hosts = [\"hookstream-pods\", \"*.events.svc\"]".into();
    })
    .await;
    let port = service.app.admin.port();
    for path in ["/", "/status", "/metrics"] {
        // A host name whose owner points it to 127.0.0.1.
        for evil in ["evil.example", &format!("evil.example:{port}"), "events.svc", "localhost.evil.example"]
        {
            let (status, text) = ask(&service, "GET", path, &[("host", evil)]).await;
            assert_eq!(status, 421, "{path} {evil}: {text}");
            assert!(text.contains("[admin] hosts"), "{text}");
        }
        for known in [
            "localhost",
            &format!("127.0.0.1:{port}"),
            "[::1]:9464",
            "hookstream-pods:9464",
            "pod-0.events.svc",
        ] {
            let (status, text) = ask(&service, "GET", path, &[("host", known)]).await;
            assert_eq!(status, 200, "{path} {known}: {text}");
        }
    }
    for path in ["/livez", "/readyz"] {
        let strange = [("host", "evil.example"), ("origin", "http://evil.example")];
        assert_eq!(ask(&service, "GET", path, &strange).await.0, 200, "{path}");
    }
}

#[tokio::test]
async fn c6_all_requests_from_another_origin_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (service, _kafka) = with_spool(dir.path(), "").await;
    let own = format!("http://{}", service.app.admin);
    let json = ("content-type", "application/json");
    let header = ("hookstream-request", "1");
    for evil in ["http://evil.example", "null", "http://127.0.0.1"] {
        for (method, path) in [("GET", "/status"), ("GET", "/metrics"), ("POST", "/spool/requeue")] {
            let (status, text) = ask(&service, method, path, &[("origin", evil), json, header]).await;
            assert_eq!(status, 403, "{path} {evil}: {text}");
        }
    }
    assert_eq!(ask(&service, "GET", "/status", &[("origin", &own)]).await.0, 200);
    assert_eq!(ask(&service, "POST", "/spool/requeue", &[("origin", &own), json, header]).await.0, 200);
    // Requests that a page can send to another origin without a preflight.
    let (status, text) = ask(&service, "POST", "/spool/requeue", &[json]).await;
    assert_eq!(status, 403, "{text}");
    assert!(text.contains("needs the header hookstream-request: 1"), "{text}");
    // The browser's preflight for the header is not allowed.
    let preflight = [
        ("origin", "http://evil.example"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "hookstream-request"),
    ];
    let (status, text) = ask(&service, "OPTIONS", "/spool/requeue", &preflight).await;
    assert!(status >= 400 && !text.to_lowercase().contains("access-control-allow"), "{text}");
}

#[tokio::test]
async fn c6_another_machine_without_a_token_gets_only_probes_and_metrics() {
    // An address of this machine that counts as another one here.
    let (service, _kafka) =
        on_embedded_with(|setup| setup.admin = "without_token = [\"127.0.0.9\"]".into()).await;
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(ask(&service, "GET", path, &[]).await.0, 200, "{path}");
    }
    let json = ("content-type", "application/json");
    for (method, path) in [("GET", "/"), ("GET", "/status"), ("POST", "/spool/requeue")] {
        let (status, text) = ask(&service, method, path, &[json, ("hookstream-request", "1")]).await;
        assert_eq!(status, 401, "{path}: {text}");
        assert!(path == "/" || text.contains("[admin] without_token"), "{text}");
    }
    let at =
        reqwest::Client::builder().no_proxy().local_address("127.0.0.9".parse::<std::net::IpAddr>().unwrap());
    let request = at.build().unwrap().request(Method::GET, format!("http://{}/status", service.app.admin));
    assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
}
