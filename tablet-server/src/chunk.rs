//! Rows cut into the cell chunks of a ReadRows answer.

use row_api::data;

use crate::row::Row;

/// The messages that carry `rows`, none much over a megabyte.
pub fn responses(_rows: Vec<Row>) -> Vec<data::ReadRowsResponse> {
    unimplemented!()
}
