//! The photo service: store, image work and directory behind one value.

mod uploads;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cluster::{Door, Shutdown};
use row_api::client::RowClient;
use vfs::FileSystem;

use crate::blob::Blobs;
use crate::care::CareOptions;
use crate::compaction::Compacted;
use crate::directory::Directory;
use crate::error::Result;
use crate::http;
use crate::imaging::variant::Variant;
use crate::imaging::{Imaging, ImagingOptions, Rendition};
use crate::in_flight::InFlight;
use crate::logical::LogicalVolumes;
use crate::media_type::MediaType;
use crate::options::HaystackOptions;
use crate::partial_upload::PartialUploads;
use crate::photo::Photo;
use crate::photo_id::{PhotoId, PhotoSize, VolumeId};
use crate::photo_store::PhotoStore;
use crate::scrub::Scrubbed;
use crate::store::{Deleted, StoreOptions, Surroundings, VolumeStats};
use crate::tables::Tables;
use crate::upload_key::UploadKeys;
use crate::variants::{RenderedVariant, Variants};
use crate::volume::{StoredNeedle, VolumeOptions};

/// Time between two updates of the gauges.
const GAUGE_PERIOD: Duration = Duration::from_secs(5);
/// Time between two looks for uploads that have expired.
const SWEEP_PERIOD: Duration = Duration::from_secs(600);

/// The photo service as operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HaystackStats {
    /// Whether uploads are taken: the directory's tables are there.
    pub directory_ready: bool,
    /// Each volume of this process.
    pub volumes: Vec<VolumeStats>,
}

/// The photo service. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Haystack {
    inner: Arc<Inner>,
}

struct Inner {
    options: HaystackOptions,
    store: PhotoStore,
    imaging: Imaging,
    variants: Variants,
    tables: Arc<Tables>,
    directory: Directory,
    blobs: Blobs,
    upload_keys: UploadKeys,
    partial_uploads: PartialUploads,
    surroundings: Surroundings,
    uploads_in_flight: InFlight,
    answers_in_flight: InFlight,
}

impl fmt::Debug for Haystack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Haystack").field("options", &self.inner.options).finish_non_exhaustive()
    }
}

impl Haystack {
    /// Opens the volumes in `options.dir` and recovers them. Blocks. Photos can
    /// be read at once; uploads are taken after [`Haystack::serve`] has found the
    /// row service behind `rows`.
    ///
    /// # Errors
    ///
    /// - [`crate::Error::BadOption`]
    /// - [`crate::Error::InUse`]: another process has the directory open.
    /// - [`crate::Error::Io`]
    pub fn open(options: HaystackOptions, fs: Arc<dyn FileSystem>, rows: RowClient) -> Result<Self> {
        options.check()?;
        let store_options = StoreOptions {
            volumes: VolumeOptions {
                volume_bytes_max: options.volume_bytes_max,
                extent_bytes: options.extent_bytes,
            },
            care: CareOptions {
                compaction_garbage_percent: options.compaction_garbage_percent,
                compaction_bytes_per_second: options.compaction_bytes_per_second,
                scrub_bytes_per_second: options.scrub_bytes_per_second,
            },
            write_enabled_count: options.write_enabled_volume_count,
            disk_reserve_bytes: options.disk_reserve_bytes,
            blocking_read_count_max: options.blocking_read_count_max,
        };
        let imaging = Imaging::new(ImagingOptions {
            pixel_count_max: options.pixel_count_max,
            derived_edges_px: options.derived_edges_px,
            jpeg_quality: options.jpeg_quality,
            originals_untouched: options.originals_untouched,
            thread_count: options.imaging_thread_count,
            queue_max: options.imaging_queue_max,
        });
        let surroundings = Surroundings::default();
        let dir = &options.dir;
        let store = match &options.stores {
            None => PhotoStore::embedded(fs, dir, store_options)?,
            Some(stores) => PhotoStore::replicated(&fs, dir, store_options, stores, rows.clone())?,
        };
        let in_flight = |what, bytes_max| InFlight::new(what, bytes_max, options.body_timeout);
        let tables = Arc::new(Tables::new(rows));
        let variants = Variants::new(imaging.clone(), options.variant_cache_bytes_max);
        let inner = Inner {
            uploads_in_flight: in_flight("uploads", options.body_bytes_in_flight_max),
            answers_in_flight: in_flight("answers", options.answer_bytes_in_flight_max),
            options,
            store,
            variants,
            imaging,
            directory: Directory::new(Arc::clone(&tables)),
            blobs: Blobs::new(Arc::clone(&tables)),
            upload_keys: UploadKeys::new(Arc::clone(&tables)),
            partial_uploads: PartialUploads::new(Arc::clone(&tables)),
            surroundings,
            tables,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Serves the photo door until `shutdown` begins; connections are tasks of
    /// `shutdown`, which end after the request that they are in.
    pub async fn serve(&self, door: Door, shutdown: Shutdown) {
        self.inner.tables.start(&shutdown);
        self.inner.store.start(&shutdown);
        let gauges = self.clone();
        let stop = shutdown.clone();
        shutdown.spawn(async move {
            while tokio::time::timeout(GAUGE_PERIOD, stop.begun()).await.is_err() {
                gauges.publish_gauges();
            }
        });
        let (sweeping, stop) = (self.clone(), shutdown.clone());
        shutdown.spawn(async move {
            while tokio::time::timeout(SWEEP_PERIOD, stop.begun()).await.is_err() {
                if let Err(error) = sweeping.sweep_uploads().await {
                    tracing::debug!(%error, "expired uploads stay until the next sweep");
                }
            }
        });
        http::serve(self.clone(), door, shutdown).await;
    }

    /// Returns once uploads are taken: [`Haystack::serve`] has found the row
    /// service and made the directory's tables.
    ///
    /// # Cancel safety
    ///
    /// Safe to drop and to call again.
    pub async fn wait_until_ready(&self) {
        self.inner.tables.wait_until_ready().await;
        self.inner.store.wait_until_ready().await;
    }

    /// Writes what is queued and ends the volumes' writers. Call it after
    /// `shutdown` has drained: later uploads and deletes are refused.
    pub async fn close(&self) {
        let service = self.clone();
        if tokio::task::spawn_blocking(move || service.inner.store.close()).await.is_err() {
            tracing::error!("closing the volumes failed");
        }
    }

    /// Each volume, and whether uploads are taken.
    pub fn stats(&self) -> HaystackStats {
        let directory_ready = self.inner.tables.is_ready() && self.inner.store.is_ready();
        HaystackStats { directory_ready, volumes: self.inner.store.stats() }
    }

    /// The logical volumes over several stores; none where all photos are kept
    /// in this process alone.
    pub fn logical_volumes(&self) -> Option<&Arc<LogicalVolumes>> {
        self.inner.store.logical()
    }

    /// The options it runs under.
    pub fn options(&self) -> &HaystackOptions {
        &self.inner.options
    }

    /// Reads `size` of the photo `id`, verified; none if there is no such photo
    /// or its cookie is another.
    ///
    /// # Errors
    ///
    /// As [`Store::read`](crate::store::Store::read) and [`LogicalVolumes::read`].
    pub async fn read(&self, id: &PhotoId, size: PhotoSize) -> Result<Option<StoredNeedle>> {
        self.inner.store.read(id, size).await
    }

    /// `variant` of the photo `id`; none if there is no such photo.
    ///
    /// # Errors
    ///
    /// As [`Haystack::read`], and [`crate::Error::Busy`] where too many are being made.
    pub async fn variant(&self, id: &PhotoId, variant: Variant) -> Result<Option<RenderedVariant>> {
        // The smallest size tells whether the photo is still there, and whether the cookie is right.
        let Some(thumb) = self.read(id, PhotoSize::Thumb).await? else { return Ok(None) };
        let size = variant.source(self.inner.options.derived_edges_px);
        let source = async {
            let needle = match size {
                PhotoSize::Thumb => thumb,
                size => self.read(id, size).await?.unwrap_or(thumb),
            };
            Ok((needle.media_type, needle.data))
        };
        self.inner.variants.get(id, variant, source).await.map(Some)
    }

    /// Makes the sizes of the image in `upload` and stores them: a photo, but
    /// for its row.
    ///
    /// # Durability
    ///
    /// Its needles are durable when this returns; nobody finds them before
    /// [`Haystack::publish`].
    ///
    /// # Errors
    ///
    /// As [`Imaging::renditions`], [`Store::append`](crate::store::Store::append) and
    /// [`LogicalVolumes::append`].
    pub(crate) async fn store_photo(&self, upload: Bytes, filename: Option<String>) -> Result<Photo> {
        let renditions = self.inner.imaging.renditions(upload).await?;
        let id = self.inner.store.append(&distinct(&renditions)).await?;
        Ok(Photo::new(id, &renditions, None, filename))
    }

    /// Writes the rows of `photos`, which are stored.
    ///
    /// # Durability
    ///
    /// They are durable when this returns. If it fails the photos are gone.
    ///
    /// # Errors
    ///
    /// [`crate::Error::DirectoryAway`], [`crate::Error::Directory`]
    pub(crate) async fn publish(&self, photos: &[Photo]) -> Result<()> {
        let Err(error) = self.insert_rows(photos).await else { return Ok(()) };
        self.withdraw(photos).await;
        for photo in photos {
            // Some rows may have been written; those that stay lead to a 404.
            let _ = self.inner.directory.remove(&photo.id).await;
        }
        Err(error)
    }

    async fn insert_rows(&self, photos: &[Photo]) -> Result<()> {
        let rows = photos.iter().map(|photo| self.inner.directory.insert(photo));
        let outcomes = futures_util::future::join_all(rows).await;
        outcomes.into_iter().find_map(Result::err).map_or(Ok(()), Err)
    }

    /// Deletes the needles of `photos`, whose upload failed in a later step.
    pub(crate) async fn withdraw(&self, photos: &[Photo]) {
        for photo in photos {
            if let Err(error) = self.inner.store.delete(&photo.id).await {
                tracing::warn!(id = %photo.id, %error, "a photo that nobody knows of stays in its volume");
            }
        }
    }

    /// Deletes the photo `id`: its needles, then its rows.
    ///
    /// # Durability
    ///
    /// The photo cannot be read again once its tombstone is synced, before this returns.
    ///
    /// # Errors
    ///
    /// As [`Store::delete`](crate::store::Store::delete) and [`LogicalVolumes::delete`], or the directory's: then rows are left, and
    /// deleting again removes them.
    pub async fn delete(&self, id: &PhotoId) -> Result<Deleted> {
        let deleted = self.inner.store.delete(id).await?;
        if deleted != Deleted::WrongCookie {
            self.inner.directory.remove(id).await?;
        }
        Ok(deleted)
    }

    /// Compacts the volume `id` while it is read and written.
    ///
    /// # Errors
    ///
    /// As [`Store::compact_volume`](crate::store::Store::compact_volume).
    pub async fn compact_volume(&self, id: VolumeId) -> Result<Compacted> {
        self.inner.store.compact_volume(id).await
    }

    /// Reads every live needle of the volume `id`.
    ///
    /// # Errors
    ///
    /// As [`Store::scrub_volume`](crate::store::Store::scrub_volume).
    pub async fn scrub_volume(&self, id: VolumeId) -> Result<Scrubbed> {
        self.inner.store.scrub_volume(id).await
    }

    /// Whether the tables answer: nothing is stored before.
    pub(crate) fn is_ready(&self) -> bool {
        self.inner.tables.is_ready()
    }

    /// The volumes.
    pub(crate) fn store(&self) -> &PhotoStore {
        &self.inner.store
    }

    /// The names of blobs.
    pub(crate) fn blobs(&self) -> &Blobs {
        &self.inner.blobs
    }

    /// The keys of uploads.
    pub(crate) fn upload_keys(&self) -> &UploadKeys {
        &self.inner.upload_keys
    }

    /// Uploads that come in parts.
    pub(crate) fn partial_uploads(&self) -> &PartialUploads {
        &self.inner.partial_uploads
    }

    /// The time, ms since 1970.
    pub(crate) fn now_ms(&self) -> u64 {
        (self.inner.surroundings.now_ms)()
    }

    /// A number that nobody can guess.
    pub(crate) fn random(&self) -> u64 {
        (self.inner.surroundings.random)()
    }

    /// The photo directory.
    pub(crate) fn directory(&self) -> &Directory {
        &self.inner.directory
    }

    /// Room for the bodies of uploads.
    pub(crate) fn uploads_in_flight(&self) -> &InFlight {
        &self.inner.uploads_in_flight
    }

    /// Room for large answers.
    pub(crate) fn answers_in_flight(&self) -> &InFlight {
        &self.inner.answers_in_flight
    }

    fn publish_gauges(&self) {
        if let Some(volumes) = self.logical_volumes() {
            volumes.publish_gauges();
        }
        for stats in self.stats().volumes {
            let volume = stats.volume.to_string();
            let gauge = |name: &'static str, value: u64| {
                // Good to 2^53, which no count here reaches.
                #[expect(clippy::cast_precision_loss, reason = "gauges are floating point")]
                metrics::gauge!(name, "volume" => volume.clone()).set(value as f64);
            };
            gauge("hayloft_haystack_volume_bytes", stats.volume_bytes);
            gauge("hayloft_haystack_volume_live_bytes", stats.totals.live_bytes);
            gauge("hayloft_haystack_volume_garbage_bytes", stats.garbage_bytes);
            gauge("hayloft_haystack_volume_photos", stats.totals.photo_count as u64);
            gauge("hayloft_haystack_volume_needles", stats.totals.needle_count as u64);
            gauge("hayloft_haystack_volume_tombstones", stats.totals.tombstone_count as u64);
            gauge("hayloft_haystack_index_memory_bytes", stats.index_memory_bytes as u64);
        }
    }
}

/// The renditions that are stored: one that shares the bytes of the one before
/// is found through it.
fn distinct(renditions: &[Rendition]) -> Vec<(PhotoSize, MediaType, Bytes)> {
    let mut distinct: Vec<(PhotoSize, MediaType, Bytes)> = Vec::with_capacity(renditions.len());
    for Rendition { size, media_type, data, .. } in renditions {
        let same = distinct.last().is_some_and(|(_, _, last)| last.as_ptr() == data.as_ptr());
        if *size == PhotoSize::Large || !same {
            distinct.push((*size, *media_type, data.clone()));
        }
    }
    distinct
}
