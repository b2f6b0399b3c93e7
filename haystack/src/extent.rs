//! Disk space that a volume holds beyond its tail.
//!
//! A volume grows by whole extents, reserved without changing the file's length
//! where the file system can (`fallocate` with `KEEP_SIZE`), so that its needles
//! lie together on the disk and a full disk is noticed before a photo is half
//! written. Behind the last photo there is always room for some 1600 tombstones,
//! so deletes go on when the disk is full.

use vfs::File;

/// Room for deletes that stays behind the last photo, bytes.
const DELETE_RESERVE_BYTES: u64 = 64 << 10;

/// The space that one volume holds.
#[derive(Debug)]
pub(crate) struct Extents {
    extent_bytes: u64,
    /// Bytes of the file, from its start, that the disk has room for.
    end: u64,
}

impl Extents {
    /// Of a volume that ends at `tail_offset`, and grows by `extent_bytes`; 0
    /// reserves nothing.
    pub(crate) fn new(extent_bytes: u64, tail_offset: u64) -> Self {
        Self { extent_bytes, end: tail_offset }
    }

    /// Makes room for photos up to `end`, and for deletes behind them.
    ///
    /// # Errors
    ///
    /// What the disk says; [`Extents::release`] then gives back what it may have given.
    pub(crate) fn make_room(&mut self, file: &dyn File, end: u64) -> vfs::Result<()> {
        let needed = end + DELETE_RESERVE_BYTES;
        if self.extent_bytes == 0 || needed <= self.end {
            return Ok(());
        }
        let whole = needed.next_multiple_of(self.extent_bytes);
        if file.allocate(self.end, whole - self.end).is_ok() {
            self.end = whole;
            return Ok(());
        }
        // Less will do where a whole extent does not fit any more.
        file.allocate(self.end, needed - self.end)?;
        self.end = needed;
        Ok(())
    }

    /// Gives back all space behind `tail_offset` but the room for deletes, and
    /// whatever was written there.
    pub(crate) fn release(&mut self, file: &dyn File, tail_offset: u64) -> vfs::Result<()> {
        file.set_len(tail_offset)?;
        self.end = tail_offset;
        if self.extent_bytes > 0 && file.allocate(tail_offset, DELETE_RESERVE_BYTES).is_ok() {
            self.end += DELETE_RESERVE_BYTES;
        }
        Ok(())
    }
}
