//! `google.longrunning` operations: what became of requests that take their time.
//!
//! Most of what asks for one is done when it answers: such an operation is
//! complete from its beginning. Backups and restores run on (`running`), and their
//! operations are ended by whoever carries them out. Each is a record of the
//! lock service, written when it begins and when it ends, so that a client that asks
//! again finds it after a restart too; `resumption` takes up what a
//! restart has interrupted. The newest [`OPERATION_COUNT_MAX`] are kept.

mod running;
mod service;

use std::fmt::Display;
use std::time::Duration;

use cluster::lock_service::Expect;
use prost::Message;
use row_api::longrunning::Operation;
use row_api::longrunning::operation::Result as Outcome;
use row_api::rpc;
use tonic::{Code, Status};

use crate::error::{Error, Result};
use crate::master::{Master, damaged};

pub use service::OperationsService;

pub(crate) use running::{RunningOperation, RunningOperations};

/// Operations that are remembered, those under way aside.
pub const OPERATION_COUNT_MAX: usize = 1_000;

/// What the keys of operations start with in the lock service; the number follows, in 20 digits.
const PREFIX: &str = "operation/";

impl Master {
    /// Remembers and gives an operation on `resource` that is complete, durably.
    pub(crate) async fn complete_operation(
        &self,
        resource: impl Display,
        metadata: prost_types::Any,
        response: prost_types::Any,
    ) -> Result<Operation> {
        let (number, operation) = self.new_operation(resource, metadata).await?;
        let operation = Operation { done: true, result: Some(Outcome::Response(response)), ..operation };
        self.write_operation(number, &operation, Expect::Absent).await?;
        self.forget_oldest_operations().await?;
        Ok(operation)
    }

    /// Begins an operation on `resource`, durably.
    ///
    /// # Errors
    ///
    /// RESOURCE_EXHAUSTED where too many are under way, or [`Error`].
    pub(crate) async fn begin_operation(
        &self,
        resource: impl Display,
        metadata: prost_types::Any,
    ) -> Result<RunningOperation> {
        let (number, operation) = self.new_operation(resource, metadata).await?;
        let running = self.running.begin(number, operation.clone())?;
        self.write_operation(number, &operation, Expect::Absent).await?;
        self.forget_oldest_operations().await?;
        Ok(running)
    }

    /// Goes on with the operation `number`, as a process before this one began it.
    pub(crate) fn resume_operation(&self, number: u64, operation: Operation) -> RunningOperation {
        self.running.resume(number, operation)
    }

    /// Ends an operation, durably, and tells those who wait for it.
    pub(crate) async fn end_operation(
        &self,
        running: RunningOperation,
        metadata: prost_types::Any,
        outcome: std::result::Result<prost_types::Any, Status>,
    ) -> Result<()> {
        let result = match outcome {
            Ok(response) => Outcome::Response(response),
            Err(status) => Outcome::Error(rpc::Status {
                code: status.code().into(),
                message: status.message().to_owned(),
                details: Vec::new(),
            }),
        };
        let operation =
            Operation { metadata: Some(metadata), done: true, result: Some(result), ..running.operation() };
        self.write_operation(running.number(), &operation, Expect::Anything).await?;
        running.end(operation);
        Ok(())
    }

    /// Those that have not ended.
    pub(crate) async fn unfinished_operations(&self) -> Result<Vec<(u64, Operation)>> {
        let operations = self.operations().await?.into_iter().filter(|operation| !operation.done);
        Ok(operations.filter_map(|operation| Some((number_of(&operation.name)?, operation))).collect())
    }

    async fn operation(&self, name: &str) -> Result<Operation> {
        let not_found = || Status::not_found(format!("Operation not found: {name}"));
        let number = number_of(name).ok_or_else(not_found)?;
        let operation = match self.running.operation(number) {
            Some(running) => running,
            None => {
                let record = self.lock_service.get(&key(number)).await?.ok_or_else(not_found)?;
                decode(&record.key, &record.value)?
            }
        };
        if operation.name == name { Ok(operation) } else { Err(not_found().into()) }
    }

    /// The operation once it has ended, or as it is after `patience`.
    async fn wait_for_operation(&self, name: &str, patience: Option<Duration>) -> Result<Operation> {
        let operation = self.operation(name).await?;
        if !operation.done
            && let Some(number) = number_of(name)
        {
            self.running.wait(number, patience).await;
        }
        self.operation(name).await
    }

    /// Asks an operation to stop; one that cannot any more ends as it would have.
    async fn cancel_operation(&self, name: &str) -> Result<()> {
        let operation = self.operation(name).await?;
        number_of(&operation.name).into_iter().for_each(|number| self.running.cancel(number));
        Ok(())
    }

    /// All of them, the newest first.
    async fn operations(&self) -> Result<Vec<Operation>> {
        let records = self.lock_service.list(PREFIX).await?;
        let read = |record: &cluster::lock_service::Record| {
            let operation = decode(&record.key, &record.value)?;
            let running = number_of(&operation.name).and_then(|number| self.running.operation(number));
            Ok(running.unwrap_or(operation))
        };
        records.iter().rev().map(read).collect()
    }

    async fn forget_operation(&self, name: &str) -> Result<()> {
        let operation = self.operation(name).await?;
        if !operation.done {
            let why = format!("{name} is under way: cancel it, or wait until it has ended");
            return Err(Status::failed_precondition(why).into());
        }
        let number = number_of(&operation.name).expect("a known operation has a number");
        Ok(self.lock_service.delete(&key(number), Expect::Anything).await?)
    }

    async fn new_operation(
        &self,
        resource: impl Display,
        metadata: prost_types::Any,
    ) -> Result<(u64, Operation)> {
        let number = self.new_epoch().await?.0;
        let operation = Operation {
            name: format!("operations/{resource}/operations/{number}"),
            metadata: Some(metadata),
            done: false,
            result: None,
        };
        Ok((number, operation))
    }

    async fn write_operation(&self, number: u64, operation: &Operation, expect: Expect) -> Result<()> {
        self.lock_service.put(&key(number), operation.encode_to_vec().into(), expect).await?;
        Ok(())
    }

    async fn forget_oldest_operations(&self) -> Result<()> {
        let known = self.lock_service.list(PREFIX).await?;
        for record in known.iter().take(known.len().saturating_sub(OPERATION_COUNT_MAX)) {
            let number = record.key.strip_prefix(PREFIX).and_then(|digits| digits.parse().ok());
            if number.is_none_or(|number| self.running.operation(number).is_none()) {
                self.lock_service.delete(&record.key, Expect::Anything).await?;
            }
        }
        Ok(())
    }
}

fn key(number: u64) -> String {
    format!("{PREFIX}{number:020}")
}

fn number_of(name: &str) -> Option<u64> {
    name.rsplit_once("/operations/")?.1.parse().ok()
}

fn decode(key: &str, bytes: &[u8]) -> Result<Operation> {
    Operation::decode(bytes).map_err(|error| damaged(key, &error.to_string()))
}

/// `message`, whose full name within `google.bigtable.admin.v2` is `name`.
pub(crate) fn any(name: &str, message: &impl Message) -> prost_types::Any {
    let type_url = format!("type.googleapis.com/google.bigtable.admin.v2.{name}");
    prost_types::Any { type_url, value: message.encode_to_vec() }
}

/// `google.protobuf.Empty`, the response of an operation that gives nothing.
pub(crate) fn empty() -> prost_types::Any {
    let type_url = "type.googleapis.com/google.protobuf.Empty".to_owned();
    prost_types::Any { type_url, value: Vec::new() }
}

/// What an operation that somebody cancelled ends with.
pub(crate) fn cancelled() -> Error {
    Status::new(Code::Cancelled, "the operation was cancelled").into()
}
