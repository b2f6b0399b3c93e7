//! The RPCs of backups and restores.

use std::time::SystemTime;

use row_api::admin;
use row_api::admin::restore_table_request::Source;
use row_api::longrunning::Operation;
use row_api::names::{BackupName, ClusterName, InstanceName, TableName};
use tablet_server::limits;
use tonic::Status;

use super::TableAdmin;
use crate::backup_fields::BackupOrder;
use crate::backup_filter::BackupFilter;
use crate::list_token;
use crate::{backup_rules, pages, resource_ids};

/// Backups on one page, at most and unless asked for fewer.
const PAGE_SIZE_MAX: usize = 1_000;

impl TableAdmin {
    pub(super) async fn create_backup(
        &self,
        request: admin::CreateBackupRequest,
    ) -> Result<Operation, Status> {
        let name = self.new_backup_name(&request.parent, request.backup_id)?;
        let backup = request.backup.ok_or_else(|| limits::refuse("backup", "is missing"))?;
        let (table, backup) = backup_rules::check_new(&name.cluster.instance, &backup, SystemTime::now())?;
        Ok(self.master.create_backup(name, table, backup).await?)
    }

    pub(super) async fn get_backup(&self, name: &str) -> Result<admin::Backup, Status> {
        let name = BackupName::parse("name", name)?;
        Ok(self.master.backup(&name).await?.view(&name))
    }

    pub(super) async fn update_backup(
        &self,
        request: admin::UpdateBackupRequest,
    ) -> Result<admin::Backup, Status> {
        let update = request.backup.ok_or_else(|| limits::refuse("backup", "is missing"))?;
        let name = self.backup_to_change("backup.name", &update.name)?;
        let paths = request.update_mask.unwrap_or_default().paths;
        Ok(self.master.update_backup(name.clone(), update, paths).await?.view(&name))
    }

    pub(super) async fn delete_backup(&self, name: &str) -> Result<(), Status> {
        let name = self.backup_to_change("name", name)?;
        Ok(self.master.delete_backup(name).await?)
    }

    pub(super) async fn list_backups(
        &self,
        request: admin::ListBackupsRequest,
    ) -> Result<admin::ListBackupsResponse, Status> {
        let cluster = ClusterName::parse("parent", &request.parent)?;
        let filter = BackupFilter::parse("filter", &request.filter)?;
        let order = BackupOrder::parse("order_by", &request.order_by)?;
        // Unlike in other lists, no size is too small.
        let page_size = pages::check_size(request.page_size.max(0), PAGE_SIZE_MAX)?;
        let after = list_token::decode::<admin::Backup>("page_token", &request.page_token)?;
        let backups = self.master.backups(&cluster).await?;
        let mut backups: Vec<_> = backups
            .iter()
            .map(|(name, record)| record.view(name))
            .filter(|backup| filter.matches(backup))
            .filter(|backup| after.as_ref().is_none_or(|after| order.compare(after, backup).is_lt()))
            .collect();
        backups.sort_unstable_by(|left, right| order.compare(left, right));
        let (backups, next_page_token) = pages::cut(backups.into_iter(), page_size, list_token::encode);
        Ok(admin::ListBackupsResponse { backups, next_page_token })
    }

    pub(super) async fn copy_backup(&self, request: admin::CopyBackupRequest) -> Result<Operation, Status> {
        let name = self.new_backup_name(&request.parent, request.backup_id)?;
        let source = BackupName::parse("source_backup", &request.source_backup)?;
        Ok(self.master.copy_backup(name, source, request.expire_time).await?)
    }

    pub(super) async fn restore_table(
        &self,
        request: admin::RestoreTableRequest,
    ) -> Result<Operation, Status> {
        let instance = InstanceName::parse("parent", &request.parent)?;
        resource_ids::check_table_id("table_id", &request.table_id)?;
        let name = TableName { instance, table: request.table_id };
        self.caller.check_change(&name)?;
        let Some(Source::Backup(backup)) = request.source else {
            return Err(limits::refuse("backup", "is missing"));
        };
        let backup = BackupName::parse("backup", &backup)?;
        Ok(self.master.restore_table(name, backup).await?)
    }

    fn new_backup_name(&self, parent: &str, id: String) -> Result<BackupName, Status> {
        let cluster = ClusterName::parse("parent", parent)?;
        resource_ids::check_table_id("backup_id", &id)?;
        self.caller.check_instance_change(&cluster.instance)?;
        Ok(BackupName { cluster, backup: id })
    }

    fn backup_to_change(&self, field: &'static str, name: &str) -> Result<BackupName, Status> {
        let name = BackupName::parse(field, name)?;
        self.caller.check_instance_change(&name.cluster.instance)?;
        Ok(name)
    }
}
