//! The doors: bound together, announced together.

use std::net::SocketAddr;

use cluster::{Door, DoorOptions};

use super::memcached_doors::MemcachedDoors;
use super::{ServeError, count};
use crate::config::{Config, Listen};

/// What an HTTP client is told whose connection is one too many.
const HTTP_REFUSAL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// Bound sockets that nobody serves yet.
#[derive(Debug)]
pub(super) struct Doors {
    pub(super) bigtable: Door,
    pub(super) photos: Door,
    pub(super) memcached: MemcachedDoors,
    pub(super) console: Door,
}

impl Doors {
    /// Binds all, or none.
    pub(super) async fn open(config: &Config) -> Result<Self, ServeError> {
        let open = async |name, listen: &Listen, refusal| {
            Door::open(DoorOptions {
                name,
                address: listen.address,
                insecure: config.insecure,
                connection_count_max: count(listen.connections_max),
                refusal,
            })
            .await
        };
        Ok(Self {
            // A gRPC client takes a closed connection for UNAVAILABLE and retries.
            bigtable: open("bigtable", &config.bigtable, b"").await?,
            photos: open("photos", &config.photos, HTTP_REFUSAL).await?,
            memcached: MemcachedDoors::open(config).await?,
            console: open("console", &config.console, HTTP_REFUSAL).await?,
        })
    }

    /// Each door's name and its real address.
    pub(super) fn addresses(&self) -> Vec<(&'static str, SocketAddr)> {
        let address = |door: &Door| (door.name(), door.local_address());
        let first = [&self.bigtable, &self.photos].map(address);
        first.into_iter().chain(self.memcached.addresses()).chain([address(&self.console)]).collect()
    }
}
