//! Tablets, the row service over them, and the gateway that finds them.

pub mod schema;
