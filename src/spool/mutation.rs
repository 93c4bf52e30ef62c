//! Changes of existing rows within a transaction.

use rusqlite::Transaction;

use super::error::SpoolError;
use super::format::RowState;
use super::shared::{Parked, RowMove, WriterCommand};

/// The changes that a transaction made to existing rows.
#[derive(Default)]
pub(super) struct Mutation {
    pub(super) moves: Vec<RowMove>,
    /// The number of rows that each command changed.
    pub(super) counts: Vec<u64>,
    /// The last id that was assigned, if rows were stored.
    pub(super) given: Option<u64>,
}

impl Mutation {
    /// The number of deleted rows.
    pub(super) fn removed(&self) -> u64 {
        self.moves.iter().filter(|(_, _, after, _)| after.is_none()).count() as u64
    }
}

/// Deletes delivered rows.
pub(super) fn remove(work: &Transaction<'_>, ids: &[i64], effects: &mut Mutation) -> rusqlite::Result<()> {
    let mut delete =
        work.prepare_cached("DELETE FROM records WHERE id = ?1 RETURNING topic, bytes, state")?;
    for id in ids {
        let mut rows = delete.query([id])?;
        while let Some(row) = rows.next()? {
            effects.moves.push((row.get(0)?, Some(RowState::from_number(row.get(2)?)), None, row.get(1)?));
        }
    }
    Ok(())
}

/// Applies a command and returns the number of changed rows.
pub(super) fn apply(
    work: &Transaction<'_>,
    change: &WriterCommand,
    effects: &mut Mutation,
) -> rusqlite::Result<u64> {
    let (ids, from, to, why) = match change {
        WriterCommand::Park { id, why, .. } => (vec![*id], RowState::Live, RowState::Parked, Some(why)),
        WriterCommand::Requeue { which: Parked::These(ids), .. } => {
            (ids.clone(), RowState::Parked, RowState::Live, None)
        }
        WriterCommand::Requeue { which: Parked::First(count), .. } => {
            let mut select = work.prepare_cached("SELECT id FROM records WHERE state = 1 LIMIT ?1")?;
            let ids = select.query_map([*count as u64], |row| row.get(0))?.collect::<Result<_, _>>()?;
            (ids, RowState::Parked, RowState::Live, None)
        }
        WriterCommand::Flush { .. } => return Ok(0),
        #[cfg(test)]
        WriterCommand::Run { .. } => return Ok(0),
    };
    let mut update = work.prepare_cached(
        "UPDATE records SET state = ?3, why = ?4 WHERE id = ?1 AND state = ?2 RETURNING topic, bytes",
    )?;
    let mut count = 0;
    for id in ids {
        let mut rows = update.query((id, from.number(), to.number(), why))?;
        while let Some(row) = rows.next()? {
            effects.moves.push((row.get(0)?, Some(from), Some(to), row.get(1)?));
            count += 1;
        }
    }
    Ok(count)
}

/// Sends the result of a command to its caller.
pub(super) fn answer(change: WriterCommand, result: Result<u64, SpoolError>) {
    let reply = match change {
        WriterCommand::Park { reply: Some(reply), .. }
        | WriterCommand::Requeue { reply, .. }
        | WriterCommand::Flush { reply } => reply,
        WriterCommand::Park { reply: None, .. } => return,
        #[cfg(test)]
        WriterCommand::Run { .. } => return,
    };
    let _ = reply.send(result);
}
