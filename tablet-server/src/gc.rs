//! Garbage collection rules: which versions of a column are garbage.
//!
//! Each rule marks a column's oldest versions (all but the newest n, those
//! older than an age), and both union and intersection keep that shape: once a
//! version is garbage, all older ones are. So reads skip to the next column at
//! the first garbage version, and it does not matter whether a compaction has
//! already removed some.

use std::sync::Arc;

use lsm::KeepDecision;
use row_api::admin;
use tonic::Status;

use crate::schema::TableSchema;

/// The wall clock, µs since 1970.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Checks `rule`, which stands at `field`.
///
/// # Errors
///
/// INVALID_ARGUMENT: no versions at all, an age under a millisecond, a group
/// without rules, too many bytes.
pub fn check_rule(_field: &str, _rule: &admin::GcRule) -> Result<(), Status> {
    unimplemented!()
}

/// Whether a version is garbage by `rule`: `newer_count` versions of its column
/// are newer than it.
pub fn is_garbage(_rule: &admin::GcRule, _newer_count: usize, _timestamp_us: i64, _now_us: i64) -> bool {
    unimplemented!()
}

/// What compactions of a table's trees drop: garbage by the families' rules,
/// and cells of families that are no more. To be set anew whenever the schema
/// changes; an instance made before that never drops cells of a newer family.
pub fn keep_decisions(
    _schema: Arc<TableSchema>,
    _clock: Clock,
) -> Arc<dyn Fn() -> Box<dyn KeepDecision> + Send + Sync> {
    unimplemented!()
}
