//! Where the commit log keeps its segments: what it needs of a storage, and nothing more.
//!
//! [`crate::Engine::open`] keeps them in local files. For
//! [`crate::Engine::open_with_log`] somebody else implements [`LogStore`], such
//! as numbered objects in a bucket that several machines reach, where the log
//! itself must refuse a server that was given up and writes on.
//!
//! A segment is named by the epoch of the opening that writes it and a number,
//! which grows with each segment of the epoch; no name comes again. It holds
//! groups, which are opaque here: bytes that one append makes durable, together
//! or not at all, in order. How far a segment reaches is told in bytes, by a
//! count of the store's own that each group raises: the engine writes at the
//! head of each segment where the one before ended, so that a reader finds out
//! when groups or segments are missing.
//!
//! # What must hold
//!
//! - A group is durable when [`LogSegment::append`] returns; after an error it
//!   may be there or not, and nothing follows it.
//! - Creating a name that is taken fails.
//! - Once [`LogStore::seal_before`] has returned, what smaller epochs wrote does
//!   not change any more, whoever wrote it and however long it slept: neither
//!   by an append, nor by a creation, nor by a removal. Names that were removed
//!   stay taken for as long as such a writer may live.

use std::fmt;
use std::path::Path;

use crate::{FileId, Result};

/// A storage of log segments.
///
/// # Errors
///
/// Each call can return [`crate::Error::Io`]. After a failed append or creation
/// the engine is poisoned until it is opened again, unless the error is
/// [`crate::Error::DiskFull`].
pub trait LogStore: Send + Sync + fmt::Debug + 'static {
    /// Shuts out whoever writes under an epoch below `epoch`, and makes durable
    /// what their segments hold. Called once, under a greater epoch than before.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Fenced`]: somebody came first with a greater epoch.
    fn seal_before(&self, epoch: u64) -> Result<()>;

    /// The segments there are.
    fn list(&self) -> Result<Vec<FileId>>;

    /// Creates the segment `id`, durably, with `first` as its first group.
    ///
    /// # Errors
    ///
    /// - [`crate::Error::Fenced`]: the epoch was sealed.
    /// - [`crate::Error::DiskFull`]: there is no space. Nothing durable is left of the segment, and one of another
    ///   name may take its place.
    fn create(&self, id: FileId, first: &[u8]) -> Result<Box<dyn LogSegment>>;

    /// Does what can be done ahead of [`LogStore::create`] of `id`, which comes
    /// next if it comes, so that appends wait less for it. The segment need not
    /// be listed yet; if it is, reading it finds no group.
    ///
    /// # Errors
    ///
    /// None is final: creating it is tried all the same.
    fn prepare(&self, _id: FileId) -> Result<()> {
        Ok(())
    }

    /// Reads the segment `id` from its first group on. `None` if it has none: its creation was cut short.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Damaged`]
    fn read(&self, id: FileId) -> Result<Option<Box<dyn LogSegmentReader>>>;

    /// Removes the segment `id`, durably. That it is gone already is no error.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Fenced`]: this opening's epoch was sealed, and nothing was removed.
    fn remove(&self, id: FileId) -> Result<()>;
}

/// A segment that is written.
pub trait LogSegment: Send + fmt::Debug {
    /// Appends `group`, which is at most 1 GiB long, durably.
    ///
    /// # Errors
    ///
    /// - [`crate::Error::Fenced`]: the epoch was sealed, and the group is not in the log.
    /// - [`crate::Error::DiskFull`]: there is no space. What there may be of the group is replaced by the next one
    ///   that is appended, which begins with the same records.
    fn append(&mut self, group: &[u8]) -> Result<()>;

    /// How far the segment reaches, in bytes.
    fn end(&self) -> u64;
}

/// A segment that is read.
pub trait LogSegmentReader: fmt::Debug {
    /// The next group; `None` at the end.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Damaged`]: a group does not hold, and it was not just the
    /// last one, whose append was cut short.
    fn next(&mut self) -> Result<Option<&[u8]>>;

    /// How far the groups reach that [`LogSegmentReader::next`] returned, as [`LogSegment::end`] said.
    fn end(&self) -> u64;

    /// The segment's name, for errors.
    fn path(&self) -> &Path;
}
