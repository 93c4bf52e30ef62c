//! Members that the provider sends and the schema does not have.

use serde_json::Value;

use crate::support::{Setup, datagrid, process, until};

#[tokio::test]
async fn unknown_members_are_counted_by_pointer_and_logged_once() {
    let setup = Setup::new("datagrid");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("hookstream.toml");
    std::fs::write(&file, setup.toml()).unwrap();
    let (_program, hooks, admin, log) = process::serve_with_log(&file);
    let client = reqwest::Client::new();
    for n in 0..3 {
        let data = r#""data":{"priority":"high","request_counts":{"total":1,"skipped":2}},"trace/id":7"#;
        let body =
            format!(r#"{{"id":"evt_{n}","event_type":"batch_prediction.completed","timestamp":1,{data}}}"#);
        until("a published delivery", async || {
            let request = client.post(format!("http://{hooks}/hooks/{}", setup.source));
            let request = request.header("datagrid-signature", datagrid(body.as_bytes())).body(body.clone());
            request.send().await.unwrap().status() == 200
        })
        .await;
    }
    let metrics = client.get(format!("http://{admin}/metrics")).send().await.unwrap().text().await.unwrap();
    let pointers = ["/data/request_counts/skipped", "/data/priority", "/trace~1id"];
    for pointer in pointers {
        let labels =
            format!("source=\"{}\",type=\"batch_prediction.completed\",pointer=\"{pointer}\"", setup.source);
        assert!(metrics.contains(&format!("hookstream_drift_total{{{labels}}} 3\n")), "{metrics}");
    }
    let deliveries = || log.lock().unwrap().iter().filter(|line| line["outcome"] == "published").count();
    until("the log lines of all deliveries", async || deliveries() == 3).await;
    let log = log.lock().unwrap();
    let reported: Vec<&Value> = log.iter().filter(|line| line["pointer"].is_string()).collect();
    assert_eq!(reported.iter().map(|line| line["pointer"].as_str().unwrap()).collect::<Vec<_>>(), pointers);
    assert!(
        reported.iter().all(|line| line["seen"] == 1 && !line.to_string().contains("high")),
        "{reported:?}"
    );
}
