//! `google.longrunning.Operations`: what became of requests that take their time.
//!
//! Whatever this version does is done when it answers, so every operation is
//! complete from its beginning, and there is nothing to wait for or to cancel.
//! The newest [`OPERATION_COUNT_MAX`] are kept, each a record of the lock service,
//! so that a client that asks again finds its operation after a restart too.

use std::fmt::Display;
use std::sync::Arc;

use cluster::lock_service::Expect;
use prost::Message;
use row_api::longrunning;
use row_api::longrunning::operation::Result as Outcome;
use row_api::longrunning::operations_server::{self, OperationsServer};
use tablet_server::limits;
use tablet_server::table_record::BadTableRecord;
use tonic::{Request, Response, Status};

use crate::error::Error;
use crate::master::Master;
use crate::operation_filter::OperationFilter;
use crate::pages;

/// Operations that are remembered.
pub const OPERATION_COUNT_MAX: usize = 1_000;

/// What the keys of operations start with in the lock service; the number follows, in 20 digits.
const PREFIX: &str = "operation/";

/// Operations on one page of ListOperations, at most and unless asked for fewer.
const PAGE_SIZE_MAX: usize = 100;

impl Master {
    /// Remembers and gives an operation on `resource` that is complete, durably.
    pub(crate) async fn complete_operation(
        &self,
        resource: impl Display,
        metadata: prost_types::Any,
        response: prost_types::Any,
    ) -> Result<longrunning::Operation, Error> {
        let number = self.new_epoch().await?.0;
        let operation = longrunning::Operation {
            name: format!("operations/{resource}/operations/{number}"),
            metadata: Some(metadata),
            done: true,
            result: Some(Outcome::Response(response)),
        };
        self.lock_service.put(&key(number), operation.encode_to_vec().into(), Expect::Absent).await?;
        let known = self.lock_service.list(PREFIX).await?;
        for record in known.iter().take(known.len().saturating_sub(OPERATION_COUNT_MAX)) {
            self.lock_service.delete(&record.key, Expect::Anything).await?;
        }
        Ok(operation)
    }

    async fn operation(&self, name: &str) -> Result<longrunning::Operation, Error> {
        let not_found = || Status::not_found(format!("Operation not found: {name}"));
        let number = number_of(name).ok_or_else(not_found)?;
        let record = self.lock_service.get(&key(number)).await?.ok_or_else(not_found)?;
        let operation = decode(&record.key, &record.value)?;
        if operation.name == name { Ok(operation) } else { Err(not_found().into()) }
    }

    /// All of them, the newest first.
    async fn operations(&self) -> Result<Vec<longrunning::Operation>, Error> {
        let records = self.lock_service.list(PREFIX).await?;
        records.iter().rev().map(|record| decode(&record.key, &record.value)).collect()
    }

    async fn forget_operation(&self, name: &str) -> Result<(), Error> {
        let operation = self.operation(name).await?;
        let number = number_of(&operation.name).expect("a known operation has a number");
        Ok(self.lock_service.delete(&key(number), Expect::Anything).await?)
    }
}

fn key(number: u64) -> String {
    format!("{PREFIX}{number:020}")
}

fn number_of(name: &str) -> Option<u64> {
    name.rsplit_once("/operations/")?.1.parse().ok()
}

fn decode(key: &str, bytes: &[u8]) -> Result<longrunning::Operation, Error> {
    let damaged =
        |error: prost::DecodeError| BadTableRecord { key: key.to_owned(), found: error.to_string() };
    Ok(longrunning::Operation::decode(bytes).map_err(damaged).map_err(tablet_server::Error::from)?)
}

/// `message`, whose full name within `google.bigtable.admin.v2` is `name`.
pub(crate) fn any(name: &str, message: &impl Message) -> prost_types::Any {
    let type_url = format!("type.googleapis.com/google.bigtable.admin.v2.{name}");
    prost_types::Any { type_url, value: message.encode_to_vec() }
}

/// The service over a master's operations. Cheap to clone.
#[derive(Clone, Debug)]
pub struct OperationsService {
    master: Arc<Master>,
}

impl OperationsService {
    /// The service over the operations of `master`.
    pub fn new(master: Arc<Master>) -> Self {
        Self { master }
    }

    /// The gRPC server.
    pub fn into_server(self) -> OperationsServer<Self> {
        OperationsServer::new(self)
    }
}

#[tonic::async_trait]
impl operations_server::Operations for OperationsService {
    /// The operations below `name`, such as `operations/projects/p/instances/i`.
    async fn list_operations(
        &self,
        request: Request<longrunning::ListOperationsRequest>,
    ) -> Result<Response<longrunning::ListOperationsResponse>, Status> {
        let request = request.into_inner();
        if request.return_partial_success {
            return Err(Status::unimplemented("return_partial_success: there is nothing unreachable here"));
        }
        let is_parent =
            |name: &str| name.is_empty() || name == "operations" || name.starts_with("operations/");
        if !is_parent(&request.name) {
            let why = format_args!("{:?} is not of the form \"operations/projects/<project>\"", request.name);
            return Err(limits::refuse("name", why));
        }
        let filter = OperationFilter::parse("filter", &request.filter)?;
        let page_size = pages::check_size(request.page_size, PAGE_SIZE_MAX)?;
        let after = match request.page_token.as_str() {
            "" => u64::MAX,
            token => {
                token.parse().map_err(|_| limits::refuse("page_token", "this server did not give it"))?
            }
        };
        let below = format!("{}/", request.name.trim_end_matches('/'));
        let operations = self.master.operations().await?;
        let rest = operations.into_iter().filter(|operation| {
            (request.name.is_empty() || operation.name.starts_with(&below))
                && number_of(&operation.name).is_some_and(|number| number < after)
                && filter.matches(operation)
        });
        let token = |operation: &longrunning::Operation| number_of(&operation.name).unwrap_or(0).to_string();
        let (operations, next_page_token) = pages::cut(rest, page_size, token);
        let unreachable = Vec::new();
        Ok(Response::new(longrunning::ListOperationsResponse { operations, next_page_token, unreachable }))
    }

    async fn get_operation(
        &self,
        request: Request<longrunning::GetOperationRequest>,
    ) -> Result<Response<longrunning::Operation>, Status> {
        Ok(Response::new(self.master.operation(&request.get_ref().name).await?))
    }

    async fn delete_operation(
        &self,
        request: Request<longrunning::DeleteOperationRequest>,
    ) -> Result<Response<()>, Status> {
        self.master.forget_operation(&request.get_ref().name).await?;
        Ok(Response::new(()))
    }

    async fn cancel_operation(
        &self,
        request: Request<longrunning::CancelOperationRequest>,
    ) -> Result<Response<()>, Status> {
        // It is complete, which a cancellation does not change.
        self.master.operation(&request.get_ref().name).await?;
        Ok(Response::new(()))
    }

    async fn wait_operation(
        &self,
        request: Request<longrunning::WaitOperationRequest>,
    ) -> Result<Response<longrunning::Operation>, Status> {
        let request = request.get_ref();
        if let Some(timeout) = request.timeout.filter(|timeout| timeout.seconds < 0 || timeout.nanos < 0) {
            return Err(limits::refuse("timeout", format_args!("{} s, at least 0", timeout.seconds)));
        }
        Ok(Response::new(self.master.operation(&request.name).await?))
    }
}
