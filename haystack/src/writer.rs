//! The one writer of a volume: a thread that drains what waits into one write
//! and one sync.
//!
//! Group commit without a delay: while one batch is synced the next one
//! gathers, so batches grow with the load and a lone upload waits for nobody.
//! A batch is at most [`BATCH_WRITE_COUNT_MAX`] photos and deletes or about
//! [`BATCH_BYTES_MAX`] bytes. Its order of events: write, sync, index in
//! memory, answers, index file. Between two batches a compaction may put
//! another file in the volume's place.
//!
//! Where the disk is full, photos of the batch are turned away and its deletes
//! are tried alone: there is room held for them.
//!
//! Invariants: nothing is answered before its sync; nothing is in the index
//! before its sync; after a failed write or sync whose effect is unknown nothing
//! is written to the file again.

use std::io::{ErrorKind, IoSlice};
use std::sync::Arc;
use std::time::Instant;

use metrics::{Counter, Histogram};
use tokio::sync::{mpsc, oneshot};

use crate::compaction::{Compaction, Successor};
use crate::error::{Error, Result};
use crate::extent::Extents;
use crate::group::Group;
use crate::index_file::{Content, IndexFile, IndexRecord};
use crate::needle::EncodedNeedle;
use crate::photo_id::PhotoSize;
use crate::volume_core::{Contents, VolumeCore, VolumeState};
use crate::volume_file::VolumeFile;

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
pub(crate) struct Write {
    /// What it is written for.
    pub(crate) purpose: Purpose,
    /// The needles, which become durable together or not at all.
    pub(crate) needles: Vec<EncodedNeedle>,
    /// What their checksums begin at.
    pub(crate) seed: u32,
    /// Told once they are durable.
    pub(crate) answer: oneshot::Sender<Result<()>>,
}

/// What the writer is told to do.
#[derive(Debug)]
pub(crate) enum Order {
    Write(Write),
    /// To finish a compaction and go on in its file.
    Switch(Box<Compaction>, oneshot::Sender<Result<()>>),
}

impl Write {
    fn bytes(&self) -> u64 {
        self.needles.iter().map(|needle| needle.header.needle_bytes()).sum()
    }
}

/// What the writer's thread owns.
#[derive(Debug)]
pub(crate) struct Writer {
    core: Arc<VolumeCore>,
    file: Arc<VolumeFile>,
    extents: Extents,
    orders: mpsc::Receiver<Order>,
    index_file: IndexFile,
    /// The index file failed: it is left as it is, and recovery scans the volume.
    index_file_failed: bool,
    records: Vec<IndexRecord>,
    meters: Meters,
}

impl Writer {
    /// A writer for the volume `core` that takes from `orders`.
    pub(crate) fn new(core: Arc<VolumeCore>, orders: mpsc::Receiver<Order>, index_file: IndexFile) -> Self {
        Self {
            file: core.file(),
            extents: Extents::new(core.options().extent_bytes, core.tail_offset()),
            core,
            orders,
            index_file,
            index_file_failed: false,
            records: Vec::new(),
            meters: Meters::new(),
        }
    }

    /// Writes until every sender is gone and the queue is empty; then syncs the
    /// index file.
    pub(crate) fn run(mut self) {
        let mut next = self.orders.blocking_recv();
        while let Some(order) = next.take() {
            match order {
                Order::Write(first) => {
                    let (batch, other) = self.gather(first);
                    self.commit(batch);
                    next = other;
                }
                Order::Switch(compaction, answer) => {
                    // Whoever asked may have gone; the volume is compacted all the same.
                    let _ = answer.send(self.switch(*compaction));
                }
            }
            if self.records.len() >= RECORD_COUNT_BUFFERED {
                self.flush_index_file();
            }
            next = next.or_else(|| self.orders.blocking_recv());
        }
        self.checkpoint();
    }

    /// What waits to be written with `first`, and the order that is no write and
    /// came after it.
    fn gather(&mut self, first: Write) -> (Vec<Write>, Option<Order>) {
        let mut bytes = first.bytes();
        let mut batch = vec![first];
        while batch.len() < BATCH_WRITE_COUNT_MAX && bytes < BATCH_BYTES_MAX {
            match self.orders.try_recv() {
                Ok(Order::Write(write)) => {
                    bytes += write.bytes();
                    batch.push(write);
                }
                Ok(other) => return (batch, Some(other)),
                Err(_) => break,
            }
        }
        (batch, None)
    }

    /// Commits the writes that the volume's state allows and answers all.
    fn commit(&mut self, batch: Vec<Write>) {
        let mut accepted = Vec::with_capacity(batch.len());
        for mut write in batch {
            match self.core.admits(write.purpose) {
                Ok(()) => {
                    // A compaction may have come between.
                    if write.seed != self.file.seed() {
                        write.needles.iter_mut().for_each(|needle| needle.bind(self.file.seed()));
                    }
                    accepted.push(write);
                }
                // Whoever waited may have gone: nothing was written for them.
                Err(error) => drop(write.answer.send(Err(error))),
            }
        }
        if accepted.is_empty() {
            return;
        }
        let mut outcome = self.write_and_sync(&accepted);
        if let Err(full @ Error::DiskFull { .. }) = &outcome {
            let (deletes, photos): (Vec<Write>, Vec<Write>) =
                accepted.into_iter().partition(|write| write.purpose == Purpose::Delete);
            for photo in photos {
                let _ = photo.answer.send(Err(full.clone()));
            }
            if deletes.is_empty() {
                return;
            }
            outcome = self.write_and_sync(&deletes);
            accepted = deletes;
        }
        if outcome.is_ok() {
            self.publish(&accepted);
        }
        for write in accepted {
            // Whoever waited may have gone; the photo is durable all the same.
            let _ = write.answer.send(outcome.clone());
        }
        if self.core.seal_if_full_size() {
            self.seal();
        }
    }

    fn write_and_sync(&mut self, batch: &[Write]) -> Result<()> {
        let started = Instant::now();
        let bytes = batch.iter().map(Write::bytes).sum::<u64>();
        let tail_offset = self.core.tail_offset();
        if batch.iter().any(|write| write.purpose != Purpose::Delete)
            && let Err(error) = self.extents.make_room(&**self.file.file(), tail_offset + bytes)
        {
            return Err(self.write_failed(error, tail_offset));
        }
        let slices: Vec<IoSlice<'_>> =
            batch.iter().flat_map(|write| &write.needles).flat_map(EncodedNeedle::slices).collect();
        if let Err(error) = self.file.file().write_all_at(&slices, tail_offset) {
            return Err(self.write_failed(error, tail_offset));
        }
        self.file.file().sync().inspect_err(|error| self.core.poison("sync", error))?;
        self.meters.commit_seconds.record(started.elapsed().as_secs_f64());
        self.meters.batch_writes.record(u32::try_from(batch.len()).map_or(f64::NAN, f64::from));
        self.meters.written_bytes.increment(bytes);
        Ok(())
    }

    /// A full disk is survived: what was written of the batch is cut off again.
    /// After any other failure the tail is unknown.
    fn write_failed(&mut self, error: vfs::Error, tail_offset: u64) -> Error {
        let full = matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
        if full && self.extents.release(&**self.file.file(), tail_offset).is_ok() {
            // A volume that is sealed stays that.
            if self.core.state() == VolumeState::WriteEnabled {
                self.core.set_state(VolumeState::Full);
            }
            return Error::DiskFull { available_bytes: 0, reserve_bytes: 0 };
        }
        self.core.poison("write", &error);
        error.into()
    }

    /// Ends the volume's growth: the index file is complete, and the disk gets
    /// back what was reserved.
    fn seal(&mut self) {
        self.checkpoint();
        if let Err(error) = self.extents.release(&**self.file.file(), self.core.tail_offset()) {
            tracing::warn!(volume = %self.core.id(), %error, "the volume keeps disk space that it does not need");
        }
    }

    /// Finishes `compaction` and goes on in its file.
    fn switch(&mut self, mut compaction: Compaction) -> Result<()> {
        if self.core.state() == VolumeState::Poisoned {
            return Err(Error::Poisoned { volume: self.core.id() });
        }
        compaction.finish()?;
        let committed = compaction.commit().inspect_err(|error| self.core.poison("replace", error))?;
        let Successor { file, index, index_file, tail_offset } = committed;
        self.file = Arc::clone(&file);
        self.extents = Extents::new(self.core.options().extent_bytes, tail_offset);
        self.index_file = index_file;
        self.index_file_failed = false;
        self.records.clear();
        drop(self.core.replace(Contents { file, index }, tail_offset));
        Ok(())
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
                    Content::Tombstone { key } => index.remove(key),
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
