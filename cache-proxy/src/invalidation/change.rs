//! One row's change, taken apart as it arrives: what it touches, and the number
//! by which a write through this proxy knows it again.
//!
//! Long values come in pieces, over several messages. Nothing of them is kept:
//! they go into the number, which is a hash of the row and the mutations in order.

use std::hash::Hasher;

use row_api::data::mutation::Mutation as Change;
use row_api::data::read_change_stream_response::MutationChunk;
use row_api::data::{Mutation, TimestampRange};
use twox_hash::XxHash3_64;

use super::table_state::Column;
use crate::origins::cell::column_of;

/// Columns that a change names one by one, before the whole row is taken.
const COLUMN_COUNT_MAX: usize = 1000;

/// What a change does to its row, as far as caches care.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Touched {
    /// Cells of these columns changed; not in order, and some twice.
    pub(crate) columns: Vec<Column>,
    /// Any column of these may have changed.
    pub(crate) families: Vec<String>,
    /// Any column may have changed.
    pub(crate) row: bool,
}

/// A change that is being taken apart.
pub(crate) struct ChangeReader {
    hash: XxHash3_64,
    touched: Touched,
}

impl ChangeReader {
    /// A change of `row`.
    pub(crate) fn new(row: &[u8]) -> Self {
        let mut reader = Self { hash: XxHash3_64::new(), touched: Touched::default() };
        reader.hash_bytes(row);
        reader
    }

    /// The number of the change of `row` by `mutations`.
    pub(crate) fn number(row: &[u8], mutations: &[Mutation]) -> u64 {
        let mut reader = Self::new(row);
        for mutation in mutations {
            if let Some(change) = &mutation.mutation {
                reader.read(change, true, change_value_bytes(change));
            }
        }
        reader.finish().1
    }

    /// Takes the next chunk of the change.
    pub(crate) fn push(&mut self, chunk: &MutationChunk) {
        let Some(change) = chunk.mutation.as_ref().and_then(|mutation| mutation.mutation.as_ref()) else {
            return;
        };
        match &chunk.chunk_info {
            Some(info) if info.chunked_value_offset > 0 => {
                if let Change::SetCell(set) = change {
                    self.hash.write(&set.value);
                }
            }
            Some(info) => {
                let value_bytes = usize::try_from(info.chunked_value_size).unwrap_or(usize::MAX);
                self.read(change, false, value_bytes);
            }
            None => self.read(change, true, change_value_bytes(change)),
        }
    }

    /// What the change touches, and its number.
    pub(crate) fn finish(self) -> (Touched, u64) {
        (self.touched, self.hash.finish())
    }

    fn read(&mut self, change: &Change, is_whole: bool, value_bytes: usize) {
        debug_assert!(!is_whole || value_bytes == change_value_bytes(change));
        match change {
            Change::SetCell(set) => {
                self.hash.write_u8(1);
                self.touch(&set.family_name, &set.column_qualifier);
                self.hash.write_i64(set.timestamp_micros);
                self.hash.write_usize(value_bytes);
                self.hash.write(&set.value);
            }
            Change::DeleteFromColumn(delete) => {
                self.hash.write_u8(2);
                self.touch(&delete.family_name, &delete.column_qualifier);
                let TimestampRange { start_timestamp_micros, end_timestamp_micros } =
                    delete.time_range.unwrap_or_default();
                self.hash.write_i64(start_timestamp_micros);
                self.hash.write_i64(end_timestamp_micros);
            }
            Change::DeleteFromFamily(delete) => {
                self.hash.write_u8(3);
                self.hash_bytes(delete.family_name.as_bytes());
                self.touched.families.push(delete.family_name.clone());
            }
            Change::DeleteFromRow(_) => {
                self.hash.write_u8(4);
                self.touched.row = true;
            }
            // Additions to aggregates and whatever comes later: cautiously.
            _ => {
                self.hash.write_u8(5);
                self.touched.row = true;
            }
        }
    }

    fn touch(&mut self, family: &str, qualifier: &[u8]) {
        self.hash_bytes(family.as_bytes());
        self.hash_bytes(qualifier);
        if self.touched.row {
            return;
        }
        if self.touched.columns.len() >= COLUMN_COUNT_MAX {
            self.touched.columns.clear();
            self.touched.row = true;
            return;
        }
        let qualifier = column_of(qualifier);
        let is_last = |(last_family, last): &Column| last_family == family && last == qualifier;
        if !self.touched.columns.last().is_some_and(is_last) {
            self.touched.columns.push((family.to_owned(), qualifier.to_vec()));
        }
    }

    fn hash_bytes(&mut self, bytes: &[u8]) {
        self.hash.write_usize(bytes.len());
        self.hash.write(bytes);
    }
}

fn change_value_bytes(change: &Change) -> usize {
    match change {
        Change::SetCell(set) => set.value.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use row_api::data::mutation::{DeleteFromFamily, DeleteFromRow, SetCell};
    use row_api::data::read_change_stream_response::mutation_chunk::ChunkInfo;

    use super::*;

    fn set(qualifier: &'static str, value: &'static str) -> Change {
        Change::SetCell(SetCell {
            family_name: "f".into(),
            column_qualifier: qualifier.into(),
            timestamp_micros: 3_000,
            value: value.into(),
        })
    }

    fn chunk(change: Change, chunk_info: Option<ChunkInfo>) -> MutationChunk {
        MutationChunk { chunk_info, mutation: Some(Mutation::from(change).into()) }
    }

    #[test]
    fn a_value_in_pieces_gives_the_number_of_the_whole() {
        let whole = ChangeReader::number(b"row", &[set("q", "abcdef").into(), set("p", "x").into()]);
        let mut reader = ChangeReader::new(b"row");
        let piece = |offset| {
            let chunked_value_offset = offset;
            Some(ChunkInfo { chunked_value_size: 6, chunked_value_offset, last_chunk: offset == 4 })
        };
        reader.push(&chunk(set("q", "ab"), piece(0)));
        reader.push(&chunk(set("", "cd"), piece(2)));
        reader.push(&chunk(set("", "ef"), piece(4)));
        reader.push(&chunk(set("p", "x"), None));
        let (touched, number) = reader.finish();
        assert_eq!(number, whole);
        let columns = vec![("f".to_owned(), b"q".to_vec()), ("f".to_owned(), b"p".to_vec())];
        assert_eq!(touched, Touched { columns, ..Touched::default() });
    }

    #[test]
    fn numbers_tell_changes_apart() {
        let number = |row: &[u8], change: Change| ChangeReader::number(row, &[change.into()]);
        let first = number(b"row", set("q", "v"));
        for other in
            [number(b"ro", set("q", "v")), number(b"row", set("qv", "")), number(b"row", set("", "qv"))]
        {
            assert_ne!(first, other);
        }
    }

    #[test]
    fn a_companion_touches_its_column_and_wide_deletions_all() {
        let mut reader = ChangeReader::new(b"row");
        reader.push(&chunk(set("q\0memcached", "v"), None));
        let family_name = "g".to_owned();
        reader.push(&chunk(Change::DeleteFromFamily(DeleteFromFamily { family_name }), None));
        let (touched, _) = reader.finish();
        assert_eq!(touched.columns, [("f".to_owned(), b"q".to_vec())]);
        assert_eq!((touched.families, touched.row), (vec!["g".to_owned()], false));
        let mut reader = ChangeReader::new(b"row");
        reader.push(&chunk(Change::DeleteFromRow(DeleteFromRow {}), None));
        assert!(reader.finish().0.row);
    }
}
