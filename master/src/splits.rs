//! Tablets that have grown too large become two, by [`crate::replacement`]. Their
//! server says where (`TabletControl::splits_due`).

use std::sync::Arc;

use tablet_server::control::SplitProposal;
use tablet_server::schema::TabletId;

use crate::error::Result;
use crate::master::Master;
use crate::replacement::Replacement;
use crate::tables::to_its_end;

impl Master {
    /// Splits the tablets that have grown too large for their servers; to be called each second or so.
    ///
    /// # Errors
    ///
    /// [`Error`](crate::Error): of one of the splits, which is undone or is finished later.
    pub async fn split_large_tablets(self: &Arc<Self>) -> Result<()> {
        for server in self.servers.controls() {
            for proposal in server.splits_due().await? {
                self.split(proposal).await?;
            }
        }
        Ok(())
    }

    /// Splits a tablet as was proposed, unless it is another one by now.
    pub(crate) async fn split(self: &Arc<Self>, proposal: SplitProposal) -> Result<()> {
        let master = Arc::clone(self);
        to_its_end(async move {
            let mut cluster = master.cluster.lock().await;
            master.settle_replacements(&mut cluster).await?;
            let Some(parent) = cluster.splittable(&proposal).cloned() else { return Ok(()) };
            master.control(&parent)?.flush_tablet(parent.tablet).await?;
            let children = [master.new_tablet_id().await?, master.new_tablet_id().await?];
            let epoch = master.new_epoch().await?;
            let split = Replacement::split(&parent, &proposal.row, children, epoch);
            master.replace(&mut cluster, split).await
        })
        .await
    }

    pub(crate) async fn new_tablet_id(&self) -> Result<TabletId> {
        Ok(TabletId(self.lock_service.next_id().await?))
    }
}
