//! Tablets that move to another server, by [`crate::replacement`]: because the
//! operator says so, because servers are unevenly busy, because theirs leaves.

use std::sync::Arc;
use std::time::SystemTime;

use cluster::ServerId;
use tablet_server::schema::TabletId;
use tonic::Status;

use crate::assignment::Cluster;
use crate::balance::{self, Step};
use crate::error::{Error, Result};
use crate::master::Master;
use crate::replacement::Replacement;
use crate::tables::to_its_end;
use crate::tablet_list::absent;
use crate::watch::ServerSample;

impl Master {
    /// Looks at what servers have to do, and evens it out a little; to be called every second or two.
    ///
    /// # Errors
    ///
    /// [`Error`]: of one of the steps, which is undone or is finished later.
    pub async fn balance(self: &Arc<Self>, now: SystemTime) -> Result<()> {
        let mut samples = Vec::new();
        for server in self.servers.controls() {
            let id = server.id().clone();
            let is_leaving = self.servers.is_leaving(&id);
            samples.push(ServerSample { server: id, is_leaving, tablets: server.tablets().await? });
        }
        let figures = self.watch.lock().learn(now, samples);
        for step in balance::steps(&figures, &self.options.balance) {
            tracing::info!(?step, "evening out load");
            match step {
                Step::Move(tablet, to) => drop(self.move_tablet(tablet, to).await?),
                Step::Merge(left, right) => self.merge_tablets(left, right).await?,
                Step::Split(tablet) => self.split_busy(tablet).await?,
            }
        }
        Ok(())
    }

    /// Splits a tablet where half of its rows are asked for, if there is such a row.
    async fn split_busy(self: &Arc<Self>, tablet: TabletId) -> Result<()> {
        for server in self.servers.controls() {
            if let Some(proposal) = server.split_by_load(tablet).await? {
                self.split(proposal).await?;
            }
        }
        Ok(())
    }

    /// Moves a tablet to the server `to`, under traffic. Returns the number that it has there.
    ///
    /// # Errors
    ///
    /// NOT_FOUND, FAILED_PRECONDITION where it is not served just now or is there
    /// already, or [`Error`]: it is undone or is finished later.
    pub async fn move_tablet(self: &Arc<Self>, tablet: TabletId, to: ServerId) -> Result<TabletId> {
        let master = Arc::clone(self);
        to_its_end(async move {
            let mut cluster = master.cluster.lock().await;
            master.settle_replacements(&mut cluster).await?;
            let record = cluster.tablet(tablet).ok_or_else(|| absent(tablet))?;
            if !cluster.is_served(record) || record.server.as_ref() == Some(&to) {
                let why = format!("tablet {} is not served just now, or is at {to} already", tablet.0);
                return Err(Status::failed_precondition(why).into());
            }
            if !cluster.is_live(&to) {
                return Err(Status::not_found(format!("there is no tablet server {to}")).into());
            }
            master.relocate(&mut cluster, tablet, to).await
        })
        .await
    }

    /// Has `to` serve the tablet from now on.
    pub(crate) async fn relocate(
        &self,
        cluster: &mut Cluster,
        tablet: TabletId,
        to: ServerId,
    ) -> Result<TabletId> {
        let record = cluster.tablet(tablet).ok_or(Error::NoServer)?.clone();
        let (moved, epoch) = (self.new_tablet_id().await?, self.new_epoch().await?);
        self.replace(cluster, Replacement::relocation(&record, to, moved, epoch)).await?;
        Ok(moved)
    }
}
