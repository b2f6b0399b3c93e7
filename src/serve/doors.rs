//! The four doors: bound together, announced together.

use std::net::SocketAddr;

use cluster::{Door, DoorError, DoorOptions};

use crate::config::{Config, Listen};

/// What an HTTP client is told whose connection is one too many.
const HTTP_REFUSAL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// Bound sockets that nobody serves yet.
#[derive(Debug)]
pub(super) struct Doors {
    pub(super) bigtable: Door,
    pub(super) photos: Door,
    pub(super) memcached: Door,
    pub(super) console: Door,
}

impl Doors {
    /// Binds all four, or none.
    pub(super) async fn open(config: &Config) -> Result<Self, DoorError> {
        let open = async |name, listen: &Listen, refusal| {
            Door::open(DoorOptions {
                name,
                address: listen.address,
                insecure: config.insecure,
                connection_count_max: usize::try_from(listen.connections_max).unwrap_or(usize::MAX),
                refusal,
            })
            .await
        };
        Ok(Self {
            // A gRPC client takes a closed connection for UNAVAILABLE and retries.
            bigtable: open("bigtable", &config.bigtable, b"").await?,
            photos: open("photos", &config.photos, HTTP_REFUSAL).await?,
            memcached: open("memcached", &config.memcached, cache_proxy::REFUSAL).await?,
            console: open("console", &config.console, HTTP_REFUSAL).await?,
        })
    }

    /// Each door's name and its real address.
    pub(super) fn addresses(&self) -> Vec<(&'static str, SocketAddr)> {
        [&self.bigtable, &self.photos, &self.memcached, &self.console]
            .map(|door| (door.name(), door.local_address()))
            .into()
    }
}
