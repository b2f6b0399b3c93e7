//! Rows cut into the cell chunks of a ReadRows answer.
//!
//! Row key, family and qualifier stand only where they change; a value beyond
//! a mebibyte is cut, with the whole size in every piece but the last,
//! because official clients accept messages of 4 MiB (`CellChunk` in the v2
//! proto). Values are shared with what was read, not copied.
//!
//! A message ends with a row wherever a row fits one, and says the key again
//! where it begins between two cells of a row: Python's client takes a message
//! that begins without a key for damage.

use bytes::Bytes;
use row_api::data::ReadRowsResponse;
use row_api::data::read_rows_response::CellChunk;
use row_api::data::read_rows_response::cell_chunk::RowStatus;

use crate::row::{Cell, Row};

/// Bytes of a value in one chunk.
const VALUE_BYTES_MAX: usize = 1 << 20;
/// A message is closed behind a row once it has this many bytes.
const MESSAGE_BYTES: usize = 512 << 10;
/// And within a row rather than that it gets more.
const MESSAGE_BYTES_MAX: usize = 3 << 19;
/// What a chunk takes beyond its bytes, roughly.
const CHUNK_OVERHEAD: usize = 32;

/// The messages that carry `rows`, none much over a megabyte and a half.
pub fn responses(rows: Vec<Row>) -> Vec<ReadRowsResponse> {
    let mut packer = Packer::default();
    for row in rows {
        packer.push_row(row);
    }
    packer.close_message();
    packer.messages
}

#[derive(Default)]
struct Packer {
    messages: Vec<ReadRowsResponse>,
    chunks: Vec<CellChunk>,
    bytes: usize,
}

impl Packer {
    fn push_row(&mut self, row: Row) {
        let mut is_first = true;
        let mut previous: Option<Cell> = None;
        let mut cells = row.cells.into_iter().peekable();
        while let Some(mut cell) = cells.next() {
            let value = std::mem::take(&mut cell.value);
            let same_family = previous.as_ref().is_some_and(|before| before.family_id == cell.family_id);
            let same_column =
                same_family && previous.as_ref().is_some_and(|before| before.qualifier == cell.qualifier);
            let mut chunk = CellChunk {
                family_name: (!same_family).then(|| cell.family.as_ref().to_owned()),
                qualifier: (!same_column).then(|| cell.qualifier.to_vec()),
                timestamp_micros: cell.timestamp_us,
                labels: cell.label.iter().map(|label| label.as_ref().to_owned()).collect(),
                ..CellChunk::default()
            };
            self.make_room_for(&chunk, value.len().min(VALUE_BYTES_MAX));
            if is_first || self.chunks.is_empty() {
                chunk.row_key = row.key.clone();
            }
            is_first = false;
            self.push_cell(chunk, value, cells.peek().is_none());
            previous = Some(cell);
        }
        if self.bytes >= MESSAGE_BYTES {
            self.close_message();
        }
    }

    /// Adds `chunk` with `value`, in pieces where it is large.
    fn push_cell(&mut self, mut chunk: CellChunk, mut value: Bytes, last_of_row: bool) {
        // A cell has at most 100 MiB, which the field has room for.
        let value_size = i32::try_from(value.len()).unwrap_or(i32::MAX);
        while value.len() > VALUE_BYTES_MAX {
            let piece = value.split_to(VALUE_BYTES_MAX);
            self.make_room_for(&chunk, piece.len());
            self.push_chunk(CellChunk { value: piece, value_size, ..std::mem::take(&mut chunk) });
        }
        self.make_room_for(&chunk, value.len());
        let row_status = last_of_row.then_some(RowStatus::CommitRow(true));
        self.push_chunk(CellChunk { value, row_status, ..chunk });
    }

    fn push_chunk(&mut self, chunk: CellChunk) {
        self.bytes += chunk_bytes(&chunk) + chunk.value.len();
        self.chunks.push(chunk);
    }

    /// Closes the message if it would get too large by `chunk` with so many bytes of a value.
    fn make_room_for(&mut self, chunk: &CellChunk, value_bytes: usize) {
        if self.bytes + chunk_bytes(chunk) + value_bytes > MESSAGE_BYTES_MAX {
            self.close_message();
        }
    }

    fn close_message(&mut self) {
        self.bytes = 0;
        if !self.chunks.is_empty() {
            let chunks = std::mem::take(&mut self.chunks);
            self.messages.push(ReadRowsResponse { chunks, ..ReadRowsResponse::default() });
        }
    }
}

/// Bytes of `chunk` beside its value, roughly.
fn chunk_bytes(chunk: &CellChunk) -> usize {
    CHUNK_OVERHEAD
        + chunk.row_key.len()
        + chunk.family_name.as_ref().map_or(0, String::len)
        + chunk.qualifier.as_ref().map_or(0, Vec::len)
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use row_api::row::RowAssembler;

    use super::*;
    use crate::schema::FamilyId;

    fn cell(family_id: u32, qualifier: &'static str, timestamp_us: i64, value: impl Into<Bytes>) -> Cell {
        Cell {
            family_id: FamilyId(family_id),
            family: format!("f{family_id}").into(),
            qualifier: qualifier.into(),
            timestamp_us,
            value: value.into(),
            label: None,
        }
    }

    fn row(key: &'static str, cells: Vec<Cell>) -> Row {
        Row { key: key.into(), cells }
    }

    /// What a client makes of the messages.
    fn assemble(messages: Vec<ReadRowsResponse>) -> Vec<Row> {
        let mut assembler = RowAssembler::default();
        let mut rows = Vec::new();
        for chunk in messages.into_iter().flat_map(|message| message.chunks) {
            let Some(row) = assembler.push(chunk).unwrap() else { continue };
            let cells = row.cells.into_iter().map(|cell| Cell {
                family_id: FamilyId(cell.family[1..].parse().unwrap()),
                family: cell.family.into(),
                qualifier: cell.qualifier,
                timestamp_us: cell.timestamp_us,
                value: cell.value,
                label: cell.labels.first().map(|label| label.as_str().into()),
            });
            rows.push(Row { key: row.key, cells: cells.collect() });
        }
        assembler.finish().unwrap();
        rows
    }

    #[test]
    fn names_stand_only_where_they_change() {
        let rows = vec![
            row(
                "r1",
                vec![cell(1, "q", 2, "a"), cell(1, "q", 1, "b"), cell(1, "r", 1, "c"), cell(2, "r", 1, "d")],
            ),
            row("r2", vec![cell(2, "r", 1, "e")]),
        ];
        let messages = responses(rows.clone());
        let names: Vec<_> = messages[0]
            .chunks
            .iter()
            .map(|chunk| {
                let qualifier = chunk.qualifier.as_ref().map(|qualifier| str::from_utf8(qualifier).unwrap());
                (&chunk.row_key[..], chunk.family_name.as_deref(), qualifier, chunk.row_status.is_some())
            })
            .collect();
        let expect: [(&[u8], _, _, _); 5] = [
            (b"r1", Some("f1"), Some("q"), false),
            (b"", None, None, false),
            (b"", None, Some("r"), false),
            (b"", Some("f2"), Some("r"), true),
            (b"r2", Some("f2"), Some("r"), true),
        ];
        assert_eq!(names, expect);
        assert_eq!(assemble(messages), rows);
    }

    #[test]
    fn large_values_are_cut_and_messages_stay_small() {
        let large: Bytes = (0..5_000_000u32).map(|i| i.to_le_bytes()[0]).collect();
        let mut cells = vec![cell(1, "a", 1, large.clone()), cell(1, "b", 1, large)];
        cells[0].label = Some("big".into());
        cells.extend((0..2_000).rev().map(|i| cell(1, "c", i, vec![7; 1_000])));
        let rows = vec![row("r", cells)];
        let messages = responses(rows.clone());
        assert!(messages.iter().all(|message| message.encoded_len() < 2 << 20));
        let sizes: Vec<i32> = messages[..5].iter().map(|message| message.chunks[0].value_size).collect();
        assert_eq!(sizes, [5_000_000, 5_000_000, 5_000_000, 5_000_000, 0]);
        assert_eq!(assemble(messages), rows);
    }

    #[test]
    fn messages_end_with_rows_and_begin_with_keys() {
        let cells = |count| (0..count).rev().map(|i| cell(1, "c", i, vec![7; 1_000])).collect();
        let rows =
            vec![row("a", cells(400)), row("b", cells(700)), row("c", cells(4_000)), row("d", cells(1))];
        let messages = responses(rows.clone());
        assert!(messages.iter().all(|message| message.encoded_len() < 2 << 20));
        let keys: Vec<_> = messages.iter().map(|message| message.chunks[0].row_key.clone()).collect();
        assert_eq!(keys, ["a", "c", "c", "c", "d"]);
        assert_eq!(assemble(messages), rows);
    }

    #[test]
    fn no_rows_make_no_message() {
        assert_eq!(responses(Vec::new()), []);
    }
}
