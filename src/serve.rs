//! Every role in one process, from binding the doors to the last sync.
//!
//! Doors are bound before anything is opened, so that an address in use is
//! reported at once and changes nothing; the console answers from then on, while
//! the rest recovers. Stopping goes the other way round: doors close and drain,
//! then the photo store closes, then the tablet server, and the cache is saved.

mod cache;
mod doors;
mod home;
mod memcached_doors;
mod rows;
mod warm_restart;

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use cache_proxy::Cache;
use cluster::lock_service::LockError;
use cluster::telemetry::{self, EventsError, Telemetry};
use cluster::{DoorError, Shutdown};
use haystack::options::StoresOptions;
use haystack::{Haystack, HaystackOptions};
use tokio::signal::unix::{SignalKind, signal};

use crate::bigtable_door;
use crate::config::Config;
use crate::console::{self, Console};
use crate::haystack_store::{self, TokenError};
use doors::Doors;
use home::Home;
use rows::Rows;
use tablet_server::gateway::Caller;

/// Why the process could not serve, or could not stop in order.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error("cannot start the runtime")]
    Runtime(#[source] std::io::Error),
    #[error(transparent)]
    Events(#[from] EventsError),
    #[error(transparent)]
    Door(#[from] DoorError),
    #[error("cannot make a temporary directory for --ephemeral")]
    Ephemeral(#[source] std::io::Error),
    #[error(
        "the data directory {} is in use by another hayloft; stop that one, or give this one its own with --data-dir",
        dir.display()
    )]
    InUse { dir: PathBuf },
    #[error("cannot open the lock service")]
    LockService(#[source] LockError),
    #[error("cannot open the tablet server")]
    TabletServer(#[source] tablet_server::Error),
    #[error("cannot close the tablet server; what was acknowledged is on disk")]
    Close(#[source] tablet_server::Error),
    #[error("cannot start the master")]
    Master(#[source] master::Error),
    #[error("cannot open the photo store")]
    Haystack(#[source] haystack::Error),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("cannot set up the cache")]
    Cache(#[source] cache_proxy::Error),
    #[error("memcached.tls_chain_file and memcached.tls_key_file are set together or not at all")]
    HalfOfTls,
    #[error("cannot remove the cache's saved items {}", path.display())]
    SavedItems {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("origins.rows is no address of a Bigtable door")]
    Origin(#[source] tonic::transport::Error),
}

/// Serves until SIGTERM or SIGINT, then stops in order.
pub(crate) fn run(config: &Config) -> Result<(), ServeError> {
    telemetry::init_events(config.events_format, &config.events_filter)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(ServeError::Runtime)?;
    runtime.block_on(serve(config))
}

async fn serve(config: &Config) -> Result<(), ServeError> {
    let doors = Doors::open(config).await?;
    let home = Home::open(config)?;
    let addresses = doors.addresses();
    let shutdown = Shutdown::new();
    stop_on_signal(&shutdown).map_err(ServeError::Runtime)?;

    let parts = Arc::new(Parts::new());
    tokio::spawn(console::serve(doors.console, parts.console(&addresses), shutdown.clone()));

    let rows = Rows::open(config, &home).await?;
    let rows = parts.rows.get_or_init(|| rows);
    let cache = cache::open(config, &home, rows, doors.photos.local_address())?;
    let cache = parts.cache.get_or_init(|| cache);
    let (items, keeps_items) = (home.cache_items(), config.cache_warm_restart && !config.ephemeral);
    if keeps_items {
        tokio::task::block_in_place(|| warm_restart::load(cache, &items));
    } else {
        warm_restart::discard(&items)
            .map_err(|source| ServeError::SavedItems { path: items.clone(), source })?;
    }
    let photos = open_photos(config, &home, rows).await?;
    let photos = parts.photos.get_or_init(|| photos).clone();

    doors.memcached.serve(cache, &shutdown);
    let (served, stop) = (photos.clone(), shutdown.clone());
    tokio::spawn(async move { served.serve(doors.photos, stop).await });
    tokio::spawn(bigtable_door::serve(
        doors.bigtable,
        rows.service(Caller::Public),
        rows.routes(Caller::Public),
        config.in_flight_bytes_max,
        shutdown.clone(),
    ));
    tokio::select! {
        () = photos.wait_until_ready() => announce(&addresses),
        () = shutdown.begun() => {}
    }

    shutdown.begun().await;
    rows.end_streams();
    tracing::info!(connections = shutdown.running_count(), "stopping");
    if !shutdown.drained(config.drain).await {
        tracing::warn!(connections = shutdown.running_count(), "some did not finish in time and are cut off");
    }
    photos.close().await;
    rows.close().await?;
    if keeps_items {
        tokio::task::block_in_place(|| warm_restart::save(cache, &items));
    }
    tracing::info!("stopped");
    Ok(())
}

/// The roles that have started so far, for the console.
struct Parts {
    telemetry: Telemetry,
    cache: OnceLock<Cache>,
    rows: OnceLock<Rows>,
    photos: OnceLock<Haystack>,
}

impl Parts {
    fn new() -> Self {
        Self {
            telemetry: Telemetry::install(),
            cache: OnceLock::new(),
            rows: OnceLock::new(),
            photos: OnceLock::new(),
        }
    }

    fn console(self: &Arc<Self>, addresses: &[(&'static str, SocketAddr)]) -> Console {
        let [for_readiness, for_metrics, for_tablets, for_photos, for_cache] =
            [(); 5].map(|()| Arc::clone(self));
        Console {
            not_ready: Box::new(move || for_readiness.not_ready().map(str::to_owned)),
            metrics: Box::new(move || for_metrics.metrics()),
            master: Box::new(move || Some(Arc::clone(for_tablets.rows.get()?.master()))),
            photos: Box::new(move || for_photos.photos.get().cloned()),
            cache: Box::new(move || for_cache.cache.get().cloned()),
            doors: addresses.iter().map(|(name, address)| (*name, address.to_string())).collect(),
        }
    }

    fn not_ready(&self) -> Option<&'static str> {
        if self.rows.get().is_none() {
            return Some("tablets are being recovered");
        }
        match self.photos.get() {
            None => Some("photo volumes are being recovered"),
            Some(photos) if !photos.stats().directory_ready => {
                Some("the photo directory does not answer yet")
            }
            Some(_) => None,
        }
    }

    fn metrics(&self) -> String {
        if let Some(cache) = self.cache.get() {
            cache.publish_metrics();
        }
        if let Some(rows) = self.rows.get() {
            rows.publish_metrics();
        }
        self.telemetry.render()
    }
}

/// A count that its key has kept small.
pub(crate) fn count(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// Opens the volumes; recovery reads files, so not on a thread that serves.
async fn open_photos(config: &Config, home: &Home, rows: &Rows) -> Result<Haystack, ServeError> {
    let stores = match config.stores.is_empty() {
        true => None,
        false => Some(StoresOptions {
            addresses: config.stores.clone(),
            token: haystack_store::token(config)?,
            labels: config.store_labels.clone(),
            replicas: config.replicas,
        }),
    };
    let options = HaystackOptions {
        dir: home.haystack(),
        stores,
        volume_bytes_max: config.volume_bytes_max,
        compaction_garbage_percent: u8::try_from(config.garbage_percent).unwrap_or(0),
        compaction_bytes_per_second: config.compaction_bytes_per_second,
        scrub_bytes_per_second: config.scrub_bytes_per_second,
        photo_bytes_max: config.photo_bytes_max,
        blob_bytes_max: config.blob_bytes_max,
        body_bytes_in_flight_max: config.photo_bodies_bytes_max,
        variants_listed: config.photo_variants.clone(),
        variant_cache_bytes_max: config.variant_cache_bytes,
        signing_keys: config.signing_keys.clone(),
        signed_only: config.signed_only,
        pixel_count_max: config.photo_pixels_max,
        imaging_thread_count: count(config.image_threads),
        ..HaystackOptions::default()
    };
    let (fs, client) = (Arc::clone(&home.fs), rows.client());
    let opened = tokio::task::spawn_blocking(move || Haystack::open(options, fs, client)).await;
    opened.expect("opening does not panic").map_err(ServeError::Haystack)
}

/// Prints where each door is, then `ready`.
pub(crate) fn announce(addresses: &[(&'static str, SocketAddr)]) {
    let lines: String = addresses.iter().map(|(name, address)| format!("{name:<10} {address}\n")).collect();
    // Whoever closed standard output does not want to know.
    let _ = writeln!(std::io::stdout().lock(), "{lines}ready").and_then(|()| std::io::stdout().flush());
}

/// Begins `shutdown` at the first SIGTERM or SIGINT; the second ends the
/// process on the spot.
pub(crate) fn stop_on_signal(shutdown: &Shutdown) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if shutdown.has_begun() {
                tracing::warn!("stopped without waiting");
                std::process::exit(130);
            }
            shutdown.begin();
        }
    });
    Ok(())
}
