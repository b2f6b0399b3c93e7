//! `google.longrunning.Operations`: the operations of this master's life.
//!
//! Whatever this version does is done when it answers, so every operation is
//! complete from the beginning; clients that ask again still find it, until
//! a thousand newer ones have come or the master has restarted.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use prost::Message;
use row_api::longrunning;
use row_api::longrunning::operation::Result as Outcome;
use row_api::longrunning::operations_server::{self, OperationsServer};
use tonic::{Request, Response, Status};

use crate::master::Master;

/// Operations that are remembered.
const OPERATION_COUNT_MAX: usize = 1_000;

/// The latest operations.
#[derive(Debug, Default)]
pub struct Operations {
    latest: Mutex<VecDeque<longrunning::Operation>>,
}

impl Operations {
    /// Remembers and gives an operation called `name` that is complete.
    pub(crate) fn complete(
        &self,
        name: String,
        metadata: prost_types::Any,
        response: prost_types::Any,
    ) -> longrunning::Operation {
        let result = Some(Outcome::Response(response));
        let operation = longrunning::Operation { name, metadata: Some(metadata), done: true, result };
        let mut latest = self.latest.lock();
        if latest.len() == OPERATION_COUNT_MAX {
            latest.pop_front();
        }
        latest.push_back(operation.clone());
        operation
    }

    fn get(&self, name: &str) -> Result<longrunning::Operation, Status> {
        let latest = self.latest.lock();
        let found = latest.iter().rev().find(|operation| operation.name == name);
        found.cloned().ok_or_else(|| Status::not_found(format!("Operation not found: {name}")))
    }
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
    async fn get_operation(
        &self,
        request: Request<longrunning::GetOperationRequest>,
    ) -> Result<Response<longrunning::Operation>, Status> {
        self.master.operations.get(&request.get_ref().name).map(Response::new)
    }

    async fn wait_operation(
        &self,
        request: Request<longrunning::WaitOperationRequest>,
    ) -> Result<Response<longrunning::Operation>, Status> {
        // There is nothing to wait for: operations are complete when they are known.
        self.master.operations.get(&request.get_ref().name).map(Response::new)
    }
}
