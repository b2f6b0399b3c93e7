//! Runs calls where their connection runs, one at a time.
//!
//! Most reads find their blocks in memory and are answered without a wait, and
//! most connections have one call under way. As tasks of their own calls would
//! cost an allocation, a way through the scheduler each time they go on, and a
//! second look at the connection to send the answer. So a call begins in the
//! connection's task, and stays there while it waits; each further call that
//! comes meanwhile becomes a task, so that other threads can take part. Either
//! is [`Watched`].
//!
//! # Invariants
//!
//! - A call that stays is polled whenever the connection is, before it: what the
//!   call has to send goes out with the same look at the connection.
//! - It holds the executor, so the executor's owner lets go of it in the end.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use hyper::rt::Executor;
use parking_lot::Mutex;

use super::call::{Call, Watched};

/// The calls of one connection; those under way end with it.
#[derive(Default)]
pub(super) struct FirstHere {
    inner: Arc<Inner>,
}

/// How hyper starts them.
#[derive(Clone)]
pub(super) struct Starter {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    turn: Mutex<Turn>,
    /// The call that stays here.
    staying: Mutex<Option<Watched>>,
}

/// One look at the connection.
#[derive(Default)]
struct Turn {
    /// Of the connection's task, until a call has begun.
    waker: Option<Waker>,
    /// The call that comes next.
    next: Option<Arc<Call>>,
}

impl FirstHere {
    pub(super) fn starter(&self) -> Starter {
        Starter { inner: Arc::clone(&self.inner) }
    }

    /// Goes on with the call that stays here, and lets another one begin here if
    /// none does: the connection is about to be looked at.
    pub(super) fn go_on(&self, context: &mut Context<'_>) {
        let mut staying = self.inner.staying.lock();
        if let Some(call) = &mut *staying {
            if is_pending(Pin::new(call), context) {
                self.inner.turn.lock().waker = None;
                return;
            }
            *staying = None;
        }
        drop(staying);
        let mut turn = self.inner.turn.lock();
        if !turn.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            turn.waker = Some(context.waker().clone());
        }
    }
}

impl Drop for FirstHere {
    fn drop(&mut self) {
        *self.inner.staying.lock() = None;
    }
}

impl Starter {
    /// Says which call it is that is executed next: hyper has a request's service
    /// called and its call executed in one go.
    pub(super) fn expect(&self, call: Arc<Call>) {
        self.inner.turn.lock().next = Some(call);
    }
}

impl<F> Executor<F> for Starter
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        let (call, waker) = {
            let mut turn = self.inner.turn.lock();
            match turn.next.take() {
                Some(call) => (call, turn.waker.take()),
                // Not a call.
                None => return drop(tokio::spawn(task)),
            }
        };
        let mut call = Watched::new(Box::pin(task), call);
        let Some(waker) = waker else { return drop(tokio::spawn(call)) };
        if is_pending(Pin::new(&mut call), &mut Context::from_waker(&waker)) {
            *self.inner.staying.lock() = Some(call);
        }
    }
}

/// Whether `call` has to wait. A panic ends it alone, as it would in a task.
fn is_pending(call: Pin<&mut Watched>, context: &mut Context<'_>) -> bool {
    matches!(catch_unwind(AssertUnwindSafe(|| call.poll(context))), Ok(Poll::Pending))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use tokio::sync::oneshot;

    use super::super::call::Patience;
    use super::super::in_flight::InFlight;
    use super::*;

    /// A connection, looked at by hand.
    struct Connection {
        calls: FirstHere,
        in_flight: Arc<InFlight>,
    }

    impl Connection {
        fn new() -> Self {
            Self { calls: FirstHere::default(), in_flight: Arc::new(InFlight::new(1)) }
        }

        fn look(&self) {
            self.calls.go_on(&mut Context::from_waker(Waker::noop()));
        }

        fn call(&self, call: impl Future<Output = ()> + Send + 'static) {
            let starter = self.calls.starter();
            starter.expect(Arc::new(Call::new(self.in_flight.begin(), Patience::default(), None)));
            starter.execute(call);
        }
    }

    #[tokio::test]
    async fn the_first_call_runs_at_once_and_the_others_as_tasks() {
        let connection = Connection::new();
        let ran = Arc::new(AtomicUsize::new(0));
        let call = || {
            let ran = Arc::clone(&ran);
            async move {
                ran.fetch_add(1, Relaxed);
            }
        };
        connection.look();
        connection.call(call());
        assert_eq!(ran.load(Relaxed), 1);
        connection.call(call());
        assert_eq!(ran.load(Relaxed), 1);
        tokio::task::yield_now().await;
        assert_eq!(ran.load(Relaxed), 2);
        connection.look();
        connection.call(call());
        assert_eq!(ran.load(Relaxed), 3);
    }

    #[tokio::test]
    async fn a_call_that_waits_goes_on_with_its_connection_and_others_meanwhile_as_tasks() {
        let connection = Connection::new();
        let (go_on, waiting) = oneshot::channel::<()>();
        let (done, mut outcome) = oneshot::channel();
        connection.look();
        connection.call(async move {
            waiting.await.unwrap();
            done.send(()).unwrap();
        });
        connection.look();
        let (done, other) = oneshot::channel();
        connection.call(async { done.send(()).unwrap() });
        other.await.unwrap();
        go_on.send(()).unwrap();
        tokio::task::yield_now().await;
        assert!(outcome.try_recv().is_err(), "nobody looked at the connection");
        connection.look();
        outcome.try_recv().unwrap();
    }

    #[tokio::test]
    async fn a_call_that_panics_ends_alone() {
        let connection = Connection::new();
        connection.look();
        connection.call(async { panic!("a call's own fault") });
        let (go_on, waiting) = oneshot::channel::<()>();
        connection.look();
        connection.call(async {
            waiting.await.unwrap();
            panic!("a call's own fault");
        });
        go_on.send(()).unwrap();
        connection.look();
        let (done, mut outcome) = oneshot::channel();
        connection.call(async { done.send(()).unwrap() });
        outcome.try_recv().unwrap();
    }

    #[tokio::test]
    async fn a_call_that_waits_ends_with_its_connection() {
        let connection = Connection::new();
        let (held, mut dropped) = oneshot::channel::<()>();
        connection.look();
        connection.call(async {
            let _held = held;
            std::future::pending::<()>().await;
        });
        assert!(matches!(dropped.try_recv(), Err(oneshot::error::TryRecvError::Empty)));
        drop(connection);
        assert!(matches!(dropped.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
    }
}
