//! Which rows: ranges, and the set that a ReadRows asks for.
//!
//! All the API's open and closed ends become one form, `start..end` with an
//! empty end past every row: after `k` exclusive means from `k` and a zero byte
//! on, up to `k` inclusive means before that key.

use bytes::Bytes;
use row_api::data;
use tonic::Status;

/// Rows from `start` on and before `end`; an empty `end` is past every row. So
/// the default is all rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RowRange {
    /// The first row key.
    pub start: Bytes,
    /// The first row key past the range, or empty.
    pub end: Bytes,
}

impl RowRange {
    /// The one row `key`.
    pub fn single(_key: Bytes) -> Self {
        unimplemented!()
    }

    /// Whether there is no key in it.
    pub fn is_empty(&self) -> bool {
        unimplemented!()
    }

    /// Whether `key` lies in it.
    pub fn contains(&self, _key: &[u8]) -> bool {
        unimplemented!()
    }

    /// The keys that lie in both, if any.
    pub fn intersection(&self, _other: &Self) -> Option<Self> {
        unimplemented!()
    }

    /// The keys of the range's cells.
    pub fn cell_keys(&self) -> lsm::KeyRange {
        crate::cell_key::rows_range(&self.start, &self.end)
    }
}

/// Rows to read: ranges in order, none touching another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowSet {
    ranges: Vec<RowRange>,
}

impl RowSet {
    /// All rows.
    pub fn all() -> Self {
        Self { ranges: vec![RowRange::default()] }
    }

    /// Checks `rows`, which stands at `field`, and merges its keys and ranges.
    /// Nothing at all, or an empty message, is all rows.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT for an empty or overlong key and a range that ends
    /// before it starts.
    pub fn check(_field: &str, _rows: Option<&data::RowSet>) -> Result<Self, Status> {
        unimplemented!()
    }

    /// The ranges, in order.
    pub fn ranges(&self) -> &[RowRange] {
        &self.ranges
    }

    /// Whether there is no row to read.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// What of the set lies in `range`, a tablet's for instance.
    pub fn clip(&self, _range: &RowRange) -> Self {
        unimplemented!()
    }
}
