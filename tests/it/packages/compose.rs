//! The compose file, compared with the program. No Docker runs it here.

use serde_json::Value;

use super::{read, stopping};

/// The service of this name.
fn service(name: &str) -> Value {
    let compose: Value = serde_saphyr::from_str(&read("docker-compose.yml")).unwrap();
    let service = compose["services"][name].clone();
    assert!(service.is_object(), "no service {name}");
    service
}

#[test]
fn packages_compose_keeps_the_spool_in_a_volume() {
    let service = service("hookstream");
    let dir = service["environment"]["HOOKSTREAM_SPOOL__DIR"].as_str().expect("a spool");
    let volumes: Vec<&str> =
        service["volumes"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(volumes.contains(&&*format!("spool:{dir}")), "{volumes:?}");
    // Otherwise the volume would belong to root.
    assert!(read("Dockerfile").contains(&format!("install -d -o hookstream -g hookstream -m 0700 {dir}\n")));
    let compose: Value = serde_saphyr::from_str(&read("docker-compose.yml")).unwrap();
    assert!(compose["volumes"].as_object().unwrap().contains_key("spool"));
}

/// Without a value, compose passes a variable only if it is set. An empty one would be refused at the start.
#[test]
fn packages_compose_needs_no_secret_of_a_source_that_is_off() {
    let example = read(".env.example");
    for name in ["hookstream", "demo"] {
        let service = service(name);
        for variable in ["DATAGRID_WEBHOOK_SECRET", "GRAPEVINE_WEBHOOK_SECRET"] {
            let environment = service["environment"].as_object().unwrap();
            assert_eq!(environment.get(variable), Some(&Value::Null), "{name}: {variable}");
            assert!(example.contains(&format!("\n# {variable}=''\n")), "{variable} in .env.example");
        }
    }
    assert!(example.lines().all(|line| line.is_empty() || line.starts_with('#')), "{example}");
}

#[test]
fn packages_compose_waits_for_the_stop() {
    let service = service("hookstream");
    let grace = service["stop_grace_period"].as_str().unwrap().strip_suffix('s').unwrap();
    let grace: u64 = grace.parse().unwrap();
    assert!(grace > stopping(None).as_secs() + 7, "flush and close take up to 7 s more");
}
