//! The Helm chart, rendered by helm itself. No cluster runs it here.

mod admin_tls;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::{Map, Value};

use super::{output, read, repository, stopping};
use crate::cli::{hookstream, run};
use crate::support::stack;
use crate::tls::Authority;

const CHART: &str = "deploy/helm/hookstream";

/// The default values, and each values file in `ci/`.
const VALUES: [&str; 5] = ["", "spool-off", "secrets", "admin-tls", "everything"];

fn helm(command: &[&str], values: &str) -> (bool, String) {
    let mut helm = Command::new(stack("HELM"));
    helm.args(command).current_dir(repository(CHART));
    if !values.is_empty() {
        helm.args(["-f", &format!("ci/{values}-values.yaml")]);
    }
    output(&mut helm)
}

/// The manifests that the cluster would get.
struct Rendered(Vec<Value>);

impl Rendered {
    fn with(values: &str, more: &[&str]) -> Self {
        let command = [&["template", "hooks", "."], more].concat();
        let (passed, text) = helm(&command, values);
        assert!(passed, "{values}: {text}");
        Self(serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{values}: {error}\n{text}")))
    }

    fn of(values: &str) -> Self {
        Self::with(values, &[])
    }

    fn all(&self, kind: &str) -> Vec<&Value> {
        self.0.iter().filter(|object| object["kind"] == kind).collect()
    }

    /// The only manifest of this kind.
    fn the(&self, kind: &str) -> &Value {
        let all = self.all(kind);
        assert_eq!(all.len(), 1, "{kind}");
        all[0]
    }

    fn pod(&self) -> &Value {
        &self.the("StatefulSet")["spec"]["template"]["spec"]
    }

    fn container(&self) -> &Value {
        &self.pod()["containers"][0]
    }

    /// Writes the files that a pod has below `/etc/hookstream`, with other paths for Secrets and spool.
    fn write_config(&self, directory: &Path) {
        let (config, data) = (named(&self.pod()["volumes"], "config"), &self.the("ConfigMap")["data"]);
        assert_eq!(config["configMap"]["name"], self.the("ConfigMap")["metadata"]["name"]);
        let items = list(&config["configMap"]["items"]);
        assert_eq!(items.len(), data.as_object().unwrap().len(), "each key has a path");
        for item in items {
            let (key, path) = (text(&item["key"]), directory.join(text(&item["path"])));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let secrets = directory.join("secrets").display().to_string();
            std::fs::write(path, text(&data[key]).replace("/run/secrets", &secrets)).unwrap();
        }
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

fn object(value: &Value) -> &Map<String, Value> {
    value.as_object().unwrap_or_else(|| panic!("no object: {value}"))
}

fn named<'a>(all: &'a Value, name: &str) -> &'a Value {
    list(all).iter().find(|one| one["name"] == name).unwrap_or_else(|| panic!("no {name} in {all}"))
}

fn names(all: &Value) -> Vec<&str> {
    list(all).iter().map(|one| text(&one["name"])).collect()
}

#[test]
fn packages_chart_passes_helm_lint_with_all_values() {
    for values in VALUES {
        let (passed, text) = helm(&["lint", "--strict", "."], values);
        assert!(passed && !text.contains("[WARNING]"), "{values}: {text}");
    }
}

#[test]
fn packages_chart_refuses_unknown_values() {
    for (set, expected) in [
        ("replica=3", "replica is not allowed"),
        ("spool.dir=/x", "dir is not allowed"),
        ("config=", "config: String length"),
        ("terminationGracePeriodSeconds=5", "terminationGracePeriodSeconds: Must be greater"),
        ("secrets[0].name=a/b", "secrets.0"),
        ("schemas.order=x", "schemas"),
    ] {
        let (passed, text) = helm(&["template", "hooks", ".", "--set", set], "");
        assert!(!passed && text.contains(expected), "{set}: {text}");
    }
}

#[test]
fn packages_chart_configuration_passes_check() {
    let authority = Authority::new();
    for values in VALUES {
        let (rendered, directory) = (Rendered::of(values), tempfile::tempdir().unwrap());
        rendered.write_config(directory.path());
        for volume in list(&rendered.pod()["volumes"]) {
            let Some(name) = text(&volume["name"]).strip_prefix("secret-") else { continue };
            let mount = named(&rendered.container()["volumeMounts"], text(&volume["name"]));
            assert_eq!(text(&mount["mountPath"]), format!("/run/secrets/{name}"));
            let secret = directory.path().join("secrets").join(name);
            std::fs::create_dir_all(&secret).unwrap();
            let keys: &[&str] = match name {
                "kafka" => {
                    // librdkafka reads it.
                    let (certificate, _) = authority.issue("kafka", 1);
                    std::fs::copy(certificate, secret.join("ca.crt")).unwrap();
                    &["password"]
                }
                "hookstream-admin" if values == "admin-tls" => &["token"],
                "hookstream-admin-tls" => {
                    let (certificate, key) = authority.issue("operator", 2);
                    std::fs::copy(certificate, secret.join("tls.crt")).unwrap();
                    std::fs::copy(key, secret.join("tls.key")).unwrap();
                    continue;
                }
                "hookstream-admin" => &["bearer"],
                _ => &["2026-11"],
            };
            for key in keys {
                std::fs::write(secret.join(key), "whsec_of-the-chart-tests-0123").unwrap();
            }
        }
        let mut check = hookstream(directory.path());
        check.args(["check", "-c", "hookstream.toml"]);
        for variable in list(&rendered.container()["env"]) {
            let value = match (text(&variable["name"]), variable["value"].as_str()) {
                ("HOOKSTREAM_SPOOL__DIR", Some(_)) => directory.path().join("spool").display().to_string(),
                (_, Some(value)) => {
                    value.replace("/run/secrets", &directory.path().join("secrets").display().to_string())
                }
                (_, None) => "of-the-registry".to_owned(),
            };
            check.env(text(&variable["name"]), value);
        }
        let (code, stdout, stderr) = run(&mut check);
        assert_eq!(code, 0, "{values}: {stdout}{stderr}");
        if values == "everything" {
            // From the schema in the values, next to the file.
            assert!(stdout.contains("shop.order.created") && !stdout.contains("generic"), "{stdout}");
        }
        // The chart's default grace period, or that of the values.
        let grace = rendered.pod()["terminationGracePeriodSeconds"].as_u64().unwrap();
        let stopping = stopping(Some(&directory.path().join("hookstream.toml")));
        assert!(grace > stopping.as_secs() + 7, "{values}: {grace} s for {stopping:?}, flush and close");
    }
}

#[test]
fn packages_chart_retains_the_volumes_of_the_spool() {
    for values in VALUES {
        let rendered = Rendered::of(values);
        let set = &rendered.the("StatefulSet")["spec"];
        let mounts = names(&rendered.container()["volumeMounts"]);
        let variables = names(&rendered.container()["env"]);
        let on = values != "spool-off";
        assert_eq!(mounts.contains(&"spool"), on, "{values}");
        assert_eq!(variables.contains(&"HOOKSTREAM_SPOOL__DIR"), on, "{values}");
        if !on {
            assert!(set["volumeClaimTemplates"].is_null());
            continue;
        }
        let policy = &set["persistentVolumeClaimRetentionPolicy"];
        assert_eq!((&policy["whenDeleted"], &policy["whenScaled"]), (&"Retain".into(), &"Retain".into()));
        assert_eq!(set["volumeClaimTemplates"][0]["metadata"]["name"], "spool");
        let mount = named(&rendered.container()["volumeMounts"], "spool");
        let variable = named(&rendered.container()["env"], "HOOKSTREAM_SPOOL__DIR");
        assert_eq!(mount["mountPath"], variable["value"]);
        assert_eq!(mount["readOnly"], Value::Null);
    }
}

#[test]
fn packages_chart_runs_its_pods_without_privileges() {
    for values in VALUES {
        let rendered = Rendered::of(values);
        let (pod, container) = (rendered.pod(), rendered.container());
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
        assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], false);
        assert_eq!(container["securityContext"]["capabilities"]["drop"], serde_json::json!(["ALL"]));
        for mount in list(&container["volumeMounts"]) {
            assert!(mount["readOnly"] == true || mount["name"] == "spool", "{values}: {mount}");
            assert_eq!(mount["subPath"], Value::Null, "a change would not reach a running pod");
        }
        // 0440: readable by the pod's group.
        for volume in list(&pod["volumes"]).iter().filter(|volume| volume["secret"].is_object()) {
            assert_eq!(volume["secret"]["defaultMode"], 0o440);
        }
        assert_eq!(pod["securityContext"]["fsGroup"], pod["securityContext"]["runAsGroup"]);
        assert!(container["resources"]["limits"]["memory"].is_string(), "{values}");
    }
}

#[test]
fn packages_chart_matches_the_image() {
    let (image, rendered) = (read("Dockerfile"), Rendered::of(""));
    let (container, user) = (rendered.container(), &rendered.pod()["securityContext"]["runAsUser"]);
    assert!(image.contains(&format!("\nUSER {user}\n")), "USER {user}");
    let ports: Vec<String> =
        list(&container["ports"]).iter().map(|port| port["containerPort"].to_string()).collect();
    assert!(image.contains(&format!("\nEXPOSE {}\n", ports.join(" "))), "EXPOSE {ports:?}");
    for (name, port) in [("HOOKSTREAM_HTTP__LISTEN", &ports[0]), ("HOOKSTREAM_ADMIN__LISTEN", &ports[1])] {
        let listen = text(&named(&container["env"], name)["value"]);
        assert_eq!(listen, format!("0.0.0.0:{port}"));
        assert!(image.contains(&format!("{name}={listen}")), "{name}");
    }
    let work = text(&container["workingDir"]);
    assert!(image.contains(&format!("\nWORKDIR {work}\n")), "WORKDIR {work}");
    assert_eq!(
        read("Cargo.toml").lines().find(|line| line.starts_with("version")),
        Some("version = \"0.1.0\"")
    );
    assert!(read("deploy/helm/hookstream/Chart.yaml").contains("\nappVersion: 0.1.0\n"));
}

#[test]
fn packages_chart_probes_readiness_and_liveness_on_the_operators_port() {
    let rendered = Rendered::of("");
    let container = rendered.container();
    for (probe, path) in
        [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")]
    {
        let get = &container[probe]["httpGet"];
        assert_eq!((&get["path"], &get["port"]), (&path.into(), &"admin".into()), "{probe}");
    }
    assert_eq!(named(&container["ports"], "admin")["containerPort"], 9464);
}

#[test]
fn c6_packages_chart_allows_the_host_names_of_its_pods_and_mounts_the_operators_token() {
    let variable = |rendered: &Rendered, name: &str| -> Option<String> {
        let variables = list(&rendered.container()["env"]).iter();
        let mut named = variables.filter(|variable| variable["name"] == name);
        named.next().map(|variable| text(&variable["value"]).to_owned())
    };
    let plain = Rendered::of("");
    let hosts = variable(&plain, "HOOKSTREAM_ADMIN__HOSTS").unwrap();
    let pods = text(&plain.the("StatefulSet")["spec"]["serviceName"]);
    assert!(hosts.split(',').any(|host| host == format!("*.{pods}")), "{hosts}");
    assert_eq!(variable(&plain, "HOOKSTREAM_ADMIN__BEARER__FILE"), None);
    let full = Rendered::of("everything");
    assert!(variable(&full, "HOOKSTREAM_ADMIN__HOSTS").unwrap().ends_with(",ops.example.com"));
    let file = variable(&full, "HOOKSTREAM_ADMIN__BEARER__FILE").unwrap();
    let mount = named(&full.container()["volumeMounts"], "secret-hookstream-admin");
    assert_eq!(file, format!("{}/bearer", text(&mount["mountPath"])));
    assert_eq!(named(&full.pod()["volumes"], "secret-hookstream-admin")["secret"]["secretName"], "operator");
    let credentials = &full.the("ServiceMonitor")["spec"]["endpoints"][0]["authorization"]["credentials"];
    assert_eq!((&credentials["name"], &credentials["key"]), (&"operator".into(), &"bearer".into()));
}

#[test]
fn packages_chart_selects_its_own_pods_and_ports() {
    for values in VALUES {
        let rendered = Rendered::of(values);
        let set = rendered.the("StatefulSet");
        let labels = object(&set["spec"]["template"]["metadata"]["labels"]);
        let ports = names(&rendered.container()["ports"]);
        let chosen = |selector: &Value, labels: &Map<String, Value>| {
            !object(selector).is_empty()
                && object(selector).iter().all(|(key, value)| labels.get(key) == Some(value))
        };
        assert!(chosen(&set["spec"]["selector"]["matchLabels"], labels), "{values}");
        let services = rendered.all("Service");
        assert_eq!(services.len(), 2);
        for service in &services {
            assert!(chosen(&service["spec"]["selector"], labels), "{values}: {service}");
            for port in list(&service["spec"]["ports"]) {
                assert!(ports.contains(&text(&port["targetPort"])), "{values}: {port}");
                let admin = port["targetPort"] == "admin";
                assert_eq!(
                    admin,
                    service["spec"]["clusterIP"] == "None",
                    "only within the cluster: {service}"
                );
            }
        }
        assert!(services.iter().any(|service| service["metadata"]["name"] == set["spec"]["serviceName"]));
        let budgets = rendered.all("PodDisruptionBudget");
        let policies = rendered.all("NetworkPolicy");
        assert_eq!((budgets.len(), policies.len()), if values == "spool-off" { (0, 0) } else { (1, 1) });
        for budget in budgets {
            assert!(chosen(&budget["spec"]["selector"]["matchLabels"], labels));
        }
        for policy in policies {
            assert!(chosen(&policy["spec"]["podSelector"]["matchLabels"], labels));
        }
        for constraint in list(&rendered.pod()["topologySpreadConstraints"]) {
            assert!(chosen(&constraint["labelSelector"]["matchLabels"], labels));
        }
        let monitors = rendered.all("ServiceMonitor");
        assert_eq!(monitors.len(), usize::from(["admin-tls", "everything"].contains(&values)));
        for monitor in monitors {
            let selector = &monitor["spec"]["selector"]["matchLabels"];
            let scraped =
                services.iter().filter(|service| chosen(selector, object(&service["metadata"]["labels"])));
            let scraped: Vec<_> = scraped.map(|service| &service["spec"]["ports"]).collect();
            assert_eq!(scraped.len(), 1, "Prometheus must scrape each pod once");
            let job = text(&monitor["spec"]["jobLabel"]);
            assert!(
                services.iter().all(|service| service["metadata"]["labels"][job] == "hookstream"),
                "{job}"
            );
            assert_eq!(names(scraped[0]), [text(&monitor["spec"]["endpoints"][0]["port"])]);
        }
    }
}

#[test]
fn packages_chart_lets_only_monitoring_reach_the_operators_port() {
    let rules = |values: &str, more: &[&str]| -> (BTreeMap<String, Value>, Value) {
        let rendered = Rendered::with(values, more);
        let policy = &rendered.the("NetworkPolicy")["spec"];
        assert_eq!(policy["policyTypes"], serde_json::json!(["Ingress", "Egress"]));
        let ingress = list(&policy["ingress"]).iter();
        let by_port = ingress.map(|rule| (text(&rule["ports"][0]["port"]).to_owned(), rule["from"].clone()));
        (by_port.collect(), policy["egress"].clone())
    };
    let (ingress, egress) = rules("", &[]);
    assert_eq!(ingress["http"], Value::Null, "open to everybody");
    let labels = &ingress["admin"][0]["namespaceSelector"]["matchLabels"];
    assert_eq!(labels["kubernetes.io/metadata.name"], "monitoring");
    let ports = |rules: &[Value]| -> Vec<String> {
        let ports = rules.iter().flat_map(|rule| list(&rule["ports"]));
        ports.map(|port| format!("{}/{}", port["port"], text(&port["protocol"]))).collect()
    };
    let (dns, others) = list(&egress).split_at(1);
    assert_eq!(ports(dns), ["53/UDP", "53/TCP"]);
    // The names in the shipped values.
    assert!(
        ["9092/TCP", "8081/TCP"].iter().all(|&port| ports(others).contains(&port.to_owned())),
        "{others:?}"
    );

    let (ingress, _) = rules("", &["--set-json", "networkPolicy.adminFrom=[]"]);
    assert_eq!(ingress.keys().collect::<Vec<_>>(), ["http"], "a rule without a peer would mean everybody");
    let (ingress, egress) = rules("everything", &[]);
    assert!(ingress["http"][0]["namespaceSelector"].is_object());
    assert_eq!(egress[1]["to"][0]["ipBlock"]["cidr"], "10.0.0.0/8");
}

#[test]
fn packages_chart_contains_the_alert_rules_unchanged() {
    let path = "deploy/prometheus/alerts.yml";
    let copy = "deploy/helm/hookstream/files/alerts.yml";
    assert_eq!(read(copy), read(path), "helm reads only files in the chart; run cp {path} {copy}");
    assert!(Rendered::of("").all("PrometheusRule").is_empty());
    let rules: Value = serde_saphyr::from_str(&read(path)).unwrap();
    assert_eq!(Rendered::of("everything").the("PrometheusRule")["spec"], rules);
    // With the address of the runbook, each alert has a link.
    let linked = Rendered::of("admin-tls").the("PrometheusRule")["spec"].to_string();
    let url = "https://wiki.example.com/hookstream/runbook.html#hookstream";
    let alerts = read(path).matches("\n      - alert: ").count();
    assert_eq!((linked.matches(url).count(), linked.matches("docs/runbook.md").count()), (alerts, 0));
}

#[test]
fn packages_chart_notes_list_the_next_steps() {
    // helm shows notes only at an installation, which needs a cluster, so this test makes them a template.
    let directory = tempfile::tempdir().unwrap();
    let chart = directory.path().join("chart");
    let (copied, message) = output(Command::new("cp").arg("-r").arg(repository(CHART)).arg(&chart));
    assert!(copied, "{message}");
    let templates = chart.join("templates");
    let notes = std::fs::read_to_string(templates.join("NOTES.txt")).unwrap();
    std::fs::write(
        templates.join("_notes.tpl"),
        format!("{{{{- define \"notes\" -}}}}{notes}{{{{- end -}}}}"),
    )
    .unwrap();
    std::fs::write(templates.join("notes.yaml"), "notes: {{ include \"notes\" . | toJson }}\n").unwrap();
    let (passed, rendered) =
        output(Command::new(stack("HELM")).args(["template", "hooks"]).arg(&chart).args([
            "--namespace",
            "events",
            "--show-only",
            "templates/notes.yaml",
        ]));
    assert!(passed, "{rendered}");
    let notes: Value = serde_saphyr::from_str(&rendered).unwrap();
    let notes = text(&notes["notes"]);
    for line in [
        "kubectl -n events exec hooks-hookstream-0 -- hookstream status",
        "kubectl -n events get secret hookstream-datagrid",
        "kubectl -n events exec hooks-hookstream-1 -- hookstream spool",
    ] {
        assert!(notes.lines().any(|note| note.trim() == line), "{line}: {notes}");
    }
    assert!(!notes.contains("adminFrom is empty"), "{notes}");
}
