//! Runs a call where its connection runs, as far as it gets without waiting.
//!
//! Most reads find their blocks in memory and are answered without a wait. As
//! tasks of their own they would cost an allocation of a few kilobytes, a way
//! through the scheduler, and a second look at the connection to send the
//! answer. A call that has to wait becomes a task, and is [`Watched`]; so does
//! each further call that a connection brings at once, so that other threads
//! can take part.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};

use hyper::rt::Executor;
use parking_lot::Mutex;

use super::call::{Call, Watched};

/// The executor of one connection. Its clones are one executor.
#[derive(Clone, Debug, Default)]
pub(super) struct FirstHere {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    has_begun: AtomicBool,
    /// The call that comes next.
    next: Mutex<Option<Arc<Call>>>,
}

impl FirstHere {
    /// Lets the next call run here: the connection is about to be looked at.
    pub(super) fn begin(&self) {
        self.inner.has_begun.store(false, Relaxed);
    }

    /// Says which call it is that is executed next: hyper has a request's service
    /// called and its call executed in one go.
    pub(super) fn expect(&self, call: Arc<Call>) {
        *self.inner.next.lock() = Some(call);
    }
}

impl<F> Executor<F> for FirstHere
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, call: F) {
        let expected = self.inner.next.lock().take();
        let mut call = Box::pin(call);
        if self.inner.has_begun.swap(true, Relaxed) {
            spawn(call, expected);
            return;
        }
        // Whatever it waits for learns of the task at that one's first poll. A
        // panic ends this call alone, as it would in a task.
        let mut context = Context::from_waker(Waker::noop());
        let polled = catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(&mut context)));
        if matches!(polled, Ok(Poll::Pending)) {
            spawn(call, expected);
        }
    }
}

fn spawn(task: Pin<Box<impl Future<Output = ()> + Send + 'static>>, call: Option<Arc<Call>>) {
    match call {
        Some(call) => tokio::spawn(Watched::new(task, call)),
        None => tokio::spawn(task),
    };
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[tokio::test]
    async fn the_first_call_runs_at_once_and_the_others_as_tasks() {
        let executor = FirstHere::default();
        let ran = Arc::new(AtomicUsize::new(0));
        let call = || {
            let ran = Arc::clone(&ran);
            async move {
                ran.fetch_add(1, Relaxed);
            }
        };
        executor.begin();
        executor.execute(call());
        assert_eq!(ran.load(Relaxed), 1);
        executor.execute(call());
        assert_eq!(ran.load(Relaxed), 1);
        tokio::task::yield_now().await;
        assert_eq!(ran.load(Relaxed), 2);
        executor.begin();
        executor.execute(call());
        assert_eq!(ran.load(Relaxed), 3);
    }

    #[tokio::test]
    async fn a_call_that_waits_goes_on_as_a_task_and_one_that_panics_ends_alone() {
        let executor = FirstHere::default();
        let (go_on, waiting) = tokio::sync::oneshot::channel::<()>();
        let (done, outcome) = tokio::sync::oneshot::channel();
        executor.execute(async move {
            waiting.await.unwrap();
            done.send(()).unwrap();
        });
        executor.begin();
        executor.execute(async { panic!("a call's own fault") });
        go_on.send(()).unwrap();
        outcome.await.unwrap();
    }
}
