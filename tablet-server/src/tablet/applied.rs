//! Waiting for a batch to become durable, without a thread.

use std::sync::Arc;

use lsm::Commit;
use tokio::sync::oneshot;

use crate::changes::ChangeLog;
use crate::error::{Error, Result};

/// A batch that is applied, and not durable before somebody waits for it.
#[must_use = "a batch is acknowledged only once it is durable"]
pub(super) struct Applied {
    commit: Option<Commit>,
    /// Where its changes are.
    log: Option<Arc<ChangeLog>>,
}

impl Applied {
    pub(super) fn new(commit: Commit, log: Option<Arc<ChangeLog>>) -> Self {
        Self { commit: Some(commit), log }
    }

    /// Waits without a thread, and tells those who read the changes.
    pub(super) async fn durable(mut self) -> Result<()> {
        let Some(commit) = self.commit.take() else { return Ok(()) };
        let (done, outcome) = oneshot::channel();
        let log = self.log.take();
        commit.on_durable(move |result| {
            // The client may have gone away meanwhile.
            drop(done.send(result));
            log.iter().for_each(|log| log.tell());
        });
        match outcome.await {
            Ok(result) => Ok(result?),
            // The engine stopped before it could tell.
            Err(_) => Err(Error::Storage(lsm::Error::Poisoned)),
        }
    }
}

impl Drop for Applied {
    /// The writer may be gone; whoever reads the changes is to hear of them.
    fn drop(&mut self) {
        if let (Some(commit), Some(log)) = (self.commit.take(), self.log.take()) {
            commit.on_durable(move |_outcome| log.tell());
        }
    }
}
