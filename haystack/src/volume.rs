//! A physical volume: one append-only file, its index, and its writer's thread.
//!
//! `<logical volume, 8 hex digits>.volume` holds a superblock and then needles;
//! `….index` beside it is its checkpoint. Reads are by position from any thread;
//! writes go through the volume's queue to its one writer.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::thread::JoinHandle;

use bytes::{Bytes, BytesMut};
use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::sync::{mpsc, oneshot};
use vfs::{File, FileSystem};

use crate::error::{Error, Result};
use crate::index::{Index, Location, VOLUME_BYTES_LIMIT};
use crate::media_type::MediaType;
use crate::needle::{EncodedNeedle, HEADER_BYTES, Needle, NeedleDamage, NeedleHeader};
use crate::photo_id::{Cookie, PhotoKey, PhotoSize, VolumeId};
use crate::recovery::{Recovered, recover};
use crate::superblock::{SUPERBLOCK_BYTES, Superblock};
use crate::writer::{BATCH_WRITE_COUNT_MAX, Purpose, Write, Writer};

/// Where even repairs and deletes end: a batch more still fits into the index.
const REPAIRED_BYTES_MAX: u64 = VOLUME_BYTES_LIMIT - (1 << 30);

/// What a volume takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum VolumeState {
    /// Photos and deletes.
    WriteEnabled = 0,
    /// Deletes only, until the disk has room again.
    Full = 1,
    /// Deletes only: it has its size, or is damaged in the middle.
    Sealed = 2,
    /// Nothing: a write or a sync failed. Opening it again recovers it.
    Poisoned = 3,
}

impl VolumeState {
    /// Its name in messages and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::WriteEnabled => "write-enabled",
            Self::Full => "full",
            Self::Sealed => "sealed",
            Self::Poisoned => "poisoned",
        }
    }

    fn from_tag(tag: u8) -> Self {
        match tag {
            0 => Self::WriteEnabled,
            1 => Self::Full,
            2 => Self::Sealed,
            _ => Self::Poisoned,
        }
    }
}

/// What readers and the writer of a volume share.
#[derive(Debug)]
pub struct VolumeCore {
    superblock: Superblock,
    path: PathBuf,
    file: Arc<dyn File>,
    index: RwLock<Index>,
    state: AtomicU8,
    tail_offset: AtomicU64,
    volume_bytes_max: u64,
}

impl VolumeCore {
    /// The logical volume.
    pub fn id(&self) -> VolumeId {
        self.superblock.logical_volume
    }

    pub(crate) fn file(&self) -> &dyn File {
        &*self.file
    }

    /// Where the next needle goes.
    pub fn tail_offset(&self) -> u64 {
        self.tail_offset.load(Ordering::Acquire)
    }

    pub(crate) fn set_tail_offset(&self, offset: u64) {
        self.tail_offset.store(offset, Ordering::Release);
    }

    /// What the volume takes now.
    pub fn state(&self) -> VolumeState {
        VolumeState::from_tag(self.state.load(Ordering::Acquire))
    }

    pub(crate) fn set_state(&self, state: VolumeState) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// Takes no more photos, but for repairs.
    pub(crate) fn seal(&self) {
        let (enabled, full) = (VolumeState::WriteEnabled as u8, VolumeState::Full as u8);
        for state in [enabled, full] {
            // In any other state it takes none already.
            let _ = self.state.compare_exchange(
                state,
                VolumeState::Sealed as u8,
                Ordering::AcqRel,
                Ordering::Acquire,
            );
        }
    }

    /// What the volume says of itself.
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// Takes photos again if only a full disk kept it from that.
    pub(crate) fn resume_if_full(&self) {
        let (full, enabled) = (VolumeState::Full as u8, VolumeState::WriteEnabled as u8);
        // In any other state it stays as it is.
        let _ = self.state.compare_exchange(full, enabled, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Takes the volume out of service for writes after `error`.
    pub(crate) fn poison(&self, operation: &str, error: &vfs::Error) {
        tracing::error!(volume = %self.id(), operation, %error, "the volume takes no more writes");
        metrics::counter!("hayloft_haystack_volumes_poisoned_total").increment(1);
        self.set_state(VolumeState::Poisoned);
    }

    /// Seals the volume if it has reached its size; whether it did so now.
    pub(crate) fn seal_if_full_size(&self) -> bool {
        let seals = self.state() == VolumeState::WriteEnabled && self.tail_offset() >= self.volume_bytes_max;
        if seals {
            self.set_state(VolumeState::Sealed);
        }
        seals
    }

    /// Whether the volume takes a write for `purpose` now.
    pub(crate) fn admits(&self, purpose: Purpose) -> Result<()> {
        match (self.state(), purpose) {
            (VolumeState::Poisoned, _) => Err(Error::Poisoned { volume: self.id() }),
            // Offsets beyond would not fit into the index.
            _ if self.tail_offset() >= REPAIRED_BYTES_MAX => Err(Error::Sealed { volume: self.id() }),
            (VolumeState::WriteEnabled, _)
            | (VolumeState::Full, Purpose::Delete)
            | (VolumeState::Sealed, Purpose::Delete | Purpose::Repair) => Ok(()),
            (VolumeState::Full | VolumeState::Sealed, _) => Err(Error::Sealed { volume: self.id() }),
        }
    }

    /// The volume's index.
    pub fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read()
    }

    pub(crate) fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write()
    }
}

/// A size of a photo, read and verified.
#[derive(Clone, Debug)]
pub struct StoredNeedle {
    /// What the data is.
    pub media_type: MediaType,
    /// The data.
    pub data: Bytes,
    /// The needle's checksum.
    pub checksum: u32,
    /// The cookie that the photo was written with.
    pub cookie: Cookie,
}

/// An open volume.
#[derive(Debug)]
pub struct Volume {
    core: Arc<VolumeCore>,
    writes: Mutex<Option<mpsc::Sender<Write>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Volume {
    /// Creates the files of a volume in `dir` and opens it.
    ///
    /// # Durability
    ///
    /// The superblock and the file's name are synced when this returns.
    pub fn create(
        fs: &dyn FileSystem,
        dir: &Path,
        superblock: Superblock,
        volume_bytes_max: u64,
    ) -> Result<Self> {
        let path = volume_path(dir, superblock.logical_volume);
        let created = Self::create_files(fs, dir, &path, superblock)
            .and_then(|file| Self::recover(fs, path.clone(), file, superblock, volume_bytes_max));
        if created.is_err() {
            // The name is wanted again; nobody was told of the volume.
            for left in [&path, &path.with_extension("index")] {
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
    pub fn open(fs: &dyn FileSystem, path: &Path, volume_bytes_max: u64) -> Result<Option<Self>> {
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
        Self::recover(fs, path.to_owned(), file, superblock, volume_bytes_max).map(Some)
    }

    fn recover(
        fs: &dyn FileSystem,
        path: PathBuf,
        file: Arc<dyn File>,
        superblock: Superblock,
        volume_bytes_max: u64,
    ) -> Result<Self> {
        let recovered = recover(fs, &file, &path.with_extension("index"), &superblock)?;
        let Recovered { index, tail_offset, index_file, damage, cut_bytes, orphan_count } = recovered;
        for stretch in &damage {
            tracing::error!(path = %path.display(), ?stretch, "the volume is damaged; it takes no more photos");
            metrics::counter!("hayloft_haystack_damaged_bytes_total").increment(stretch.end - stretch.start);
        }
        if cut_bytes > 0 || orphan_count > 0 {
            tracing::info!(path = %path.display(), cut_bytes, orphan_count, "the volume is recovered");
        }
        let sealed = !damage.is_empty() || tail_offset >= volume_bytes_max;
        let state = if sealed { VolumeState::Sealed } else { VolumeState::WriteEnabled };
        let core = Arc::new(VolumeCore {
            superblock,
            path,
            file,
            index: RwLock::new(index),
            state: AtomicU8::new(state as u8),
            tail_offset: AtomicU64::new(tail_offset),
            volume_bytes_max,
        });
        let (writes, receiver) = mpsc::channel(BATCH_WRITE_COUNT_MAX);
        let writer = Writer::new(Arc::clone(&core), receiver, index_file);
        let writer = std::thread::Builder::new()
            .name(format!("haystack-{}", superblock.logical_volume))
            .spawn(move || writer.run())
            .map_err(|source| vfs::Error::new("start the writer of", &core.path, source))?;
        Ok(Self { core, writes: Mutex::new(Some(writes)), writer: Mutex::new(Some(writer)) })
    }

    /// What readers share with the writer.
    pub fn core(&self) -> &VolumeCore {
        &self.core
    }

    /// Appends `sizes` of the photo `key`, given largest first, in one
    /// multi-write, as an upload or a repair.
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
        let seed = self.core.superblock.checksum_seed();
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
        self.write(needles, purpose).await
    }

    /// Appends a tombstone for the photo `key`, whether it is there or not.
    ///
    /// # Durability
    ///
    /// The photo is gone for good when this returns.
    ///
    /// # Errors
    ///
    /// As [`Volume::append`], but a sealed volume takes it.
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
        let seed = self.core.superblock.checksum_seed();
        self.write(vec![EncodedNeedle::new(header, Bytes::new(), seed)], Purpose::Delete).await
    }

    async fn write(&self, needles: Vec<EncodedNeedle>, purpose: Purpose) -> Result<()> {
        let writes = self.writes.lock().clone().ok_or(Error::Closing)?;
        let (answer, outcome) = oneshot::channel();
        writes.send(Write { purpose, needles, answer }).await.map_err(|_| Error::Closing)?;
        drop(writes);
        outcome.await.map_err(|_| Error::Closing)?
    }

    /// Where `size` of the photo `key` lies. A derived size that would equal the
    /// next larger one is not stored twice: that one stands for it.
    pub fn locate(&self, key: PhotoKey, size: PhotoSize) -> Option<Location> {
        let group = self.core.index().get(key)?;
        if size == PhotoSize::Original {
            return group.locate(size);
        }
        PhotoSize::DERIVED[..size.place()].iter().rev().find_map(|size| group.locate(*size))
    }

    /// The smallest needle of the photo `key`: the cheapest to learn its cookie from.
    pub fn locate_smallest(&self, key: PhotoKey) -> Option<Location> {
        let group = self.core.index().get(key)?;
        PhotoSize::ALL.iter().rev().find_map(|size| group.locate(*size))
    }

    /// Reads the needle at `location` if no disk need be waited for.
    ///
    /// # Errors
    ///
    /// As [`Volume::read`].
    pub fn try_read(&self, location: Location, key: PhotoKey) -> Result<Option<StoredNeedle>> {
        let mut buffer = BytesMut::zeroed(needle_length(location));
        if !self.core.file.try_read_exact_at(&mut buffer, location.offset)? {
            return Ok(None);
        }
        self.verify(buffer, location, key).map(Some)
    }

    /// Reads the needle at `location`, in one read. Blocks.
    ///
    /// # Errors
    ///
    /// - [`Error::Damaged`]: what lies there is not that needle of `key`.
    /// - [`Error::Io`]
    pub fn read(&self, location: Location, key: PhotoKey) -> Result<StoredNeedle> {
        let mut buffer = BytesMut::zeroed(needle_length(location));
        self.core.file.read_exact_at(&mut buffer, location.offset)?;
        self.verify(buffer, location, key)
    }

    fn verify(&self, mut buffer: BytesMut, location: Location, key: PhotoKey) -> Result<StoredNeedle> {
        let damaged = |found| {
            metrics::counter!("hayloft_haystack_damaged_reads_total").increment(1);
            Error::Damaged { path: self.core.path.clone(), offset: location.offset, found }
        };
        let needle = Needle::decode(&buffer, self.core.superblock.checksum_seed()).map_err(damaged)?;
        if needle.header.key != key || needle.header.deleted {
            return Err(damaged(NeedleDamage::OtherNeedle));
        }
        let (header, checksum) = (needle.header, needle.checksum);
        let mut data = buffer.split_off(HEADER_BYTES);
        data.truncate(header.data_bytes as usize);
        Ok(StoredNeedle {
            media_type: header.media_type,
            data: data.freeze(),
            checksum,
            cookie: header.cookie,
        })
    }

    /// Writes what is queued, syncs the index file and ends the writer. Blocks.
    /// Reads go on.
    pub fn close(&self) {
        drop(self.writes.lock().take());
        if let Some(writer) = self.writer.lock().take()
            && writer.join().is_err()
        {
            tracing::error!(volume = %self.core.id(), "the volume's writer panicked");
        }
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        self.close();
    }
}

fn needle_length(location: Location) -> usize {
    usize::try_from(location.needle_bytes).expect("a needle fits in memory")
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
