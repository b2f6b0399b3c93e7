//! The cache, wired to where its keys with a route lead.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use cache_proxy::{Cache, CacheOptions, Credential, OriginOptions, SystemClock};
use row_api::client::{self, RowClient};
use tonic::transport::Endpoint;

use super::home::Home;
use super::rows::Rows;
use super::{ServeError, count};
use crate::config::Config;

/// How often a connection to another machine's rows is tried, so that one that is gone is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Makes the cache; `photos` is where this process serves them.
pub(super) fn open(
    config: &Config,
    home: &Home,
    rows: &Rows,
    photos: SocketAddr,
) -> Result<Cache, ServeError> {
    let origins = &config.origins;
    let client = match &origins.rows {
        None => rows.client(),
        Some(uri) => row_client(uri)?,
    };
    let options = OriginOptions {
        instance: origins.instance.clone(),
        photos: Some(origins.photos.clone().unwrap_or_else(|| reachable(photos).to_string())),
        timeout: origins.timeout,
        call_count_max: count(origins.calls_max),
        staleness_max: origins.staleness_max,
        ..OriginOptions::default()
    };
    let files = (Arc::clone(&home.fs), home.cache_streams());
    Cache::with_origins(
        cache_options(config)?,
        options,
        client,
        Arc::new(SystemClock::new()),
        (files.0, &files.1),
    )
    .map_err(ServeError::Cache)
}

fn row_client(uri: &str) -> Result<RowClient, ServeError> {
    let endpoint = Endpoint::from_shared(uri.to_owned()).map_err(ServeError::Origin)?;
    let endpoint = endpoint
        .connect_timeout(KEEP_ALIVE)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true);
    Ok(RowClient::new(client::connect_lazy(&endpoint)))
}

fn cache_options(config: &Config) -> Result<CacheOptions, ServeError> {
    let users = config.cache_access.users_file.as_deref().map(Credential::read_file).transpose();
    Ok(CacheOptions {
        memory_bytes_max: config.cache_bytes,
        item_bytes_max: config.cache_item_bytes_max,
        connection_count_max: count(config.memcached.connections_max),
        credentials: users.map_err(ServeError::Cache)?.unwrap_or_default(),
        ..CacheOptions::default()
    })
}

/// An address that a door is reached under which listens on `address`.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
