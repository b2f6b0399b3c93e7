//! Locality groups of tables: set and listed by operators, and families that
//! move between them.
//!
//! A move is two writes of the table's record: one that says where the family is
//! going, from when on tablets write to both groups, and, once all of them have
//! copied its cells, one that says that it is there. Tablets may be split,
//! merged, moved or recovered meanwhile; those that begin anew copy again. The
//! copying holds up no other change of tables; only the second write, and a
//! last look at each tablet before it, are one change with no other between.

use std::sync::Arc;
use std::time::Duration;

use cluster::lock_service::Expect;
use row_api::names::TableName;
use tablet_server::metadata::TabletRecord;
use tablet_server::schema::TableId;
use tablet_server::table_record::{TableRecord, TableState};
use tonic::Status;

use crate::error::{Error, Result};
use crate::locality_group_rules::{self as rules, GroupChange};
use crate::master::Master;
use crate::tables::to_its_end;

/// How long an operator who moves families waits to hear that it is done.
const PATIENCE: Duration = Duration::from_secs(2);

impl Master {
    /// Makes or changes a locality group. Families that are to be in it and have
    /// cells elsewhere are moved in the background ([`Master::place_families`]).
    ///
    /// # Errors
    ///
    /// NOT_FOUND, what [`rules::set`] refuses, or [`Error`].
    pub async fn set_locality_group(
        self: &Arc<Self>,
        table: TableName,
        change: GroupChange,
    ) -> Result<TableRecord> {
        self.change_groups(table, move |record| rules::set(record, &change)).await
    }

    /// Takes a locality group away that no family is in.
    ///
    /// # Errors
    ///
    /// NOT_FOUND, FAILED_PRECONDITION, or [`Error`].
    pub async fn delete_locality_group(
        self: &Arc<Self>,
        table: TableName,
        group: String,
    ) -> Result<TableRecord> {
        self.change_groups(table, move |record| rules::remove(record, &group)).await
    }

    async fn change_groups(
        self: &Arc<Self>,
        table: TableName,
        change: impl FnOnce(&mut TableRecord) -> std::result::Result<(), Status> + Send + 'static,
    ) -> Result<TableRecord> {
        self.change_table(table.clone(), change).await?;
        self.groups_due.lock().insert(table.clone());
        // Where there is little to be done it is done at once.
        let placed = tokio::time::timeout(PATIENCE, self.place_families_of(&table)).await;
        if let Ok(Err(error)) = placed {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(%table, error, "families are moved later");
        }
        self.table(&table).await
    }

    /// Goes on with what is to be done so that the families of all tables are in the groups that they
    /// are to be in; to be called each second or so.
    ///
    /// # Errors
    ///
    /// [`Error`]: of one of the tables; the next call goes on.
    pub async fn place_families(self: &Arc<Self>) -> Result<()> {
        let due = self.groups_due.lock().clone();
        let mut outcome = Ok(());
        for table in due {
            outcome = self.place_families_of(&table).await.and(outcome);
        }
        outcome
    }

    async fn place_families_of(self: &Arc<Self>, table: &TableName) -> Result<()> {
        self.copy_families(table).await?;
        self.finish_placing(table.clone()).await
    }

    /// Has the tablets of `table` copy what is to be moved.
    async fn copy_families(&self, table: &TableName) -> Result<()> {
        let Some((record, _)) = self.read_table(table).await? else { return Ok(()) };
        for tablet in self.tablets_of(TableId(record.table_id)).await? {
            loop {
                match self.place_in(&tablet).await {
                    Ok(false) => {}
                    Ok(true) => break,
                    // Others have taken its place, which are asked before the end.
                    Err(Error::Tablets(tablet_server::Error::NotServed { .. })) => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Takes one more step in each tablet of `table` and, if there is nothing left
    /// to copy, has the table say so.
    async fn finish_placing(self: &Arc<Self>, table: TableName) -> Result<()> {
        let master = Arc::clone(self);
        to_its_end(async move {
            let mut cluster = master.cluster.lock().await;
            let serving =
                master.read_table(&table).await?.filter(|(table, _)| table.state() == TableState::Serving);
            let Some((mut record, revision)) = serving else {
                master.groups_due.lock().remove(&table);
                return Ok(());
            };
            master.settle_replacements(&mut cluster).await?;
            let tablets = master.tablets_of(TableId(record.table_id)).await?;
            for tablet in &tablets {
                if !master.place_in(tablet).await? {
                    return Ok(());
                }
            }
            if rules::has_moves(&record) {
                rules::finish_moves(&mut record);
                master.write_table(&table, &record, Expect::At(revision)).await?;
                master.catalog().publish(&table, record.schema());
                tracing::info!(%table, "families are in the locality groups that they were to be in");
                for tablet in &tablets {
                    master.place_in(tablet).await?;
                }
            }
            master.groups_due.lock().remove(&table);
            Ok(())
        })
        .await
    }

    async fn place_in(&self, tablet: &TabletRecord) -> Result<bool> {
        Ok(self.control(tablet)?.place_families(tablet.tablet).await?)
    }

    /// Notes that something may be left to be done for the groups of a table that is taken into service.
    pub(crate) fn note_groups(&self, table: &TableName, record: &TableRecord) {
        if record.last_group_id > 0 {
            self.groups_due.lock().insert(table.clone());
        }
    }

    /// All tables that serve, in order of their names.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn all_tables(&self) -> Result<Vec<(TableName, TableRecord)>> {
        self.tables_below("").await
    }

    /// The table that an operator means by `text`: a full name, or a table's id where one table alone has it.
    ///
    /// # Errors
    ///
    /// NOT_FOUND, INVALID_ARGUMENT where several tables have the id, or [`Error`].
    pub async fn find_table(&self, text: &str) -> Result<TableName> {
        let is_meant = |name: &TableName| name.to_string() == text || name.table == text;
        let tables = self.all_tables().await?;
        let mut found = tables.into_iter().map(|(name, _)| name).filter(is_meant);
        match (found.next(), found.next()) {
            (Some(name), None) => Ok(name),
            (None, _) => Err(Status::not_found(format!("there is no table {text}")).into()),
            (Some(one), Some(other)) => {
                let why = format!("which table {text}? There is {one}, and {other}");
                Err(Error::from(Status::invalid_argument(why)))
            }
        }
    }
}
