//! Filters.

use crate::FilterKey;

/// The hash of a filter key, computed once and shown to the filters of many tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FilterHash {
    hash: u64,
    rule: FilterKey,
}

impl FilterHash {
    /// The hash for point reads of `user_key`.
    pub(crate) fn of_key(user_key: &[u8], rule: FilterKey) -> Self {
        unimplemented!()
    }
}
