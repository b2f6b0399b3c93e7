//! `google.longrunning.Operations` over a master's operations.

use std::sync::Arc;
use std::time::Duration;

use row_api::longrunning;
use row_api::longrunning::operations_server::{self, OperationsServer};
use tablet_server::limits;
use tonic::{Request, Response, Status};

use super::number_of;
use crate::master::Master;
use crate::operation_filter::OperationFilter;
use crate::pages;

/// Operations on one page of ListOperations, at most and unless asked for fewer.
const PAGE_SIZE_MAX: usize = 100;

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
        self.master.cancel_operation(&request.get_ref().name).await?;
        Ok(Response::new(()))
    }

    async fn wait_operation(
        &self,
        request: Request<longrunning::WaitOperationRequest>,
    ) -> Result<Response<longrunning::Operation>, Status> {
        let request = request.get_ref();
        let patience = request.timeout.map(Duration::try_from).transpose();
        let patience = patience.map_err(|_| limits::refuse("timeout", "must be a time of at least 0 s"))?;
        Ok(Response::new(self.master.wait_for_operation(&request.name, patience).await?))
    }
}
