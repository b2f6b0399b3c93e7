//! `google.bigtable.admin.v2.BigtableInstanceAdmin`: instances that nobody created.
//!
//! Every instance exists implicitly, with one cluster, so that a client's first
//! CreateTable works. Those that hold a table are listed.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use row_api::admin;
use row_api::admin::bigtable_instance_admin_server::{BigtableInstanceAdmin, BigtableInstanceAdminServer};
use row_api::names::InstanceName;
use tonic::{Request, Response, Status};

use crate::master::Master;
use crate::table_admin::CLUSTER;

/// The instance admin service. Cheap to clone.
#[derive(Clone)]
pub struct InstanceAdmin {
    master: Arc<Master>,
}

impl InstanceAdmin {
    /// A service over the instances of `master`.
    pub fn new(master: Arc<Master>) -> Self {
        Self { master }
    }

    /// The gRPC server.
    pub fn into_server(self) -> BigtableInstanceAdminServer<Self> {
        BigtableInstanceAdminServer::new(self)
    }

    async fn cluster(&self, instance: &InstanceName) -> admin::Cluster {
        let server_count = self.master.cluster.lock().await.server_count();
        admin::Cluster {
            name: format!("{instance}/clusters/{CLUSTER}"),
            location: format!("projects/{}/locations/{CLUSTER}", instance.project),
            state: admin::cluster::State::Ready.into(),
            serve_nodes: i32::try_from(server_count).unwrap_or(i32::MAX),
            default_storage_type: admin::StorageType::Ssd.into(),
            ..admin::Cluster::default()
        }
    }
}

#[tonic::async_trait]
impl BigtableInstanceAdmin for InstanceAdmin {
    async fn get_instance(
        &self,
        request: Request<admin::GetInstanceRequest>,
    ) -> Result<Response<admin::Instance>, Status> {
        let name = InstanceName::parse("name", &request.get_ref().name)?;
        Ok(Response::new(instance(&name)))
    }

    async fn list_instances(
        &self,
        request: Request<admin::ListInstancesRequest>,
    ) -> Result<Response<admin::ListInstancesResponse>, Status> {
        let parent = &request.get_ref().parent;
        let project = parent.strip_prefix("projects/").filter(|id| !id.is_empty() && !id.contains('/'));
        let Some(project) = project else {
            let why = format!("parent: {parent:?} is not of the form \"projects/<project>\"");
            return Err(Status::invalid_argument(why));
        };
        let names: BTreeSet<InstanceName> = self.master.instances(project).await?;
        let instances = names.iter().map(instance).collect();
        Ok(Response::new(admin::ListInstancesResponse {
            instances,
            ..admin::ListInstancesResponse::default()
        }))
    }

    async fn get_cluster(
        &self,
        request: Request<admin::GetClusterRequest>,
    ) -> Result<Response<admin::Cluster>, Status> {
        let name = &request.get_ref().name;
        let (parent, cluster) = name.rsplit_once("/clusters/").unwrap_or((name, ""));
        let instance = InstanceName::parse("name", parent)?;
        if cluster != CLUSTER {
            return Err(Status::not_found(format!("Cluster not found: {name}")));
        }
        Ok(Response::new(self.cluster(&instance).await))
    }

    async fn list_clusters(
        &self,
        request: Request<admin::ListClustersRequest>,
    ) -> Result<Response<admin::ListClustersResponse>, Status> {
        let instance = InstanceName::parse("parent", &request.get_ref().parent)?;
        // "-" stands for all instances of the project.
        let instances = match instance.instance.as_str() {
            "-" => self.master.instances(&instance.project).await?,
            _ => [instance].into(),
        };
        let mut clusters = Vec::with_capacity(instances.len());
        for instance in &instances {
            clusters.push(self.cluster(instance).await);
        }
        Ok(Response::new(admin::ListClustersResponse { clusters, ..admin::ListClustersResponse::default() }))
    }
}

impl fmt::Debug for InstanceAdmin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InstanceAdmin").finish_non_exhaustive()
    }
}

fn instance(name: &InstanceName) -> admin::Instance {
    admin::Instance {
        name: name.to_string(),
        display_name: name.instance.clone(),
        state: admin::instance::State::Ready.into(),
        r#type: admin::instance::Type::Production.into(),
        ..admin::Instance::default()
    }
}
