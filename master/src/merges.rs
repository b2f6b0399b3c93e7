//! Small neighbours become one tablet, by [`crate::replacement`]. Which ones is
//! decided in [`crate::balance`].

use std::sync::Arc;

use tablet_server::schema::TabletId;

use crate::error::Result;
use crate::master::Master;
use crate::replacement::{Level, Replacement};
use crate::tables::to_its_end;

impl Master {
    /// Merges two tablets that follow each other at one server, unless they are others by now.
    ///
    /// # Errors
    ///
    /// [`Error`](crate::Error): it is undone or is finished later.
    pub async fn merge_tablets(self: &Arc<Self>, left: TabletId, right: TabletId) -> Result<()> {
        let master = Arc::clone(self);
        to_its_end(async move {
            let mut cluster = master.cluster.lock().await;
            master.settle_replacements(&mut cluster).await?;
            let (Some(left), Some(right)) = (cluster.tablet(left), cluster.tablet(right)) else {
                return Ok(());
            };
            let follow = left.table == right.table
                && left.server == right.server
                && !left.range.end.is_empty()
                && left.range.end == right.range.start;
            if !follow
                || Level::of(left) == Level::Root
                || !cluster.is_served(left)
                || !cluster.is_served(right)
            {
                return Ok(());
            }
            let (left, right) = (left.clone(), right.clone());
            let server = master.control(&left)?;
            server.flush_tablet(left.tablet).await?;
            server.flush_tablet(right.tablet).await?;
            let (merged, epoch) = (master.new_tablet_id().await?, master.new_epoch().await?);
            master.replace(&mut cluster, Replacement::merge(&left, &right, merged, epoch)).await
        })
        .await
    }
}
