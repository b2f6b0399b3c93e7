//! The tablet servers of one process, each with a directory, a lock, an epoch
//! and a commit log of its own.
//!
//! ```text
//! tablet-server/      that of tablet-server-1
//! tablet-server-2/    that of tablet-server-2, and so on
//! checkpoints/        what tablets held at some moment
//! ```
//!
//! A process that is to have fewer servers than before opens those that there
//! are, and they leave: they serve until others have taken their tablets over.
//! Memory and disk are given for all servers together, and each has an even share.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use cluster::ServerId;
use cluster::lock_service::LockService;
use parking_lot::RwLock;

use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::control::{Recovery, TabletControl};
use crate::error::{Error, Result};
use crate::server::{TabletServer, TabletServerOptions};
use crate::servers::Servers;

/// Servers of one process at most.
pub const SERVER_COUNT_MAX: usize = 64;

const LOG_SEGMENT_BYTES_MIN: u64 = 4 << 20;

/// What a fleet is told when it opens.
#[derive(Clone, Debug)]
pub struct FleetOptions {
    /// Where the servers' directories are.
    pub dir: PathBuf,
    /// Servers, 1 to [`SERVER_COUNT_MAX`].
    pub server_count: usize,
    /// What each of them is told, but for its name and directory; what its
    /// engine may take is that of all of them together.
    pub each: TabletServerOptions,
}

impl FleetOptions {
    /// The defaults for `server_count` servers in `dir`.
    pub fn new(dir: PathBuf, server_count: usize) -> Self {
        let each = TabletServerOptions::new(server_id(1), dir.join(dir_name(1)));
        Self { dir, server_count, each }
    }
}

/// The open servers.
pub struct Fleet {
    options: FleetOptions,
    /// Those that the memory is shared among.
    share_count: usize,
    fs: Arc<dyn vfs::FileSystem>,
    lock_service: Arc<dyn LockService>,
    catalog: Arc<Catalog>,
    clock: Clock,
    directory: Arc<Servers>,
    open: RwLock<BTreeMap<ServerId, Arc<TabletServer>>>,
}

impl Fleet {
    /// Opens the servers, those too that are to leave, one after the other.
    ///
    /// # Errors
    ///
    /// As [`TabletServer::open`]: then none is open.
    pub async fn open(
        options: FleetOptions,
        fs: Arc<dyn vfs::FileSystem>,
        lock_service: Arc<dyn LockService>,
        catalog: Arc<Catalog>,
        clock: Clock,
    ) -> Result<Arc<Self>> {
        let mut numbers: Vec<_> = (1..=options.server_count.clamp(1, SERVER_COUNT_MAX)).collect();
        for number in numbers.len() + 1..=SERVER_COUNT_MAX {
            if fs.exists(&options.dir.join(dir_name(number))).map_err(lsm::Error::from)? {
                numbers.push(number);
            }
        }
        let fleet = Self {
            share_count: numbers.len(),
            options,
            fs,
            lock_service,
            catalog,
            clock,
            directory: Arc::default(),
            open: RwLock::default(),
        };
        for number in numbers {
            let server = fleet.open_one(number).await?;
            fleet.let_serve(number, &server);
            fleet.open.write().insert(server.id().clone(), server);
        }
        Ok(Arc::new(fleet))
    }

    /// The servers as gateways and the master find them.
    pub fn directory(&self) -> &Arc<Servers> {
        &self.directory
    }

    /// The open servers, in order of their names.
    pub fn servers(&self) -> Vec<Arc<TabletServer>> {
        self.open.read().values().cloned().collect()
    }

    /// Closes all servers.
    ///
    /// # Errors
    ///
    /// That of the last one that could not be closed in order; all are closed.
    pub async fn close(&self) -> Result<()> {
        let mut outcome = Ok(());
        for server in self.servers() {
            outcome = server.close().await.and(outcome);
        }
        outcome
    }

    async fn open_one(&self, number: usize) -> Result<Arc<TabletServer>> {
        let mut options = self.options.each.clone();
        options.id = server_id(number);
        options.dir = self.options.dir.join(dir_name(number));
        options.engine = share(options.engine, self.share_count);
        let (fs, catalog, clock) = (Arc::clone(&self.fs), Arc::clone(&self.catalog), Arc::clone(&self.clock));
        TabletServer::open(options, fs, &*self.lock_service, catalog, clock).await
    }

    fn let_serve(&self, number: usize, server: &Arc<TabletServer>) {
        if number <= self.options.server_count {
            self.directory.join(Arc::clone(server));
        } else {
            self.directory.join_to_leave(Arc::clone(server));
        }
    }

    fn number(&self, server: &ServerId) -> Result<usize> {
        let numbers = 1..=SERVER_COUNT_MAX;
        let unknown = || Error::NoServer { server: server.to_string() };
        numbers.into_iter().find(|number| server_id(*number) == *server).ok_or_else(unknown)
    }
}

#[async_trait]
impl Recovery for Fleet {
    async fn recover(&self, server: &ServerId) -> Result<Arc<dyn TabletControl>> {
        let number = self.number(server)?;
        self.directory.leave(server);
        let dead = self.open.write().remove(server);
        if let Some(dead) = dead {
            dead.kill().await;
        }
        let recovered = self.open_one(number).await?;
        self.open.write().insert(server.clone(), Arc::clone(&recovered));
        self.directory.attend(Arc::clone(&recovered) as _);
        Ok(recovered)
    }

    fn welcome(&self, server: &ServerId) {
        let recovered = self.open.read().get(server).cloned();
        if let (Some(recovered), Ok(number)) = (recovered, self.number(server)) {
            self.let_serve(number, &recovered);
        }
    }
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet").field("dir", &self.options.dir).finish_non_exhaustive()
    }
}

fn server_id(number: usize) -> ServerId {
    ServerId(format!("tablet-server-{number}"))
}

/// The name of the directory of the server of this number, from 1 on.
pub fn dir_name(number: usize) -> String {
    if number == 1 { "tablet-server".to_owned() } else { format!("tablet-server-{number}") }
}

/// What one of `count` engines may take of what all of them may.
fn share(all: lsm::Options, count: usize) -> lsm::Options {
    let (bytes, count) = (count as u64, count.max(1));
    let log_segment_bytes = match all.log_segment_bytes {
        small if small <= LOG_SEGMENT_BYTES_MIN => small,
        large => (large / bytes).max(LOG_SEGMENT_BYTES_MIN),
    };
    lsm::Options {
        memory_bytes_max: all.memory_bytes_max / count,
        memtable_bytes_max: all.memtable_bytes_max / count,
        in_memory_bytes_max: all.in_memory_bytes_max / count,
        log_buffer_bytes_max: all.log_buffer_bytes_max / count,
        log_segment_bytes,
        log_bytes_max: (all.log_bytes_max / bytes).max(2 * log_segment_bytes),
        compaction_threads: (all.compaction_threads / count).max(1),
        background_bytes_per_s: all.background_bytes_per_s / bytes,
        ..all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_only_server_has_it_all_and_each_of_many_enough() {
        let all = lsm::Options::default();
        let alone = share(all.clone(), 1);
        assert_eq!((alone.memory_bytes_max, alone.log_bytes_max), (all.memory_bytes_max, all.log_bytes_max));
        let one_of_eight = share(all.clone(), 8);
        assert_eq!(one_of_eight.memory_bytes_max * 8, all.memory_bytes_max);
        assert!(one_of_eight.log_bytes_max >= 2 * one_of_eight.log_segment_bytes);
        assert_eq!(one_of_eight.compaction_threads, 1);
    }
}
