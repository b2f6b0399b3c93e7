//! Row filters: checked once a request, then applied row by row.

use row_api::data;
use tonic::Status;

use crate::schema::TableSchema;

/// A checked filter, for tables of the schema it was compiled with. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Filter {}

impl Filter {
    /// Checks `filter`, which stands at `field`; none passes all cells.
    ///
    /// # Errors
    ///
    /// - INVALID_ARGUMENT: a limit, a pattern, a range, a missing part.
    /// - UNIMPLEMENTED: a sink.
    pub fn compile(
        _field: &str,
        _filter: Option<&data::RowFilter>,
        _schema: &TableSchema,
    ) -> Result<Self, Status> {
        unimplemented!()
    }
}
