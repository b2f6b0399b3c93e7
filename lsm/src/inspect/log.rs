//! A segment of the commit log.

use std::path::Path;

use super::id_of;
use crate::batch::Operations;
use crate::commit_log::segment::EXTENSION;
pub use crate::commit_log::survey::Loss;
use crate::commit_log::survey::segment;
use crate::internal_key::Kind;
use crate::{FileId, Result, TreeId};

/// What a segment holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Its name.
    pub id: FileId,
    /// The file's length.
    pub file_bytes: u64,
    /// Where the last group ends that holds; zeros or a torn group may follow.
    pub end: u64,
    /// The segment before, and where that ends. None for the first one, and where the description is lost.
    pub previous: Option<(FileId, u64)>,
    /// The least sequence number that the segment can hold.
    pub first_possible_sequence: Option<u64>,
    /// The first and last sequence numbers of what holds.
    pub sequences: Option<(u64, u64)>,
    /// Groups that were written and synced at once.
    pub group_count: u64,
    /// Batches.
    pub batch_count: u64,
    /// Writes in them.
    pub write_count: u64,
    /// What does not hold, with something behind it that does.
    pub losses: Vec<Loss>,
}

/// What a write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// Sets the key to this value.
    Put(&'a [u8]),
    /// Removes the key.
    Delete,
    /// Removes each key from this one to before the given one.
    DeleteRange(&'a [u8]),
    /// Changes the value by this operand.
    Merge(&'a [u8]),
}

/// A write in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write<'a> {
    /// Where its group starts in the file.
    pub offset: u64,
    /// Its sequence number.
    pub sequence: u64,
    /// The tree that it writes to.
    pub tree: TreeId,
    /// The user key.
    pub key: &'a [u8],
    /// What it does.
    pub change: Change<'a>,
}

/// Reads the segment at `path`, shows each write that holds to `visit`, and says what there is.
///
/// # Errors
///
/// - [`crate::Error::Damaged`]: its name is not a segment's. Damage inside is in the summary.
/// - [`crate::Error::Io`]
pub fn read(fs: &dyn vfs::FileSystem, path: &Path, mut visit: impl FnMut(Write<'_>)) -> Result<Summary> {
    let id = id_of(path, EXTENSION)?;
    let found = segment(fs, path, id, 0, &mut |offset, record| {
        for (sequence, operation) in (record.first_sequence..).zip(Operations::new(record.batch)) {
            let operation = operation.map_err(|damage| damage.at(path, offset))?;
            let value = &record.batch[operation.value];
            let change = match operation.kind {
                Kind::Put => Change::Put(value),
                Kind::Delete => Change::Delete,
                Kind::RangeDelete => Change::DeleteRange(value),
                Kind::Merge => Change::Merge(value),
            };
            visit(Write {
                offset,
                sequence,
                tree: operation.tree,
                key: &record.batch[operation.key],
                change,
            });
        }
        Ok(())
    })?;
    Ok(Summary {
        id,
        file_bytes: found.file_bytes,
        end: found.end,
        previous: found.descriptor.and_then(|descriptor| descriptor.previous),
        first_possible_sequence: found.descriptor.map(|descriptor| descriptor.first_sequence),
        sequences: found.sequences,
        group_count: found.group_count,
        batch_count: found.batch_count,
        write_count: found.write_count,
        losses: found.losses,
    })
}
