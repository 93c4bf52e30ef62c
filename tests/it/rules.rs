//! The rules of a source that decide which deliveries are trusted, over HTTP.

use crate::support::{Answer, Service, Setup, batch, hmac, kafka};

/// Starts a service that checks the age of signatures. Returns its answer to a delivery signed `old` seconds ago.
async fn answers_by_age(stale: &str) -> (Service, Vec<Answer>) {
    let mut setup = Setup::new("datagrid");
    setup.rules =
        format!("types = [\"batch_prediction.completed\"]\nstale = \"{stale}\"\ntolerance = \"10m\"");
    let service = setup.ready().await;
    let mut answers = Vec::new();
    for old in [0, 500, 700, -500, -700] {
        let time = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs().saturating_add_signed(-old);
        let body = batch(&format!("evt_{old}"));
        let signature = format!("t={time},v1={}", hmac(format!("{time}.{body}").as_bytes()));
        answers.push(service.post(&[("datagrid-signature", &signature)], body).await);
    }
    (service, answers)
}

#[tokio::test]
async fn old_and_future_signatures_are_refused_or_dead_lettered_as_configured() {
    let (service, answers) = answers_by_age("reject").await;
    for (answer, refused) in answers.iter().zip([false, false, true, false, true]) {
        match refused {
            true => answer.is(401, "refused", Some("unauthorized")),
            false => answer.is(200, "published", None),
        }
    }
    let logged = service.lines().iter().filter(|line| line.contains("StaleRejected")).count();
    assert_eq!(logged, 2, "{:#?}", service.lines());

    let (service, answers) = answers_by_age("dead_letter").await;
    for (answer, stale) in answers.iter().zip([false, false, true, false, true]) {
        match stale {
            true => answer.is(200, "dead_lettered", Some("stale")),
            false => answer.is(200, "published", None),
        }
    }
    let records = kafka::java(&[&service.dead_letters()]);
    let headers: Vec<_> = records.iter().map(|record| record["headers"].clone()).collect();
    assert_eq!(headers.len(), 2, "{headers:?}");
    for headers in headers {
        assert_eq!(headers["hookstream-reason"], "stale");
        assert_eq!(headers["hookstream-original-topic"], service.topic("batch_prediction.completed"));
    }
}

#[tokio::test]
async fn a_dead_letter_contains_the_headers_of_its_request() {
    let mut setup = Setup::new("datagrid");
    setup.rules = String::from("types = [\"batch_prediction.completed\"]");
    // The keys of the list are those of the preset.
    let rules = "header = 'X-Sig'\nid_header = 'X-Id'\nsigned = '{id}.{timestamp}.{header:X-Kind}.{body}'";
    setup.tables = format!("[source.{}.signature]\n{rules}", setup.source);
    let service = setup.ready().await;
    let digest = hmac(b"msg_1.1775847600.push.no json");
    let signature = format!("t=1775847600,v1={digest}");
    let headers =
        [("x-sig", signature.as_str()), ("x-id", "msg_1"), ("x-kind", "push"), ("x-other", "unsigned")];
    service.post(&headers, "no json").await.is(200, "dead_lettered", Some("json_invalid"));
    let record = kafka::java(&[&service.dead_letters()]).remove(0);
    for (name, value) in headers {
        assert_eq!(record["headers"][name], value);
    }
}
