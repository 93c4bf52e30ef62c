//! An operator's schema with every kind of Avro type, from HTTP to Java's Avro reader and to `tail`.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::process::serve;
use crate::support::{SECRET, Setup, datagrid, kafka, until};

/// The `data` record of the schema.
const DATA: &str = r#"{"type":"record","name":"Paid","fields":[
    {"name":"paid_at","type":["null",{"type":"long","logicalType":"timestamp-millis"}],"default":null,
     "hookstream.time":"unix_seconds"},
    {"name":"amount","type":["null",{"type":"bytes","logicalType":"decimal","precision":12,"scale":2}],"default":null,
     "hookstream.decimal":"string"},
    {"name":"due","type":["null",{"type":"int","logicalType":"date"}],"default":null},
    {"name":"token","type":["null","bytes"],"default":null,"hookstream.bytes":"base64url"},
    {"name":"state","type":{"type":"enum","name":"State","symbols":["OTHER","PAID"],"default":"OTHER"},"default":"OTHER"},
    {"name":"order_no","type":["null","long"],"default":null,"hookstream.json":"order-no"},
    {"name":"payer","default":null,"type":["null",
        {"type":"record","name":"Card","fields":[{"name":"last4","type":"string"}]},
        {"type":"record","name":"Bank","fields":[{"name":"iban","type":"string"},{"name":"next","type":["null","Bank"]}]}]}]}"#;

fn schema(source: &str) -> String {
    let namespace = source.replace('-', "_");
    format!(
        r#"{{"type":"record","name":"OrderPaid","namespace":"hookstream.{namespace}","fields":[
        {{"name":"id","type":"string"}},{{"name":"type","type":"string"}},{{"name":"source","type":"string"}},
        {{"name":"time","type":["null",{{"type":"long","logicalType":"timestamp-millis"}}],"default":null}},
        {{"name":"received_at","type":{{"type":"long","logicalType":"timestamp-millis"}}}},
        {{"name":"data","type":{DATA}}},
        {{"name":"additional_fields","type":{{"type":"map","values":"string"}},"default":{{}}}}]}}"#
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn java_reads_every_avro_type_as_its_annotation_says() {
    let dir = tempfile::tempdir().unwrap();
    let mut setup = Setup::new("datagrid");
    setup.rules = "types = [\"order.paid\"]".into();
    let (file, source) = (dir.path().join("hookstream.toml"), setup.source.clone());
    std::fs::write(&file, setup.toml()).unwrap();
    let schemas = dir.path().join("schemas").join(&source);
    std::fs::create_dir_all(&schemas).unwrap();
    std::fs::write(schemas.join("order.paid.avsc"), schema(&source)).unwrap();
    let (_process, hooks, _) = serve(&file);

    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let post = async |id: &str, data: &str| {
        let body =
            format!(r#"{{"id":"{id}","event_type":"order.paid","timestamp":1775847600,"data":{data}}}"#);
        let request = client.post(format!("http://{hooks}/hooks/{source}"));
        let request = request.header("datagrid-signature", datagrid(body.as_bytes()));
        let answer = request.body(body).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap()["outcome"].clone())
    };
    let fits = r#"{"paid_at":1775847600.25,"amount":"-12.50","due":"2026-02-28","token":"_w","state":"PAID",
        "order-no":7,"payer":{"iban":"DE1","next":{"iban":"DE2"}}}"#;
    until("a published delivery", async || post("evt_fits", fits).await == (200, json!("published"))).await;
    let odd = r#"{"paid_at":1775847600000,"amount":"12.505","due":"soon","token":"/w","state":"NEW",
        "order-no":"7","payer":{"last4":"1234","iban":5}}"#;
    assert_eq!(post("evt_odd", odd).await, (200, json!("published")));

    let topic = format!("{source}.order.paid");
    let records = kafka::java(&[&topic]);
    let value = |key: &str| records.iter().find(|record| record["key"] == key).unwrap()["value"].clone();
    // As Java represents them: milliseconds, two's complement in base64, days.
    assert_eq!(
        value("evt_fits")["data"],
        json!({"paid_at": 1_775_847_600_250_i64, "amount": "+x4=", "due": 20_512, "token": "/w==", "state": "PAID",
               "order_no": 7, "payer": {"iban": "DE1", "next": {"iban": "DE2", "next": null}}})
    );
    assert_eq!(value("evt_fits")["additional_fields"], json!({}));
    assert_eq!(
        value("evt_odd")["data"],
        json!({"paid_at": null, "amount": null, "due": null, "token": null, "state": "OTHER", "order_no": null,
               "payer": {"last4": "1234"}})
    );
    assert_eq!(
        value("evt_odd")["additional_fields"],
        json!({"/data/paid_at": "1775847600000", "/data/amount": "\"12.505\"", "/data/due": "\"soon\"",
               "/data/token": "\"/w\"", "/data/state": "\"NEW\"", "/data/order-no": "\"7\"", "/data/payer/iban": "5"})
    );

    let tail = Command::new(env!("CARGO_BIN_EXE_hookstream"))
        .args(["tail", &topic, "--key", "evt_fits", "--from-beginning", "-e", "-c"])
        .arg(&file)
        .env("TEST_SECRET", SECRET)
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&tail.stdout);
    let data = r#""data":{"paid_at":"2026-04-10T19:00:00.250Z","amount":"-12.50","due":"2026-02-28","token":"_w","state":"PAID","order_no":7,"payer":{"iban":"DE1","next":{"iban":"DE2","next":null}}}"#;
    assert!(shown.contains(data), "{shown}{}", String::from_utf8_lossy(&tail.stderr));
}
