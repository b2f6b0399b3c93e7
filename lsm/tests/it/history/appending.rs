//! A merge operator that appends: the order of operands shows, and so does one
//! that is lost or applied twice.

use std::sync::Arc;

use bytes::Bytes;
use lsm::MergeOperator;

use super::model::appended;

#[derive(Debug)]
struct Appending {
    combining: bool,
}

/// The operator's name.
pub fn name(combining: bool) -> &'static str {
    if combining { "append, combining" } else { "append" }
}

/// All operators that trees of a history can have.
pub fn operators() -> Vec<Arc<dyn MergeOperator>> {
    vec![Arc::new(Appending { combining: false }), Arc::new(Appending { combining: true })]
}

impl MergeOperator for Appending {
    fn name(&self) -> &'static str {
        name(self.combining)
    }

    fn merge(&self, _key: &[u8], base: Option<&[u8]>, operands: &[Bytes]) -> Bytes {
        assert!(!operands.is_empty(), "there is nothing to merge");
        appended(base, operands.iter().map(|operand| &operand[..])).into()
    }

    fn combine(&self, key: &[u8], operands: &[Bytes]) -> Option<Bytes> {
        assert!(operands.len() > 1, "there is nothing to combine");
        self.combining.then(|| self.merge(key, None, operands))
    }
}
