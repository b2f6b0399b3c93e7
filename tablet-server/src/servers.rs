//! The tablet servers that a process can reach, by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use cluster::ServerId;
use parking_lot::RwLock;

use crate::control::TabletControl;
use crate::row_server::RowServer;

/// One server, from the gateway's side and from the master's.
#[derive(Clone, Debug)]
struct Server {
    rows: Arc<dyn RowServer>,
    control: Arc<dyn TabletControl>,
}

/// Servers by name.
#[derive(Debug, Default)]
pub struct Servers {
    servers: RwLock<BTreeMap<ServerId, Server>>,
}

impl Servers {
    /// No server yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes `server` reachable, in place of an earlier one of its name.
    pub fn join<S: RowServer + TabletControl + 'static>(&self, server: Arc<S>) {
        let id = server.id().clone();
        let entry = Server { rows: Arc::clone(&server) as _, control: server };
        self.servers.write().insert(id, entry);
    }

    /// Forgets the server `id`.
    pub fn leave(&self, id: &ServerId) {
        self.servers.write().remove(id);
    }

    /// The server `id` as gateways use it.
    pub fn rows(&self, id: &ServerId) -> Option<Arc<dyn RowServer>> {
        self.servers.read().get(id).map(|server| Arc::clone(&server.rows))
    }

    /// The server `id` as the master uses it.
    pub fn control(&self, id: &ServerId) -> Option<Arc<dyn TabletControl>> {
        self.servers.read().get(id).map(|server| Arc::clone(&server.control))
    }

    /// All servers as the master uses them, in order of their names.
    pub fn controls(&self) -> Vec<Arc<dyn TabletControl>> {
        self.servers.read().values().map(|server| Arc::clone(&server.control)).collect()
    }
}
