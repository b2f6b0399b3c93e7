//! Row locks: plain mutations share a row, a read-modify-write has it alone.
//!
//! Striped by a hash of the row key, so that memory is fixed whatever the
//! number of rows; two rows of one stripe merely wait for each other. A lock is
//! held until a write is applied to the memtable, never through the sync
//! (DESIGN section 4). Stripes are taken in ascending order, so that requests
//! over several rows cannot wait for each other in a circle.

use std::hash::{BuildHasher, RandomState};

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Stripes a tablet server has; a power of two.
const STRIPE_COUNT: usize = 1024;

/// The row locks of one tablet server.
#[derive(Debug)]
pub(crate) struct RowLocks {
    stripes: Box<[RwLock<()>]>,
    hasher: RandomState,
}

/// Rows held by plain mutations; dropping it lets go.
#[derive(Debug)]
pub(crate) struct Shared<'a> {
    _stripes: smallvec::SmallVec<[RwLockReadGuard<'a, ()>; 1]>,
}

/// A row held by a read-modify-write; dropping it lets go.
#[derive(Debug)]
pub(crate) struct Exclusive<'a> {
    _stripe: RwLockWriteGuard<'a, ()>,
}

impl RowLocks {
    /// Locks that nobody holds.
    pub(crate) fn new() -> Self {
        Self { stripes: (0..STRIPE_COUNT).map(|_| RwLock::new(())).collect(), hasher: RandomState::new() }
    }

    /// Waits until no read-modify-write holds any of `rows` of `tablet`, and keeps new ones out.
    pub(crate) async fn shared<'a>(
        &self,
        tablet: u64,
        rows: impl IntoIterator<Item = &'a [u8]>,
    ) -> Shared<'_> {
        let mut stripes: smallvec::SmallVec<[usize; 1]> =
            rows.into_iter().map(|row| self.stripe(tablet, row)).collect();
        stripes.sort_unstable();
        stripes.dedup();
        let mut held = smallvec::SmallVec::with_capacity(stripes.len());
        for stripe in stripes {
            held.push(self.stripes[stripe].read().await);
        }
        Shared { _stripes: held }
    }

    /// Waits until nobody else holds `row` of `tablet`.
    pub(crate) async fn exclusive(&self, tablet: u64, row: &[u8]) -> Exclusive<'_> {
        Exclusive { _stripe: self.stripes[self.stripe(tablet, row)].write().await }
    }

    fn stripe(&self, tablet: u64, row: &[u8]) -> usize {
        let hash = self.hasher.hash_one((tablet, row));
        usize::try_from(hash & (STRIPE_COUNT as u64 - 1)).expect("the mask is small")
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    fn is_ready(future: impl Future) -> bool {
        pin!(future).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[tokio::test]
    async fn plain_mutations_share_and_a_read_modify_write_is_alone() {
        let locks = RowLocks::new();
        let first = locks.shared(1, [b"row".as_slice()]).await;
        assert!(is_ready(locks.shared(1, [b"row".as_slice()])));
        assert!(!is_ready(locks.exclusive(1, b"row")));
        drop(first);
        let alone = locks.exclusive(1, b"row").await;
        assert!(!is_ready(locks.shared(1, [b"row".as_slice()])));
        drop(alone);
        assert!(is_ready(locks.shared(1, [b"row".as_slice()])));
    }

    #[tokio::test]
    async fn a_row_given_twice_is_locked_once() {
        let locks = RowLocks::new();
        drop(locks.shared(1, [b"row".as_slice(), b"row"]).await);
        assert!(is_ready(locks.exclusive(1, b"row")));
    }
}
