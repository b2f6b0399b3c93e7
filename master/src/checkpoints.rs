//! Checkpoints from the master's side: what tablets held at one moment.
//!
//! They are made under the master's lock and then named by a record: a backup's
//! (`backup_record`), a deleted table's (`deleted_tables`), or a restore's
//! (`restores`). Whatever no record names goes in a sweep, under the same lock, so
//! nothing needs to be undone where a crash comes between the two.

use std::collections::{BTreeMap, BTreeSet};

use cluster::ServerId;
use tablet_server::control::CheckpointId;
use tablet_server::schema::TabletId;
use tablet_server::table_record::IntendedTablet;

use crate::assignment::Cluster;
use crate::error::{Error, Result};
use crate::master::Master;
use crate::saved_table::{SavedTablet, checkpoints_of};

impl Master {
    /// Writes what `tablets` hold to new checkpoints, one a server. Gives where
    /// each of them is kept, and the bytes of all.
    ///
    /// # Errors
    ///
    /// [`Error`]; the next sweep removes what was written.
    pub(crate) async fn save_tablets(
        &self,
        _locked: &Cluster,
        tablets: &[IntendedTablet],
    ) -> Result<(Vec<SavedTablet>, u64)> {
        let mut by_server: BTreeMap<&str, Vec<TabletId>> = BTreeMap::new();
        for tablet in tablets {
            by_server.entry(&tablet.server).or_default().push(TabletId(tablet.tablet));
        }
        let mut checkpoints = BTreeMap::new();
        let mut bytes = 0;
        for (server, tablets) in by_server {
            let control = self.servers.control(&ServerId(server.to_owned())).ok_or(Error::NoServer)?;
            let checkpoint = CheckpointId(self.lock_service.next_id().await?);
            bytes += control.write_checkpoint(checkpoint, &tablets).await?;
            checkpoints.insert(server, checkpoint);
        }
        let saved = |tablet: &IntendedTablet| SavedTablet {
            tablet: tablet.tablet,
            end: tablet.end.clone(),
            checkpoint: checkpoints[tablet.server.as_str()].0,
        };
        Ok((tablets.iter().map(saved).collect(), bytes))
    }

    /// Removes the checkpoints that no record names.
    ///
    /// # Errors
    ///
    /// [`Error`]; what is left is for the next sweep.
    pub(crate) async fn sweep_checkpoints(&self, _locked: &Cluster) -> Result<()> {
        let named = self.named_checkpoints().await?;
        for server in self.servers.controls() {
            for checkpoint in server.checkpoints().await? {
                if !named.contains(&checkpoint) {
                    server.drop_checkpoint(checkpoint).await?;
                }
            }
        }
        Ok(())
    }

    /// The same, where what asked for it is done whether or not there is room again.
    pub(crate) async fn try_sweep_checkpoints(&self, locked: &Cluster) {
        if let Err(error) = self.sweep_checkpoints(locked).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "checkpoints are left for the next sweep"
            );
        }
    }

    async fn named_checkpoints(&self) -> Result<BTreeSet<CheckpointId>> {
        let mut named = BTreeSet::new();
        for (_, record) in self.all_backups().await? {
            named.extend(checkpoints_of(&record.saved().tablets));
        }
        for deleted in self.deleted_tables().await? {
            named.extend(checkpoints_of(&deleted.saved().tablets));
        }
        for (_, restore) in self.restores().await? {
            named.extend(checkpoints_of(restore.sources()));
        }
        Ok(named)
    }
}
