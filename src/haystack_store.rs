//! `hayloft haystack-store`: the volumes of one machine, served to a `hayloft
//! serve` that keeps replicas on several. It knows nothing of rows, of other
//! stores or of who asks.

use std::path::PathBuf;
use std::sync::Arc;

use cluster::telemetry::{self, EventsError};
use cluster::{Door, DoorError, DoorOptions, Shutdown};
use haystack::HaystackOptions;
use haystack::care::CareOptions;
use haystack::options::Token;
use haystack::store::StoreOptions;
use haystack::stores::local::LocalStore;
use haystack::stores::server;
use haystack::volume::VolumeOptions;
use vfs::RealFileSystem;

use crate::config::Config;
use crate::serve::{announce, count, stop_on_signal};

/// Characters of a token.
const TOKEN_BYTES: std::ops::RangeInclusive<usize> = 16..=512;

/// What a client is told whose connection is one too many.
const REFUSAL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// Why the store could not serve.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HaystackStoreError {
    #[error("cannot start the runtime")]
    Runtime(#[source] std::io::Error),
    #[error(transparent)]
    Events(#[from] EventsError),
    #[error(transparent)]
    Door(#[from] DoorError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("cannot open the photo store")]
    Haystack(#[source] haystack::Error),
}

/// Why a token file is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("cannot read the token file {}", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "the token file {} must hold {} to {} visible ASCII characters",
        path.display(), TOKEN_BYTES.start(), TOKEN_BYTES.end()
    )]
    Bad { path: PathBuf },
}

/// The token that stores ask for, if they ask for one.
pub(crate) fn token(config: &Config) -> Result<Option<Token>, TokenError> {
    let Some(path) = &config.store_token_file else { return Ok(None) };
    let text = std::fs::read_to_string(path)
        .map_err(|source| TokenError::Unreadable { path: path.clone(), source })?;
    let token = text.trim();
    if !TOKEN_BYTES.contains(&token.len()) || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(TokenError::Bad { path: path.clone() });
    }
    Ok(Some(Token(token.to_owned())))
}

/// Serves until SIGTERM or SIGINT, then stops in order.
pub(crate) fn run(config: &Config) -> Result<(), HaystackStoreError> {
    telemetry::init_events(config.events_format, &config.events_filter)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(HaystackStoreError::Runtime)?;
    runtime.block_on(serve(config))
}

async fn serve(config: &Config) -> Result<(), HaystackStoreError> {
    let token = token(config)?;
    let door = Door::open(DoorOptions {
        name: "haystack-store",
        address: config.haystack_store.address,
        insecure: config.insecure || token.is_some(),
        connection_count_max: count(config.haystack_store.connections_max),
        refusal: REFUSAL,
    })
    .await?;
    let addresses = [(door.name(), door.local_address())];
    let shutdown = Shutdown::new();
    stop_on_signal(&shutdown).map_err(HaystackStoreError::Runtime)?;
    let served = open(config).await?;
    let store = Arc::clone(served.store());
    let token = token.map(|Token(token)| token);
    tokio::spawn(server::serve(Arc::new(served), token, door, shutdown.clone()));
    announce(&addresses);

    shutdown.begun().await;
    if !shutdown.drained(config.drain).await {
        tracing::warn!(connections = shutdown.running_count(), "some did not finish in time and are cut off");
    }
    let closed = tokio::task::spawn_blocking(move || store.close()).await;
    closed.expect("closing does not panic");
    tracing::info!("stopped");
    Ok(())
}

/// Opens the volumes; recovery reads files, so not on a thread that serves.
async fn open(config: &Config) -> Result<LocalStore, HaystackStoreError> {
    let defaults = HaystackOptions::default();
    let options = StoreOptions {
        volumes: VolumeOptions {
            volume_bytes_max: config.volume_bytes_max,
            extent_bytes: defaults.extent_bytes,
        },
        care: CareOptions {
            compaction_garbage_percent: u8::try_from(config.garbage_percent).unwrap_or(0),
            compaction_bytes_per_second: config.compaction_bytes_per_second,
            scrub_bytes_per_second: config.scrub_bytes_per_second,
        },
        write_enabled_count: defaults.write_enabled_volume_count,
        disk_reserve_bytes: defaults.disk_reserve_bytes,
        blocking_read_count_max: defaults.blocking_read_count_max,
    };
    let (dir, labels) = (config.data_dir.join("haystack"), config.store_labels.clone());
    let opened = tokio::task::spawn_blocking(move || {
        let served = LocalStore::open_in(Arc::new(RealFileSystem), &dir, options, labels)?;
        tracing::info!(store = %served.id(), dir = %dir.display(), "the store is open");
        Ok(served)
    })
    .await;
    opened.expect("opening does not panic").map_err(HaystackStoreError::Haystack)
}
