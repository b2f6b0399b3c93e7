//! The life of a table.
//!
//! One change at a time, each committed by one write of the table's record in
//! the lock service (`table_record`):
//!
//! ```text
//! creation                                  deletion
//! 1  record: creating, with its tablets     1  record: deleting, with its tablets
//! 2  tablets made on their servers          2  rows removed from METADATA
//! 3  rows written to METADATA               3  what they hold kept, by `deleted_tables`
//! 4  record: serving                        4  tablets dropped by their servers
//!                                           5  record removed
//! ```
//!
//! A crash before a creation's step 4 is followed by a deletion's steps 2, 4 and 5,
//! at the next start or at the next creation of that name; so is a crash after a
//! deletion's step 1. METADATA's rows go before the tablets and come after them,
//! so it never names one that is not there.
//!
//! Every change runs to its end in a task of its own, whether or not the client
//! that asked for it still listens.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use cluster::lock_service::{Expect, Revision};
use cluster::{Epoch, ServerId};
use prost::Message;
use row_api::admin;
use row_api::admin::modify_column_families_request::Modification;
use row_api::names::{AuthorizedViewName, InstanceName, TableName};
use tablet_server::control::TabletControl;
use tablet_server::metadata::{self, TabletRecord};
use tablet_server::row_set::RowRange;
use tablet_server::schema::{TableId, TabletId};
use tablet_server::table_record::{self, IntendedTablet, TableRecord, TableState};
use tonic::Status;

use crate::assignment::{Cluster, Event, assignment_of};
use crate::error::{Error, Result};
use crate::master::Master;
use crate::policies::Resource;
use crate::{authorized_view_rules, table_rules};

impl Master {
    /// Creates a table with the families of `table` and a tablet boundary at
    /// each of `splits`, which are in order and differ.
    ///
    /// # Errors
    ///
    /// ALREADY_EXISTS, NOT_FOUND for a deleted instance, or [`Error`]; then there is no such table.
    pub async fn create_table(
        self: &Arc<Self>,
        name: TableName,
        table: admin::Table,
        splits: Vec<Bytes>,
    ) -> Result<TableRecord> {
        let master = Arc::clone(self);
        to_its_end(async move {
            let mut cluster = master.cluster.lock().await;
            master.instance(&name.instance).await?;
            master.free_name(&mut cluster, &name).await?;
            let (mut record, tablets) = master.plan_table(&cluster, table, &splits).await?;
            let revision = master.write_table(&name, &record, Expect::Absent).await?;
            let has_changes = record.schema().change_retention_us.is_some();
            let made = master.make_tablets(&tablets, has_changes).await;
            record.state = TableState::Serving.into();
            let serving = TableRecord { tablets: Vec::new(), ..record.clone() };
            let committed = match made {
                Ok(()) => master.write_table(&name, &serving, Expect::At(revision)).await.map(drop),
                Err(error) => Err(error),
            };
            if let Err(error) = committed {
                if let Err(error) = master.remove_table(&mut cluster, &name, &record).await {
                    tracing::warn!(table = %name, error = &error as &dyn std::error::Error, "half a table is left for the next start");
                }
                return Err(error);
            }
            learn_of_new_tablets(&mut cluster, tablets)?;
            master.router.catalog().publish(&name, serving.schema());
            Ok(serving)
        })
        .await
    }

    /// Removes the table; its rows are kept for [`crate::MasterOptions::undelete_time`].
    ///
    /// # Errors
    ///
    /// NOT_FOUND, FAILED_PRECONDITION for a protected one or one with a protected view, or [`Error`]; after
    /// the latter the table may be out of sight, and is removed at the next start.
    pub async fn delete_table(self: &Arc<Self>, name: TableName) -> Result<()> {
        let master = Arc::clone(self);
        to_its_end(async move {
            let mut cluster = master.cluster.lock().await;
            let (record, _) = master.serving_table(&name).await?;
            check_unprotected(&name, &record)?;
            let is_kept = !master.options.undelete_time.is_zero();
            master.remove_serving_table(&mut cluster, &name, is_kept).await
        })
        .await
    }

    /// Applies `modifications` in their order, all or none.
    ///
    /// # Errors
    ///
    /// NOT_FOUND, what [`table_rules::modify`] refuses, or [`Error`]; then nothing changed.
    pub async fn modify_families(
        self: &Arc<Self>,
        name: TableName,
        modifications: Vec<Modification>,
    ) -> Result<TableRecord> {
        self.change_table(name, move |record| table_rules::modify(record, modifications)).await
    }

    /// Takes over what `paths` name of `table`; its tablets record their changes, or do not, when this returns.
    ///
    /// # Errors
    ///
    /// NOT_FOUND, what [`table_rules::update`] refuses, or [`Error`]; after the latter, doing it again does the rest.
    pub async fn update_table(
        self: &Arc<Self>,
        name: TableName,
        table: admin::Table,
        paths: Vec<String>,
    ) -> Result<TableRecord> {
        let master = Arc::clone(self);
        to_its_end(async move {
            let mut cluster = master.cluster.lock().await;
            let (mut record, revision) = master.serving_table(&name).await?;
            table_rules::update(&mut record, &table, &paths)?;
            let has_changes = record.schema().change_retention_us.is_some();
            master.settle_replacements(&mut cluster).await?;
            master.write_table(&name, &record, Expect::At(revision)).await?;
            master.router.catalog().publish(&name, record.schema());
            // Tablets that nobody serves now do it when they are loaded.
            if paths.iter().any(|path| path.starts_with("change_stream_config")) {
                for tablet in master.tablets_of(TableId(record.table_id)).await? {
                    master.control(&tablet)?.keep_changes(tablet.tablet, has_changes).await?;
                }
            }
            Ok(record)
        })
        .await
    }

    /// Changes the table's record with `change`, unless that refuses.
    pub(crate) async fn change_table(
        self: &Arc<Self>,
        name: TableName,
        change: impl FnOnce(&mut TableRecord) -> std::result::Result<(), Status> + Send + 'static,
    ) -> Result<TableRecord> {
        let master = Arc::clone(self);
        to_its_end(async move {
            let _cluster = master.cluster.lock().await;
            let (mut record, revision) = master.serving_table(&name).await?;
            change(&mut record)?;
            master.write_table(&name, &record, Expect::At(revision)).await?;
            master.router.catalog().publish(&name, record.schema());
            Ok(record)
        })
        .await
    }

    /// Removes an authorized view, and its policy first, so that no later view of its name has it.
    ///
    /// # Errors
    ///
    /// NOT_FOUND, what [`authorized_view_rules::remove`] refuses, or [`Error`].
    pub async fn delete_authorized_view(
        self: &Arc<Self>,
        name: AuthorizedViewName,
        etag: String,
    ) -> Result<()> {
        let master = Arc::clone(self);
        to_its_end(async move {
            let _cluster = master.cluster.lock().await;
            let (mut record, revision) = master.serving_table(&name.table).await?;
            authorized_view_rules::remove(&mut record, &name, &etag)?;
            master.remove_policies(&Resource::AuthorizedView(name.clone())).await?;
            master.write_table(&name.table, &record, Expect::At(revision)).await?;
            master.router.catalog().publish(&name.table, record.schema());
            Ok(())
        })
        .await
    }

    /// Removes the table's rows in `range`, tablet by tablet, durably.
    ///
    /// # Errors
    ///
    /// NOT_FOUND, or [`Error`]; then some of the rows may be gone.
    pub async fn drop_row_range(self: &Arc<Self>, name: TableName, range: RowRange) -> Result<()> {
        let master = Arc::clone(self);
        to_its_end(async move {
            let mut cluster = master.cluster.lock().await;
            let (record, _) = master.serving_table(&name).await?;
            master.settle_replacements(&mut cluster).await?;
            for tablet in master.tablets_of(TableId(record.table_id)).await? {
                if tablet.range.intersection(&range).is_some() {
                    master.control(&tablet)?.drop_row_range(tablet.tablet, range.clone()).await?;
                }
            }
            Ok(())
        })
        .await
    }

    /// The table's record.
    ///
    /// # Errors
    ///
    /// NOT_FOUND, or [`Error`].
    pub async fn table(&self, name: &TableName) -> Result<TableRecord> {
        Ok(self.serving_table(name).await?.0)
    }

    /// The tables of `instance`, in order of their names.
    ///
    /// # Errors
    ///
    /// NOT_FOUND where the instance was deleted, or [`Error`].
    pub async fn tables(&self, instance: &InstanceName) -> Result<Vec<(TableName, TableRecord)>> {
        self.instance(instance).await?;
        self.tables_of_instance(instance).await
    }

    /// The same, whether or not the instance is there.
    pub(crate) async fn tables_of_instance(
        &self,
        instance: &InstanceName,
    ) -> Result<Vec<(TableName, TableRecord)>> {
        self.tables_below(&format!("{instance}/tables/")).await
    }

    /// The tables whose full names start with `prefix`, in order of their names.
    pub(crate) async fn tables_below(&self, prefix: &str) -> Result<Vec<(TableName, TableRecord)>> {
        let mut tables = Vec::new();
        for record in self.lock_service.list(&format!("{}{prefix}", table_record::PREFIX)).await? {
            let name = table_record::name_of_key(&record.key).map_err(tablet_server::Error::from)?;
            let table = TableRecord::read(&record.key, &record.value).map_err(tablet_server::Error::from)?;
            if table.state() == TableState::Serving {
                tables.push((name, table));
            }
        }
        Ok(tables)
    }

    /// The instances of `project` that hold a table.
    pub(crate) async fn instances_with_tables(&self, project: &str) -> Result<BTreeSet<InstanceName>> {
        let prefix = format!("{}projects/{project}/instances/", table_record::PREFIX);
        let records = self.lock_service.list(&prefix).await?;
        let names = records.iter().map(|record| table_record::name_of_key(&record.key));
        let instances =
            names.map(|name| name.map(|name| name.instance)).collect::<std::result::Result<_, _>>();
        Ok(instances.map_err(tablet_server::Error::from)?)
    }

    /// Sees to it that a table can be called `name`.
    ///
    /// # Errors
    ///
    /// ALREADY_EXISTS, or [`Error`].
    pub(crate) async fn free_name(&self, cluster: &mut Cluster, name: &TableName) -> Result<()> {
        let taken = || Err(Status::already_exists(format!("Table already exists: {name}")).into());
        let text = name.to_string();
        if self.restores().await?.iter().any(|(_, restore)| restore.name == text) {
            return taken();
        }
        match self.read_table(name).await? {
            Some((found, _)) if found.state() == TableState::Serving => taken(),
            Some((found, _)) => self.remove_table(cluster, name, &found).await,
            None => Ok(()),
        }
    }

    /// A deletion of a table that serves.
    pub(crate) async fn remove_serving_table(
        &self,
        cluster: &mut Cluster,
        name: &TableName,
        is_kept: bool,
    ) -> Result<()> {
        let (mut record, revision) = self.serving_table(name).await?;
        self.settle_replacements(cluster).await?;
        let tablets = self.tablets_of(TableId(record.table_id)).await?;
        record.tablets = tablets.iter().map(intended).collect();
        record.state = TableState::Deleting.into();
        record.is_kept = is_kept;
        self.write_table(name, &record, Expect::At(revision)).await?;
        self.router.catalog().withdraw(TableId(record.table_id));
        self.remove_table(cluster, name, &record).await
    }

    /// Steps 2 to 5 of a deletion; doing them again does no harm.
    pub(crate) async fn remove_table(
        &self,
        cluster: &mut Cluster,
        name: &TableName,
        record: &TableRecord,
    ) -> Result<()> {
        self.withdraw_rows(TableId(record.table_id), &record.tablets).await?;
        if record.is_kept {
            self.keep_deleted(cluster, name, record).await?;
        }
        self.drop_tablets(cluster, &record.tablets).await?;
        self.remove_policies(&Resource::Table(name.clone())).await?;
        Ok(self.lock_service.delete(&table_record::key(name), Expect::Anything).await?)
    }

    /// Removes the rows of `tablets`, which are of `table`, from METADATA.
    pub(crate) async fn withdraw_rows(&self, table: TableId, tablets: &[IntendedTablet]) -> Result<()> {
        self.metadata.remove(tablets.iter().map(|tablet| metadata::row_key(table, &tablet.end))).await
    }

    /// Has their servers drop `tablets`.
    pub(crate) async fn drop_tablets(&self, cluster: &mut Cluster, tablets: &[IntendedTablet]) -> Result<()> {
        for tablet in tablets {
            self.server_of(tablet)?.drop_tablet(TabletId(tablet.tablet)).await?;
        }
        let dropped: BTreeSet<_> = tablets.iter().map(|tablet| TabletId(tablet.tablet)).collect();
        cluster.learn(Event::TabletsDropped(dropped), Epoch::default());
        Ok(())
    }

    /// The server that has the tablet.
    pub(crate) fn server_of(&self, tablet: &IntendedTablet) -> Result<Arc<dyn TabletControl>> {
        self.servers.control(&ServerId(tablet.server.clone())).ok_or(Error::NoServer)
    }

    /// A record for a table that is to be created, and its tablets.
    async fn plan_table(
        &self,
        cluster: &Cluster,
        table: admin::Table,
        splits: &[Bytes],
    ) -> Result<(TableRecord, Vec<TabletRecord>)> {
        let table_id = TableId(self.lock_service.next_id().await?);
        let epoch = self.new_epoch().await?;
        let servers = cluster.place(splits.len() + 1);
        let mut tablets = Vec::with_capacity(splits.len() + 1);
        let mut start = Bytes::new();
        for end in splits.iter().cloned().chain([Bytes::new()]) {
            let server = servers.get(tablets.len()).ok_or(Error::NoServer)?.clone();
            let tablet = TabletId(self.lock_service.next_id().await?);
            let range = RowRange { start: std::mem::replace(&mut start, end.clone()), end };
            tablets.push(TabletRecord { tablet, table: table_id, range, epoch, server: Some(server) });
        }
        let mut record = TableRecord::new(table_id, tablets.iter().map(intended).collect());
        let families = table.column_families.clone();
        *record.table_mut() = admin::Table { column_families: [].into(), ..table };
        for (name, family) in families {
            record.add_family(&name, family);
        }
        Ok((record, tablets))
    }

    /// Steps 2 and 3 of a creation.
    async fn make_tablets(&self, tablets: &[TabletRecord], has_changes: bool) -> Result<()> {
        for record in tablets {
            let control = self.control(record)?;
            control.create_tablet(assignment_of(record)).await?;
            if has_changes {
                control.keep_changes(record.tablet, true).await?;
            }
        }
        self.metadata.record(tablets).await
    }

    async fn serving_table(&self, name: &TableName) -> Result<(TableRecord, Revision)> {
        match self.read_table(name).await? {
            Some((record, revision)) if record.state() == TableState::Serving => Ok((record, revision)),
            _ => Err(tablet_server::Error::NoTable { name: name.to_string() }.into()),
        }
    }

    pub(crate) async fn read_table(&self, name: &TableName) -> Result<Option<(TableRecord, Revision)>> {
        let Some(record) = self.lock_service.get(&table_record::key(name)).await? else { return Ok(None) };
        let table = TableRecord::read(&record.key, &record.value).map_err(tablet_server::Error::from)?;
        Ok(Some((table, record.revision)))
    }

    pub(crate) async fn write_table(
        &self,
        name: &TableName,
        record: &TableRecord,
        expect: Expect,
    ) -> Result<Revision> {
        Ok(self.lock_service.put(&table_record::key(name), record.encode_to_vec().into(), expect).await?)
    }
}

/// Refuses the deletion of a table that is protected, or has a view that is.
pub(crate) fn check_unprotected(name: &TableName, record: &TableRecord) -> std::result::Result<(), Status> {
    let protected_view = record.authorized_views.iter().find(|(_, view)| view.deletion_protection);
    let protected = match protected_view {
        _ if record.table().deletion_protection => name.to_string(),
        Some((view, _)) => format!("{name}/authorizedViews/{view}"),
        None => return Ok(()),
    };
    let why = format!("{protected} is protected: set deletion_protection to false before deleting {name}");
    Err(Status::failed_precondition(why))
}

/// Takes in that `tablets`, which are new, are served as they are recorded.
pub(crate) fn learn_of_new_tablets(cluster: &mut Cluster, tablets: Vec<TabletRecord>) -> Result<()> {
    for record in &tablets {
        let TabletRecord { tablet, epoch, .. } = *record;
        let server = record.server.clone().ok_or(Error::NoServer)?;
        cluster.learn(Event::Served { tablet, server, epoch }, epoch);
    }
    // So nothing is left to do.
    let actions = cluster.learn(Event::TabletsFound(tablets), Epoch::default());
    debug_assert!(actions.is_empty(), "{actions:?}");
    Ok(())
}

pub(crate) fn intended(record: &TabletRecord) -> IntendedTablet {
    IntendedTablet {
        tablet: record.tablet.0,
        end: record.range.end.clone(),
        server: record.server.as_ref().map(ServerId::to_string).unwrap_or_default(),
    }
}

/// Runs `change` to its end, even if the caller's future is dropped.
pub(crate) async fn to_its_end<T: Send + 'static>(
    change: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    match tokio::spawn(change).await {
        Ok(outcome) => outcome,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Status::unavailable("the master is stopping").into()),
        },
    }
}
