//! The page on the operator's port, rendered by a browser.

use std::process::Command;

use crate::support::{SECRET, Setup, batch};

/// The document that a headless Chromium renders from the page, after this many seconds of virtual time.
fn rendered(url: &str, seconds: u32) -> String {
    let profile = tempfile::tempdir().unwrap();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let output = names.iter().find_map(|name| {
        Command::new(name)
            // Chromium's sandbox does not work in containers or as root, and the page is trusted.
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(format!("--virtual-time-budget={}", seconds * 1_000))
            .args(["--dump-dom", url])
            .output()
            .ok()
    });
    let output = output.expect("chromium; ./tests/run installs it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The text of the elements in `main`, in order; tags become line ends.
fn texts(document: &str) -> Vec<String> {
    let (_, main) = document.split_once("<main").unwrap();
    let (main, _) = main.split_once("</main>").unwrap();
    let texts = main.split('<').filter_map(|part| part.split_once('>')).map(|(_, text)| text.trim());
    texts.filter(|text| !text.is_empty()).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_deliveries_and_refusals_but_no_payload() {
    let service = Setup::new("datagrid").ready().await;
    for n in 0..3 {
        service.datagrid_post(batch(&format!("evt_{n}"))).await.is(200, "published", None);
    }
    service.datagrid_post("no JSON").await.is(200, "dead_lettered", Some("json_invalid"));
    let forged = format!("t=1,v1={}", "0".repeat(64));
    assert_eq!(service.post(&[("datagrid-signature", &forged)], batch("evt_4")).await.status, 401);

    let url = format!("http://{}/", service.app.admin);
    let document = tokio::task::spawn_blocking(move || rendered(&url, 10)).await.unwrap();
    assert!(document.contains(">READY"), "{document}");
    let texts = texts(&document);
    let after = |first: &str, count: usize| {
        let at = texts.iter().position(|text| text == first);
        let at = at.unwrap_or_else(|| panic!("{first} is not in {texts:?}"));
        texts[at..].iter().take(count).map(String::as_str).collect::<Vec<_>>()
    };
    let row = after(&service.source, 9);
    assert_eq!(row[3..], ["3", "0", "1", "1", "0", "4"], "{texts:?}");
    let topic = service.topic("batch_prediction.completed");
    assert_eq!(after(&topic, 4), [topic.as_str(), "0.0", "3", "0"], "the rate is that since the last poll");
    assert_eq!(after("signature_mismatch", 2)[1], "1");
    assert!(texts.iter().any(|text| text == "json_invalid"), "{texts:?}");
    assert_eq!(after("kafka", 2), ["kafka", "ok"]);
    for hidden in [SECRET, "no JSON", "evt_1", "results_url"] {
        assert!(!document.contains(hidden), "{hidden} is in {document}");
    }
}

#[tokio::test]
async fn the_page_loads_nothing_from_elsewhere_and_is_not_cached() {
    let service = Setup::new("datagrid").start().await;
    let page = service.client.get(format!("http://{}/", service.app.admin)).send().await.unwrap();
    let header = |name: &str| page.headers()[name].to_str().unwrap().to_owned();
    assert!(header("content-security-policy").starts_with("default-src 'none'"));
    assert_eq!(
        (header("cache-control"), header("x-content-type-options")),
        ("no-store".into(), "nosniff".into())
    );
    let text = page.text().await.unwrap();
    assert!(
        !text.contains("https://") && !text.contains("innerHTML"),
        "self-contained, and values are set as text"
    );
}
