//! Writing segments: groups appended, a new segment begun when one is full.

use std::sync::Arc;

use parking_lot::Mutex;

use super::segment::Descriptor;
use crate::file_id::FileIds;
use crate::log_store::{LogSegment, LogStore};
use crate::{FileId, Result};

/// A segment that is written no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SealedSegment {
    pub(crate) id: FileId,
    pub(crate) bytes: u64,
    /// The least sequence number that it can hold.
    pub(crate) first_sequence: u64,
    /// The greatest one; `first_sequence - 1` if it holds none.
    pub(crate) last_sequence: u64,
}

/// Names for segments to come. One that was prepared comes next, so that
/// segments have their order by creation.
#[derive(Debug)]
pub(crate) struct SegmentNames {
    ids: Arc<FileIds>,
    prepared: Mutex<Option<FileId>>,
}

impl SegmentNames {
    pub(crate) fn new(ids: Arc<FileIds>) -> Self {
        Self { ids, prepared: Mutex::default() }
    }

    /// Lets the store prepare the next segment, unless that was done.
    pub(crate) fn prepare(&self, store: &dyn LogStore) -> Result<()> {
        // Whoever takes the name meanwhile waits.
        let mut prepared = self.prepared.lock();
        if prepared.is_some() {
            return Ok(());
        }
        store.prepare(*prepared.insert(self.ids.next()))
    }

    fn take(&self) -> FileId {
        self.prepared.lock().take().unwrap_or_else(|| self.ids.next())
    }
}

/// Appends groups, beginning a new segment when one is full.
#[derive(Debug)]
pub(crate) struct SegmentWriter {
    store: Arc<dyn LogStore>,
    names: Arc<SegmentNames>,
    segment_bytes: u64,
    id: FileId,
    first_sequence: u64,
    last_sequence: u64,
    segment: Box<dyn LogSegment>,
}

impl SegmentWriter {
    /// Begins the first segment of an opening, durably.
    pub(crate) fn create(
        store: Arc<dyn LogStore>,
        names: Arc<SegmentNames>,
        segment_bytes: u64,
        descriptor: Descriptor,
    ) -> Result<Self> {
        let id = names.take();
        let segment = store.create(id, &descriptor.encode())?;
        let first_sequence = descriptor.first_sequence;
        let last_sequence = first_sequence - 1;
        Ok(Self { store, names, segment_bytes, id, first_sequence, last_sequence, segment })
    }

    /// Appends `group`, whose last record ends at `last_sequence`, durably.
    ///
    /// # Errors
    ///
    /// [`crate::Error::DiskFull`]: a group that begins with this one can be appended instead. After any other one what
    /// is in the log is unknown: nothing may be written after it.
    pub(crate) fn append(&mut self, group: &[u8], last_sequence: u64) -> Result<()> {
        self.segment.append(group)?;
        self.last_sequence = last_sequence;
        Ok(())
    }

    /// Begins a new segment if this one is full, and returns the full one.
    ///
    /// # Errors
    ///
    /// As those of [`SegmentWriter::append`].
    pub(crate) fn rotate_if_full(&mut self) -> Result<Option<SealedSegment>> {
        if self.segment.end() < self.segment_bytes {
            return Ok(None);
        }
        let sealed = self.figures();
        let descriptor =
            Descriptor { first_sequence: self.last_sequence + 1, previous: Some((self.id, sealed.bytes)) };
        let id = self.names.take();
        self.segment = self.store.create(id, &descriptor.encode())?;
        self.id = id;
        self.first_sequence = descriptor.first_sequence;
        Ok(Some(sealed))
    }

    /// Whether the next segment should be prepared.
    pub(crate) fn is_half_full(&self) -> bool {
        self.segment.end() >= self.segment_bytes / 2
    }

    /// The current segment as it is now.
    pub(crate) fn figures(&self) -> SealedSegment {
        SealedSegment {
            id: self.id,
            bytes: self.segment.end(),
            first_sequence: self.first_sequence,
            last_sequence: self.last_sequence,
        }
    }
}
