//! A table as it was at one moment: its schema, and its tablets' data in
//! checkpoints. Backups hold one, and so does what is kept of a deleted table.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message;
use tablet_server::control::CheckpointId;
use tablet_server::table_record::TableRecord;

/// A table at one moment.
#[derive(Clone, PartialEq, Message)]
pub struct SavedTable {
    /// Its record, which names no tablets.
    #[prost(message, optional, tag = "1")]
    pub table: Option<TableRecord>,
    /// Its tablets, in the order of their rows.
    #[prost(message, repeated, tag = "2")]
    pub tablets: Vec<SavedTablet>,
}

/// A tablet at that moment.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct SavedTablet {
    /// The tablet, by whose number its data is found in the checkpoint.
    #[prost(uint64, tag = "1")]
    pub tablet: u64,
    /// Where its rows ended.
    #[prost(bytes = "bytes", tag = "2")]
    pub end: Bytes,
    /// The checkpoint that holds them.
    #[prost(uint64, tag = "3")]
    pub checkpoint: u64,
}

/// The checkpoints that hold `tablets`.
pub fn checkpoints_of<'a>(tablets: impl IntoIterator<Item = &'a SavedTablet>) -> BTreeSet<CheckpointId> {
    tablets.into_iter().map(|tablet| CheckpointId(tablet.checkpoint)).collect()
}
