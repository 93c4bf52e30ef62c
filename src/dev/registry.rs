//! An embedded schema registry, in memory: the part of Confluent's REST API that hookstream and the clients of producers and
//! consumers call. Query parameters are ignored. It supports neither deletion nor references, other schema types, contexts,
//! rules, or a level for all subjects.

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
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use self::store::{Posted, RegistryRefusal, RegistryStore, RequestedVersion};
use crate::config::CompatibilityLevel;

const CONTENT_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// The maximum size of a request body, in bytes. Schemas have some KiB.
const MAX_BODY: usize = 1024 * 1024;

/// Never held across an await: each handler locks it for one expression.
type Shared = Arc<Mutex<RegistryStore>>;

type RegistryReply = Result<Value, RegistryRefusal>;

type Body = Result<Bytes, BytesRejection>;

/// Creates an empty registry with Confluent's default level, BACKWARD. Its state lives as long as the router
/// and its clones.
pub fn router() -> Router {
    Router::new()
        .route("/schemas/ids/{id}", get(schema))
        .route("/subjects", get(subjects))
        .route("/subjects/{subject}", post(look_up))
        .route("/subjects/{subject}/versions", get(versions).post(register))
        .route("/subjects/{subject}/versions/{version}", get(version))
        .route("/config/{subject}", get(level).put(set_level))
        .route("/compatibility/subjects/{subject}/versions", post(compatible))
        .fallback(async || reply(Err(RegistryRefusal::new(404, "HTTP 404 Not Found"))))
        .method_not_allowed_fallback(async || {
            reply(Err(RegistryRefusal::new(405, "HTTP 405 Method Not Allowed")))
        })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(Shared::default())
}

async fn schema(State(state): State<Shared>, Path(id): Path<String>) -> Response {
    let id = id.parse().map_err(|_| RegistryRefusal::new(404, "HTTP 404 Not Found"));
    reply(id.and_then(|id| Ok(json!({"schema": store(&state).text(id)?}))))
}

async fn subjects(State(state): State<Shared>) -> Response {
    reply(Ok(json!(store(&state).subjects())))
}

async fn look_up(State(state): State<Shared>, Path(subject): Path<String>, body: Body) -> Response {
    reply(posted(body).and_then(|posted| store(&state).look_up(&subject, &posted.key)))
}

async fn versions(State(state): State<Shared>, Path(subject): Path<String>) -> Response {
    reply(store(&state).versions(&subject).map(|ids| json!((1..=ids.len()).collect::<Vec<_>>())))
}

async fn register(State(state): State<Shared>, Path(subject): Path<String>, body: Body) -> Response {
    let id = posted(body).and_then(|posted| store(&state).register(&subject, posted));
    reply(id.map(|id| json!({"id": id})))
}

async fn version(State(state): State<Shared>, Path((subject, version)): Path<(String, String)>) -> Response {
    reply(RequestedVersion::parse(&version).and_then(|wanted| store(&state).version(&subject, wanted)))
}

async fn level(State(state): State<Shared>, Path(subject): Path<String>) -> Response {
    let level = store(&state).levels.get(&subject).copied();
    let missing = format!("Subject '{subject}' does not have subject-level compatibility configured");
    let level = level.ok_or_else(|| RegistryRefusal::new(40408, missing));
    reply(level.map(|level| json!({"compatibilityLevel": level.as_str()})))
}

async fn set_level(State(state): State<Shared>, Path(subject): Path<String>, body: Body) -> Response {
    reply(posted_level(body).map(|level| {
        store(&state).levels.insert(subject, level);
        json!({"compatibility": level.as_str()})
    }))
}

/// The messages stand in each answer, although Confluent's registry sends them for `verbose=true` only.
async fn compatible(State(state): State<Shared>, Path(subject): Path<String>, body: Body) -> Response {
    reply(posted(body).map(|posted| {
        let faults = store(&state).faults(&subject, &posted.schema);
        json!({"is_compatible": faults.is_empty(), "messages": faults})
    }))
}

/// Each statement leaves the state consistent, so the state is usable even after a handler has panicked.
fn store(state: &Shared) -> MutexGuard<'_, RegistryStore> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
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

fn reply(answer: RegistryReply) -> Response {
    let (status, body) = answer.map_or_else(
        |refusal| (refusal.status, json!({"error_code": refusal.code, "message": refusal.message})),
        |body| (StatusCode::OK, body),
    );
    (status, [(header::CONTENT_TYPE, CONTENT_TYPE)], body.to_string()).into_response()
}
