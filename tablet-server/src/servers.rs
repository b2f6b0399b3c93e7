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
    /// None of one that is recovered, whose tablets others are to serve.
    rows: Option<Arc<dyn RowServer>>,
    control: Arc<dyn TabletControl>,
    is_leaving: bool,
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
        let rows: Arc<dyn RowServer> = Arc::clone(&server) as _;
        self.insert(Server { rows: Some(rows), control: server, is_leaving: false });
    }

    /// Makes `server` reachable as [`Servers::join`] does, for as long as it has
    /// tablets: others are to take them over.
    pub fn join_to_leave<S: RowServer + TabletControl + 'static>(&self, server: Arc<S>) {
        let rows: Arc<dyn RowServer> = Arc::clone(&server) as _;
        self.insert(Server { rows: Some(rows), control: server, is_leaving: true });
    }

    /// Makes a server that is recovered reachable to the master alone.
    pub fn attend(&self, control: Arc<dyn TabletControl>) {
        self.insert(Server { rows: None, control, is_leaving: true });
    }

    fn insert(&self, server: Server) {
        self.servers.write().insert(server.control.id().clone(), server);
    }

    /// Forgets the server `id`.
    pub fn leave(&self, id: &ServerId) {
        self.servers.write().remove(id);
    }

    /// The server `id` as gateways use it.
    pub fn rows(&self, id: &ServerId) -> Option<Arc<dyn RowServer>> {
        self.servers.read().get(id).and_then(|server| server.rows.clone())
    }

    /// The server `id` as the master uses it.
    pub fn control(&self, id: &ServerId) -> Option<Arc<dyn TabletControl>> {
        self.servers.read().get(id).map(|server| Arc::clone(&server.control))
    }

    /// Whether the server `id` is to have no tablets.
    pub fn is_leaving(&self, id: &ServerId) -> bool {
        self.servers.read().get(id).is_none_or(|server| server.is_leaving)
    }

    /// The servers that gateways can reach, as the master uses them, in order of their names.
    pub fn controls(&self) -> Vec<Arc<dyn TabletControl>> {
        let servers = self.servers.read();
        let serving = servers.values().filter(|server| server.rows.is_some());
        serving.map(|server| Arc::clone(&server.control)).collect()
    }
}
