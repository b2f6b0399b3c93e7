//! The memcached door's sockets and timers, and [`Cache`], which owns the rest.
//!
//! A connection is a task. It reads once, runs every command that came with
//! that read, and writes their answers once; then it waits. It does not read on
//! while a client leaves its answers unread. When the process stops, a
//! connection finishes the commands it has and closes.
//!
//! - `conversation`: one connection, whatever it runs over;
//! - `unix`, `udp`, `tls`: what else than TCP that may be;
//! - `metrics`: what is published.

mod conversation;
mod metrics;
pub(crate) mod tls;
mod udp;
mod unix;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cluster::{Door, Shutdown};
use row_api::client::RowClient;
use vfs::FileSystem;

use crate::clock::Clock;
use crate::connections::Peer;
use crate::error::{Error, Result};
use crate::invalidation::follow_all;
use crate::invalidation::positions::PositionFiles;
use crate::item_table::TableStatistics;
use crate::options::{CacheOptions, Credential};
use crate::origins::Origins;
use crate::origins::options::OriginOptions;
use crate::session::SharedState;

pub use tls::Certificates;

/// What memcached counts for an item beside its value: header, flags, the longest key.
const ITEM_OVERHEAD_BYTES: usize = 64 + 250;

/// How often expired items are looked for.
const REAP_INTERVAL: Duration = Duration::from_secs(1);

/// A memcached: a table of items, and the protocol that serves it.
///
/// Cheap to clone; all clones are one cache.
#[derive(Clone, Debug)]
pub struct Cache {
    pub(crate) shared: Arc<SharedState>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Cache {
    /// An empty cache. Its hash is seeded at random, so that nobody can choose
    /// keys that collide.
    ///
    /// # Errors
    ///
    /// [`Error::Option`]: an option is out of its range.
    pub fn new(options: CacheOptions, clock: Arc<dyn Clock>) -> Result<Self> {
        options.check()?;
        let shared = SharedState::new(options, rand::random(), clock.now_s());
        Ok(Self { shared: Arc::new(shared), clock })
    }

    /// The same with origins for keys with a route: `rows` are cells of
    /// [`OriginOptions::instance`] and others, read and written over `client`.
    /// Where streams of changes are followed to is kept in `dir`.
    ///
    /// # Errors
    ///
    /// - [`Error::Option`]: an option is out of its range.
    /// - [`Error::Directory`]: `dir` cannot be made.
    pub fn with_origins(
        options: CacheOptions,
        origins: OriginOptions,
        client: RowClient,
        clock: Arc<dyn Clock>,
        (fs, dir): (Arc<dyn FileSystem>, &Path),
    ) -> Result<Self> {
        options.check()?;
        origins.check()?;
        let positions = PositionFiles::open(fs, dir)
            .map_err(|source| Error::Directory { dir: dir.to_owned(), source })?;
        let mut shared = SharedState::new(options, rand::random(), clock.now_s());
        let value_bytes_max = usize::try_from(shared.options.item_bytes_max).unwrap_or(usize::MAX);
        let value_bytes_max = value_bytes_max.saturating_sub(ITEM_OVERHEAD_BYTES);
        let items = Arc::clone(&shared.table);
        let origins = Origins::new(origins, client, items, Arc::clone(&clock), value_bytes_max, positions);
        shared.origins = Some(Arc::new(origins));
        Ok(Self { shared: Arc::new(shared), clock })
    }

    /// What the cache was made with.
    pub fn options(&self) -> &CacheOptions {
        &self.shared.options
    }

    /// What the cache holds now, and what it counted.
    pub fn statistics(&self) -> TableStatistics {
        self.shared.table.statistics(self.clock.now_s())
    }

    /// Replaces those who may use the cache, from the next connection on; a
    /// cache that everybody may use stays one.
    pub fn set_credentials(&self, credentials: Vec<Credential>) {
        *self.shared.credentials.write() = credentials;
    }

    /// Waits until a client asks for the process to stop.
    pub async fn shutdown_asked(&self) {
        self.shared.shutdown_asked.notified().await;
    }

    /// Removes items as they expire, and follows the changes of tables that cells
    /// are cached of, until `shutdown` begins. One task of each serves all doors
    /// of a cache.
    pub fn keep(&self, shutdown: &Shutdown) {
        shutdown.spawn(self.clone().reap(shutdown.clone()));
        if let Some(origins) = &self.shared.origins {
            shutdown.spawn(follow_all(Arc::clone(origins), shutdown.clone()));
        }
    }

    /// Serves `door` until `shutdown` begins; its connections are tasks that
    /// `shutdown` waits for. Expired items are removed meanwhile.
    pub async fn serve(&self, door: Door, shutdown: Shutdown) {
        self.keep(&shutdown);
        let local = door.local_address();
        let _listener = self.shared.connections.listen(Peer::Tcp { peer: local, local });
        let connection_shutdown = shutdown.clone();
        let serve = |stream, peer| {
            self.clone().serve_stream(stream, Peer::Tcp { peer, local }, connection_shutdown.clone())
        };
        door.serve(shutdown, serve).await;
    }

    async fn reap(self, shutdown: Shutdown) {
        let mut ticks = tokio::time::interval(REAP_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.begun() => return,
                _ = ticks.tick() => {}
            }
            let now = self.clock.now_s();
            self.shared.table.flush_if_due(now);
            for shard_index in 0..self.shared.table.shard_count() {
                while self.shared.table.reap(shard_index, now) {
                    // Commands come first.
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}
