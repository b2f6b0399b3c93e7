//! What a start does about operations that the process before it left unfinished.
//!
//! A backup or a restore goes on, by the record of its intent. An operation
//! without one had changed nothing yet, or its change was undone: it ends with an error. An intent without an
//! operation under way is what a crash left behind its end.

use std::collections::BTreeMap;
use std::sync::Arc;

use tonic::Status;

use crate::error::Result;
use crate::master::Master;

impl Master {
    /// Takes up, or ends, what was under way.
    pub(crate) async fn resume_operations(self: &Arc<Self>) -> Result<()> {
        let backups = self.all_backups().await?.into_iter();
        let mut backups: BTreeMap<_, _> =
            backups.map(|(name, record)| (record.operation, (name, record))).collect();
        let mut restores: BTreeMap<_, _> = self.restores().await?.into_iter().collect();
        for (number, operation) in self.unfinished_operations().await? {
            let metadata = operation.metadata.clone().unwrap_or_default();
            let name = operation.name.clone();
            let running = self.resume_operation(number, operation);
            if let Some((backup, _)) = backups.remove(&number) {
                tracing::info!(operation = name, "a backup goes on");
                self.run_backup(running, backup);
            } else if let Some(restore) = restores.remove(&number) {
                tracing::info!(operation = name, "a restore goes on");
                self.run_restore(running, restore);
            } else {
                let why = "the server was stopped before the operation had begun; start it again";
                self.end_operation(running, metadata, Err(Status::aborted(why))).await?;
            }
        }
        for (name, record) in backups.into_values() {
            if !record.is_ready() {
                self.remove_backup(&name).await?;
            }
        }
        for (number, record) in restores {
            if let Err(error) = self.settle_restore(number, &record).await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(table = record.name, error, "half a table is left for the next start");
            }
        }
        let cluster = self.cluster.lock().await;
        self.try_sweep_checkpoints(&cluster).await;
        Ok(())
    }
}
