//! `google.bigtable.admin.v2.BigtableTableAdmin`: tables.
//!
//! All clusters of an instance serve the same tablets, and all writes are
//! consistent when they are acknowledged.

mod authorized_views;
mod backups;

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use row_api::admin;
use row_api::admin::bigtable_table_admin_server::{BigtableTableAdmin, BigtableTableAdminServer};
use row_api::admin::drop_row_range_request::Target;
use row_api::admin::encryption_info::EncryptionType;
use row_api::admin::table::cluster_state::ReplicationState;
use row_api::admin::table::{ClusterState, View};
use row_api::names::{InstanceName, TableName};
use row_api::{iam, longrunning};
use tablet_server::gateway::Caller;
use tablet_server::limits;
use tablet_server::row_set::RowRange;
use tablet_server::table_record::TableRecord;
use tonic::{Request, Response, Status};

use crate::master::Master;
use crate::operations::any;
use crate::policies::Resource;
use crate::{pages, resource_ids, table_rules};

/// Tables on one page of ListTables, at most and unless asked for fewer.
const PAGE_SIZE_MAX: usize = 1_000;

/// What a consistency token starts with; the table's number follows.
const TOKEN_PREFIX: &str = "hayloft-consistency-";

/// The table admin service, for one kind of caller. Cheap to clone.
#[derive(Clone)]
pub struct TableAdmin {
    master: Arc<Master>,
    caller: Caller,
}

impl TableAdmin {
    /// A service for `caller` over the tables of `master`.
    pub fn new(master: Arc<Master>, caller: Caller) -> Self {
        Self { master, caller }
    }

    /// The gRPC server.
    pub fn into_server(self) -> BigtableTableAdminServer<Self> {
        BigtableTableAdminServer::new(self)
    }

    fn table_to_change(&self, name: &str) -> Result<TableName, Status> {
        let name = TableName::parse("name", name)?;
        self.caller.check_change(&name)?;
        Ok(name)
    }

    /// The ids of the clusters of `instance`.
    async fn clusters(&self, instance: &InstanceName) -> Result<Vec<String>, Status> {
        Ok(self.master.instance(instance).await?.clusters.into_keys().collect())
    }

    async fn record(&self, name: &str) -> Result<(TableName, TableRecord), Status> {
        let name = TableName::parse("name", name)?;
        let record = self.master.table(&name).await?;
        Ok((name, record))
    }
}

#[tonic::async_trait]
impl BigtableTableAdmin for TableAdmin {
    async fn create_table(
        &self,
        request: Request<admin::CreateTableRequest>,
    ) -> Result<Response<admin::TableAnswer>, Status> {
        let request = request.into_inner();
        let instance = InstanceName::parse("parent", &request.parent)?;
        resource_ids::check_table_id("table_id", &request.table_id)?;
        let name = TableName { instance, table: request.table_id };
        self.caller.check_change(&name)?;
        let table = table_rules::check_new_table(request.table.unwrap_or_default())?;
        let splits = table_rules::check_splits(request.initial_splits)?;
        let record = self.master.create_table(name.clone(), table, splits).await?;
        Ok(Response::new(schema_view(&name, &record)))
    }

    async fn get_table(
        &self,
        request: Request<admin::GetTableRequest>,
    ) -> Result<Response<admin::TableAnswer>, Status> {
        let request = request.into_inner();
        let shown = checked_view(request.view, View::SchemaView)?;
        let (name, record) = self.record(&request.name).await?;
        let clusters = self.clusters(&name.instance).await?;
        Ok(Response::new(view(&name, &record, &clusters, shown)))
    }

    async fn list_tables(
        &self,
        request: Request<admin::ListTablesRequest>,
    ) -> Result<Response<admin::ListTablesAnswer>, Status> {
        let request = request.into_inner();
        let instance = InstanceName::parse("parent", &request.parent)?;
        let shown = checked_view(request.view, View::NameOnly)?;
        let page_size = pages::check_size(request.page_size, PAGE_SIZE_MAX)?;
        // A token is the last table of the page before.
        let tables = self.master.tables(&instance).await?;
        let rest = tables.iter().filter(|(name, _)| name.table > request.page_token);
        let (page, next_page_token) = pages::cut(rest, page_size, |(name, _)| name.table.clone());
        let clusters = self.clusters(&instance).await?;
        let tables = page.into_iter().map(|(name, record)| view(name, record, &clusters, shown)).collect();
        Ok(Response::new(admin::ListTablesAnswer { tables, next_page_token }))
    }

    async fn update_table(
        &self,
        request: Request<admin::UpdateTableRequest>,
    ) -> Result<Response<longrunning::Operation>, Status> {
        let request = request.into_inner();
        let begun = SystemTime::now();
        let table = request.table.ok_or_else(|| Status::invalid_argument("table: is missing"))?;
        let name = TableName::parse("table.name", &table.name)?;
        self.caller.check_change(&name)?;
        let paths = request.update_mask.map(|mask| mask.paths).unwrap_or_default();
        let record = self.master.update_table(name.clone(), table, paths).await?;
        let metadata = admin::UpdateTableMetadata {
            name: name.to_string(),
            start_time: Some(begun.into()),
            end_time: Some(SystemTime::now().into()),
        };
        let metadata = any("UpdateTableMetadata", &metadata);
        let response = any("Table", &schema_view(&name, &record));
        Ok(Response::new(self.master.complete_operation(name, metadata, response).await?))
    }

    async fn delete_table(
        &self,
        request: Request<admin::DeleteTableRequest>,
    ) -> Result<Response<()>, Status> {
        let name = self.table_to_change(&request.get_ref().name)?;
        self.master.delete_table(name).await?;
        Ok(Response::new(()))
    }

    async fn undelete_table(
        &self,
        request: Request<admin::UndeleteTableRequest>,
    ) -> Result<Response<longrunning::Operation>, Status> {
        let name = self.table_to_change(&request.get_ref().name)?;
        Ok(Response::new(self.master.undelete_table(name).await?))
    }

    async fn create_authorized_view(
        &self,
        request: Request<admin::CreateAuthorizedViewRequest>,
    ) -> Result<Response<longrunning::Operation>, Status> {
        self.create_authorized_view(request.into_inner()).await.map(Response::new)
    }

    async fn get_authorized_view(
        &self,
        request: Request<admin::GetAuthorizedViewRequest>,
    ) -> Result<Response<admin::AuthorizedView>, Status> {
        self.get_authorized_view(request.get_ref()).await.map(Response::new)
    }

    async fn list_authorized_views(
        &self,
        request: Request<admin::ListAuthorizedViewsRequest>,
    ) -> Result<Response<admin::ListAuthorizedViewsResponse>, Status> {
        self.list_authorized_views(request.into_inner()).await.map(Response::new)
    }

    async fn update_authorized_view(
        &self,
        request: Request<admin::UpdateAuthorizedViewRequest>,
    ) -> Result<Response<longrunning::Operation>, Status> {
        self.update_authorized_view(request.into_inner()).await.map(Response::new)
    }

    async fn delete_authorized_view(
        &self,
        request: Request<admin::DeleteAuthorizedViewRequest>,
    ) -> Result<Response<()>, Status> {
        self.delete_authorized_view(request.into_inner()).await.map(Response::new)
    }

    async fn create_backup(
        &self,
        request: Request<admin::CreateBackupRequest>,
    ) -> Result<Response<longrunning::Operation>, Status> {
        self.create_backup(request.into_inner()).await.map(Response::new)
    }

    async fn get_backup(
        &self,
        request: Request<admin::GetBackupRequest>,
    ) -> Result<Response<admin::Backup>, Status> {
        self.get_backup(&request.get_ref().name).await.map(Response::new)
    }

    async fn update_backup(
        &self,
        request: Request<admin::UpdateBackupRequest>,
    ) -> Result<Response<admin::Backup>, Status> {
        self.update_backup(request.into_inner()).await.map(Response::new)
    }

    async fn delete_backup(
        &self,
        request: Request<admin::DeleteBackupRequest>,
    ) -> Result<Response<()>, Status> {
        self.delete_backup(&request.get_ref().name).await.map(Response::new)
    }

    async fn list_backups(
        &self,
        request: Request<admin::ListBackupsRequest>,
    ) -> Result<Response<admin::ListBackupsResponse>, Status> {
        self.list_backups(request.into_inner()).await.map(Response::new)
    }

    async fn copy_backup(
        &self,
        request: Request<admin::CopyBackupRequest>,
    ) -> Result<Response<longrunning::Operation>, Status> {
        self.copy_backup(request.into_inner()).await.map(Response::new)
    }

    async fn restore_table(
        &self,
        request: Request<admin::RestoreTableRequest>,
    ) -> Result<Response<longrunning::Operation>, Status> {
        self.restore_table(request.into_inner()).await.map(Response::new)
    }

    async fn modify_column_families(
        &self,
        request: Request<admin::ModifyColumnFamiliesRequest>,
    ) -> Result<Response<admin::TableAnswer>, Status> {
        let request = request.into_inner();
        let name = self.table_to_change(&request.name)?;
        let record = self.master.modify_families(name.clone(), request.modifications).await?;
        Ok(Response::new(schema_view(&name, &record)))
    }

    async fn drop_row_range(
        &self,
        request: Request<admin::DropRowRangeRequest>,
    ) -> Result<Response<()>, Status> {
        let request = request.into_inner();
        let name = self.table_to_change(&request.name)?;
        let range = match request.target {
            Some(Target::RowKeyPrefix(prefix)) => {
                limits::check_row_key("row_key_prefix", &prefix)?;
                RowRange::of_prefix(&prefix)
            }
            Some(Target::DeleteAllDataFromTable(true)) => RowRange::default(),
            Some(Target::DeleteAllDataFromTable(false)) => {
                return Err(Status::invalid_argument("delete_all_data_from_table: must be true"));
            }
            None => {
                let why = "one of row_key_prefix, delete_all_data_from_table is needed";
                return Err(Status::invalid_argument(why));
            }
        };
        self.master.drop_row_range(name, range).await?;
        Ok(Response::new(()))
    }

    async fn generate_consistency_token(
        &self,
        request: Request<admin::GenerateConsistencyTokenRequest>,
    ) -> Result<Response<admin::GenerateConsistencyTokenResponse>, Status> {
        let (_, record) = self.record(&request.get_ref().name).await?;
        let consistency_token = format!("{TOKEN_PREFIX}{}", record.table_id);
        Ok(Response::new(admin::GenerateConsistencyTokenResponse { consistency_token }))
    }

    async fn check_consistency(
        &self,
        request: Request<admin::CheckConsistencyRequest>,
    ) -> Result<Response<admin::CheckConsistencyResponse>, Status> {
        let request = request.into_inner();
        let (name, record) = self.record(&request.name).await?;
        let of_table = request.consistency_token.strip_prefix(TOKEN_PREFIX);
        if of_table.and_then(|number| number.parse().ok()) != Some(record.table_id) {
            let why = format!("consistency_token: it was not generated for {name}");
            return Err(Status::invalid_argument(why));
        }
        Ok(Response::new(admin::CheckConsistencyResponse { consistent: true }))
    }

    async fn get_iam_policy(
        &self,
        request: Request<iam::GetIamPolicyRequest>,
    ) -> Result<Response<iam::Policy>, Status> {
        let request = request.get_ref();
        let resource = Resource::parse("resource", &request.resource)?;
        Ok(Response::new(self.master.policy(&resource, request).await?))
    }

    async fn set_iam_policy(
        &self,
        request: Request<iam::SetIamPolicyRequest>,
    ) -> Result<Response<iam::Policy>, Status> {
        let request = request.into_inner();
        let resource = Resource::parse("resource", &request.resource)?;
        self.caller.check_instance_change(resource.instance())?;
        Ok(Response::new(self.master.set_policy(&resource, request).await?))
    }

    async fn test_iam_permissions(
        &self,
        request: Request<iam::TestIamPermissionsRequest>,
    ) -> Result<Response<iam::TestIamPermissionsResponse>, Status> {
        let request = request.into_inner();
        let resource = Resource::parse("resource", &request.resource)?;
        Ok(Response::new(self.master.test_permissions(&resource, request).await?))
    }
}

impl fmt::Debug for TableAdmin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableAdmin").field("caller", &self.caller).finish_non_exhaustive()
    }
}

fn checked_view(view: i32, default: View) -> Result<View, Status> {
    match View::try_from(view) {
        Ok(View::Unspecified) => Ok(default),
        Ok(view) => Ok(view),
        Err(_) => Err(Status::invalid_argument(format!("view: {view} is no view"))),
    }
}

/// A table with its schema.
pub(crate) fn schema_view(name: &TableName, record: &TableRecord) -> admin::TableAnswer {
    view(name, record, &[], View::SchemaView)
}

/// What `shown` shows of a table that is served by `clusters`.
fn view(name: &TableName, record: &TableRecord, clusters: &[String], shown: View) -> admin::TableAnswer {
    let shows_schema = matches!(shown, View::SchemaView | View::Full);
    let mut table = if shows_schema { record.table().clone() } else { admin::Table::default() };
    table.name = name.to_string();
    if matches!(shown, View::ReplicationView | View::EncryptionView | View::Full) {
        let mut state =
            ClusterState { replication_state: ReplicationState::Ready.into(), ..ClusterState::default() };
        if shown != View::ReplicationView {
            state.encryption_info.push(admin::EncryptionInfo {
                encryption_type: EncryptionType::GoogleDefaultEncryption.into(),
                ..admin::EncryptionInfo::default()
            });
        }
        table.cluster_states = clusters.iter().map(|cluster| (cluster.clone(), state.clone())).collect();
    }
    table.into()
}
