//! What the readers, the writer and the compaction of a volume share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use parking_lot::{MappedRwLockReadGuard, MappedRwLockWriteGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::error::{Error, Result};
use crate::group::VOLUME_BYTES_LIMIT;
use crate::index::{Index, Totals};
use crate::overseer::{BadNeedle, Overseer};
use crate::photo_id::VolumeId;
use crate::superblock::{SUPERBLOCK_BYTES, Superblock};
use crate::volume_file::{FoundNeedle, VolumeFile};
use crate::writer::Purpose;

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
    /// Deletes and repairs: it has its size, or is damaged in the middle.
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

/// How volumes are laid out.
#[derive(Clone, Copy, Debug)]
pub struct VolumeOptions {
    /// Size at which a volume is sealed, bytes.
    pub volume_bytes_max: u64,
    /// Bytes of disk that a volume reserves at a time; 0 reserves none.
    pub extent_bytes: u64,
}

/// A file and the index of what is in it: they change together.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) file: Arc<VolumeFile>,
    pub(crate) index: Index,
}

/// What the readers, the writer and the compaction of a volume share.
#[derive(Debug)]
pub struct VolumeCore {
    id: VolumeId,
    contents: RwLock<Contents>,
    state: AtomicU8,
    tail_offset: AtomicU64,
    /// Bytes that are no live needle, and that a compaction has left there.
    carried_bytes: AtomicU64,
    /// There is damage that no live needle lies in: a compaction drops it.
    wants_compaction: AtomicBool,
    /// Who places photos wants none here: no compaction changes that.
    was_told_to_seal: AtomicBool,
    is_closing: AtomicBool,
    options: VolumeOptions,
    overseer: Arc<dyn Overseer>,
}

impl VolumeCore {
    pub(crate) fn new(
        contents: Contents,
        tail_offset: u64,
        is_damaged: bool,
        options: VolumeOptions,
        overseer: Arc<dyn Overseer>,
    ) -> Self {
        let sealed = is_damaged || tail_offset >= options.volume_bytes_max;
        let state = if sealed { VolumeState::Sealed } else { VolumeState::WriteEnabled };
        Self {
            id: contents.file.superblock.logical_volume,
            contents: RwLock::new(contents),
            state: AtomicU8::new(state as u8),
            tail_offset: AtomicU64::new(tail_offset),
            carried_bytes: AtomicU64::new(0),
            wants_compaction: AtomicBool::new(is_damaged),
            was_told_to_seal: AtomicBool::new(false),
            is_closing: AtomicBool::new(false),
            options,
            overseer,
        }
    }

    /// The logical volume.
    pub fn id(&self) -> VolumeId {
        self.id
    }

    pub(crate) fn options(&self) -> VolumeOptions {
        self.options
    }

    pub(crate) fn overseer(&self) -> &dyn Overseer {
        &*self.overseer
    }

    /// The file that holds the needles now.
    pub(crate) fn file(&self) -> Arc<VolumeFile> {
        Arc::clone(&self.contents.read().file)
    }

    /// The file and its index, as they belong together.
    pub(crate) fn contents(&self) -> RwLockReadGuard<'_, Contents> {
        self.contents.read()
    }

    /// The volume's index.
    pub fn index(&self) -> MappedRwLockReadGuard<'_, Index> {
        RwLockReadGuard::map(self.contents.read(), |contents| &contents.index)
    }

    pub(crate) fn index_mut(&self) -> MappedRwLockWriteGuard<'_, Index> {
        RwLockWriteGuard::map(self.contents.write(), |contents| &mut contents.index)
    }

    /// Puts what a compaction has made in the place of what there was, which it
    /// returns, so that nobody waits while it is freed.
    pub(crate) fn replace(&self, contents: Contents, tail_offset: u64) -> Contents {
        let garbage_bytes = garbage_bytes(tail_offset, &contents.index.totals());
        let mut there = self.contents.write();
        let old = std::mem::replace(&mut *there, contents);
        self.tail_offset.store(tail_offset, Ordering::Release);
        self.carried_bytes.store(garbage_bytes, Ordering::Release);
        self.wants_compaction.store(false, Ordering::Release);
        let is_small = tail_offset < self.options.volume_bytes_max;
        if self.state() == VolumeState::Sealed && is_small && !self.was_told_to_seal.load(Ordering::Acquire) {
            self.set_state(VolumeState::WriteEnabled);
        }
        old
    }

    /// Where the next needle goes.
    pub fn tail_offset(&self) -> u64 {
        self.tail_offset.load(Ordering::Acquire)
    }

    pub(crate) fn set_tail_offset(&self, offset: u64) {
        self.tail_offset.store(offset, Ordering::Release);
    }

    /// Bytes that a compaction would free.
    pub fn garbage_bytes(&self) -> u64 {
        let garbage_bytes = garbage_bytes(self.tail_offset(), &self.index().totals());
        garbage_bytes.saturating_sub(self.carried_bytes.load(Ordering::Acquire))
    }

    /// Whether there is damage that only a compaction removes.
    pub fn wants_compaction(&self) -> bool {
        self.wants_compaction.load(Ordering::Acquire)
    }

    /// What the volume takes now.
    pub fn state(&self) -> VolumeState {
        VolumeState::from_tag(self.state.load(Ordering::Acquire))
    }

    pub(crate) fn set_state(&self, state: VolumeState) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// Takes no more photos, but for repairs, until it is opened again.
    pub(crate) fn seal(&self) {
        self.was_told_to_seal.store(true, Ordering::Release);
        let (enabled, full) = (VolumeState::WriteEnabled as u8, VolumeState::Full as u8);
        for state in [enabled, full] {
            // In any other state it takes none already.
            let sealed = VolumeState::Sealed as u8;
            let _ = self.state.compare_exchange(state, sealed, Ordering::AcqRel, Ordering::Acquire);
        }
    }

    /// What the volume says of itself.
    pub fn superblock(&self) -> Superblock {
        self.contents.read().file.superblock
    }

    /// Ends what would go on for long.
    pub(crate) fn close(&self) {
        self.is_closing.store(true, Ordering::Release);
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Acquire)
    }

    /// Takes photos again if only a full disk kept it from that.
    pub(crate) fn resume_if_full(&self) {
        let (full, enabled) = (VolumeState::Full as u8, VolumeState::WriteEnabled as u8);
        // In any other state it stays as it is.
        let _ = self.state.compare_exchange(full, enabled, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Takes the volume out of service for writes after `error`.
    pub(crate) fn poison(&self, operation: &str, error: &vfs::Error) {
        tracing::error!(volume = %self.id, operation, %error, "the volume takes no more writes");
        metrics::counter!("hayloft_haystack_volumes_poisoned_total").increment(1);
        self.set_state(VolumeState::Poisoned);
    }

    /// Seals the volume if it has reached its size; whether it did so now.
    pub(crate) fn seal_if_full_size(&self) -> bool {
        let is_full_size = self.tail_offset() >= self.options.volume_bytes_max;
        let seals = self.state() == VolumeState::WriteEnabled && is_full_size;
        if seals {
            self.set_state(VolumeState::Sealed);
        }
        seals
    }

    /// Whether the volume takes a write for `purpose` now.
    pub(crate) fn admits(&self, purpose: Purpose) -> Result<()> {
        match (self.state(), purpose) {
            (VolumeState::Poisoned, _) => Err(Error::Poisoned { volume: self.id }),
            // Offsets beyond would not fit into the index.
            _ if self.tail_offset() >= REPAIRED_BYTES_MAX => Err(Error::Sealed { volume: self.id }),
            (VolumeState::WriteEnabled, _)
            | (VolumeState::Full, Purpose::Delete)
            | (VolumeState::Sealed, Purpose::Delete | Purpose::Repair) => Ok(()),
            (VolumeState::Full | VolumeState::Sealed, _) => Err(Error::Sealed { volume: self.id }),
        }
    }

    /// Tells of a needle that could not be read, if that is the needle's fault
    /// and it is still wanted; what was told.
    pub(crate) fn report(&self, needle: &FoundNeedle, error: &Error) -> Option<BadNeedle> {
        if !matches!(error, Error::Damaged { .. } | Error::Io(_)) {
            return None;
        }
        let contents = self.contents.read();
        let wanted = contents.index.get(needle.key).and_then(|group| group.locate(needle.size));
        if !Arc::ptr_eq(&contents.file, &needle.file) || wanted != Some(needle.location) {
            return None;
        }
        drop(contents);
        metrics::counter!("hayloft_haystack_damaged_reads_total").increment(1);
        let bad = BadNeedle {
            volume: self.id,
            key: needle.key,
            size: needle.size,
            offset: needle.location.offset,
            error: error.clone(),
        };
        self.overseer.needle_is_bad(&bad);
        Some(bad)
    }
}

fn garbage_bytes(tail_offset: u64, totals: &Totals) -> u64 {
    (tail_offset - SUPERBLOCK_BYTES as u64).saturating_sub(totals.live_bytes)
}
