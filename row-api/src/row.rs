//! Rows put together from the chunks of a ReadRows answer.
//!
//! A cell may come in several chunks: all but the last carry the cell's whole
//! size in `value_size`. Row key, family and qualifier stand only where they
//! change. (`ReadRowsResponse.CellChunk` in the v2 proto.)

use bytes::{Bytes, BytesMut};
use tonic::Status;

use crate::data::read_rows_response::CellChunk;
use crate::data::read_rows_response::cell_chunk::RowStatus;

/// One row as a client sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// The row's key.
    pub key: Bytes,
    /// Its cells, in the order they were sent.
    pub cells: Vec<Cell>,
}

/// One cell as a client sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// The family's name.
    pub family: String,
    /// The column's qualifier.
    pub qualifier: Bytes,
    /// The cell's timestamp, µs.
    pub timestamp_us: i64,
    /// The cell's content.
    pub value: Bytes,
    /// Labels that filters gave it.
    pub labels: Vec<String>,
}

impl Row {
    /// The newest cell of a column.
    pub fn cell(&self, family: &str, qualifier: &[u8]) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.family == family && cell.qualifier == qualifier)
    }
}

/// Takes chunks and gives rows.
#[derive(Debug, Default)]
pub struct RowAssembler {
    row: Option<Row>,
    family: String,
    qualifier: Bytes,
    /// The cell whose value is not complete yet.
    partial: Option<(Cell, BytesMut)>,
}

impl RowAssembler {
    /// Takes the next chunk; gives the row that it completes.
    ///
    /// # Errors
    ///
    /// DATA_LOSS where the chunk cannot follow what came before.
    pub fn push(&mut self, chunk: CellChunk) -> Result<Option<Row>, Status> {
        if matches!(chunk.row_status, Some(RowStatus::ResetRow(true))) {
            *self = Self::default();
            return Ok(None);
        }
        if !chunk.row_key.is_empty() && self.row.is_none() {
            self.row = Some(Row { key: chunk.row_key.clone(), cells: Vec::new() });
        }
        let row =
            self.row.as_mut().ok_or_else(|| Status::data_loss("a cell chunk came before its row key"))?;
        let (cell, mut value) = match self.partial.take() {
            Some(partial) => partial,
            None => {
                if let Some(family) = chunk.family_name {
                    self.family = family;
                }
                if let Some(qualifier) = chunk.qualifier {
                    self.qualifier = qualifier.into();
                }
                let cell = Cell {
                    family: self.family.clone(),
                    qualifier: self.qualifier.clone(),
                    timestamp_us: chunk.timestamp_micros,
                    value: Bytes::new(),
                    labels: chunk.labels,
                };
                (cell, BytesMut::new())
            }
        };
        if chunk.value_size > 0 {
            value.extend_from_slice(&chunk.value);
            self.partial = Some((cell, value));
            return Ok(None);
        }
        let value = if value.is_empty() {
            chunk.value
        } else {
            value.extend_from_slice(&chunk.value);
            value.freeze()
        };
        row.cells.push(Cell { value, ..cell });
        Ok(if matches!(chunk.row_status, Some(RowStatus::CommitRow(true))) { self.row.take() } else { None })
    }

    /// Checks that no row is left half.
    ///
    /// # Errors
    ///
    /// DATA_LOSS where one is.
    pub fn finish(&self) -> Result<(), Status> {
        match self.row {
            Some(_) => Err(Status::data_loss("the answer ended within a row")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(
        row: &'static str,
        family: Option<&str>,
        qualifier: Option<&'static str>,
        value: &'static str,
    ) -> CellChunk {
        CellChunk {
            row_key: row.into(),
            family_name: family.map(str::to_owned),
            qualifier: qualifier.map(|text| text.as_bytes().to_vec()),
            value: value.into(),
            ..CellChunk::default()
        }
    }

    #[test]
    fn names_carry_over_and_split_values_join() {
        let mut assembler = RowAssembler::default();
        assert_eq!(assembler.push(chunk("r", Some("f"), Some("q"), "one")).unwrap(), None);
        let first_half = CellChunk { value_size: 6, ..chunk("", None, Some("p"), "two") };
        assert_eq!(assembler.push(first_half).unwrap(), None);
        assert!(assembler.finish().is_err());
        let last_half =
            CellChunk { row_status: Some(RowStatus::CommitRow(true)), ..chunk("", None, None, "two") };
        let row = assembler.push(last_half).unwrap().unwrap();
        assert_eq!(row.cell("f", b"q").unwrap().value, "one");
        assert_eq!(row.cell("f", b"p").unwrap().value, "twotwo");
        assembler.finish().unwrap();
    }

    #[test]
    fn a_cell_without_a_row_is_data_loss() {
        let error = RowAssembler::default().push(chunk("", Some("f"), None, "x")).unwrap_err();
        assert_eq!(error.code(), tonic::Code::DataLoss);
    }
}
