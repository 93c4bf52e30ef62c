//! Asks the registry about subjects, several at once.

use futures_util::stream::{self, Stream, StreamExt as _};

use crate::provision::SUBJECTS_AT_ONCE;
use crate::schema::registry::{RegistryError, Resolved};
use crate::schema::{IdState, Registry, SchemaEntry};

/// The registry's answer about a subject.
pub(super) enum SubjectAnswer {
    /// It does not have our schema under the known id.
    Gone(u32, Resolved),
    /// The id of our schema.
    Id(u32),
}

/// The answers in the order in which they arrive, each with the schema and the state that it was asked with. Missing
/// schemas are registered if `register` and the configuration allow it.
pub(super) fn ask(
    registry: Registry,
    register: bool,
    subjects: Vec<(SchemaEntry, IdState)>,
) -> impl Stream<Item = (SchemaEntry, IdState, Result<SubjectAnswer, RegistryError>)> + Unpin + Send {
    let requests = stream::iter(subjects).map(move |(schema, id_state)| {
        let registry = registry.clone();
        async move {
            let answer = ask_one(&registry, &schema, id_state, register).await;
            (schema, id_state, answer)
        }
    });
    Box::pin(requests.buffer_unordered(SUBJECTS_AT_ONCE))
}

/// A known id is checked before anything is registered, because a registry that lost its data would only assign another
/// id.
async fn ask_one(
    registry: &Registry,
    schema: &SchemaEntry,
    id_state: IdState,
    register: bool,
) -> Result<SubjectAnswer, RegistryError> {
    if let Some(id) = id_state.known() {
        let resolved = registry.resolve(id, &schema.schema).await?;
        if resolved != Resolved::Same {
            return Ok(SubjectAnswer::Gone(id, resolved));
        }
        if matches!(id_state, IdState::Confirmed(_)) {
            return Ok(SubjectAnswer::Id(id));
        }
    }
    registry.id(schema, register).await.map(SubjectAnswer::Id)
}
