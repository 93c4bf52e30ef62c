//! Inferring a first schema, and the messages of both commands if there is nothing to read.

use serde_json::json;

use super::{COMPLETED, Fixture, PAYLOAD};
use crate::cli::{hookstream, run};
use crate::support::{Setup, kafka, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn infer_makes_a_first_schema_from_generic_records_or_files() {
    let generic = format!("types = [\"{COMPLETED}\"]\nunmapped = \"generic\"");
    let fixture = Fixture::new(&generic, None);
    for (id, order) in [("evt_1", json!(1)), ("evt_2", json!(2.0))] {
        let data = json!({"note": PAYLOAD, "odd": [], "order": order});
        fixture.publish("order.paid", id, &data, &json!({"region": "eu"})).await;
    }
    fixture.publish("order.lost", "evt_3", &json!({"lost": true}), &json!({})).await;
    let (source, infer) = (fixture.source().to_owned(), ["schema", "infer", fixture.source()]);
    let infer = |arguments: &[&str]| fixture.command(&[&infer, arguments].concat());
    let (code, printed, stderr) = infer(&["order.paid"]);
    assert_eq!(code, 0);
    assert!(stderr.contains("made from 2 samples\n"), "only samples of that type: {stderr}");
    assert!(stderr.contains("no field for /data/odd: only empty arrays were seen\n"), "{stderr}");

    // The same from files.
    let body =
        |data: &str| format!(r#"{{"id":"e","event_type":"x","timestamp":1,"region":"eu","data":{data}}}"#);
    let bodies =
        body(r#"{"note":"x","odd":[],"order":1}"#) + "\n" + &body(r#"{"note":"y","odd":[],"order":2.0}"#);
    std::fs::write(fixture.dir.path().join("bodies.json"), bodies).unwrap();
    assert_eq!(infer(&["order.paid", "bodies.json"]).1, printed);
    std::fs::write(fixture.dir.path().join("bad.json"), format!("{{}}\n{{\"a\": {PAYLOAD}}}")).unwrap();
    let (code, stdout, stderr) = infer(&["order.paid", "bad.json"]);
    assert_eq!((code, stdout.as_str()), (2, ""));
    assert_eq!(stderr, "hookstream: bad.json: invalid JSON at line 2\n");

    // Once written, the schema is used for the type if the configuration names it.
    assert_eq!(infer(&["order.paid", "--write"]).0, 0);
    assert_eq!(infer(&["order.paid", "--write"]).0, 2, "existing files are not overwritten");
    assert_eq!(std::fs::read_to_string(fixture.file("order.paid.avsc")).unwrap(), printed);
    let rules = generic.replace(COMPLETED, &format!("{COMPLETED}\", \"order.paid"));
    let toml = fixture.setup.toml().replace(&generic, &rules);
    std::fs::write(fixture.dir.path().join("hookstream.toml"), toml).unwrap();
    let (code, stdout, _) = fixture.command(&["check"]);
    assert!(code == 0 && stdout.contains(&format!("{source}.order.paid")), "{stdout}");
    assert_eq!(fixture.command(&["provision", "--apply"]).0, 0);
    fixture.reload();
    let topic = fixture.topic("order.paid");
    let mut sent = 0;
    until("a typed record", async || {
        sent += 1;
        let data = json!({"order": 7, "note": "x"});
        fixture.publish("order.paid", &format!("evt_typed_{sent}"), &data, &json!({"region": "eu"})).await;
        !kafka::all(&topic).await.is_empty()
    })
    .await;
    let record = &kafka::java(&[&topic])[0]["value"];
    assert_eq!(record["data"], json!({"order": 7, "note": "x"}));
    assert_eq!((&record["region"], &record["additional_fields"]), (&json!("eu"), &json!({})));
}

#[test]
fn drift_and_infer_report_unreadable_input_in_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let setup =
        Setup { rules: "types = [\"batch_prediction.completed\", \"odd\"]".into(), ..Setup::new("datagrid") };
    std::fs::write(dir.path().join("hookstream.toml"), setup.toml()).unwrap();
    let source = &setup.source;
    let run = |arguments: &[&str]| {
        let mut command = hookstream(dir.path());
        let (code, stdout, stderr) =
            run(command.args(["schema"]).args(arguments).args(["-c", "hookstream.toml"]));
        assert_eq!(stdout, "");
        (code, stderr)
    };
    let kafka = &setup.kafka;
    for (arguments, code, expected) in [
        (
            &["drift", source][..],
            0,
            format!("none of the topics of {source} exists at {kafka}: `hookstream serve` creates them\n"),
        ),
        (&["drift", source, "odd"], 2, format!("`hookstream schema infer {source} odd` makes one\n")),
        (&["drift", source, "new"], 2, format!("{source} has no event type `new`; there are: ")),
        (&["drift", "nobody"], 2, "there is no source `nobody`".into()),
        (&["infer", source, "odd"], 2, format!("no topic {source}.odd at {kafka}: give samples as files\n")),
        (
            &["infer", source, COMPLETED, "none.json"],
            2,
            format!("{COMPLETED} already has the schema built in: "),
        ),
        (&["infer", source, "odd", "none.json"], 2, "cannot read none.json".into()),
        (
            &["infer", source, COMPLETED],
            2,
            format!("`hookstream schema drift {source} {COMPLETED}` adds fields to it\n"),
        ),
    ] {
        let (found, stderr) = run(arguments);
        assert_eq!(found, code, "{arguments:?}: {stderr}");
        assert!(stderr.contains(&expected) && stderr.lines().count() == 1, "{arguments:?}: {stderr}");
    }
}
