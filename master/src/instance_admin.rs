//! `google.bigtable.admin.v2.BigtableInstanceAdmin`: instances, clusters and app profiles.
//!
//! An instance that nobody created exists all the same, with one cluster, so that
//! a client's first CreateTable works; it is listed once it holds a table or
//! something of it was changed. Whatever takes an operation is done when it answers.

mod app_profiles;
mod clusters;
mod hot_tablets;

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use row_api::admin;
use row_api::admin::bigtable_instance_admin_server::{BigtableInstanceAdmin, BigtableInstanceAdminServer};
use row_api::names::InstanceName;
use row_api::{iam, longrunning};
use tablet_server::gateway::Caller;
use tablet_server::limits;
use tonic::{Request, Response, Status};

use crate::instance_rules;
use crate::master::Master;
use crate::operations::any;
use crate::policies::Resource;

type Operation = longrunning::Operation;

/// The instance admin service, for one kind of caller. Cheap to clone.
#[derive(Clone)]
pub struct InstanceAdmin {
    master: Arc<Master>,
    caller: Caller,
}

impl InstanceAdmin {
    /// A service for `caller` over the instances of `master`.
    pub fn new(master: Arc<Master>, caller: Caller) -> Self {
        Self { master, caller }
    }

    /// The gRPC server.
    pub fn into_server(self) -> BigtableInstanceAdminServer<Self> {
        BigtableInstanceAdminServer::new(self)
    }

    async fn create_instance(&self, request: admin::CreateInstanceRequest) -> Result<Operation, Status> {
        let request_time = Some(SystemTime::now().into());
        let (name, mut record) = instance_rules::check_new(request.clone())?;
        self.caller.check_instance_change(&name)?;
        record.instance.get_or_insert_default().create_time = request_time;
        let record = self.master.create_instance(name.clone(), record).await?;
        let metadata = admin::CreateInstanceMetadata {
            original_request: Some(request),
            request_time,
            finish_time: Some(SystemTime::now().into()),
        };
        let metadata = any("CreateInstanceMetadata", &metadata);
        let response = any("Instance", &record.instance_view(&name));
        Ok(self.master.complete_operation(name, metadata, response).await?)
    }

    async fn list_instances(&self, parent: &str) -> Result<admin::ListInstancesResponse, Status> {
        let project = instance_rules::check_project("parent", parent)?;
        let instances = self.master.instances(&project).await?;
        let instances = instances.iter().map(|(name, record)| record.instance_view(name)).collect();
        Ok(admin::ListInstancesResponse { instances, ..admin::ListInstancesResponse::default() })
    }

    /// Takes over what `paths` name of `update`.
    async fn change_instance(
        &self,
        name: InstanceName,
        update: admin::Instance,
        paths: Vec<String>,
    ) -> Result<admin::Instance, Status> {
        self.caller.check_instance_change(&name)?;
        let change = move |record: &mut _| instance_rules::update(record, &update, &paths);
        let record = self.master.change_instance(name.clone(), change).await?;
        Ok(record.instance_view(&name))
    }

    async fn partial_update_instance(
        &self,
        request: admin::PartialUpdateInstanceRequest,
    ) -> Result<Operation, Status> {
        let request_time = Some(SystemTime::now().into());
        let update = request.instance.clone().ok_or_else(|| limits::refuse("instance", "is missing"))?;
        let name = InstanceName::parse("instance.name", &update.name)?;
        let paths = request.update_mask.clone().unwrap_or_default().paths;
        let instance = self.change_instance(name.clone(), update, paths).await?;
        let metadata = admin::UpdateInstanceMetadata {
            original_request: Some(request),
            request_time,
            finish_time: Some(SystemTime::now().into()),
        };
        let metadata = any("UpdateInstanceMetadata", &metadata);
        Ok(self.master.complete_operation(name, metadata, any("Instance", &instance)).await?)
    }

    async fn delete_instance(&self, name: &str) -> Result<(), Status> {
        let name = InstanceName::parse("name", name)?;
        self.caller.check_instance_change(&name)?;
        Ok(self.master.delete_instance(name).await?)
    }
}

#[tonic::async_trait]
impl BigtableInstanceAdmin for InstanceAdmin {
    async fn create_instance(
        &self,
        request: Request<admin::CreateInstanceRequest>,
    ) -> Result<Response<Operation>, Status> {
        self.create_instance(request.into_inner()).await.map(Response::new)
    }

    async fn get_instance(
        &self,
        request: Request<admin::GetInstanceRequest>,
    ) -> Result<Response<admin::Instance>, Status> {
        let name = InstanceName::parse("name", &request.get_ref().name)?;
        Ok(Response::new(self.master.instance(&name).await?.instance_view(&name)))
    }

    async fn list_instances(
        &self,
        request: Request<admin::ListInstancesRequest>,
    ) -> Result<Response<admin::ListInstancesResponse>, Status> {
        self.list_instances(&request.get_ref().parent).await.map(Response::new)
    }

    async fn update_instance(
        &self,
        request: Request<admin::Instance>,
    ) -> Result<Response<admin::Instance>, Status> {
        let update = request.into_inner();
        let name = InstanceName::parse("name", &update.name)?;
        let paths = vec!["display_name".to_owned(), "type".to_owned()];
        self.change_instance(name, update, paths).await.map(Response::new)
    }

    async fn partial_update_instance(
        &self,
        request: Request<admin::PartialUpdateInstanceRequest>,
    ) -> Result<Response<Operation>, Status> {
        self.partial_update_instance(request.into_inner()).await.map(Response::new)
    }

    async fn delete_instance(
        &self,
        request: Request<admin::DeleteInstanceRequest>,
    ) -> Result<Response<()>, Status> {
        self.delete_instance(&request.get_ref().name).await.map(Response::new)
    }

    async fn create_cluster(
        &self,
        request: Request<admin::CreateClusterRequest>,
    ) -> Result<Response<Operation>, Status> {
        self.create_cluster(request.into_inner()).await.map(Response::new)
    }

    async fn get_cluster(
        &self,
        request: Request<admin::GetClusterRequest>,
    ) -> Result<Response<admin::Cluster>, Status> {
        self.get_cluster(&request.get_ref().name).await.map(Response::new)
    }

    async fn list_clusters(
        &self,
        request: Request<admin::ListClustersRequest>,
    ) -> Result<Response<admin::ListClustersResponse>, Status> {
        self.list_clusters(&request.get_ref().parent).await.map(Response::new)
    }

    async fn update_cluster(&self, request: Request<admin::Cluster>) -> Result<Response<Operation>, Status> {
        self.update_cluster(request.into_inner()).await.map(Response::new)
    }

    async fn partial_update_cluster(
        &self,
        request: Request<admin::PartialUpdateClusterRequest>,
    ) -> Result<Response<Operation>, Status> {
        self.partial_update_cluster(request.into_inner()).await.map(Response::new)
    }

    async fn delete_cluster(
        &self,
        request: Request<admin::DeleteClusterRequest>,
    ) -> Result<Response<()>, Status> {
        self.delete_cluster(&request.get_ref().name).await.map(Response::new)
    }

    async fn create_app_profile(
        &self,
        request: Request<admin::CreateAppProfileRequest>,
    ) -> Result<Response<admin::AppProfile>, Status> {
        self.create_app_profile(request.into_inner()).await.map(Response::new)
    }

    async fn get_app_profile(
        &self,
        request: Request<admin::GetAppProfileRequest>,
    ) -> Result<Response<admin::AppProfile>, Status> {
        self.get_app_profile(&request.get_ref().name).await.map(Response::new)
    }

    async fn list_app_profiles(
        &self,
        request: Request<admin::ListAppProfilesRequest>,
    ) -> Result<Response<admin::ListAppProfilesResponse>, Status> {
        self.list_app_profiles(request.into_inner()).await.map(Response::new)
    }

    async fn update_app_profile(
        &self,
        request: Request<admin::UpdateAppProfileRequest>,
    ) -> Result<Response<Operation>, Status> {
        self.update_app_profile(request.into_inner()).await.map(Response::new)
    }

    async fn delete_app_profile(
        &self,
        request: Request<admin::DeleteAppProfileRequest>,
    ) -> Result<Response<()>, Status> {
        self.delete_app_profile(&request.get_ref().name).await.map(Response::new)
    }

    async fn list_hot_tablets(
        &self,
        request: Request<admin::ListHotTabletsRequest>,
    ) -> Result<Response<admin::ListHotTabletsResponse>, Status> {
        self.list_hot_tablets(request.into_inner()).await.map(Response::new)
    }

    async fn get_iam_policy(
        &self,
        request: Request<iam::GetIamPolicyRequest>,
    ) -> Result<Response<iam::Policy>, Status> {
        let request = request.get_ref();
        let resource = Resource::Instance(InstanceName::parse("resource", &request.resource)?);
        Ok(Response::new(self.master.policy(&resource, request).await?))
    }

    async fn set_iam_policy(
        &self,
        request: Request<iam::SetIamPolicyRequest>,
    ) -> Result<Response<iam::Policy>, Status> {
        let request = request.into_inner();
        let resource = Resource::Instance(InstanceName::parse("resource", &request.resource)?);
        self.caller.check_instance_change(resource.instance())?;
        Ok(Response::new(self.master.set_policy(&resource, request).await?))
    }

    async fn test_iam_permissions(
        &self,
        request: Request<iam::TestIamPermissionsRequest>,
    ) -> Result<Response<iam::TestIamPermissionsResponse>, Status> {
        let request = request.into_inner();
        let resource = Resource::Instance(InstanceName::parse("resource", &request.resource)?);
        Ok(Response::new(self.master.test_permissions(&resource, request).await?))
    }
}

impl fmt::Debug for InstanceAdmin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InstanceAdmin").field("caller", &self.caller).finish_non_exhaustive()
    }
}
