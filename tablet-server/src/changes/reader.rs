//! Reads a tablet's changes where the tablet is served.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::{ChangeBatch, ChangeLog, ChangeProgress, TabletChanges};
use crate::error::Result;
use crate::server::{INLINE_STEP_BYTES, blocking};
use crate::tablet::Tablet;

/// A reader of the changes of a tablet of this server.
pub(crate) struct TabletReader {
    tablet: Arc<Tablet>,
    log: Arc<ChangeLog>,
    told: watch::Receiver<()>,
    _permit: OwnedSemaphorePermit,
}

impl TabletReader {
    /// A reader of `log`, which is `tablet`'s.
    pub(crate) fn new(tablet: Arc<Tablet>, log: Arc<ChangeLog>, permit: OwnedSemaphorePermit) -> Self {
        Self { told: log.listen(), tablet, log, _permit: permit }
    }
}

#[async_trait]
impl TabletChanges for TabletReader {
    async fn next_changes(&mut self, progress: &ChangeProgress, budget_bytes: usize) -> Result<ChangeBatch> {
        // Whatever comes after this is heard of, if it is not read.
        self.told.mark_unchanged();
        if budget_bytes <= INLINE_STEP_BYTES {
            return self.tablet.read_changes(&self.log, progress, budget_bytes);
        }
        let (tablet, log, progress) = (Arc::clone(&self.tablet), Arc::clone(&self.log), progress.clone());
        blocking(move || tablet.read_changes(&log, &progress, budget_bytes)).await
    }

    async fn changed(&mut self) {
        // The log lives as long as this does.
        _ = self.told.changed().await;
    }
}

impl fmt::Debug for TabletReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TabletReader").field("log", &self.log).finish_non_exhaustive()
    }
}
