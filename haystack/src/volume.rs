//! A physical volume: one append-only file, its index, and its writer's thread.
//!
//! `<logical volume, 8 hex digits>.volume` holds a superblock and then needles;
//! `….index` beside it is its checkpoint. Reads are by position from any thread;
//! writes go through the volume's queue to its one writer.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use vfs::{File, FileSystem};

use crate::compaction::{Compacted, Compaction, CompactionTerms, VolumePaths};
use crate::error::{Error, Result};
use crate::media_type::MediaType;
use crate::needle::{EncodedNeedle, NeedleHeader};
use crate::overseer::Overseer;
use crate::photo_id::{Cookie, PhotoKey, PhotoSize, VolumeId};
use crate::recovery::{Recovered, recover};
use crate::superblock::{SUPERBLOCK_BYTES, Superblock};
use crate::volume_core::Contents;
pub use crate::volume_core::{VolumeCore, VolumeOptions, VolumeState};
use crate::volume_file::VolumeFile;
pub use crate::volume_file::{FoundNeedle, StoredNeedle};
use crate::writer::{BATCH_WRITE_COUNT_MAX, Order, Purpose, Write, Writer};

/// When to ask again for a compaction while one runs.
const COMPACTION_RETRY_AFTER: Duration = Duration::from_secs(10);

/// An open volume.
#[derive(Debug)]
pub struct Volume {
    fs: Arc<dyn FileSystem>,
    paths: VolumePaths,
    core: Arc<VolumeCore>,
    orders: Mutex<Option<mpsc::Sender<Order>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Held by the compaction that runs.
    compacting: Mutex<()>,
}

impl Volume {
    /// Creates the files of a volume in `dir` and opens it.
    ///
    /// # Durability
    ///
    /// The superblock and the file's name are synced when this returns.
    pub fn create(
        fs: &Arc<dyn FileSystem>,
        dir: &Path,
        superblock: Superblock,
        options: VolumeOptions,
        overseer: Arc<dyn Overseer>,
    ) -> Result<Self> {
        let paths = VolumePaths::new(&volume_path(dir, superblock.logical_volume));
        let created = Self::create_files(&**fs, dir, &paths.volume, superblock)
            .and_then(|file| Self::recover(fs, &paths, file, superblock, options, overseer));
        if created.is_err() {
            // The name is wanted again; nobody was told of the volume.
            for left in [&paths.volume, &paths.index] {
                if let Err(error) = fs.remove(left) {
                    tracing::debug!(path = %left.display(), %error, "nothing to remove");
                }
            }
        }
        created
    }

    fn create_files(
        fs: &dyn FileSystem,
        dir: &Path,
        path: &Path,
        superblock: Superblock,
    ) -> Result<Arc<dyn File>> {
        let file = fs.create(path)?;
        file.write_all_at(&[IoSlice::new(&superblock.encode())], 0)?;
        file.sync()?;
        fs.sync_dir(dir)?;
        Ok(file)
    }

    /// Opens the volume in the file at `path` and recovers it; none, and the
    /// file removed, if its creation was never finished.
    ///
    /// # Errors
    ///
    /// - [`Error::VolumeIll`]: its superblock is damaged or of another version.
    /// - [`Error::Io`]
    pub fn open(
        fs: &Arc<dyn FileSystem>,
        path: &Path,
        options: VolumeOptions,
        overseer: Arc<dyn Overseer>,
    ) -> Result<Option<Self>> {
        let file = fs.open(path, vfs::Access::ReadWrite)?;
        let file_bytes = file.len()?;
        let mut bytes = [0; SUPERBLOCK_BYTES];
        let complete = file_bytes >= SUPERBLOCK_BYTES as u64;
        if complete {
            file.read_exact_at(&mut bytes, 0)?;
        }
        let superblock = match Superblock::decode(&bytes) {
            Ok(superblock) => superblock,
            Err(_) if file_bytes <= SUPERBLOCK_BYTES as u64 => {
                drop(file);
                fs.remove(path)?;
                return Ok(None);
            }
            Err(damage) => {
                let volume = volume_of_path(path).unwrap_or(VolumeId(0));
                return Err(Error::VolumeIll { volume, found: damage.to_string() });
            }
        };
        if volume_of_path(path) != Some(superblock.logical_volume) {
            let volume = volume_of_path(path).unwrap_or(VolumeId(0));
            let found = format!("its superblock is volume {}'s", superblock.logical_volume);
            return Err(Error::VolumeIll { volume, found });
        }
        let paths = VolumePaths::new(path);
        paths.settle(&**fs, &superblock)?;
        Self::recover(fs, &paths, file, superblock, options, overseer).map(Some)
    }

    fn recover(
        fs: &Arc<dyn FileSystem>,
        paths: &VolumePaths,
        file: Arc<dyn File>,
        superblock: Superblock,
        options: VolumeOptions,
        overseer: Arc<dyn Overseer>,
    ) -> Result<Self> {
        let recovered = recover(&**fs, &file, &paths.index, &superblock)?;
        let Recovered { index, tail_offset, index_file, damage, cut_bytes, orphan_count } = recovered;
        let path = paths.volume.display();
        for stretch in &damage {
            tracing::error!(%path, ?stretch, "the volume is damaged; it takes no more photos");
            metrics::counter!("hayloft_haystack_damaged_bytes_total").increment(stretch.end - stretch.start);
        }
        if cut_bytes > 0 || orphan_count > 0 {
            tracing::info!(%path, cut_bytes, orphan_count, "the volume is recovered");
        }
        file.expect_random_reads()?;
        let file = Arc::new(VolumeFile::new(superblock, &paths.volume, file));
        let contents = Contents { file, index };
        let core = Arc::new(VolumeCore::new(contents, tail_offset, !damage.is_empty(), options, overseer));
        let (orders, receiver) = mpsc::channel(BATCH_WRITE_COUNT_MAX);
        let writer = Writer::new(Arc::clone(&core), receiver, index_file);
        let writer = std::thread::Builder::new()
            .name(format!("haystack-{}", superblock.logical_volume))
            .spawn(move || writer.run())
            .map_err(|source| vfs::Error::new("start the writer of", &paths.volume, source))?;
        Ok(Self {
            fs: Arc::clone(fs),
            paths: paths.clone(),
            core,
            orders: Mutex::new(Some(orders)),
            writer: Mutex::new(Some(writer)),
            compacting: Mutex::new(()),
        })
    }

    /// What readers share with the writer.
    pub fn core(&self) -> &VolumeCore {
        &self.core
    }

    /// Appends `sizes` of the photo `key`, given largest first, in one
    /// multi-write, as an upload or a repair. A photo that is there already is
    /// overwritten; one that was deleted stays that.
    ///
    /// # Durability
    ///
    /// All sizes are synced when this returns; their index records may not be
    /// on disk yet, which recovery repairs.
    ///
    /// # Cancel safety
    ///
    /// If dropped, the photo may or may not become durable.
    ///
    /// # Errors
    ///
    /// - [`Error::Sealed`], [`Error::Poisoned`], [`Error::DiskFull`]: nothing was written.
    /// - [`Error::Io`]: the tail is unknown; the volume is poisoned.
    pub async fn append(
        &self,
        key: PhotoKey,
        cookie: Cookie,
        sizes: &[(PhotoSize, MediaType, Bytes)],
        purpose: Purpose,
    ) -> Result<()> {
        let seed = self.core.file().seed();
        let needles = sizes
            .iter()
            .enumerate()
            .map(|(place, (size, media_type, data))| {
                let header = NeedleHeader {
                    cookie,
                    key,
                    alternate_key: size.alternate_key(),
                    deleted: false,
                    continued: place + 1 < sizes.len(),
                    media_type: *media_type,
                    data_bytes: 0,
                };
                EncodedNeedle::new(header, data.clone(), seed)
            })
            .collect();
        self.write(needles, seed, purpose).await
    }

    /// Appends a tombstone for the photo `key`, whether it is there or not.
    ///
    /// # Durability
    ///
    /// The photo is gone for good when this returns.
    ///
    /// # Errors
    ///
    /// As [`Volume::append`], but a full or sealed volume takes it.
    pub async fn delete(&self, key: PhotoKey, cookie: Cookie) -> Result<()> {
        let header = NeedleHeader {
            cookie,
            key,
            alternate_key: 0,
            deleted: true,
            continued: false,
            media_type: MediaType::OctetStream,
            data_bytes: 0,
        };
        let seed = self.core.file().seed();
        self.write(vec![EncodedNeedle::new(header, Bytes::new(), seed)], seed, Purpose::Delete).await
    }

    async fn write(&self, needles: Vec<EncodedNeedle>, seed: u32, purpose: Purpose) -> Result<()> {
        let orders = self.orders.lock().clone().ok_or(Error::Closing)?;
        let (answer, outcome) = oneshot::channel();
        let write = Write { purpose, needles, seed, answer };
        orders.send(Order::Write(write)).await.map_err(|_| Error::Closing)?;
        drop(orders);
        outcome.await.map_err(|_| Error::Closing)?
    }

    /// Where `size` of the photo `key` lies. A derived size that would equal the
    /// next larger one is not stored twice: that one stands for it.
    pub fn locate(&self, key: PhotoKey, size: PhotoSize) -> Option<FoundNeedle> {
        let larger = match size {
            PhotoSize::Original => &PhotoSize::ALL[..1],
            _ => &PhotoSize::DERIVED[..size.place()],
        };
        self.find(key, larger.iter().rev().copied())
    }

    /// The needles of the photo `key`, smallest first: the cheapest to learn its
    /// cookie from.
    pub fn locate_all(&self, key: PhotoKey) -> Vec<FoundNeedle> {
        PhotoSize::ALL.into_iter().rev().filter_map(|size| self.find(key, [size])).collect()
    }

    /// The first of `sizes` that there is.
    fn find(&self, key: PhotoKey, sizes: impl IntoIterator<Item = PhotoSize>) -> Option<FoundNeedle> {
        let contents = self.core.contents();
        let group = contents.index.get(key)?;
        let (size, location) =
            sizes.into_iter().find_map(|size| group.locate(size).map(|location| (size, location)))?;
        Some(FoundNeedle { file: Arc::clone(&contents.file), key, size, location })
    }

    /// Copies what is live to a new file, which takes the place of the old one
    /// while the volume is read and written. Blocks.
    ///
    /// # Durability
    ///
    /// Until it returns a crash leaves the old file or the new one, whole.
    ///
    /// # Errors
    ///
    /// After any but the last nothing has changed:
    ///
    /// - [`Error::Busy`]: a compaction of this volume runs.
    /// - [`Error::Poisoned`], [`Error::Closing`]
    /// - [`Error::Uncompactable`]: a live needle is damaged.
    /// - [`Error::Io`]: a read or a write failed, or the disk is full; or the
    ///   swap did, and then the volume is poisoned.
    pub fn compact(&self, terms: CompactionTerms) -> Result<Compacted> {
        let Some(_compacting) = self.compacting.try_lock() else {
            return Err(Error::Busy {
                what: "compactions of this volume",
                retry_after: COMPACTION_RETRY_AFTER,
            });
        };
        if self.core.state() == VolumeState::Poisoned {
            return Err(Error::Poisoned { volume: self.core.id() });
        }
        let bytes_before = self.core.tail_offset();
        let outcome = self.compact_alone(terms);
        if outcome.is_err() && self.core.state() != VolumeState::Poisoned {
            Compaction::clean_up(&*self.fs, &self.paths);
        }
        outcome.map(|()| Compacted { bytes_before, bytes_after: self.core.tail_offset() })
    }

    fn compact_alone(&self, terms: CompactionTerms) -> Result<()> {
        let superblock = Superblock {
            logical_volume: self.core.id(),
            physical_volume: terms.physical_volume,
            created_ms: terms.now_ms,
        };
        let (fs, core) = (Arc::clone(&self.fs), Arc::clone(&self.core));
        let mut compaction = Compaction::begin(fs, self.paths.clone(), core, superblock)?;
        compaction.copy_under_traffic(terms.pace)?;
        let orders = self.orders.lock().clone().ok_or(Error::Closing)?;
        let (answer, outcome) = oneshot::channel();
        let order = Order::Switch(Box::new(compaction), answer);
        orders.blocking_send(order).map_err(|_| Error::Closing)?;
        drop(orders);
        outcome.blocking_recv().map_err(|_| Error::Closing)?
    }

    /// Writes what is queued, syncs the index file and ends the writer. Blocks.
    /// Reads go on.
    pub fn close(&self) {
        self.core.close();
        drop(self.orders.lock().take());
        if let Some(writer) = self.writer.lock().take()
            && writer.join().is_err()
        {
            tracing::error!(volume = %self.core.id(), "the volume's writer panicked");
        }
        // A compaction removes its files as it gives up.
        drop(self.compacting.lock());
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        self.close();
    }
}

/// The file of `volume` in `dir`.
pub(crate) fn volume_path(dir: &Path, volume: VolumeId) -> PathBuf {
    dir.join(format!("{:08x}.volume", volume.0))
}

/// The volume whose file is at `path`, if it is a volume's.
pub(crate) fn volume_of_path(path: &Path) -> Option<VolumeId> {
    let stem = path.file_stem()?.to_str()?;
    let named = path.extension()? == "volume" && stem.len() == 8;
    named.then(|| u32::from_str_radix(stem, 16).ok().map(VolumeId)).flatten()
}
