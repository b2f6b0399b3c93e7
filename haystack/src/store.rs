//! The Haystack machine: the volumes of one data directory (Haystack 3.4).
//!
//! A photo goes to a write-enabled volume, each in turn; when none is left a new
//! one is created (`placement.rs`). A volume that seals under a photo's feet costs
//! it another try in another volume, under another id: its first id was never
//! given out.

mod placement;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Semaphore;
use vfs::{FileLock, FileSystem};

use crate::care::{self, CareOptions};
use crate::compaction::{Compacted, CompactionTerms};
use crate::error::{Error, Result};
use crate::index::Totals;
use crate::media_type::MediaType;
use crate::needle::DATA_BYTES_MAX;
use crate::overseer::{Overseer, Unknown};
use crate::pace::{Pace, Stop};
use crate::photo_id::{Cookie, PhotoId, PhotoKey, PhotoSize, VolumeId};
use crate::scrub::{Scrubbed, scrub_volume};
use crate::volume::{FoundNeedle, StoredNeedle, Volume, VolumeOptions, volume_of_path};
use crate::writer::Purpose;

/// Volumes that one photo is tried in.
const APPEND_ATTEMPT_COUNT_MAX: usize = 3;

/// What a store does not decide itself: time and chance, and what others have.
#[derive(Clone)]
pub struct Surroundings {
    /// The time, ms since 1970.
    pub now_ms: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// A number that nobody can guess.
    pub random: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Who knows of other replicas of its volumes.
    pub overseer: Arc<dyn Overseer>,
}

impl Default for Surroundings {
    fn default() -> Self {
        Self { now_ms: Arc::new(system_now_ms), random: Arc::new(rand::random), overseer: Arc::new(Unknown) }
    }
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Surroundings")
    }
}

fn system_now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(0)
}

/// The part of the options that concerns volumes.
#[derive(Clone, Copy, Debug)]
pub struct StoreOptions {
    /// How its volumes are laid out.
    pub volumes: VolumeOptions,
    /// How they are cared for.
    pub care: CareOptions,
    /// Volumes that take photos at once.
    pub write_enabled_count: usize,
    /// Bytes of the disk that photos leave free.
    pub disk_reserve_bytes: u64,
    /// Reads that wait for a disk at once.
    pub blocking_read_count_max: usize,
}

/// How a delete ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// The photo was there and is gone for good.
    Now,
    /// There is no such photo.
    Absent,
    /// There is a photo, and its cookie is another: to this caller there is none.
    WrongCookie,
}

/// One volume as operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeStats {
    /// The logical volume.
    pub volume: VolumeId,
    /// What it takes.
    pub state: &'static str,
    /// What its index counts.
    pub totals: Totals,
    /// The file's length, bytes.
    pub volume_bytes: u64,
    /// Bytes that a compaction would free.
    pub garbage_bytes: u64,
    /// Memory of its index, bytes.
    pub index_memory_bytes: usize,
}

/// The volumes of one directory. One process at a time holds it.
#[derive(Debug)]
pub struct Store {
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
    options: StoreOptions,
    surroundings: Surroundings,
    volumes: RwLock<BTreeMap<VolumeId, Arc<Volume>>>,
    /// Volumes whose files cannot be served, and why.
    ill: RwLock<BTreeMap<VolumeId, Error>>,
    /// Held while a volume is created, so that waiters share it.
    creating: tokio::sync::Mutex<()>,
    turn: AtomicUsize,
    last_key: AtomicU64,
    blocking_reads: Semaphore,
    /// Ends background work.
    stop: Stop,
    carers: Mutex<Vec<JoinHandle<()>>>,
    _lock: Box<dyn FileLock>,
}

impl Store {
    /// Opens the store in `dir`, creating it if it is not there, and recovers
    /// every volume. Blocks.
    ///
    /// # Errors
    ///
    /// - [`Error::InUse`]: another process has it open.
    /// - [`Error::Io`]. A volume whose superblock is damaged is no error: reads
    ///   of it fail.
    pub fn open(
        fs: Arc<dyn FileSystem>,
        dir: &Path,
        options: StoreOptions,
        surroundings: Surroundings,
    ) -> Result<Self> {
        fs.create_dir_all(dir)?;
        let lock_path = dir.join("LOCK");
        let lock = fs.lock(&lock_path).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => Error::InUse { path: lock_path },
            _ => error.into(),
        })?;
        let (mut volumes, mut ill) = (BTreeMap::new(), BTreeMap::new());
        for name in fs.list(dir)? {
            let Some(id) = volume_of_path(&name) else { continue };
            let path = dir.join(name.file_name().unwrap_or_default());
            match Volume::open(&fs, &path, options.volumes, Arc::clone(&surroundings.overseer)) {
                Ok(Some(volume)) => drop(volumes.insert(id, Arc::new(volume))),
                Ok(None) => fs.sync_dir(dir)?,
                Err(error @ Error::VolumeIll { .. }) => {
                    tracing::error!(path = %path.display(), %error, "the volume is not served");
                    ill.insert(id, error);
                }
                Err(error) => return Err(error),
            }
        }
        let key_max = volumes.values().filter_map(|volume| volume.core().index().key_max()).max();
        Ok(Self {
            fs,
            dir: dir.to_owned(),
            options,
            surroundings,
            volumes: RwLock::new(volumes),
            ill: RwLock::new(ill),
            creating: tokio::sync::Mutex::new(()),
            turn: AtomicUsize::new(0),
            last_key: AtomicU64::new(key_max.map_or(0, |key| key.0)),
            blocking_reads: Semaphore::new(options.blocking_read_count_max),
            stop: Stop::default(),
            carers: Mutex::default(),
            _lock: lock,
        })
    }

    /// Compacts and scrubs in the background from now on, until [`Store::close`].
    ///
    /// # Errors
    ///
    /// [`Error::Io`]: the system gives no thread.
    pub fn start_care(self: &Arc<Self>) -> Result<()> {
        let started = care::start(self, self.options.care, &self.stop);
        let threads = started.map_err(|source| vfs::Error::new("start the care of", &self.dir, source))?;
        self.carers.lock().extend(threads);
        Ok(())
    }

    /// Stores `sizes` of a new photo, given largest first, and returns its id.
    ///
    /// # Durability
    ///
    /// All sizes are synced when this returns.
    ///
    /// # Cancel safety
    ///
    /// If dropped, the photo may have become durable under an id that nobody knows.
    ///
    /// # Errors
    ///
    /// - [`Error::DiskFull`]: nothing was written.
    /// - [`Error::TooLarge`]: a size is larger than a needle.
    /// - [`Error::Poisoned`], [`Error::Io`]: every volume tried failed.
    /// - [`Error::Closing`]
    pub async fn append(&self, sizes: &[(PhotoSize, MediaType, Bytes)]) -> Result<PhotoId> {
        let limit_bytes = u64::from(DATA_BYTES_MAX);
        if let Some((_, _, data)) = sizes.iter().find(|(_, _, data)| data.len() as u64 > limit_bytes) {
            return Err(Error::TooLarge { found_bytes: data.len() as u64, limit_bytes });
        }
        self.check_disk()?;
        let key = self.next_key();
        let cookie = Cookie((self.surroundings.random)());
        let mut attempt = 1;
        loop {
            let volume = self.write_enabled_volume().await?;
            match volume.append(key, cookie, sizes, Purpose::Upload).await {
                Ok(()) => return Ok(PhotoId { volume: volume.core().id(), key, cookie }),
                Err(Error::Sealed { .. } | Error::Poisoned { .. } | Error::Io(_))
                    if attempt < APPEND_ATTEMPT_COUNT_MAX =>
                {
                    attempt += 1;
                }
                Err(Error::DiskFull { .. }) => return Err(self.disk_full()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads `size` of the photo `id`; none if there is no such photo, or its
    /// cookie is another. One read of the disk at most.
    ///
    /// # Errors
    ///
    /// - [`Error::Damaged`]: the needle is not what was written.
    /// - [`Error::VolumeIll`], [`Error::Io`]
    pub async fn read(&self, id: &PhotoId, size: PhotoSize) -> Result<Option<StoredNeedle>> {
        let Some(volume) = self.volume(id.volume)? else { return Ok(None) };
        let Some(found) = volume.locate(id.key, size) else { return Ok(None) };
        let needle = self.read_found(&volume, found).await?;
        Ok(Some(needle).filter(|needle| needle.cookie == id.cookie))
    }

    /// Deletes the photo `id`, all its sizes.
    ///
    /// # Durability
    ///
    /// It is gone for good when this returns [`Deleted::Now`].
    ///
    /// # Errors
    ///
    /// - [`Error::Poisoned`], [`Error::Io`], [`Error::Damaged`], [`Error::VolumeIll`]: it is still there.
    pub async fn delete(&self, id: &PhotoId) -> Result<Deleted> {
        let Some(volume) = self.volume(id.volume)? else { return Ok(Deleted::Absent) };
        match self.cookie(&volume, id.key).await? {
            None => return Ok(Deleted::Absent),
            Some(cookie) if cookie != id.cookie => return Ok(Deleted::WrongCookie),
            Some(_) => {}
        }
        match volume.delete(id.key, id.cookie).await {
            Ok(()) => Ok(Deleted::Now),
            Err(Error::DiskFull { .. }) => Err(self.disk_full()),
            Err(error) => Err(error),
        }
    }

    /// The cookie of the photo `key`, from the smallest of its needles that can
    /// be read: who has the cookie may delete a photo that is damaged.
    pub(crate) async fn cookie(&self, volume: &Arc<Volume>, key: PhotoKey) -> Result<Option<Cookie>> {
        let mut outcome = Ok(None);
        for found in volume.locate_all(key) {
            match self.read_found(volume, found).await {
                Ok(needle) => return Ok(Some(needle.cookie)),
                Err(error) => outcome = Err(error),
            }
        }
        outcome
    }

    /// Compacts the volume `id` as fast as can be, while it is read and written.
    ///
    /// # Durability
    ///
    /// Until this returns a crash leaves the volume as it was or compacted.
    ///
    /// # Cancel safety
    ///
    /// If dropped, the compaction goes on.
    ///
    /// # Errors
    ///
    /// - [`Error::NoReplica`], [`Error::VolumeIll`]
    /// - [`Error::DiskFull`]: there is no room for the copy.
    /// - As [`Volume::compact`].
    pub async fn compact_volume(self: &Arc<Self>, id: VolumeId) -> Result<Compacted> {
        let volume = self.named(id)?;
        let (store, pace) = (Arc::clone(self), Pace::new(0, self.stop.clone()));
        let compact = move || store.compact(&volume, pace);
        tokio::task::spawn_blocking(compact).await.map_err(|_| Error::Closing)?
    }

    /// Compacts `volume` at `pace`. Blocks.
    pub(crate) fn compact(&self, volume: &Volume, pace: Pace) -> Result<Compacted> {
        let begun = std::time::Instant::now();
        let terms = CompactionTerms {
            physical_volume: (self.surroundings.random)(),
            now_ms: (self.surroundings.now_ms)(),
            pace,
        };
        let Compacted { bytes_before, bytes_after } =
            volume.compact(terms).map_err(|error| self.name_full_disk(error))?;
        let seconds = begun.elapsed().as_secs_f64();
        tracing::info!(volume = %volume.core().id(), bytes_before, bytes_after, seconds, "a volume is compacted");
        metrics::counter!("hayloft_haystack_compactions_total").increment(1);
        metrics::counter!("hayloft_haystack_compacted_bytes_total").increment(bytes_before);
        Ok(Compacted { bytes_before, bytes_after })
    }

    /// Reads every live needle of the volume `id`, as fast as can be.
    ///
    /// # Cancel safety
    ///
    /// If dropped, the scrub goes on.
    ///
    /// # Errors
    ///
    /// - [`Error::NoReplica`], [`Error::VolumeIll`]
    /// - As [`scrub_volume`].
    pub async fn scrub_volume(&self, id: VolumeId) -> Result<Scrubbed> {
        let volume = self.named(id)?;
        let mut pace = Pace::new(0, self.stop.clone());
        let scrub = move || scrub_volume(&volume, &mut pace);
        tokio::task::spawn_blocking(scrub).await.map_err(|_| Error::Closing)?
    }

    /// Each volume, in the order of their numbers.
    pub fn stats(&self) -> Vec<VolumeStats> {
        self.served().iter().map(|volume| volume_stats(volume)).collect()
    }

    /// Ends background work, writes what is queued, and ends every writer. Blocks.
    pub fn close(&self) {
        self.stop.begin();
        for carer in self.carers.lock().drain(..) {
            if carer.join().is_err() {
                tracing::error!("a thread that cares for volumes panicked");
            }
        }
        self.served().iter().for_each(|volume| volume.close());
    }

    fn volume(&self, id: VolumeId) -> Result<Option<Arc<Volume>>> {
        let volume = self.volumes.read().get(&id).cloned();
        match volume {
            Some(volume) => Ok(Some(volume)),
            None => self.ill.read().get(&id).map_or(Ok(None), |error| Err(error.clone())),
        }
    }

    /// Reads a needle that the index of `volume` has found.
    pub(crate) async fn read_found(&self, volume: &Arc<Volume>, found: FoundNeedle) -> Result<StoredNeedle> {
        match found.try_read() {
            Ok(Some(needle)) => return Ok(needle),
            Ok(None) => {}
            Err(error) => {
                volume.core().report(&found, &error);
                return Err(error);
            }
        }
        let _permit = self.blocking_reads.acquire().await.map_err(|_| Error::Closing)?;
        let volume = Arc::clone(volume);
        let read = move || found.read().inspect_err(|error| _ = volume.core().report(&found, error));
        tokio::task::spawn_blocking(read).await.map_err(|_| Error::Closing)?
    }

    /// A key above every key given out before, in this life or an earlier one.
    fn next_key(&self) -> PhotoKey {
        let now = PhotoKey::first_at((self.surroundings.now_ms)()).0;
        let update = |last: u64| Some(now.max(last + 1));
        let last = self.last_key.fetch_update(Ordering::AcqRel, Ordering::Acquire, update);
        let last = last.expect("the update always gives a value");
        PhotoKey(now.max(last + 1))
    }
}

fn volume_stats(volume: &Volume) -> VolumeStats {
    let core = volume.core();
    let garbage_bytes = core.garbage_bytes();
    let index = core.index();
    VolumeStats {
        volume: core.id(),
        state: core.state().name(),
        totals: index.totals(),
        volume_bytes: core.tail_offset(),
        garbage_bytes,
        index_memory_bytes: index.memory_bytes(),
    }
}
