//! The one writer of a volume: a thread that drains what waits into one write
//! and one sync.
//!
//! Group commit without a delay: while one batch is synced the next one
//! gathers, so batches grow with the load and a lone upload waits for nobody.
//! A batch is at most [`BATCH_WRITE_COUNT_MAX`] photos and deletes or about
//! [`BATCH_BYTES_MAX`] bytes. Its order of events: write, sync, index in
//! memory, answers, index file.
//!
//! Invariants: nothing is answered before its sync; nothing is in the index
//! before its sync; after a failed write or sync whose effect is unknown nothing
//! is written to the file again.

use std::io::{ErrorKind, IoSlice};
use std::sync::Arc;
use std::time::Instant;

use metrics::{Counter, Histogram};
use tokio::sync::{mpsc, oneshot};

use crate::error::{Error, Result};
use crate::index::Group;
use crate::index_file::{Content, IndexFile, IndexRecord};
use crate::needle::EncodedNeedle;
use crate::photo_id::PhotoSize;
use crate::volume::{VolumeCore, VolumeState};

/// Writes in one batch, at most.
pub const BATCH_WRITE_COUNT_MAX: usize = 256;
/// Bytes after which a batch takes no further write.
pub const BATCH_BYTES_MAX: u64 = 4 << 20;
/// Index records kept in memory before they go to the index file.
const RECORD_COUNT_BUFFERED: usize = 1024;

/// Why something is written, which decides whether a volume takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A new photo: only volumes that are open to them.
    Upload,
    /// A photo that this volume ought to have, from another replica: sealed
    /// volumes too.
    Repair,
    /// A tombstone: full and sealed volumes too.
    Delete,
}

/// One photo's needles, or one tombstone, and who waits for it.
#[derive(Debug)]
pub struct Write {
    /// What it is written for.
    pub purpose: Purpose,
    /// The needles, which become durable together or not at all.
    pub needles: Vec<EncodedNeedle>,
    /// Told once they are durable.
    pub answer: oneshot::Sender<Result<()>>,
}

impl Write {
    fn bytes(&self) -> u64 {
        self.needles.iter().map(|needle| needle.header.needle_bytes()).sum()
    }
}

/// What the writer's thread owns.
#[derive(Debug)]
pub struct Writer {
    core: Arc<VolumeCore>,
    writes: mpsc::Receiver<Write>,
    index_file: IndexFile,
    /// The index file failed: it is left as it is, and recovery scans the volume.
    index_file_failed: bool,
    records: Vec<IndexRecord>,
    meters: Meters,
}

impl Writer {
    /// A writer for the volume `core` that takes from `writes`.
    pub fn new(core: Arc<VolumeCore>, writes: mpsc::Receiver<Write>, index_file: IndexFile) -> Self {
        Self {
            core,
            writes,
            index_file,
            index_file_failed: false,
            records: Vec::new(),
            meters: Meters::new(),
        }
    }

    /// Writes until every sender is gone and the queue is empty; then syncs the
    /// index file.
    pub fn run(mut self) {
        while let Some(first) = self.writes.blocking_recv() {
            let batch = self.gather(first);
            self.commit(batch);
            if self.records.len() >= RECORD_COUNT_BUFFERED {
                self.flush_index_file();
            }
        }
        self.checkpoint();
    }

    fn gather(&mut self, first: Write) -> Vec<Write> {
        let mut bytes = first.bytes();
        let mut batch = vec![first];
        while batch.len() < BATCH_WRITE_COUNT_MAX && bytes < BATCH_BYTES_MAX {
            let Ok(write) = self.writes.try_recv() else { break };
            bytes += write.bytes();
            batch.push(write);
        }
        batch
    }

    /// Commits the writes that the volume's state allows and answers all.
    fn commit(&mut self, batch: Vec<Write>) {
        let mut accepted = Vec::with_capacity(batch.len());
        for write in batch {
            match self.core.admits(write.purpose) {
                Ok(()) => accepted.push(write),
                // Whoever waited may have gone: nothing was written for them.
                Err(error) => drop(write.answer.send(Err(error))),
            }
        }
        if accepted.is_empty() {
            return;
        }
        let started = Instant::now();
        let outcome = self.write_and_sync(&accepted);
        self.meters.commit_seconds.record(started.elapsed().as_secs_f64());
        self.meters.batch_writes.record(u32::try_from(accepted.len()).map_or(f64::NAN, f64::from));
        if outcome.is_ok() {
            self.publish(&accepted);
        }
        for write in accepted {
            // Whoever waited may have gone; the photo is durable all the same.
            let _ = write.answer.send(outcome.clone());
        }
        if self.core.seal_if_full_size() {
            self.checkpoint();
        }
    }

    fn write_and_sync(&self, batch: &[Write]) -> Result<()> {
        let slices: Vec<IoSlice<'_>> =
            batch.iter().flat_map(|write| &write.needles).flat_map(EncodedNeedle::slices).collect();
        let tail_offset = self.core.tail_offset();
        if let Err(error) = self.core.file().write_all_at(&slices, tail_offset) {
            return Err(self.write_failed(error, tail_offset));
        }
        self.core.file().sync().inspect_err(|error| self.core.poison("sync", error))?;
        let bytes = batch.iter().map(Write::bytes).sum::<u64>();
        self.meters.written_bytes.increment(bytes);
        Ok(())
    }

    /// A full disk is survived: what was written of the batch is cut off again.
    /// After any other failure the tail is unknown.
    fn write_failed(&self, error: vfs::Error, tail_offset: u64) -> Error {
        let full = matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
        if full && self.core.file().set_len(tail_offset).is_ok() {
            self.core.set_state(VolumeState::Full);
            return Error::DiskFull { available_bytes: 0, reserve_bytes: 0 };
        }
        self.core.poison("write", &error);
        error.into()
    }

    /// Puts the needles of a durable batch into the index.
    fn publish(&mut self, batch: &[Write]) {
        let mut offset = self.core.tail_offset();
        let mut index = self.core.index_mut();
        for write in batch {
            let mut group = Group::at(offset);
            for needle in &write.needles {
                let record = IndexRecord::of(&needle.header, offset);
                offset = record.end();
                self.records.push(record);
                match record.content {
                    Content::Needle { alternate_key, .. } => {
                        let size = PhotoSize::from_alternate_key(alternate_key);
                        group.push(size.expect("photos have sizes that are known"), record.bytes);
                    }
                    Content::Tombstone { key } => drop(index.remove(key)),
                    Content::Damage => {}
                }
            }
            if let Some(needle) = write.needles.first().filter(|_| write.purpose != Purpose::Delete) {
                index.insert(needle.header.key, group);
            }
        }
        drop(index);
        self.core.set_tail_offset(offset);
    }

    /// Brings the index file up to date and syncs it.
    fn checkpoint(&mut self) {
        self.flush_index_file();
        if !self.index_file_failed
            && let Err(error) = self.index_file.sync()
        {
            self.index_file_lost(&error);
        }
    }

    fn flush_index_file(&mut self) {
        let records = std::mem::take(&mut self.records);
        if !self.index_file_failed
            && !records.is_empty()
            && let Err(error) = self.index_file.append(&records)
        {
            self.index_file_lost(&error);
        }
    }

    fn index_file_lost(&mut self, error: &Error) {
        tracing::warn!(volume = %self.core.id(), %error, "the index file is left behind; the next start scans the volume");
        self.index_file_failed = true;
    }
}

#[derive(Debug)]
struct Meters {
    commit_seconds: Histogram,
    batch_writes: Histogram,
    written_bytes: Counter,
}

impl Meters {
    fn new() -> Self {
        Self {
            commit_seconds: metrics::histogram!("hayloft_haystack_commit_seconds"),
            batch_writes: metrics::histogram!("hayloft_haystack_commit_writes"),
            written_bytes: metrics::counter!("hayloft_haystack_volume_written_bytes_total"),
        }
    }
}
