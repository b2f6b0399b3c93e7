//! The RPCs of clusters.

use std::time::SystemTime;

use row_api::admin;
use row_api::admin::create_cluster_metadata::{TableProgress, table_progress};
use row_api::names::{ClusterName, InstanceName};
use tablet_server::limits;
use tonic::Status;

use super::{InstanceAdmin, Operation};
use crate::instance_record::InstanceRecord;
use crate::operations::any;
use crate::{cluster_rules, resource_ids};

impl InstanceAdmin {
    pub(super) async fn create_cluster(
        &self,
        request: admin::CreateClusterRequest,
    ) -> Result<Operation, Status> {
        let request_time = Some(SystemTime::now().into());
        let instance = InstanceName::parse("parent", &request.parent)?;
        resource_ids::check_cluster_id("cluster_id", &request.cluster_id)?;
        let cluster = request.cluster.clone().ok_or_else(|| limits::refuse("cluster", "is missing"))?;
        let name = ClusterName { instance, cluster: request.cluster_id.clone() };
        self.caller.check_instance_change(&name.instance)?;
        let new = name.clone();
        let change = move |record: &mut _| cluster_rules::add(record, &new.instance, &new.cluster, cluster);
        let record = self.master.change_instance(name.instance.clone(), change).await?;
        // Every cluster serves the same tablets, so there is nothing to copy.
        let copied =
            TableProgress { state: table_progress::State::Completed.into(), ..TableProgress::default() };
        let tables = self.master.tables(&name.instance).await?;
        let metadata = admin::CreateClusterMetadata {
            original_request: Some(request),
            request_time,
            finish_time: Some(SystemTime::now().into()),
            tables: tables.iter().map(|(table, _)| (table.to_string(), copied)).collect(),
        };
        let response = any("Cluster", &view_in(&name, &record)?);
        Ok(self.master.complete_operation(name, any("CreateClusterMetadata", &metadata), response).await?)
    }

    pub(super) async fn get_cluster(&self, name: &str) -> Result<admin::Cluster, Status> {
        let name = ClusterName::parse("name", name)?;
        view_in(&name, &self.master.instance(&name.instance).await?)
    }

    pub(super) async fn list_clusters(&self, parent: &str) -> Result<admin::ListClustersResponse, Status> {
        let instances = self.instances_of("parent", parent).await?;
        let clusters = instances.iter().flat_map(|(instance, record)| {
            record.clusters.iter().map(move |(id, cluster)| {
                view(&ClusterName { instance: instance.clone(), cluster: id.clone() }, cluster)
            })
        });
        let clusters = clusters.collect();
        Ok(admin::ListClustersResponse { clusters, ..admin::ListClustersResponse::default() })
    }

    /// The instance `parent`, or, where its id is `-`, all of its project.
    pub(super) async fn instances_of(
        &self,
        field: &'static str,
        parent: &str,
    ) -> Result<Vec<(InstanceName, InstanceRecord)>, Status> {
        let instance = InstanceName::parse(field, parent)?;
        if instance.instance == "-" {
            return Ok(self.master.instances(&instance.project).await?.into_iter().collect());
        }
        let record = self.master.instance(&instance).await?;
        Ok(vec![(instance, record)])
    }

    pub(super) async fn update_cluster(&self, request: admin::Cluster) -> Result<Operation, Status> {
        let request_time = Some(SystemTime::now().into());
        let name = ClusterName::parse("name", &request.name)?;
        let update = request.clone();
        let change = move |known: &mut _, r#type| cluster_rules::replace(known, r#type, &update);
        let cluster = self.change_cluster(&name, change).await?;
        let metadata = admin::UpdateClusterMetadata {
            original_request: Some(request),
            request_time,
            finish_time: Some(SystemTime::now().into()),
        };
        let metadata = any("UpdateClusterMetadata", &metadata);
        Ok(self.master.complete_operation(name, metadata, any("Cluster", &cluster)).await?)
    }

    pub(super) async fn partial_update_cluster(
        &self,
        request: admin::PartialUpdateClusterRequest,
    ) -> Result<Operation, Status> {
        let request_time = Some(SystemTime::now().into());
        let update = request.cluster.clone().ok_or_else(|| limits::refuse("cluster", "is missing"))?;
        let name = ClusterName::parse("cluster.name", &update.name)?;
        let paths = request.update_mask.clone().unwrap_or_default().paths;
        let change = move |known: &mut _, r#type| cluster_rules::update(known, r#type, &update, &paths);
        let cluster = self.change_cluster(&name, change).await?;
        let metadata = admin::PartialUpdateClusterMetadata {
            original_request: Some(request),
            request_time,
            finish_time: Some(SystemTime::now().into()),
        };
        let metadata = any("PartialUpdateClusterMetadata", &metadata);
        Ok(self.master.complete_operation(name, metadata, any("Cluster", &cluster)).await?)
    }

    async fn change_cluster(
        &self,
        name: &ClusterName,
        change: impl FnOnce(&mut admin::Cluster, admin::instance::Type) -> Result<(), Status> + Send + 'static,
    ) -> Result<admin::Cluster, Status> {
        self.caller.check_instance_change(&name.instance)?;
        let changed = name.clone();
        let change = move |record: &mut InstanceRecord| {
            let r#type = record.instance_type();
            let cluster = record.clusters.get_mut(&changed.cluster).ok_or_else(|| not_found(&changed))?;
            change(cluster, r#type)
        };
        let record = self.master.change_instance(name.instance.clone(), change).await?;
        view_in(name, &record)
    }

    pub(super) async fn delete_cluster(&self, name: &str) -> Result<(), Status> {
        let name = ClusterName::parse("name", name)?;
        self.caller.check_instance_change(&name.instance)?;
        Ok(self.master.delete_cluster(name).await?)
    }
}

pub(super) fn view_in(name: &ClusterName, record: &InstanceRecord) -> Result<admin::Cluster, Status> {
    record.clusters.get(&name.cluster).map(|cluster| view(name, cluster)).ok_or_else(|| not_found(name))
}

fn view(name: &ClusterName, cluster: &admin::Cluster) -> admin::Cluster {
    let state = admin::cluster::State::Ready.into();
    admin::Cluster { name: name.to_string(), state, ..cluster.clone() }
}

fn not_found(name: &ClusterName) -> Status {
    Status::not_found(format!("Cluster not found: {name}"))
}
