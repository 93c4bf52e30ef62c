//! An embedded schema registry: the part of Confluent's REST API that clients use, for Avro, in memory. It does
//! not support references, other schema types, contexts, rules, or deleting single versions.

#![expect(
    clippy::disallowed_types,
    reason = "answers about schemas are built as JSON; no payload reaches this module"
)]

mod store;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use apache_avro::Schema;
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use self::store::{Posted, RegistryRefusal, RegistryStore, Wanted};
use crate::config::CompatibilityLevel;

const CONTENT_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// The maximum size of a request body, in bytes. Schemas have some KiB.
const MAX_BODY: usize = 1024 * 1024;

/// Never held across an await: each handler locks it for one expression.
type Shared = Arc<Mutex<RegistryStore>>;

type Answer = Result<Value, RegistryRefusal>;

type Body = Result<Bytes, BytesRejection>;

/// Creates an empty registry with Confluent's default level, BACKWARD. Its state lives as long as the router
/// and its clones.
pub fn router() -> Router {
    Router::new()
        .route("/", get(async || reply(Ok(json!({})))))
        .route("/mode", get(async || reply(Ok(json!({"mode": "READWRITE"})))))
        .route("/mode/{subject}", get(async || reply(Ok(json!({"mode": "READWRITE"})))))
        .route("/schemas/types", get(async || reply(Ok(json!(["AVRO"])))))
        .route("/schemas/ids/{id}", get(schema))
        .route("/schemas/ids/{id}/schema", get(schema_text))
        .route("/schemas/ids/{id}/versions", get(schema_versions))
        .route("/schemas/ids/{id}/subjects", get(schema_subjects))
        .route("/subjects", get(subjects))
        .route("/subjects/{subject}", post(look_up).delete(delete))
        .route("/subjects/{subject}/versions", get(versions).post(register))
        .route("/subjects/{subject}/versions/{version}", get(version))
        .route("/subjects/{subject}/versions/{version}/schema", get(version_text))
        .route("/config", get(level).put(set_level))
        .route("/config/{subject}", get(subject_level).put(set_subject_level).delete(clear_subject_level))
        .route("/compatibility/subjects/{subject}/versions", post(compatible_with_all))
        .route("/compatibility/subjects/{subject}/versions/{version}", post(compatible_with))
        .fallback(async || reply(Err(RegistryRefusal::new(404, "HTTP 404 Not Found"))))
        .method_not_allowed_fallback(async || {
            reply(Err(RegistryRefusal::new(405, "HTTP 405 Method Not Allowed")))
        })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(Shared::default())
}

async fn register(State(state): State<Shared>, Path(subject): Path<String>, body: Body) -> Response {
    reply(
        posted(body).and_then(|posted| store(&state).register(&subject, posted)).map(|id| json!({"id": id})),
    )
}

async fn look_up(
    State(state): State<Shared>,
    Path(subject): Path<String>,
    RawQuery(query): RawQuery,
    body: Body,
) -> Response {
    let deleted = flag(query.as_deref(), "deleted");
    reply(posted(body).and_then(|posted| store(&state).look_up(&subject, &posted.key, deleted)))
}

async fn delete(
    State(state): State<Shared>,
    Path(subject): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let permanent = flag(query.as_deref(), "permanent");
    reply(store(&state).delete(&subject, permanent).map(|versions| json!(versions)))
}

async fn subjects(State(state): State<Shared>, RawQuery(query): RawQuery) -> Response {
    reply(Ok(json!(store(&state).subjects(flag(query.as_deref(), "deleted")))))
}

async fn versions(
    State(state): State<Shared>,
    Path(subject): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let versions = store(&state).versions(&subject, flag(query.as_deref(), "deleted"));
    reply(versions.map(|versions| json!(versions)))
}

async fn version(
    State(state): State<Shared>,
    Path((subject, version)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Response {
    let deleted = flag(query.as_deref(), "deleted");
    reply(Wanted::parse(&version).and_then(|wanted| store(&state).version(&subject, wanted, deleted)))
}

async fn version_text(
    State(state): State<Shared>,
    Path((subject, version)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Response {
    let deleted = flag(query.as_deref(), "deleted");
    let found = Wanted::parse(&version).and_then(|wanted| store(&state).version(&subject, wanted, deleted));
    text(found.map(|found| found.get("schema").and_then(Value::as_str).unwrap_or_default().to_owned()))
}

async fn schema(State(state): State<Shared>, Path(id): Path<String>) -> Response {
    reply(schema_id(&id).and_then(|id| Ok(json!({"schema": store(&state).text(id)?}))))
}

async fn schema_text(State(state): State<Shared>, Path(id): Path<String>) -> Response {
    text(schema_id(&id).and_then(|id| store(&state).text(id).map(str::to_owned)))
}

async fn schema_versions(
    State(state): State<Shared>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let deleted = flag(query.as_deref(), "deleted");
    reply(schema_id(&id).and_then(|id| {
        let store = store(&state);
        let uses = store.uses(id, deleted)?.into_iter();
        Ok(uses.map(|(subject, version)| json!({"subject": subject, "version": version})).collect())
    }))
}

async fn schema_subjects(
    State(state): State<Shared>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let deleted = flag(query.as_deref(), "deleted");
    reply(schema_id(&id).and_then(|id| {
        let store = store(&state);
        let mut subjects: Vec<_> = store.uses(id, deleted)?.into_iter().map(|(subject, _)| subject).collect();
        subjects.dedup();
        Ok(json!(subjects))
    }))
}

async fn level(State(state): State<Shared>) -> Response {
    reply(Ok(json!({"compatibilityLevel": store(&state).level().as_str()})))
}

async fn set_level(State(state): State<Shared>, body: Body) -> Response {
    reply(posted_level(body).map(|level| {
        store(&state).set_level(level);
        json!({"compatibility": level.as_str()})
    }))
}

async fn subject_level(
    State(state): State<Shared>,
    Path(subject): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let store = store(&state);
    let global = flag(query.as_deref(), "defaultToGlobal").then(|| store.level());
    let missing = || {
        RegistryRefusal::new(
            40408,
            format!("Subject '{subject}' does not have subject-level compatibility configured"),
        )
    };
    let level = store.level_of(&subject).or(global).ok_or_else(missing);
    reply(level.map(|level| json!({"compatibilityLevel": level.as_str()})))
}

async fn set_subject_level(State(state): State<Shared>, Path(subject): Path<String>, body: Body) -> Response {
    reply(posted_level(body).map(|level| {
        store(&state).set_level_of(&subject, level);
        json!({"compatibility": level.as_str()})
    }))
}

async fn clear_subject_level(State(state): State<Shared>, Path(subject): Path<String>) -> Response {
    let level = store(&state).clear_level_of(&subject);
    reply(level.map(|level| json!({"compatibilityLevel": level.as_str()})))
}

async fn compatible_with(
    State(state): State<Shared>,
    Path((subject, version)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    body: Body,
) -> Response {
    let faults = posted(body)
        .and_then(|posted| store(&state).faults_against(&subject, Wanted::parse(&version)?, &posted.schema));
    reply(faults.map(|faults| compatibility_answer(&faults, query.as_deref())))
}

async fn compatible_with_all(
    State(state): State<Shared>,
    Path(subject): Path<String>,
    RawQuery(query): RawQuery,
    body: Body,
) -> Response {
    reply(posted(body).map(|posted| {
        let store = store(&state);
        let level = store.level_of(&subject).unwrap_or_else(|| store.level());
        compatibility_answer(&store.faults_against_all(&subject, level, &posted.schema), query.as_deref())
    }))
}

fn compatibility_answer(faults: &[String], query: Option<&str>) -> Value {
    let compatible = faults.is_empty();
    match flag(query, "verbose") {
        true => json!({"is_compatible": compatible, "messages": faults}),
        false => json!({"is_compatible": compatible}),
    }
}

/// Each statement leaves the state consistent, so the state is usable even after a handler has panicked.
fn store(state: &Shared) -> MutexGuard<'_, RegistryStore> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the query contains `name=true`. `normalize` and other flags are accepted without effect.
fn flag(query: Option<&str>, name: &str) -> bool {
    let pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    pairs.into_iter().any(|(key, value)| key == name && value.eq_ignore_ascii_case("true"))
}

fn schema_id(text: &str) -> Result<u32, RegistryRefusal> {
    text.parse().map_err(|_| RegistryRefusal::new(404, "HTTP 404 Not Found"))
}

/// Parses the schema of a request.
fn posted(body: Body) -> Result<Posted, RegistryRefusal> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Request {
        schema: Option<String>,
        schema_type: Option<String>,
        references: Option<Vec<IgnoredAny>>,
    }
    let request: Request = json_of(body)?;
    if request.schema_type.is_some_and(|kind| kind != "AVRO") {
        return Err(RegistryRefusal::new(42201, "This registry only supports schemas of type AVRO"));
    }
    if request.references.is_some_and(|references| !references.is_empty()) {
        return Err(RegistryRefusal::new(42201, "References are not supported by this registry"));
    }
    let text = request.schema.filter(|text| !text.trim().is_empty());
    let text = text.ok_or_else(|| RegistryRefusal::new(42201, "Empty schema"))?;
    let invalid =
        |why: String| RegistryRefusal::new(42201, format!("Input schema is an invalid Avro schema: {why}"));
    let schema = Schema::parse_str(&text).map_err(|error| invalid(error.to_string()))?;
    let key = serde_json::from_str(&text).map_err(|error| invalid(error.to_string()))?;
    Ok(Posted { text, key, schema })
}

fn posted_level(body: Body) -> Result<CompatibilityLevel, RegistryRefusal> {
    #[derive(Deserialize)]
    struct Request {
        compatibility: Option<String>,
    }
    let request: Request = json_of(body)?;
    let level = request.compatibility.as_deref().and_then(CompatibilityLevel::parse);
    level.ok_or_else(|| {
        let levels =
            "none, backward, forward, full, backward_transitive, forward_transitive, full_transitive";
        RegistryRefusal::new(42203, format!("Invalid compatibility level. Valid values are {levels}"))
    })
}

fn json_of<T: serde::de::DeserializeOwned>(body: Body) -> Result<T, RegistryRefusal> {
    let body = body.map_err(|rejection| {
        RegistryRefusal::new(rejection.status().as_u16().into(), rejection.body_text())
    })?;
    serde_json::from_slice(&body)
        .map_err(|_| RegistryRefusal::new(400, "The body is not the expected JSON object"))
}

fn reply(answer: Answer) -> Response {
    let (status, body) = answer.map_or_else(
        |refusal| (refusal.status, json!({"error_code": refusal.code, "message": refusal.message})),
        |body| (StatusCode::OK, body),
    );
    (status, [(header::CONTENT_TYPE, CONTENT_TYPE)], body.to_string()).into_response()
}

/// Answers with a schema itself, not wrapped in a JSON object.
fn text(answer: Result<String, RegistryRefusal>) -> Response {
    match answer {
        Ok(schema) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], schema).into_response(),
        Err(refusal) => reply(Err(refusal)),
    }
}
