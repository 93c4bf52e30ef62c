use std::time::Duration;

use axum::body::{Body as HttpBody, to_bytes};
use axum::http::{Method, Request};
use schema_registry_converter::async_impl::avro::{AvroDecoder, AvroEncoder};
use schema_registry_converter::async_impl::schema_registry::{
    SrSettings, get_schema_by_id, get_schema_by_subject_and_version, post_schema,
};
use schema_registry_converter::avro_common::DecodeResult;
use schema_registry_converter::schema_registry_common::{SchemaType, SubjectNameStrategy, SuppliedSchema};
use tower::ServiceExt as _;

use super::*;

const ONE: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"string"}]}"#;
const OPTIONAL: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"string"},{"name":"b","type":["null","string"],"default":null}]}"#;
const REQUIRED: &str =
    r#"{"type":"record","name":"R","fields":[{"name":"a","type":"string"},{"name":"c","type":"string"}]}"#;

async fn raw(router: &Router, method: &str, uri: &str, body: impl Into<HttpBody>) -> (u16, String) {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let request = Request::builder().method(method).uri(uri).body(body.into()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.headers()[header::CONTENT_TYPE], CONTENT_TYPE, "{uri}");
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body(), MAX_BODY).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn call(router: &Router, method: &str, uri: &str, body: Value) -> (u16, Value) {
    let (status, answer) = raw(router, method, uri, body.to_string()).await;
    (status, serde_json::from_str(&answer).unwrap())
}

async fn ask(router: &Router, uri: &str) -> (u16, Value) {
    call(router, "GET", uri, Value::Null).await
}

/// Status and `error_code`.
fn code((status, answer): (u16, Value)) -> (u16, u64) {
    assert!(answer["message"].as_str().is_some_and(|message| !message.is_empty()), "{answer}");
    (status, answer["error_code"].as_u64().unwrap())
}

async fn register(router: &Router, subject: &str, schema: &str) -> (u16, Value) {
    call(router, "POST", &format!("/subjects/{subject}/versions"), json!({"schema": schema})).await
}

#[tokio::test]
async fn a_schema_keeps_its_id_in_each_subject_and_each_spelling() {
    let router = router();
    assert_eq!(register(&router, "s", ONE).await, (200, json!({"id": 1})));
    assert_eq!(register(&router, "s", &ONE.replace(',', " ,\n")).await, (200, json!({"id": 1})));
    assert_eq!(register(&router, "t", ONE).await, (200, json!({"id": 1})));
    assert_eq!(register(&router, "s", OPTIONAL).await, (200, json!({"id": 2})));
    let documented = OPTIONAL.replace(r#""name":"b""#, r#""name":"b","doc":"B.""#);
    assert_eq!(register(&router, "s", &documented).await, (200, json!({"id": 3})), "a doc counts");
    assert_eq!(ask(&router, "/subjects").await, (200, json!(["s", "t"])));
    assert_eq!(ask(&router, "/subjects/s/versions").await, (200, json!([1, 2, 3])));
}

#[tokio::test]
async fn a_version_is_found_by_number_by_latest_by_id_and_by_schema() {
    let router = router();
    register(&router, "s", ONE).await;
    register(&router, "s", OPTIONAL).await;
    let second = json!({"subject": "s", "version": 2, "id": 2, "schema": OPTIONAL});
    for version in ["2", "latest", "-1"] {
        assert_eq!(ask(&router, &format!("/subjects/s/versions/{version}")).await, (200, second.clone()));
    }
    let body = json!({"schema": OPTIONAL, "schemaType": "AVRO"});
    assert_eq!(call(&router, "POST", "/subjects/s?normalize=true", body).await, (200, second));
    assert_eq!(ask(&router, "/schemas/ids/2?subject=s").await, (200, json!({"schema": OPTIONAL})));
}

#[tokio::test]
async fn missing_resources_have_confluents_codes() {
    let router = router();
    register(&router, "s", ONE).await;
    assert_eq!(code(ask(&router, "/subjects/none/versions").await), (404, 40401));
    assert_eq!(code(ask(&router, "/subjects/none/versions/latest").await), (404, 40401));
    assert_eq!(code(ask(&router, "/subjects/s/versions/2").await), (404, 40402));
    assert_eq!(code(ask(&router, "/schemas/ids/2").await), (404, 40403));
    assert_eq!(code(ask(&router, "/schemas/ids/0").await), (404, 40403));
    assert_eq!(code(ask(&router, "/subjects/s/versions/0").await), (422, 42202));
    assert_eq!(code(ask(&router, "/subjects/s/versions/new").await), (422, 42202));
    assert_eq!(code(ask(&router, "/contexts/none").await), (404, 404));
    assert_eq!(code(call(&router, "PUT", "/subjects", json!({})).await), (405, 405));
    let body = json!({"schema": OPTIONAL});
    assert_eq!(code(call(&router, "POST", "/subjects/s", body.clone()).await), (404, 40403));
    assert_eq!(code(call(&router, "POST", "/subjects/none", body).await), (404, 40401));
}

#[tokio::test]
async fn an_invalid_avro_schema_is_refused_and_leaves_nothing() {
    let router = router();
    let path = "/subjects/s/versions";
    for body in [
        json!({"schema": "{"}),
        json!({"schema": r#"{"type":"record","name":"bad-name","fields":[]}"#}),
        json!({"schema": ""}),
        json!({}),
        json!({"schema": "{}", "schemaType": "JSON"}),
        json!({"schema": ONE, "references": [{"name": "X", "subject": "x", "version": 1}]}),
    ] {
        assert_eq!(code(call(&router, "POST", path, body.clone()).await), (422, 42201), "{body}");
    }
    let (status, answer) = raw(&router, "POST", path, "not json").await;
    assert_eq!(code((status, serde_json::from_str(&answer).unwrap())), (400, 400));
    let (status, answer) = raw(&router, "POST", path, vec![b' '; MAX_BODY + 1]).await;
    assert_eq!(code((status, serde_json::from_str(&answer).unwrap())), (413, 413));
    assert_eq!(ask(&router, "/subjects").await, (200, json!([])));
}

#[tokio::test]
async fn an_incompatible_schema_is_409_and_one_that_the_level_allows_is_not() {
    let router = router();
    register(&router, "s", ONE).await;
    let (status, answer) = register(&router, "s", REQUIRED).await;
    assert_eq!((status, answer["error_code"].as_u64()), (409, Some(409)));
    assert!(answer["message"].as_str().unwrap().contains("field c"), "{answer}");
    assert_eq!(ask(&router, "/subjects/s/versions").await, (200, json!([1])));
    call(&router, "PUT", "/config/s", json!({"compatibility": "FORWARD"})).await;
    assert_eq!(register(&router, "s", REQUIRED).await.0, 200);
    call(&router, "PUT", "/config/t", json!({"compatibility": "NONE"})).await;
    assert_eq!(register(&router, "t", ONE).await.0, 200);
    assert_eq!(register(&router, "t", r#""long""#).await.0, 200);
}

#[tokio::test]
async fn a_transitive_level_checks_each_earlier_version() {
    let router = router();
    let retyped = OPTIONAL.replace("\"string\"],", "\"long\"],");
    for (subject, level, expected) in [("s", "BACKWARD", 200), ("t", "BACKWARD_TRANSITIVE", 409)] {
        call(&router, "PUT", &format!("/config/{subject}"), json!({"compatibility": level})).await;
        assert_eq!(register(&router, subject, OPTIONAL).await.0, 200);
        assert_eq!(register(&router, subject, ONE).await.0, 200);
        assert_eq!(register(&router, subject, &retyped).await.0, expected, "{level}");
    }
}

#[tokio::test]
async fn compatibility_is_checked_without_registering_and_with_reasons() {
    let router = router();
    register(&router, "s", ONE).await;
    let path = "/compatibility/subjects/s/versions?verbose=true";
    let (_, answer) = call(&router, "POST", path, json!({"schema": REQUIRED})).await;
    assert_eq!(answer["is_compatible"], json!(false));
    assert!(answer["messages"][0].as_str().unwrap().contains("field c"), "{answer}");
    for path in [path, "/compatibility/subjects/new/versions"] {
        let (_, answer) = call(&router, "POST", path, json!({"schema": OPTIONAL})).await;
        assert_eq!(answer, json!({"is_compatible": true, "messages": []}));
    }
    assert_eq!(ask(&router, "/subjects/s/versions").await, (200, json!([1])));
}

#[tokio::test]
async fn a_subject_has_no_level_of_its_own_until_one_is_set() {
    let router = router();
    assert_eq!(code(ask(&router, "/config/s").await), (404, 40408));
    let put = call(&router, "PUT", "/config/s", json!({"compatibility": "FULL_TRANSITIVE"})).await;
    assert_eq!(put, (200, json!({"compatibility": "FULL_TRANSITIVE"})));
    assert_eq!(ask(&router, "/config/s").await, (200, json!({"compatibilityLevel": "FULL_TRANSITIVE"})));
    let bad = call(&router, "PUT", "/config/s", json!({"compatibility": "SOME"})).await;
    assert_eq!(code(bad), (422, 42203));
}

#[expect(clippy::disallowed_methods, reason = "a test's server on loopback needs no timers")]
async fn served() -> SrSettings {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router()).await });
    SrSettings::new_builder(url).no_proxy().set_timeout(Duration::from_secs(10)).build().unwrap()
}

#[tokio::test]
async fn schema_registry_converter_registers_fetches_encodes_and_decodes() {
    let settings = served().await;
    let subject = "datagrid.batch_prediction.completed-value".to_owned();
    let supplied = SuppliedSchema::new(None, SchemaType::Avro, ONE.to_owned());
    let posted = post_schema(&settings, subject.clone(), supplied.clone()).await.unwrap();
    assert_eq!((posted.id, posted.schema.as_str()), (1, ONE));
    assert_eq!(post_schema(&settings, "a/b".to_owned(), supplied).await.unwrap().id, 1);
    assert_eq!(get_schema_by_id(1, &settings).await.unwrap().schema, ONE);
    let latest = get_schema_by_subject_and_version(&settings, &subject, None).await.unwrap();
    assert_eq!((latest.id, latest.version, latest.subject), (1, Some(1), Some(subject)));

    let topic = "datagrid.batch_prediction.completed".to_owned();
    let encoder = AvroEncoder::new(settings.clone());
    let strategy = SubjectNameStrategy::TopicNameStrategy(topic, false);
    let value = apache_avro::types::Value::String("one".to_owned());
    let bytes = encoder.encode(vec![("a", value.clone())], strategy).await.unwrap();
    assert_eq!(&bytes[..5], [0, 0, 0, 0, 1]);
    let DecodeResult { value: decoded, .. } = AvroDecoder::new(settings).decode(Some(&bytes)).await.unwrap();
    assert_eq!(decoded, apache_avro::types::Value::Record(vec![("a".to_owned(), value)]));
}

#[tokio::test]
async fn schema_registry_converter_receives_the_reason_of_a_refusal() {
    let settings = served().await;
    let supplied = |schema: &str| SuppliedSchema::new(None, SchemaType::Avro, schema.to_owned());
    post_schema(&settings, "s".to_owned(), supplied(ONE)).await.unwrap();
    let refused = post_schema(&settings, "s".to_owned(), supplied(REQUIRED)).await.unwrap_err();
    let chain = anyhow::Error::from(refused).chain().map(ToString::to_string).collect::<Vec<_>>().join(": ");
    assert!(chain.contains("409") && chain.contains("field c"), "{chain}");
}
