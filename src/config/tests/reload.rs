//! The differences that a reload finds.

use super::*;

fn names(names: impl IntoIterator<Item = String>) -> Vec<String> {
    names.into_iter().collect()
}

#[test]
fn settings_read_at_start_are_retained_and_reported_by_name() {
    let started = load_toml("", &[], &[]).unwrap();
    let text = "[http]\nlisten = '127.0.0.1:1'\n[kafka.properties]\n'sasl.password' = { env = 'P' }\n[spool]\ndir = '/x'\n[traces]\nsample = 0.5";
    let mut now = load_toml(text, &[("P", CANARY)], &[]).unwrap();
    let differing = now.retain_startup_settings(&started);
    assert_eq!(differing, ["http.listen", "kafka.properties", "spool.dir", "traces.sample"]);
    assert_eq!(now.config.http.listen, started.config.http.listen);
    assert_eq!(now.config.spool.dir, None);
    assert_eq!(now.properties, started.properties);
    assert_eq!(names(now.differing_sources(&started)), [""; 0]);
}

#[test]
fn a_changed_password_behind_the_same_reference_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let password = dir.path().join("p");
    let text = format!("[registry]\nbearer = {{ file = '{}' }}", password.display());
    std::fs::write(&password, "one").unwrap();
    let started = load_toml(&text, &[], &[]).unwrap();
    std::fs::write(&password, "two").unwrap();
    let mut now = load_toml(&text, &[], &[]).unwrap();
    assert_eq!(now.retain_startup_settings(&started), ["registry (credentials)"]);
    assert_eq!(now.registry_auth, started.registry_auth);
}

#[test]
fn a_source_differs_by_its_rules_its_secrets_or_its_existence() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("s");
    std::fs::write(&secret, "whsec_0123456789abcdef").unwrap();
    let text = format!("[source.datagrid]\nsecrets = [{{ file = '{}' }}]\n", secret.display());
    let before = load_toml(&text, &[], &[]).unwrap();
    let differing = |text: &str| names(load_toml(text, &[], &[]).unwrap().differing_sources(&before));
    assert_eq!(differing(&text), [""; 0]);
    assert_eq!(differing(&format!("{text}stale = 'reject'")), ["datagrid"]);
    assert_eq!(differing(&format!("{text}[source.grapevine]\nenabled = false")), ["grapevine"]);
    std::fs::write(&secret, "whsec_another-of-16-bytes").unwrap();
    assert_eq!(differing(&text), ["datagrid"]);
}
