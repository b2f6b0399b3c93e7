//! A file's bytes: as readers see them, as the disk has them, and what lies between.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rustix::io::Errno;

use super::random::SplitMix64;
use super::residency::Residency;
use super::survival::{Remains, Survival};

/// A file that a test would not grow past: EFBIG.
const FILE_BYTES_MAX: u64 = 1 << 32;

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// A file, whatever its names. Its content is locked only under the file
/// system's own lock, which makes each operation atomic.
#[derive(Debug)]
pub(super) struct Inode {
    pub(super) content: Mutex<Content>,
    /// Bytes used by all files of the disk.
    used: Arc<AtomicU64>,
}

/// Invariant: unless a sync has failed, `current` is `durable` with `pending` applied.
#[derive(Debug, Default)]
pub(super) struct Content {
    /// What a read sees.
    pub(super) current: Vec<u8>,
    /// What was synced.
    durable: Vec<u8>,
    /// What was not, oldest first.
    pending: Vec<Change>,
    /// The end of the space that was reserved.
    reserved: u64,
    /// Of the bytes that a read sees.
    residency: Residency,
    /// Whether somebody holds the lock on this file.
    pub(super) locked: bool,
}

#[derive(Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
}

impl Drop for Inode {
    fn drop(&mut self) {
        self.used.fetch_sub(self.content.get_mut().footprint(), Ordering::Relaxed);
    }
}

impl Inode {
    pub(super) fn new(durable: Vec<u8>, used: &Arc<AtomicU64>) -> Arc<Self> {
        let content = Content { current: durable.clone(), durable, ..Content::default() };
        used.fetch_add(content.footprint(), Ordering::Relaxed);
        Arc::new(Self { content: Mutex::new(content), used: Arc::clone(used) })
    }

    /// Writes as much as fits on a disk of `capacity` bytes.
    pub(super) fn write(&self, slices: &[IoSlice<'_>], offset: u64, capacity: u64) -> io::Result<()> {
        let bytes = slices.iter().map(|slice| &**slice).collect::<Vec<&[u8]>>().concat();
        let end = offset.checked_add(bytes.len() as u64).filter(|end| *end <= FILE_BYTES_MAX);
        let end = end.ok_or(Errno::FBIG)?;
        let fits = self.grow(end, capacity);
        let kept = usize_of(fits.saturating_sub(offset).min(bytes.len() as u64));
        let mut content = self.content.lock();
        if kept > 0 {
            content.residency.touch(offset, kept);
            content.change(Change::Write { offset: usize_of(offset), bytes: bytes[..kept].to_vec() });
        }
        if kept < bytes.len() { Err(Errno::NOSPC.into()) } else { Ok(()) }
    }

    pub(super) fn set_len(&self, len: u64, capacity: u64) -> io::Result<()> {
        if len > FILE_BYTES_MAX {
            return Err(Errno::FBIG.into());
        }
        if self.grow(len, capacity) < len {
            return Err(Errno::NOSPC.into());
        }
        let mut content = self.content.lock();
        let before = content.footprint();
        content.change(Change::SetLen(usize_of(len)));
        content.reserved = content.reserved.min(len);
        self.used.fetch_sub(before - content.footprint(), Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn allocate(&self, offset: u64, len: u64, capacity: u64) -> io::Result<()> {
        let end = offset.checked_add(len).filter(|end| *end <= FILE_BYTES_MAX).ok_or(Errno::FBIG)?;
        if self.grow(end, capacity) < end { Err(Errno::NOSPC.into()) } else { Ok(()) }
    }

    /// Charges the disk for a file up to `end`, and returns the end it can have.
    fn grow(&self, end: u64, capacity: u64) -> u64 {
        let mut content = self.content.lock();
        let footprint = content.footprint();
        let free = capacity.saturating_sub(self.used.load(Ordering::Relaxed));
        let granted = end.min(footprint.saturating_add(free));
        if granted > footprint {
            self.used.fetch_add(granted - footprint, Ordering::Relaxed);
            content.reserved = granted;
        }
        granted.max(footprint).min(end)
    }
}

impl Content {
    fn footprint(&self) -> u64 {
        self.reserved.max(self.current.len() as u64)
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.current);
        self.pending.push(change);
    }

    /// Fills `buffer` from `offset` on.
    pub(super) fn read(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if buffer.is_empty() {
            return Ok(());
        }
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(buffer.len());
        let found = self.current.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(found);
        self.residency.touch(offset, buffer.len());
        Ok(())
    }

    /// Puts the pages of `range` out of memory.
    pub(super) fn evict(&mut self, range: Range<u64>) {
        self.residency.evict(range.start..range.end.min(self.current.len() as u64));
    }

    /// Whether a read of so many bytes waits for no disk.
    pub(super) fn is_resident(&self, offset: u64, bytes: usize) -> bool {
        self.residency.holds(offset, bytes)
    }

    /// Everything written reaches the disk.
    pub(super) fn sync(&mut self) {
        for change in self.pending.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    /// A sync that failed: Linux marks the pages clean, so that readers still
    /// see what no later sync will write (Rebello et al., "Can Applications
    /// Recover from fsync Failures?", USENIX ATC 2020, section 3).
    pub(super) fn fail_sync(&mut self) {
        self.pending.clear();
    }

    /// Rots a bit on the disk and in memory; false if no such byte exists.
    pub(super) fn flip_bit(&mut self, offset: usize, bit: u32) -> bool {
        let mut found = false;
        for image in [&mut self.current, &mut self.durable] {
            if let Some(byte) = image.get_mut(offset) {
                *byte ^= 1 << bit;
                found = true;
            }
        }
        found
    }

    /// The bytes that are on the disk when power comes back.
    pub(super) fn after_cut(&self, random: &mut SplitMix64) -> Vec<u8> {
        let survival = Survival::draw(self.pending.len(), random);
        let mut image = self.durable.clone();
        for (place, change) in self.pending.iter().enumerate() {
            match survival.remains(place, random) {
                Remains::Whole => change.apply(&mut image),
                Remains::Part => change.tear(&mut image, random),
                Remains::Nothing => {}
            }
        }
        image
    }
}

impl Change {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => put(image, *offset, bytes),
            Self::SetLen(len) => image.resize(*len, 0),
        }
    }

    /// Applies a part of the change, and sometimes a length whose bytes never came.
    fn tear(&self, image: &mut Vec<u8>, random: &mut SplitMix64) {
        let (offset, bytes) = match self {
            Self::Write { offset, bytes } => (*offset, bytes),
            Self::SetLen(_) if random.coin() => return self.apply(image),
            Self::SetLen(_) => return,
        };
        if random.coin() {
            for piece in sectors(offset..offset + bytes.len()) {
                if random.coin() {
                    put(image, piece.start, &bytes[piece.start - offset..piece.end - offset]);
                }
            }
        } else {
            put(image, offset, &bytes[..random.below(bytes.len() + 1)]);
        }
        if random.coin() && image.len() < offset + bytes.len() {
            image.resize(offset + bytes.len(), 0);
        }
    }
}

fn put(image: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if image.len() < end && !bytes.is_empty() {
        image.resize(end, 0);
    }
    if !bytes.is_empty() {
        image[offset..end].copy_from_slice(bytes);
    }
}

/// `range` cut at the sectors' boundaries.
fn sectors(range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    (range.start / SECTOR_BYTES..range.end.div_ceil(SECTOR_BYTES))
        .map(move |sector| sector * SECTOR_BYTES)
        .map(move |start| start.max(range.start)..(start + SECTOR_BYTES).min(range.end))
}

/// A length below [`FILE_BYTES_MAX`], which memory holds.
fn usize_of(bytes: u64) -> usize {
    usize::try_from(bytes).expect("file lengths are bounded")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_torn_at_sectors_of_the_file() {
        let pieces: Vec<_> = sectors(500..1100).collect();
        assert_eq!(pieces, [500..512, 512..1024, 1024..1100]);
    }

    #[test]
    fn a_cut_keeps_what_was_synced_and_draws_the_rest_from_the_seed() {
        let inode = Inode::new(Vec::new(), &Arc::default());
        inode.write(&[IoSlice::new(&[1; 2000])], 0, u64::MAX).unwrap();
        inode.content.lock().sync();
        inode.write(&[IoSlice::new(&[2; 2000])], 2000, u64::MAX).unwrap();
        let content = inode.content.lock();
        let mut lengths = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let found = content.after_cut(&mut SplitMix64::new(seed));
            assert_eq!(found, content.after_cut(&mut SplitMix64::new(seed)), "seed {seed}");
            assert_eq!(found[..2000], [1; 2000], "seed {seed}");
            assert!(found[2000..].iter().all(|byte| matches!(byte, 0 | 2)), "seed {seed}");
            lengths.insert(found.len());
        }
        assert!(lengths.contains(&2000) && lengths.contains(&4000) && lengths.len() > 10, "{lengths:?}");
    }
}
