//! What can go wrong.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::{Miss, TreeId};

/// A failed engine operation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error("{0}")]
    Io(#[from] vfs::Error),
    /// A write or sync of the commit log or of a manifest failed, now or
    /// earlier: nothing is written until the engine is reopened. What was not
    /// acknowledged before may or may not be there then. Reads go on.
    #[error("the commit log failed and takes no more writes")]
    Poisoned,
    /// The disk has no space for the commit log or for a manifest. Of a
    /// manifest: nothing was changed. Of the log: writes are turned away until
    /// there is some, and the log tries with each of them; what was not
    /// acknowledged before becomes durable then, or, if the engine is reopened
    /// first, may be lost. Reads go on.
    #[error("the disk is full")]
    DiskFull,
    /// An opening with a greater epoch has sealed the commit log: somebody else
    /// has taken over, and nothing is written from here any more. Whether what
    /// was not acknowledged is in the log is unknown.
    #[error("the commit log was sealed by epoch {by}")]
    Fenced {
        /// The epoch that took over.
        by: u64,
    },
    /// The engine was closed.
    #[error("the engine is closed")]
    Closed,
    /// Somebody else has the directory open.
    #[error("{} is in use", dir.display())]
    Locked {
        /// The engine's directory.
        dir: PathBuf,
    },
    /// The directory was opened under this epoch or a greater one before.
    #[error("epoch {given} is not greater than {found}, which the directory has seen")]
    StaleEpoch {
        /// What the caller gave.
        given: u64,
        /// The greatest epoch among the directory's files.
        found: u64,
    },
    /// An option is out of its range.
    #[error("option {name} is {found}, must be {range}")]
    InvalidOption {
        /// The option's name.
        name: &'static str,
        /// What it may be.
        range: &'static str,
        /// What it is.
        found: u64,
    },
    /// There is no such tree, or not any more. Nothing was written.
    #[error("there is no tree {}", .0.0)]
    NoSuchTree(TreeId),
    /// There is such a tree, or was one of late.
    #[error("tree {} exists or existed", .0.0)]
    TreeExists(TreeId),
    /// A tree was made with a merge operator that [`crate::Options::merge_operators`]
    /// does not hold: its operands can be read by no other. Nothing was changed.
    #[error("tree {} needs the merge operator {name:?}, which is not among the options", tree.0)]
    UnknownMergeOperator {
        /// The tree.
        tree: TreeId,
        /// The operator's name.
        name: String,
    },
    /// A merge operand in, or for, a tree that was made without a merge operator. Nothing was written.
    #[error("tree {} has no merge operator", .0.0)]
    NoMergeOperator(TreeId),
    /// A read without permission to block needs a block that is not in memory.
    #[error("{0} are not in memory")]
    WouldBlock(Miss),
    /// A batch is larger than a commit log record may be. Nothing was written.
    #[error("a batch of {bytes} bytes is larger than {bytes_max}")]
    BatchTooLarge {
        /// The batch's size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// A flush or a compaction in the background failed; it is tried again.
    #[error("background work failed")]
    Background(#[source] Arc<Error>),
    /// A file holds bytes that nobody wrote there. Reading it again changes nothing.
    #[error("{} is damaged at offset {offset}: {what}", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where in it: the start of the block or record that does not hold, in bytes.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// A key and its value together are longer than anything that is stored; nothing was written.
    #[error("an entry of {bytes} bytes is longer than the {bytes_max} allowed")]
    EntryTooLarge {
        /// What they have.
        bytes: usize,
        /// What is allowed.
        bytes_max: usize,
    },
    /// A table cannot become part of a tree. Nothing was changed.
    #[error("{} cannot be taken in: {what}", file.display())]
    UnfitTable {
        /// The table's file.
        file: PathBuf,
        /// What is against it.
        what: &'static str,
    },
    /// What a checkpoint holds cannot become a tree. Nothing was changed.
    #[error("{} cannot be restored from: {what}", dir.display())]
    UnfitCheckpoint {
        /// The checkpoint's directory.
        dir: PathBuf,
        /// What is against it.
        what: &'static str,
    },
    /// Trees cannot be united: their key ranges overlap, or their formats differ. Nothing was changed.
    #[error("the parts of tree {} overlap or differ in format", tree.0)]
    UnfitParts {
        /// The tree that was to be made of them.
        tree: TreeId,
    },
    /// A table was given its keys out of order; what was written of it is of no use.
    #[error("keys of {} came out of order", file.display())]
    OutOfOrder {
        /// The table's file.
        file: PathBuf,
    },
}

impl Error {
    /// What an error of a write is where the disk was full, of which no harm is done.
    pub(crate) fn told_full(self) -> Self {
        match self {
            Self::Io(io) if matches!(io.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                tracing::warn!(error = &io as &dyn std::error::Error, "the disk is full");
                Self::DiskFull
            }
            error => error,
        }
    }
}

/// An engine operation's outcome.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a decoder that knows no file found wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damage(pub(crate) &'static str);

impl Damage {
    /// The damage as an error, found in the block or record at `offset` of `file`.
    pub(crate) fn at(self, file: &Path, offset: u64) -> Error {
        Error::Damaged { file: file.to_owned(), offset, what: self.0 }
    }
}
