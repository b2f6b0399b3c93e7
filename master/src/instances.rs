//! The life of an instance.
//!
//! Creation and every change are one write of the instance's record
//! (`instance_record`). A deletion takes its tables with it:
//!
//! ```text
//! 1  record: deleting        from here on the instance is out of sight
//! 2  its tables deleted, each as `tables` does it, and its policy
//! 3  record: deleted         kept, so that the instance does not exist implicitly
//! ```
//!
//! A start after a crash in between goes on with step 2. The newest
//! `DELETED_COUNT_MAX` records of deleted instances are kept; an instance that
//! was deleted before them is again one that nobody created.

use std::collections::BTreeMap;
use std::sync::Arc;

use cluster::lock_service::Expect;
use prost::Message;
use row_api::names::{ClusterName, InstanceName};
use tablet_server::app_profiles::AppProfiles;
use tonic::Status;

use crate::assignment::Cluster;
use crate::backups::any_cluster;
use crate::cluster_rules;
use crate::error::Result;
use crate::instance_record::{self, InstanceRecord, InstanceState};
use crate::master::Master;
use crate::policies::Resource;
use crate::tables::{check_unprotected, to_its_end};

/// Deleted instances that are remembered as such.
const DELETED_COUNT_MAX: usize = 1_000;

/// Bytes of an instance's record, which the lock service takes whole; a little is left for its frame.
const RECORD_BYTES_MAX: usize = 1_000_000;

impl Master {
    /// Creates an instance.
    ///
    /// # Errors
    ///
    /// ALREADY_EXISTS, for an instance that nobody created and that holds tables
    /// too; or [`Error`](crate::Error).
    pub async fn create_instance(
        self: &Arc<Self>,
        name: InstanceName,
        record: InstanceRecord,
    ) -> Result<InstanceRecord> {
        let master = Arc::clone(self);
        to_its_end(async move {
            let _cluster = master.cluster.lock().await;
            let exists = match master.read_instance(&name).await? {
                Some(found) => found.state() != InstanceState::Deleted,
                None => !master.tables_of_instance(&name).await?.is_empty(),
            };
            if exists {
                return Err(Status::already_exists(format!("Instance already exists: {name}")).into());
            }
            master.write_instance(&name, &record).await?;
            Ok(record)
        })
        .await
    }

    /// Changes the instance's record with `change`, unless that refuses.
    ///
    /// # Errors
    ///
    /// NOT_FOUND, RESOURCE_EXHAUSTED, what `change` refuses, or
    /// [`Error`](crate::Error); then nothing changed.
    pub async fn change_instance(
        self: &Arc<Self>,
        name: InstanceName,
        change: impl FnOnce(&mut InstanceRecord) -> std::result::Result<(), Status> + Send + 'static,
    ) -> Result<InstanceRecord> {
        let master = Arc::clone(self);
        to_its_end(async move {
            let _cluster = master.cluster.lock().await;
            let mut record = master.instance(&name).await?;
            change(&mut record)?;
            master.write_instance(&name, &record).await?;
            Ok(record)
        })
        .await
    }

    /// Removes a cluster of an instance.
    ///
    /// # Errors
    ///
    /// NOT_FOUND, FAILED_PRECONDITION where it is the last one or keeps backups, or
    /// [`Error`](crate::Error); then nothing changed.
    pub async fn delete_cluster(self: &Arc<Self>, name: ClusterName) -> Result<()> {
        let master = Arc::clone(self);
        to_its_end(async move {
            let cluster = master.cluster.lock().await;
            let mut record = master.instance(&name.instance).await?;
            cluster_rules::remove(&mut record, &name.instance, &name.cluster)?;
            master.check_no_backup(&cluster, &name).await?;
            master.write_instance(&name.instance, &record).await
        })
        .await
    }

    /// Removes the instance and all its tables, those too that could be brought back.
    ///
    /// # Errors
    ///
    /// NOT_FOUND, FAILED_PRECONDITION where one of its tables is protected or it keeps backups, or
    /// [`Error`](crate::Error); after the latter it may be out of sight, and is
    /// removed at the next start.
    pub async fn delete_instance(self: &Arc<Self>, name: InstanceName) -> Result<()> {
        let master = Arc::clone(self);
        to_its_end(async move {
            let mut cluster = master.cluster.lock().await;
            let mut record = master.instance(&name).await?;
            for (table, found) in master.tables_of_instance(&name).await? {
                check_unprotected(&table, &found)?;
            }
            master.check_no_backup(&cluster, &any_cluster(&name)).await?;
            record.set_state(InstanceState::Deleting);
            master.write_instance(&name, &record).await?;
            master.finish_deletion(&mut cluster, &name).await
        })
        .await
    }

    /// The instance's record; where nobody created it, what it would be.
    ///
    /// # Errors
    ///
    /// NOT_FOUND for a deleted one, or [`Error`](crate::Error).
    pub async fn instance(&self, name: &InstanceName) -> Result<InstanceRecord> {
        match self.read_instance(name).await? {
            None => Ok(self.implicit_instance(name)),
            Some(record) if record.state() == InstanceState::Serving => Ok(record),
            Some(_) => Err(Status::not_found(format!("Instance not found: {name}")).into()),
        }
    }

    /// The instances of `project` that were created, that were changed, or that hold a table.
    ///
    /// # Errors
    ///
    /// [`Error`](crate::Error).
    pub async fn instances(&self, project: &str) -> Result<BTreeMap<InstanceName, InstanceRecord>> {
        let mut instances = BTreeMap::new();
        for name in self.instances_with_tables(project).await? {
            instances.insert(name.clone(), self.implicit_instance(&name));
        }
        let prefix = format!("{}projects/{project}/instances/", instance_record::PREFIX);
        for found in self.lock_service.list(&prefix).await? {
            let (name, record) = InstanceRecord::read(&found)?;
            if record.state() == InstanceState::Serving {
                instances.insert(name, record);
            } else {
                instances.remove(&name);
            }
        }
        Ok(instances)
    }

    /// Publishes the app profiles of all instances; gives those whose deletion is not finished.
    pub(crate) async fn load_instances(&self) -> Result<Vec<InstanceName>> {
        let mut unfinished = Vec::new();
        for found in self.lock_service.list(instance_record::PREFIX).await? {
            let (name, record) = InstanceRecord::read(&found)?;
            self.router.catalog().publish_app_profiles(&name, record.data_app_profiles());
            if record.state() == InstanceState::Deleting {
                unfinished.push(name);
            }
        }
        Ok(unfinished)
    }

    /// Steps 2 and 3 of a deletion; doing them again does no harm.
    pub(crate) async fn finish_deletion(&self, cluster: &mut Cluster, name: &InstanceName) -> Result<()> {
        for (table, _) in self.tables_of_instance(name).await? {
            self.remove_serving_table(cluster, &table, false).await?;
        }
        self.forget_deleted_of(cluster, name).await?;
        self.remove_policies(&Resource::Instance(name.clone())).await?;
        let deletion = self.new_epoch().await?.0;
        self.write_instance(name, &InstanceRecord::deleted(deletion)).await?;
        self.forget_oldest_deleted().await
    }

    async fn forget_oldest_deleted(&self) -> Result<()> {
        let mut deleted = BTreeMap::new();
        for found in self.lock_service.list(instance_record::PREFIX).await? {
            let (name, record) = InstanceRecord::read(&found)?;
            if record.state() == InstanceState::Deleted {
                deleted.insert(record.deletion, name);
            }
        }
        let surplus = deleted.len().saturating_sub(DELETED_COUNT_MAX);
        for name in deleted.values().take(surplus) {
            self.lock_service.delete(&instance_record::key(name), Expect::Anything).await?;
            self.router.catalog().publish_app_profiles(name, AppProfiles::Any);
        }
        Ok(())
    }

    fn implicit_instance(&self, name: &InstanceName) -> InstanceRecord {
        InstanceRecord::implicit(name, self.servers.controls().len())
    }

    async fn read_instance(&self, name: &InstanceName) -> Result<Option<InstanceRecord>> {
        let Some(found) = self.lock_service.get(&instance_record::key(name)).await? else { return Ok(None) };
        Ok(Some(InstanceRecord::read(&found)?.1))
    }

    async fn write_instance(&self, name: &InstanceName, record: &InstanceRecord) -> Result<()> {
        let bytes = record.encode_to_vec();
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(Status::resource_exhausted(format!(
                "{name}: {} bytes of clusters and app profiles, at most {RECORD_BYTES_MAX}",
                bytes.len()
            ))
            .into());
        }
        self.lock_service.put(&instance_record::key(name), bytes.into(), Expect::Anything).await?;
        self.router.catalog().publish_app_profiles(name, record.data_app_profiles());
        Ok(())
    }
}
