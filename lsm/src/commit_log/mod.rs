//! The commit log: one for all trees of an engine, written before anything
//! else, read only by a recovery.
//!
//! Writers append batches to a buffer under the log's lock, which assigns
//! sequence numbers; they apply them to memtables under the same lock, so that
//! batches are applied in the order of the log. (A lock of their own for
//! memtables buys little on two cores: half of an insertion is waiting for
//! memory, and then writers would have to wait for each other's publication.)
//! Whoever has the turn to sync takes what has gathered, writes it as one group,
//! syncs once, publishes the group's last sequence number as durable and tells
//! those who wait. It never sleeps to make a group larger: while one sync runs,
//! the next group gathers.
//!
//! - [`turns`]: who syncs when: threads that wait for their batch, or the sync thread for everybody else.
//! - [`follower`]: how one of those threads sleeps and is woken.
//! - [`segment`]: what stands in a segment.
//! - [`writer`]: groups and segments written, to a [`LogStore`].
//! - [`files`]: the store in local files.
//! - [`replay`]: all of it read back.
//! - [`survey`]: files as they are, damaged or not.
//!
//! # Invariants
//!
//! - What is durable is applied: `durable <= applied`, and both only grow, from
//!   one batch's end to another's.
//! - After a failed write or sync the log is poisoned: nothing is written any
//!   more, and everybody who waits is told.
//! - But where a write meets a full disk nothing was synced, and the log keeps
//!   the group: who waits is told, writes are turned away, and a later turn
//!   writes the group again, in its place. So the log's order stays that of
//!   what was applied.
//! - Segments go oldest first, each one durably before the next, so that a
//!   missing segment with an older one present is damage.

pub(crate) mod files;
mod follower;
pub(crate) mod replay;
pub(crate) mod segment;
pub(crate) mod survey;
mod turns;
pub(crate) mod writer;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};

use self::replay::Replayed;
use self::segment::{Descriptor, RECORD_HEADER_BYTES, encode_record};
pub(crate) use self::turns::{Callback, Duty, Waited};
use self::turns::{Failure, Turns};
use self::writer::{SealedSegment, SegmentNames, SegmentWriter};
use crate::file_id::FileIds;
use crate::log_store::LogStore;
use crate::{Error, Options, Result, TreeId, WriteBatch};

/// The largest batch, bytes: a group of one must fit a frame.
pub(crate) const BATCH_BYTES_MAX: usize = 512 << 20;

/// The log of an open engine.
pub(crate) struct CommitLog {
    store: Arc<dyn LogStore>,
    names: Arc<SegmentNames>,
    /// The write lock of the engine.
    gathered: Mutex<Gathered>,
    /// Whose turn it is to write and sync a group, and what is durable.
    pub(crate) turns: Turns,
    /// Held while a group is written and synced.
    segment: Mutex<SegmentWriter>,
    /// The segments that are full, oldest first, and the current one as it was last synced.
    segments: Mutex<(VecDeque<SealedSegment>, SealedSegment)>,
    /// Held while segments are removed.
    releasing: Mutex<()>,
    /// Length of the group that gathers.
    gathered_bytes: AtomicUsize,
    /// Whether the disk had no space for the group.
    is_full: AtomicBool,
    applied: AtomicU64,
}

/// What waits for the next sync.
struct Gathered {
    group: Vec<u8>,
    next_sequence: u64,
    accepts: Accepts,
}

/// Whether the log takes batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accepts {
    Yes,
    /// The disk has no space for what has gathered.
    Full,
    Failed(Failure),
    Closed,
}

impl Accepts {
    fn check(self) -> Result<()> {
        match self {
            Self::Yes => Ok(()),
            Self::Full => Err(Error::DiskFull),
            Self::Failed(failure) => Err(failure.error()),
            Self::Closed => Err(Error::Closed),
        }
    }
}

/// What a turn did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Synced {
    /// Bytes of the group, none if nothing had gathered.
    pub(crate) bytes: usize,
    /// Whether a new segment was begun.
    pub(crate) rotated: bool,
    /// Whether the group filled the first half of a segment: the next one should be prepared.
    pub(crate) half_full: bool,
}

/// The log's figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogFigures {
    pub(crate) segment_count: usize,
    pub(crate) bytes: u64,
    /// The least sequence number that any segment can hold.
    pub(crate) first_sequence: u64,
}

/// The lock of a log, held by who appends and applies.
pub(crate) struct Appending<'a> {
    log: &'a CommitLog,
    gathered: MutexGuard<'a, Gathered>,
}

impl CommitLog {
    /// Begins the log of an opening behind what a recovery found: the first
    /// batch's sequence number is `next_sequence`.
    pub(crate) fn start(
        store: Arc<dyn LogStore>,
        ids: Arc<FileIds>,
        options: &Options,
        replayed: Replayed,
        next_sequence: u64,
    ) -> Result<Self> {
        let descriptor = Descriptor { first_sequence: next_sequence, previous: replayed.previous() };
        let names = Arc::new(SegmentNames::new(ids));
        let segment = SegmentWriter::create(
            Arc::clone(&store),
            Arc::clone(&names),
            options.log_segment_bytes,
            descriptor,
        )?;
        let segments = (replayed.segments, segment.figures());
        Ok(Self {
            store,
            names,
            gathered: Mutex::new(Gathered { group: Vec::new(), next_sequence, accepts: Accepts::Yes }),
            turns: Turns::new(next_sequence - 1),
            segment: Mutex::new(segment),
            segments: Mutex::new(segments),
            releasing: Mutex::new(()),
            gathered_bytes: AtomicUsize::new(0),
            is_full: AtomicBool::new(false),
            applied: AtomicU64::new(next_sequence - 1),
        })
    }

    /// Takes the lock, to append or to hold writers off.
    pub(crate) fn lock(&self) -> Appending<'_> {
        Appending { log: self, gathered: self.gathered.lock() }
    }

    /// The last sequence number that is applied.
    pub(crate) fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    /// The last sequence number that is applied and durable.
    pub(crate) fn durable(&self) -> u64 {
        self.turns.durable()
    }

    /// Whether the disk had no space for what has gathered, which a turn tries again.
    pub(crate) fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Acquire)
    }

    /// Writes and syncs what has gathered, and publishes it; begins a new
    /// segment before that if the current one is full. Returns what it did.
    ///
    /// # Errors
    ///
    /// [`Error::DiskFull`]: it has gathered still, and nothing is added to it. After any other one the log is poisoned.
    ///
    /// REQUIRES: the caller has the turn, has begun it, and passes it on afterwards.
    pub(crate) fn sync_gathered(&self) -> Result<Synced> {
        let mut segment = self.segment.lock();
        let (mut group, last_sequence) = {
            let mut gathered = self.gathered.lock();
            if gathered.group.is_empty() {
                return Ok(Synced::default());
            }
            self.gathered_bytes.store(0, Ordering::Release);
            (std::mem::take(&mut gathered.group), gathered.next_sequence - 1)
        };
        let written = self.write(&mut segment, &group, last_sequence);
        drop(segment);
        match written {
            Ok(synced) => {
                self.turns.publish(last_sequence);
                if self.is_full() {
                    self.take_writes_again();
                }
                self.give_back(&mut group);
                Ok(synced)
            }
            Err(Error::DiskFull) if self.keep(&mut group) => Err(Error::DiskFull),
            Err(error) => {
                self.poison(&error);
                Err(Failure::of(&error).error())
            }
        }
    }

    /// Puts a group that the disk has no space for before what has gathered meanwhile, to be written again, and
    /// takes no more. Whether that can be.
    fn keep(&self, group: &mut Vec<u8>) -> bool {
        let mut gathered = self.gathered.lock();
        let fits = group.len() + gathered.group.len() <= crate::frame::PAYLOAD_BYTES_MAX;
        if !fits || !matches!(gathered.accepts, Accepts::Yes | Accepts::Full) {
            return false;
        }
        group.append(&mut gathered.group);
        gathered.group = std::mem::take(group);
        gathered.accepts = Accepts::Full;
        self.gathered_bytes.store(gathered.group.len(), Ordering::Release);
        self.is_full.store(true, Ordering::Release);
        true
    }

    /// After a group was written that the disk had no space for.
    fn take_writes_again(&self) {
        let mut gathered = self.gathered.lock();
        self.is_full.store(false, Ordering::Release);
        if gathered.accepts == Accepts::Full {
            gathered.accepts = Accepts::Yes;
            tracing::info!("the commit log takes writes again");
        }
    }

    /// Writes a group durably.
    fn write(&self, segment: &mut SegmentWriter, group: &[u8], last_sequence: u64) -> Result<Synced> {
        let sealed = segment.rotate_if_full()?;
        let rotated = sealed.is_some();
        if let Some(sealed) = sealed {
            let mut segments = self.segments.lock();
            segments.0.push_back(sealed);
            segments.1 = segment.figures();
        }
        let was_half_full = segment.is_half_full();
        segment.append(group, last_sequence)?;
        self.segments.lock().1 = segment.figures();
        let half_full = segment.is_half_full() && !was_half_full;
        Ok(Synced { bytes: group.len(), rotated, half_full })
    }

    /// Prepares the segment that will come next, so that no group has to wait for it.
    ///
    /// # Errors
    ///
    /// It comes all the same, later.
    pub(crate) fn prepare_segment(&self) -> Result<()> {
        self.names.prepare(&*self.store)
    }

    /// Keeps the memory of a written group for one to come.
    fn give_back(&self, group: &mut Vec<u8>) {
        const SPARE_BYTES_MAX: usize = 16 << 20;
        if group.capacity() > SPARE_BYTES_MAX {
            return;
        }
        group.clear();
        let mut gathered = self.gathered.lock();
        if gathered.group.capacity() == 0 {
            gathered.group = std::mem::take(group);
        }
    }

    /// Takes no batch from now on, and fails whatever waits.
    pub(crate) fn poison(&self, cause: &Error) {
        let failure = Failure::of(cause);
        tracing::error!(error = cause as &dyn std::error::Error, "the commit log takes no more writes");
        {
            let mut gathered = self.gathered.lock();
            gathered.accepts = Accepts::Failed(failure);
            gathered.group = Vec::new();
            self.gathered_bytes.store(0, Ordering::Release);
            self.is_full.store(false, Ordering::Release);
        }
        self.turns.fail(failure);
    }

    /// Takes no batch from now on. What has gathered can still be synced.
    pub(crate) fn close(&self) {
        let mut gathered = self.gathered.lock();
        if matches!(gathered.accepts, Accepts::Yes | Accepts::Full) {
            gathered.accepts = Accepts::Closed;
        }
        drop(gathered);
        self.turns.stop();
    }

    /// Removes the oldest segments as long as they hold nothing from `sequence` on.
    ///
    /// # Errors
    ///
    /// The rest stays, to be removed by a later call.
    pub(crate) fn release_before(&self, sequence: u64) -> Result<()> {
        let _one_at_a_time = self.releasing.lock();
        loop {
            let oldest = self.segments.lock().0.front().copied();
            let Some(oldest) = oldest.filter(|oldest| oldest.last_sequence < sequence) else { return Ok(()) };
            self.store.remove(oldest.id)?;
            self.segments.lock().0.pop_front();
        }
    }

    /// Bytes that wait for the next sync.
    pub(crate) fn gathered_bytes(&self) -> usize {
        self.gathered_bytes.load(Ordering::Acquire)
    }

    /// The last sequence number in the oldest full segment, if there is one.
    pub(crate) fn oldest_sealed_end(&self) -> Option<u64> {
        self.segments.lock().0.front().map(|oldest| oldest.last_sequence)
    }

    pub(crate) fn figures(&self) -> LogFigures {
        let segments = self.segments.lock();
        let (sealed, current) = &*segments;
        LogFigures {
            segment_count: sealed.len() + 1,
            bytes: sealed.iter().map(|segment| segment.bytes).sum::<u64>() + current.bytes,
            first_sequence: sealed.front().unwrap_or(current).first_sequence,
        }
    }
}

impl Appending<'_> {
    /// Fails if the log takes no batch any more.
    pub(crate) fn check(&self) -> Result<()> {
        self.gathered.accepts.check()
    }

    /// Appends a batch of `count` writes and returns the first one's sequence
    /// number. The caller applies it and calls [`Appending::publish`] before
    /// it lets go of the lock.
    ///
    /// REQUIRES: `check` passed; the batch is not empty and at most [`BATCH_BYTES_MAX`] long.
    pub(crate) fn append(&mut self, batch: &[u8], count: usize) -> u64 {
        let first_sequence = self.gathered.next_sequence;
        encode_record(&mut self.gathered.group, first_sequence, count, batch);
        self.gathered.next_sequence += count as u64;
        self.log.gathered_bytes.store(self.gathered.group.len(), Ordering::Release);
        first_sequence
    }

    /// Appends a write to `tree` that changes nothing, for its sequence number's sake, which it returns.
    ///
    /// REQUIRES: as [`Appending::append`].
    pub(crate) fn append_marker(&mut self, tree: TreeId) -> u64 {
        let marker = WriteBatch::marker(tree);
        self.append(marker.encoded(), marker.len())
    }

    /// Makes the next sequence number greater than `sequence`.
    pub(crate) fn raise_above(&mut self, sequence: u64) {
        self.gathered.next_sequence = self.gathered.next_sequence.max(sequence + 1);
    }

    /// Publishes what was appended as applied.
    pub(crate) fn publish(&mut self) {
        self.log.applied.store(self.gathered.next_sequence - 1, Ordering::Release);
    }

    /// Whether one more record fits the group's frame.
    pub(crate) fn has_room_for(&self, batch_bytes: usize) -> bool {
        self.gathered.group.len() + RECORD_HEADER_BYTES + batch_bytes <= crate::frame::PAYLOAD_BYTES_MAX
    }
}

impl fmt::Debug for CommitLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommitLog")
            .field("store", &self.store)
            .field("durable", &self.durable())
            .finish_non_exhaustive()
    }
}
