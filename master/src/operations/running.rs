//! Operations under way: how far they are, who waits for them, who has cancelled them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use row_api::longrunning::Operation;
use tokio::sync::watch;
use tonic::Status;

use super::cancelled;
use crate::error::Result;

/// Operations under way at once.
const RUNNING_COUNT_MAX: usize = 100;

/// The operations that this process carries out.
#[derive(Debug, Default)]
pub(crate) struct RunningOperations {
    by_number: Mutex<BTreeMap<u64, Arc<Progress>>>,
}

#[derive(Debug)]
struct Progress {
    operation: watch::Sender<Operation>,
    is_cancelled: AtomicBool,
}

/// An operation under way, until it ends or this is dropped.
#[derive(Debug)]
pub(crate) struct RunningOperation {
    number: u64,
    progress: Arc<Progress>,
    among: Arc<RunningOperations>,
}

impl RunningOperations {
    /// Takes in an operation that begins.
    ///
    /// # Errors
    ///
    /// RESOURCE_EXHAUSTED.
    pub(super) fn begin(self: &Arc<Self>, number: u64, operation: Operation) -> Result<RunningOperation> {
        if self.by_number.lock().len() >= RUNNING_COUNT_MAX {
            let why =
                format!("{RUNNING_COUNT_MAX} operations are under way, which is the most; try again later");
            return Err(Status::resource_exhausted(why).into());
        }
        Ok(self.resume(number, operation))
    }

    /// Takes in an operation that goes on.
    pub(super) fn resume(self: &Arc<Self>, number: u64, operation: Operation) -> RunningOperation {
        let progress = Arc::new(Progress {
            operation: watch::Sender::new(operation),
            is_cancelled: AtomicBool::new(false),
        });
        self.by_number.lock().insert(number, Arc::clone(&progress));
        RunningOperation { number, progress, among: Arc::clone(self) }
    }

    /// The operation `number` as it is now, if it is under way.
    pub(super) fn operation(&self, number: u64) -> Option<Operation> {
        self.by_number.lock().get(&number).map(|progress| progress.operation.borrow().clone())
    }

    /// Waits until the operation `number` is no longer under way, for so long at most.
    pub(super) async fn wait(&self, number: u64, patience: Option<Duration>) {
        let changes = self.by_number.lock().get(&number).map(|progress| progress.operation.subscribe());
        let Some(mut changes) = changes else { return };
        // It ends when its sender does.
        let ended = async move { while changes.changed().await.is_ok() {} };
        match patience {
            // Not in time is an answer, too.
            Some(patience) => drop(tokio::time::timeout(patience, ended).await),
            None => ended.await,
        }
    }

    /// Asks the operation `number` to stop.
    pub(super) fn cancel(&self, number: u64) {
        if let Some(progress) = self.by_number.lock().get(&number) {
            progress.is_cancelled.store(true, Ordering::Release);
        }
    }
}

impl RunningOperation {
    /// Its number.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// What a client sees of it now.
    pub(crate) fn operation(&self) -> Operation {
        self.progress.operation.borrow().clone()
    }

    /// Shows how far it is.
    pub(crate) fn show(&self, metadata: prost_types::Any) {
        self.progress.operation.send_modify(|operation| operation.metadata = Some(metadata));
    }

    /// Refuses to go on where somebody has cancelled it.
    ///
    /// # Errors
    ///
    /// CANCELLED.
    pub(crate) fn check_cancelled(&self) -> Result<()> {
        if self.progress.is_cancelled.load(Ordering::Acquire) { Err(cancelled()) } else { Ok(()) }
    }

    /// Shows how it ended.
    pub(super) fn end(self, operation: Operation) {
        self.progress.operation.send_replace(operation);
    }
}

impl Drop for RunningOperation {
    fn drop(&mut self) {
        self.among.by_number.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Operation {
        Operation { name: name.to_owned(), ..Operation::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_is_told_of_the_end_or_goes_on_after_a_while() {
        let all = Arc::new(RunningOperations::default());
        let running = all.begin(7, named("x")).unwrap();
        all.wait(7, Some(Duration::from_secs(1))).await;
        assert!(!all.operation(7).unwrap().done);
        let waiting = tokio::spawn({
            let all = Arc::clone(&all);
            async move { all.wait(7, None).await }
        });
        tokio::task::yield_now().await;
        running.show(prost_types::Any::default());
        running.end(Operation { done: true, ..named("x") });
        waiting.await.unwrap();
        assert_eq!(all.operation(7), None);
        all.wait(7, None).await;
    }

    #[test]
    fn a_cancelled_operation_learns_of_it() {
        let all = Arc::new(RunningOperations::default());
        let [first, second] = [1, 2].map(|number| all.begin(number, named("x")).unwrap());
        all.cancel(2);
        all.cancel(3);
        first.check_cancelled().unwrap();
        assert!(second.check_cancelled().is_err());
    }

    #[test]
    fn their_number_is_bounded() {
        let all = Arc::new(RunningOperations::default());
        let most: Vec<_> =
            (0..RUNNING_COUNT_MAX as u64).map(|number| all.begin(number, named("x")).unwrap()).collect();
        assert!(all.begin(1 << 40, named("x")).is_err());
        drop(most);
        all.begin(1 << 40, named("x")).unwrap();
    }
}
