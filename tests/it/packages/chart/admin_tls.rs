//! TLS on the operator's port of the chart.

use serde_json::Value;

use super::{Rendered, helm, named, text};

#[test]
fn packages_chart_uses_https_where_the_operators_port_has_tls() {
    let probes = ["startupProbe", "livenessProbe", "readinessProbe"];
    let plain = Rendered::of("everything");
    let tls = Rendered::of("admin-tls");
    for probe in probes {
        assert_eq!(plain.container()[probe]["httpGet"]["scheme"], Value::Null, "{probe}");
        assert_eq!(tls.container()[probe]["httpGet"]["scheme"], "HTTPS", "{probe}");
    }
    let mount = named(&tls.container()["volumeMounts"], "secret-hookstream-admin-tls");
    for (variable, file) in
        [("HOOKSTREAM_ADMIN__TLS__CERT", "tls.crt"), ("HOOKSTREAM_ADMIN__TLS__KEY", "tls.key")]
    {
        let value = text(&named(&tls.container()["env"], variable)["value"]);
        assert_eq!(value, format!("{}/{file}", text(&mount["mountPath"])));
    }
    let volume = named(&tls.pod()["volumes"], "secret-hookstream-admin-tls");
    assert_eq!(volume["secret"]["secretName"], "operator-tls");

    let endpoint = |rendered: &Rendered| rendered.the("ServiceMonitor")["spec"]["endpoints"][0].clone();
    assert_eq!(endpoint(&plain)["scheme"], Value::Null);
    let endpoint = endpoint(&tls);
    assert_eq!(endpoint["scheme"], "https");
    assert_eq!(endpoint["authorization"]["credentials"]["name"], "operator");
    let pods = text(&tls.the("StatefulSet")["spec"]["serviceName"]);
    let name = text(&endpoint["tlsConfig"]["serverName"]);
    assert!(name.starts_with(&format!("{pods}.")) && name.ends_with(".svc"), "{name}");
    assert_eq!(endpoint["tlsConfig"]["ca"]["secret"]["name"], "operator-tls");

    // With client certificates, a probe can only connect.
    let set = ["--set", "admin.clientCaKey=ca.crt", "--set", "serviceMonitor.tlsConfig.serverName=ops"];
    let rendered = Rendered::with("admin-tls", &set);
    for probe in probes {
        let probe = &rendered.container()[probe];
        assert!(probe["httpGet"].is_null() && probe["tcpSocket"]["port"] == "admin", "{probe}");
    }
    assert_eq!(
        rendered.the("ServiceMonitor")["spec"]["endpoints"][0]["tlsConfig"],
        serde_json::json!({"serverName": "ops"})
    );
}

#[test]
fn packages_chart_refuses_tls_that_its_probes_cannot_see() {
    for config in [
        "[admin.tls]\ncert = \"x\"",
        "[admin]\nhosts = [\n  \"a\",\n]\ntls = { cert = \"x\" }",
        "[kafka]\nx = 1\n[ admin ]   # the port\n  tls.cert = \"x\"",
        "admin.tls.cert = \"x\"",
    ] {
        let (passed, told) = helm_with_config(config);
        assert!(!passed && told.contains("admin.tlsSecret: set it instead"), "{config}: {told}");
    }
    for config in [
        "[http.tls]\ncert = \"x\"",
        "# [admin.tls]\n[admin]\nhosts = [\"a\"]\n[http]\ntls = { cert = \"x\" }",
    ] {
        let (passed, told) = helm_with_config(config);
        assert!(passed, "{config}: {told}");
    }
    let (passed, told) =
        helm(&["template", "hooks", ".", "--set", "env[0].name=HOOKSTREAM_ADMIN__TLS__CERT"], "");
    assert!(!passed && told.contains("admin.tlsSecret: set it instead"), "{told}");
    for (set, expected) in [
        ("admin.tlsSecret=", "admin.clientCaKey needs admin.tlsSecret"),
        ("serviceMonitor.enabled=true", "Prometheus needs a client certificate"),
    ] {
        let command = ["template", "hooks", ".", "--set", "admin.clientCaKey=ca.crt", "--set", set];
        let (passed, told) = helm(&command, "admin-tls");
        assert!(!passed && told.contains(expected), "{set}: {told}");
    }
}

/// Renders the chart with this configuration.
fn helm_with_config(config: &str) -> (bool, String) {
    let directory = tempfile::tempdir().unwrap();
    let values = directory.path().join("values.yaml");
    std::fs::write(&values, serde_json::json!({"config": config}).to_string()).unwrap();
    helm(&["template", "hooks", ".", "-f", values.to_str().unwrap()], "")
}
