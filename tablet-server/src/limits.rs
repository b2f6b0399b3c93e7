//! The API's limits, and how a request over one is refused.
//!
//! One sentence shape for all: the field's path, what was found, the bound:
//! `mutations[3].set_cell.column_qualifier: 17000 bytes, at most 16384`. The
//! figures are those of the published protos (`google/bigtable/v2/data.proto`,
//! `bigtable.proto`) and of Google's quota page.

use std::fmt::Display;

use tonic::Status;

/// Bytes of a row key.
pub const ROW_KEY_BYTES_MAX: usize = 4 << 10;
/// Bytes of a column qualifier.
pub const QUALIFIER_BYTES_MAX: usize = 16 << 10;
/// Bytes of a cell's value.
pub const CELL_BYTES_MAX: usize = 100 << 20;
/// Bytes of a row, all cells that a read returns together.
pub const ROW_BYTES_MAX: usize = 256 << 20;
/// Mutations of one request, over all its rows; rules of one read-modify-write.
pub const MUTATION_COUNT_MAX: usize = 100_000;
/// Characters of a family's name.
pub const FAMILY_NAME_CHARS_MAX: usize = 64;
/// Bytes of a serialized filter.
pub const FILTER_BYTES_MAX: usize = 20_480;
/// Filters within each other.
pub const FILTER_DEPTH_MAX: usize = 20;
/// Characters of a label.
pub const LABEL_CHARS_MAX: usize = 15;
/// Bytes of a serialized GC rule.
pub const GC_RULE_BYTES_MAX: usize = 500;
/// Timestamps are multiples of this, µs.
pub const TIMESTAMP_GRANULE_US: i64 = 1_000;

/// Refuses `field`, saying why.
pub fn refuse(field: impl Display, why: impl Display) -> Status {
    Status::invalid_argument(format!("{field}: {why}"))
}

/// Refuses `field` where it has more than `max` of `unit`.
///
/// # Errors
///
/// INVALID_ARGUMENT.
pub fn check_at_most(field: impl Display, found: usize, max: usize, unit: &str) -> Result<(), Status> {
    if found <= max { Ok(()) } else { Err(refuse(field, format_args!("{found} {unit}, at most {max}"))) }
}

/// Checks a row key.
///
/// # Errors
///
/// INVALID_ARGUMENT where it is empty or too long.
pub fn check_row_key(field: impl Display, row_key: &[u8]) -> Result<(), Status> {
    if row_key.is_empty() {
        return Err(refuse(field, "is empty, a row key has at least 1 byte"));
    }
    check_at_most(field, row_key.len(), ROW_KEY_BYTES_MAX, "bytes")
}

/// Checks a number of mutations or rules.
///
/// # Errors
///
/// INVALID_ARGUMENT where there is none or too many.
pub fn check_mutation_count(field: impl Display, count: usize) -> Result<(), Status> {
    if count == 0 {
        return Err(refuse(field, "is empty, at least 1 is needed"));
    }
    check_at_most(field, count, MUTATION_COUNT_MAX, "entries")
}

/// Checks the form of a family's name, not whether there is such a family.
///
/// # Errors
///
/// INVALID_ARGUMENT.
pub fn check_family_name(field: impl Display, name: &str) -> Result<(), Status> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match name.chars().find(|c| !allowed(*c)) {
        Some(c) => Err(refuse(field, format_args!("holds {c:?}, a family name is of [-_.a-zA-Z0-9]"))),
        None if name.is_empty() => Err(refuse(field, "is empty, a family name has at least 1 character")),
        None => check_at_most(field, name.len(), FAMILY_NAME_CHARS_MAX, "characters"),
    }
}

/// Checks a column's qualifier.
///
/// # Errors
///
/// INVALID_ARGUMENT where it is too long.
pub fn check_qualifier(field: impl Display, qualifier: &[u8]) -> Result<(), Status> {
    check_at_most(field, qualifier.len(), QUALIFIER_BYTES_MAX, "bytes")
}

/// Checks a cell's value.
///
/// # Errors
///
/// INVALID_ARGUMENT where it is too long.
pub fn check_value(field: impl Display, value: &[u8]) -> Result<(), Status> {
    check_at_most(field, value.len(), CELL_BYTES_MAX, "bytes")
}

/// Checks a timestamp that is not the server's clock.
///
/// # Errors
///
/// INVALID_ARGUMENT where it is negative or within a millisecond.
pub fn check_timestamp(field: impl Display, timestamp_us: i64) -> Result<(), Status> {
    if timestamp_us < 0 {
        return Err(refuse(field, format_args!("{timestamp_us}, at least 0")));
    }
    if timestamp_us % TIMESTAMP_GRANULE_US != 0 {
        return Err(refuse(
            field,
            format_args!("{timestamp_us}, must be a multiple of {TIMESTAMP_GRANULE_US} (milliseconds)"),
        ));
    }
    Ok(())
}
