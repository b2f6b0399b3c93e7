//! Writing cells through: durable at the origin first, then in the cache.
//!
//! A set is one MutateRow. What depends on the cell is read, decided, and written
//! by a CheckAndMutateRow on condition that the cell is still what was read; else
//! again, some times. Writers of one key through this proxy take turns.

use std::sync::Arc;

use tonic::Status;

use super::cell::{CellValue, GRANULARITY_US, delete_mutations};
use super::key::{CellKey, table_name};
use super::rows::{self, Condition};
use super::write::{CellWrite, Step, WriteOutcome};
use super::{Origins, refusal};
use crate::invalidation::change::ChangeReader;
use crate::invalidation::table_state::TableState;

/// Times that a write is decided anew because the cell has changed meanwhile.
const ATTEMPT_COUNT_MAX: usize = 32;

/// Milliseconds that deletions are marked with are less than this: cells of
/// 1970 to 1979.
const MARK_MS_MAX: u64 = 300_000_000_000;

/// What a write left in the cell.
enum Written {
    Value(CellValue),
    Nothing,
    /// It was refused before anything was written.
    Refused(WriteOutcome),
}

impl Origins {
    /// Does `write` to `key`, at the origin and here.
    pub(super) async fn write(self: &Arc<Self>, key: &CellKey, write: &CellWrite) -> WriteOutcome {
        let Some(name) = table_name(key.table_part(), &self.options.instance) else {
            return WriteOutcome::Failed("CLIENT_ERROR the key names no table".into());
        };
        let table = self.table_or_new(key.table_part());
        let attempt = Attempt { origins: self, key, write, table: table.as_deref(), name };
        let give_up = || {
            self.shelf.remove(key.canonical(), self.clock.now_s());
        };
        let turn = self.flights.begin_write(key.canonical(), give_up);
        let Ok(turn) = tokio::time::timeout(self.options.timeout, turn).await else {
            return WriteOutcome::Failed(self.timed_out("rows"));
        };
        // Asked before the write, so that what invalidates the row meanwhile counts.
        let generation = table.as_ref().map_or(0, |table| table.generation(&key.row));
        let written = match self.call("rows", "write", attempt.run()).await {
            Ok(written) => written,
            // Dropping the turn takes away what is kept.
            Err(failure) => return WriteOutcome::Failed(failure),
        };
        if let Some(table) = &table {
            table.note_column(&key.family, &key.qualifier);
            self.want_followed(table);
        }
        let keep = |value: Option<&CellValue>| {
            if let Some(table) = &table {
                self.keep(table, key, value, generation);
            }
        };
        match written {
            Written::Value(value) => {
                turn.finish(|| keep(Some(&value)));
                let cas = TableState::cas(generation, value.identity());
                WriteOutcome::Done(value, cas)
            }
            Written::Nothing => {
                turn.finish(|| keep(None));
                WriteOutcome::Deleted
            }
            // Dropping the turn takes away what is kept: the origin has something else.
            Written::Refused(outcome @ (WriteOutcome::Exists | WriteOutcome::NotFound)) => outcome,
            Written::Refused(outcome) => {
                turn.finish(|| {});
                outcome
            }
        }
    }
}

/// A write in its turn.
struct Attempt<'a> {
    origins: &'a Origins,
    key: &'a CellKey,
    write: &'a CellWrite,
    table: Option<&'a TableState>,
    name: row_api::names::TableName,
}

impl Attempt<'_> {
    async fn run(&self) -> Result<Written, Arc<str>> {
        let origins = self.origins;
        let refused = |status: Status| {
            if status.code() == tonic::Code::NotFound {
                origins.forget_table(self.key.table_part());
            }
            refusal(&status)
        };
        if let Some(value) = self.write.unconditional(self.timestamp_us()) {
            if value.value.len() > origins.value_bytes_max {
                return Ok(Written::Refused(WriteOutcome::TooLarge));
            }
            if value.is_expired(origins.clock.now_s()) {
                self.send(None, delete_mutations(self.key, self.mark_us())).await.map_err(refused)?;
                // It was stored, and has expired: as memcached answers.
                return Ok(Written::Value(value));
            }
            self.send(None, value.mutations(self.key)).await.map_err(refused)?;
            return Ok(Written::Value(value));
        }
        if let CellWrite::Delete { compare: None } = self.write {
            let mutations = delete_mutations(self.key, self.mark_us());
            let deleted = self.send(Some(Condition::Present), mutations).await.map_err(refused)?;
            return Ok(if deleted { Written::Nothing } else { Written::Refused(WriteOutcome::NotFound) });
        }
        for _ in 0..ATTEMPT_COUNT_MAX {
            let (client, timeout) = (&origins.client, origins.options.timeout);
            let old = rows::read_cell(client, &self.name, self.key, timeout).await.map_err(refused)?;
            if let Some(written) = self.try_on(old.as_ref()).await.map_err(refused)? {
                return Ok(written);
            }
        }
        Err("SERVER_ERROR others kept changing the cell: nothing was written".into())
    }

    /// Writes where the cell is still `old`; none if it is not.
    async fn try_on(&self, old: Option<&CellValue>) -> Result<Option<Written>, Status> {
        let now = self.origins.clock.now_s();
        let step = self.write.step(old, now, self.timestamp_us(), self.origins.value_bytes_max);
        let (mutations, written) = match step {
            Step::Refuse(outcome) => return Ok(Some(Written::Refused(outcome))),
            Step::Put(value) => (value.mutations(self.key), Written::Value(value)),
            Step::Annotate(value) => (value.companion_mutations(self.key), Written::Value(value)),
            Step::Delete => (delete_mutations(self.key, self.mark_us()), Written::Nothing),
        };
        let condition = old.map_or(Condition::Absent, Condition::Is);
        let applied = self.send(Some(condition), mutations).await?;
        Ok(applied.then_some(written))
    }

    /// Sends mutations, to be applied if the condition holds; whether they were.
    async fn send(
        &self,
        condition: Option<Condition<'_>>,
        mutations: Vec<row_api::data::Mutation>,
    ) -> Result<bool, Status> {
        let number = ChangeReader::number(&self.key.row, &mutations);
        let expected = Expected { table: self.table, number: Some(number) };
        if let Some(table) = self.table {
            table.expect_own(number);
        }
        let (client, timeout) = (&self.origins.client, self.origins.options.timeout);
        let applied = match condition {
            None => rows::mutate(client, &self.name, self.key, mutations, timeout).await.map(|()| true),
            Some(condition) => {
                rows::mutate_if(client, &self.name, self.key, condition, mutations, timeout).await
            }
        };
        if let Ok(true) = applied {
            expected.come_true();
        }
        applied
    }

    fn timestamp_us(&self) -> i64 {
        let now_us = i64::try_from(self.origins.clock.now_us()).unwrap_or(i64::MAX);
        now_us - now_us % GRANULARITY_US
    }

    fn mark_us(&self) -> i64 {
        let mark_ms = rand::random_range(1..MARK_MS_MAX);
        i64::try_from(mark_ms).expect("it is small") * GRANULARITY_US
    }
}

/// An own change that the stream is to tell of. Where it may not come to pass,
/// or not be known here when it does, it is somebody else's.
struct Expected<'t> {
    table: Option<&'t TableState>,
    number: Option<u64>,
}

impl Expected<'_> {
    fn come_true(mut self) {
        self.number = None;
    }
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        if let (Some(table), Some(number)) = (self.table, self.number) {
            table.take_own(number);
        }
    }
}
