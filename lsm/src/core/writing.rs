//! Writing: a batch passes the gate, is logged, and is applied to memtables.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Core;
use crate::batch::Operations;
use crate::commit_log::{Appending, BATCH_BYTES_MAX};
use crate::gate::{Lanes, Stalls};
use crate::memtable::Memtable;
use crate::options::Background;
use crate::sstable::ENTRY_BYTES_MAX;
use crate::tree::TreeCore;
use crate::{Error, Result, TreeId, WriteBatch};

/// What a write adds to a memtable beside its bytes, roughly.
const WRITE_OVERHEAD_BYTES: u64 = 160;

impl Core {
    /// Logs and applies `batch` and returns its last sequence number, waiting
    /// while the gate is closed.
    pub(crate) fn write(&self, mut batch: WriteBatch) -> Result<u64> {
        check_sizes(&batch)?;
        loop {
            self.retry_if_full()?;
            if !self.gate.is_calm() {
                self.catch_up_inline()?;
                self.gate.pass(&self.lanes(&batch)?, pace_bytes(&batch));
            }
            match self.append(batch)? {
                Ok(sequence) => return Ok(sequence),
                Err(refused) => batch = refused,
            }
            // The group is full.
            self.wait_durable(self.log.applied())?;
        }
    }

    /// Logs and applies `batch` and returns its last sequence number, or hands
    /// it back while the gate is closed.
    pub(crate) fn try_write(&self, batch: WriteBatch) -> Result<std::result::Result<u64, WriteBatch>> {
        check_sizes(&batch)?;
        match self.options.background {
            // Who must not wait for that is turned away meanwhile.
            Background::Threads if self.log.is_full() => self.log.turns.want(),
            Background::Threads => {}
            Background::Inline => self.retry_if_full()?,
        }
        if !self.gate.is_calm() {
            self.catch_up_inline()?;
            if !self.gate.try_pass(&self.lanes(&batch)?, pace_bytes(&batch)) {
                return Ok(Err(batch));
            }
        }
        self.append(batch)
    }

    /// Where the disk had no space for the log: tries again, since it may have some by now.
    pub(super) fn retry_if_full(&self) -> Result<()> {
        if self.log.is_full() { self.wait_durable(self.log.applied()) } else { Ok(()) }
    }

    /// Takes the log's lock, where the log takes batches.
    pub(crate) fn lock_log(&self) -> Result<Appending<'_>> {
        self.retry_if_full()?;
        let appending = self.log.lock();
        appending.check()?;
        Ok(appending)
    }

    /// Does what keeps the gate closed, if that is the caller's work.
    pub(super) fn catch_up_inline(&self) -> Result<()> {
        if self.options.background == Background::Inline { self.run_inline() } else { Ok(()) }
    }

    /// The lanes of the trees that `batch` writes to.
    pub(super) fn lanes(&self, batch: &WriteBatch) -> Result<Lanes> {
        Ok(self.find_all(batch.trees())?.iter().map(|tree| Arc::clone(&tree.lane)).collect())
    }

    /// Calls `ready` once `batch` can be written, at once if it can now or never will.
    pub(crate) fn on_writable(&self, batch: &WriteBatch, ready: Box<dyn FnOnce() + Send>) {
        match self.lanes(batch) {
            Ok(lanes) => self.gate.on_open(lanes, ready),
            Err(_) => ready(),
        }
    }

    /// Logs and applies `batch`, or hands it back where the log's group is full.
    pub(super) fn append(&self, batch: WriteBatch) -> Result<std::result::Result<u64, WriteBatch>> {
        if batch.is_empty() {
            return Ok(Ok(self.log.applied()));
        }
        let (last_sequence, is_step) = {
            let mut appending = self.log.lock();
            appending.check()?;
            if !appending.has_room_for(batch.bytes()) {
                return Ok(Err(batch));
            }
            let trees = self.find_all(batch.trees())?;
            for merged in batch.merged_trees() {
                let tree = trees.iter().find(|tree| tree.id == *merged).expect("it is one of the trees");
                tree.operator.required()?;
            }
            let count = batch.len() as u64;
            let first_sequence = appending.append(batch.encoded(), batch.len());
            let bytes: usize = apply(&trees, &batch, first_sequence);
            appending.publish();
            let active_bytes = self.active_bytes.fetch_add(bytes, Ordering::AcqRel) + bytes;
            if active_bytes >= self.options.memtable_bytes_max / 2 {
                self.freeze_largest(&appending);
            }
            (first_sequence + count - 1, active_bytes % PACE_STEP_BYTES < bytes)
        };
        if self.stalls() != Stalls::default() || (is_step && self.may_lag()) {
            self.update_gate();
        }
        // Commits that are held and not waited for must not close the gate for good.
        if self.log.gathered_bytes() >= self.options.log_buffer_bytes_max / 2 {
            self.log.turns.want();
        }
        if self.options.background == Background::Inline {
            self.run_inline()?;
        }
        Ok(Ok(last_sequence))
    }

    /// Takes the log's lock, when the log takes batches and has room for a marker of the tree `id`.
    pub(crate) fn lock_log_with_room(&self, id: TreeId) -> Result<Appending<'_>> {
        let marker_bytes = WriteBatch::marker(id).bytes();
        loop {
            let appending = self.lock_log()?;
            if appending.has_room_for(marker_bytes) {
                return Ok(appending);
            }
            drop(appending);
            self.wait_durable(self.log.applied())?;
        }
    }
}

/// The pace is looked at anew each time memtables have grown by so much.
const PACE_STEP_BYTES: usize = 16 << 10;

/// What `batch` adds to memtables, roughly.
fn pace_bytes(batch: &WriteBatch) -> u64 {
    batch.bytes() as u64 + batch.len() as u64 * WRITE_OVERHEAD_BYTES
}

/// Refuses a batch that is larger than what can be logged or stored.
fn check_sizes(batch: &WriteBatch) -> Result<()> {
    if batch.bytes() > BATCH_BYTES_MAX {
        return Err(Error::BatchTooLarge { bytes: batch.bytes(), bytes_max: BATCH_BYTES_MAX });
    }
    if batch.entry_bytes() > ENTRY_BYTES_MAX {
        return Err(Error::EntryTooLarge { bytes: batch.entry_bytes(), bytes_max: ENTRY_BYTES_MAX });
    }
    Ok(())
}

/// Applies a batch to the trees it writes to, given in the batch's order.
/// Returns by how many bytes memtables grew.
fn apply(trees: &[Arc<TreeCore>], batch: &WriteBatch, first_sequence: u64) -> usize {
    let parts = trees.iter().zip(batch.trees());
    parts.map(|(tree, id)| apply_part(&tree.state().active, *id, batch.encoded(), first_sequence)).sum()
}

/// Applies what a batch writes to the tree `id`. Returns by how many bytes the memtable grew.
pub(crate) fn apply_part(memtable: &Memtable, id: TreeId, encoded: &[u8], first_sequence: u64) -> usize {
    let before = memtable.bytes();
    for (sequence, operation) in (first_sequence..).zip(Operations::new(encoded)) {
        let operation = operation.expect("batches are encoded by this crate, and verified by a recovery");
        if operation.tree == id {
            let (key, value) = (&encoded[operation.key], &encoded[operation.value]);
            memtable.insert(key, sequence, operation.kind, value);
        }
    }
    memtable.bytes() - before
}
