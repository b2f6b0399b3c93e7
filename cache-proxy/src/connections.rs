//! Who is connected: for `stats conns` and the counts of bytes.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;

/// Where a connection comes from and where it came in, or where one may.
#[derive(Clone, Debug)]
pub(crate) enum Peer {
    Tcp { peer: SocketAddr, local: SocketAddr },
    Udp { local: SocketAddr },
    Unix { path: Arc<PathBuf> },
}

impl Peer {
    /// The address it came in at, as `stats conns` shows it.
    pub(crate) fn local(&self) -> String {
        match self {
            Self::Tcp { local, .. } => format!("tcp:{local}"),
            Self::Udp { local } => format!("udp:{local}"),
            Self::Unix { path } => format!("unix:{}", path.display()),
        }
    }

    /// The same in a watcher's line.
    pub(crate) fn for_watchers(&self) -> String {
        match self {
            Self::Tcp { peer, .. } => format!("rip={} rport={} transport=tcp", peer.ip(), peer.port()),
            Self::Udp { .. } => "rip=unknown rport=0 transport=udp".to_owned(),
            Self::Unix { .. } => "rip=unix rport=0 transport=local".to_owned(),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { peer, .. } => write!(formatter, "tcp:{peer}"),
            _ => formatter.write_str(&self.local()),
        }
    }
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    Listening,
    /// It waits for a command.
    Read,
    /// It runs commands.
    Command,
    /// A value is arriving.
    Value,
}

impl Phase {
    const ALL: [Self; 4] = [Self::Listening, Self::Read, Self::Command, Self::Value];

    /// memcached's word for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Listening => "conn_listening",
            Self::Read => "conn_read",
            Self::Command => "conn_parse_cmd",
            Self::Value => "conn_nread",
        }
    }
}

/// One connection, or a socket that takes them, as others see it.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) peer: Peer,
    /// The second of its last command.
    pub(crate) active_at: AtomicU32,
    phase: AtomicU8,
}

impl Connection {
    pub(crate) fn phase(&self) -> Phase {
        Phase::ALL[usize::from(self.phase.load(Ordering::Relaxed))]
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }
}

/// The connections that are open, and what all of them moved.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    open: Mutex<BTreeMap<u64, Arc<Connection>>>,
    listeners: Mutex<BTreeMap<u64, Arc<Connection>>>,
    last_number: AtomicU64,
    accepted_count: AtomicU64,
    pub(crate) idle_kick_count: AtomicU64,
    pub(crate) read_bytes: AtomicU64,
    pub(crate) written_bytes: AtomicU64,
}

/// A socket that takes connections, until it is dropped.
#[derive(Debug)]
pub(crate) struct Listener<'c> {
    connections: &'c Connections,
    number: u64,
}

impl Drop for Listener<'_> {
    fn drop(&mut self) {
        self.connections.listeners.lock().remove(&self.number);
    }
}

impl Connections {
    /// Adds a connection under a new number.
    pub(crate) fn insert(&self, peer: Peer, now: u32) -> (u64, Arc<Connection>) {
        let number = self.next_number();
        self.accepted_count.fetch_add(1, Ordering::Relaxed);
        let phase = AtomicU8::new(Phase::Read as u8);
        let connection = Arc::new(Connection { peer, active_at: AtomicU32::new(now), phase });
        self.open.lock().insert(number, Arc::clone(&connection));
        (number, connection)
    }

    pub(crate) fn remove(&self, number: u64) {
        self.open.lock().remove(&number);
    }

    /// Adds a socket that takes connections.
    pub(crate) fn listen(&self, local: Peer) -> Listener<'_> {
        let number = self.next_number();
        let phase = AtomicU8::new(Phase::Listening as u8);
        let listener = Connection { peer: local, active_at: AtomicU32::new(u32::MAX), phase };
        self.listeners.lock().insert(number, Arc::new(listener));
        Listener { connections: self, number }
    }

    pub(crate) fn accepted_count(&self) -> u64 {
        self.accepted_count.load(Ordering::Relaxed)
    }

    pub(crate) fn open_count(&self) -> u64 {
        self.open.lock().len() as u64
    }

    /// The sockets that take connections, then the connections, by number.
    pub(crate) fn list(&self) -> Vec<(u64, Arc<Connection>)> {
        let listed = |map: &Mutex<BTreeMap<u64, Arc<Connection>>>| {
            map.lock()
                .iter()
                .map(|(number, connection)| (*number, Arc::clone(connection)))
                .collect::<Vec<_>>()
        };
        [listed(&self.listeners), listed(&self.open)].concat()
    }

    fn next_number(&self) -> u64 {
        self.last_number.fetch_add(1, Ordering::Relaxed) + 1
    }
}
