//! Stopping in order: one signal, and a count of what still has to finish.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A request to stop that every task of the process can see, and a tracker of
/// the tasks that must end first. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    token: CancellationToken,
    tasks: TaskTracker,
}

impl Shutdown {
    /// Nobody has asked to stop yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks everybody to stop. Asking twice is asking once.
    pub fn begin(&self) {
        self.token.cancel();
        self.tasks.close();
    }

    /// Whether somebody has asked to stop.
    pub fn has_begun(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Resolves once somebody has asked to stop.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn begun(&self) {
        self.token.cancelled().await;
    }

    /// Runs `task`, which [`Shutdown::drained`] then waits for.
    pub fn spawn<F>(&self, task: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(task)
    }

    /// Tasks that still run.
    pub fn running_count(&self) -> usize {
        self.tasks.len()
    }

    /// Waits until every spawned task ended; false if some still ran after
    /// `patience`. Only once stopping has begun can it be true.
    pub async fn drained(&self, patience: Duration) -> bool {
        tokio::time::timeout(patience, self.tasks.wait()).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn draining_waits_for_every_task() {
        let shutdown = Shutdown::new();
        let seen = shutdown.clone();
        let task = shutdown.spawn(async move { seen.begun().await });
        assert!(!shutdown.has_begun());
        shutdown.begin();
        assert!(shutdown.drained(Duration::from_secs(10)).await);
        assert_eq!(shutdown.running_count(), 0);
        task.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn draining_gives_up_on_a_task_that_never_ends() {
        let shutdown = Shutdown::new();
        shutdown.spawn(std::future::pending::<()>());
        shutdown.begin();
        assert!(!shutdown.drained(Duration::from_secs(10)).await);
    }
}
