//! Where memcached clients come in: TCP or TLS, and a Unix socket and UDP if asked for.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use cache_proxy::{Cache, Certificates};
use cluster::{Door, DoorError, DoorOptions, Shutdown};
use tokio::net::{UdpSocket, UnixListener};

use super::{ServeError, count};
use crate::config::{CacheAccess, Config};

const UDP: &str = "memcached-udp";

/// Bound sockets that nobody serves yet.
#[derive(Debug)]
pub(super) struct MemcachedDoors {
    door: Door,
    /// With them the door speaks TLS.
    certificates: Option<Arc<Certificates>>,
    unix: Option<(UnixListener, PathBuf)>,
    udp: Option<(UdpSocket, SocketAddr)>,
}

impl MemcachedDoors {
    /// Binds all that are asked for, or none.
    pub(super) async fn open(config: &Config) -> Result<Self, ServeError> {
        let access = &config.cache_access;
        let certificates = read_certificates(access)?.map(Arc::new);
        // Neither passwords that anybody on the way reads, nor TLS that takes anybody in, is protection.
        let is_protected = certificates.is_some() && access.users_file.is_some();
        let door = Door::open(DoorOptions {
            name: "memcached",
            address: config.memcached.address,
            insecure: config.insecure || is_protected,
            connection_count_max: count(config.memcached.connections_max),
            refusal: cache_proxy::REFUSAL,
        })
        .await?;
        let udp = match access.udp {
            None => None,
            Some(address) => Some(open_udp(address, config.insecure).await?),
        };
        let unix = match &access.unix_socket {
            None => None,
            Some(path) => {
                let listener = Cache::open_unix(path, access.unix_mode).map_err(ServeError::Cache)?;
                Some((listener, path.clone()))
            }
        };
        Ok(Self { door, certificates, unix, udp })
    }

    /// The name and address of each that has an address.
    pub(super) fn addresses(&self) -> impl Iterator<Item = (&'static str, SocketAddr)> {
        let udp = self.udp.as_ref().map(|(_, address)| (UDP, *address));
        std::iter::once((self.door.name(), self.door.local_address())).chain(udp)
    }

    /// Has `cache` serve them until `shutdown` begins, in tasks that `shutdown` waits for.
    pub(super) fn serve(self, cache: &Cache, shutdown: &Shutdown) {
        let (door, tcp, stop) = (self.door, cache.clone(), shutdown.clone());
        match self.certificates {
            None => shutdown.spawn(async move { tcp.serve(door, stop).await }),
            Some(certificates) => {
                shutdown.spawn(async move { tcp.serve_tls(door, certificates, stop).await })
            }
        };
        if let Some((listener, path)) = self.unix {
            let (cache, stop) = (cache.clone(), shutdown.clone());
            shutdown.spawn(async move { cache.serve_unix(listener, path, stop).await });
        }
        if let Some((socket, _)) = self.udp {
            let (cache, stop) = (cache.clone(), shutdown.clone());
            shutdown.spawn(async move { cache.serve_udp(socket, stop).await });
        }
    }
}

fn read_certificates(access: &CacheAccess) -> Result<Option<Certificates>, ServeError> {
    match (&access.tls_chain_file, &access.tls_key_file) {
        (None, None) => Ok(None),
        (Some(chain), Some(key)) => {
            Certificates::read(chain.clone(), key.clone()).map(Some).map_err(ServeError::Cache)
        }
        _ => Err(ServeError::HalfOfTls),
    }
}

async fn open_udp(address: SocketAddr, insecure: bool) -> Result<(UdpSocket, SocketAddr), DoorError> {
    if !address.ip().is_loopback() && !insecure {
        return Err(DoorError::Exposed { door: UDP, address });
    }
    let bind = |source| DoorError::Bind { door: UDP, address, source };
    let socket = UdpSocket::bind(address).await.map_err(bind)?;
    let local = socket.local_addr().map_err(bind)?;
    Ok((socket, local))
}
