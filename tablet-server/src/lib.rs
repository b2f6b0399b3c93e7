//! Tablets, the row service over them, and the gateway that finds them.
//!
//! Row semantics first, synchronous and free of any runtime: requests become
//! checked values, those become batches for `lsm`, and cursors of `lsm` become rows.

pub mod schema;

pub mod cell_key;
pub mod limits;

pub mod check_and_mutate;
pub mod mutation;
pub mod read_modify_write;

pub mod chunk;
pub mod filter;
pub mod gc;
pub mod row;
pub mod row_scan;
pub mod row_set;

pub mod error;
