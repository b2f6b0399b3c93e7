//! Who is connected: for `stats conns` and the counts of bytes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;

/// One connection, as others see it.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) peer: SocketAddr,
    /// The second of its last command.
    pub(crate) active_at: AtomicU32,
}

/// The connections that are open, and what all of them moved.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    open: Mutex<BTreeMap<u64, Arc<Connection>>>,
    accepted_count: AtomicU64,
    pub(crate) read_bytes: AtomicU64,
    pub(crate) written_bytes: AtomicU64,
}

impl Connections {
    /// Adds a connection under a new number.
    pub(crate) fn insert(&self, peer: SocketAddr, now: u32) -> (u64, Arc<Connection>) {
        let number = self.accepted_count.fetch_add(1, Ordering::Relaxed) + 1;
        let connection = Arc::new(Connection { peer, active_at: AtomicU32::new(now) });
        self.open.lock().insert(number, Arc::clone(&connection));
        (number, connection)
    }

    pub(crate) fn remove(&self, number: u64) {
        self.open.lock().remove(&number);
    }

    pub(crate) fn accepted_count(&self) -> u64 {
        self.accepted_count.load(Ordering::Relaxed)
    }

    pub(crate) fn open_count(&self) -> u64 {
        self.open.lock().len() as u64
    }

    /// Those that are open, by number.
    pub(crate) fn list(&self) -> Vec<(u64, Arc<Connection>)> {
        self.open.lock().iter().map(|(number, connection)| (*number, Arc::clone(connection))).collect()
    }
}
