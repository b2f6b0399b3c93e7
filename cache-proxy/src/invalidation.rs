//! Invalidation: cached cells go when their tables change, whoever changed them.
//!
//! The cache reads its tables' streams of changes over the public API, as any
//! client may. Read on in this order:
//!
//! - [`table_state`]: how fresh what is cached of a table is;
//! - [`change`]: what one change touches;
//! - [`positions`]: where streams go on, on disk;
//! - [`handover`]: partitions that take over from others, in splits and merges;
//! - [`stream`]: one partition's stream;
//! - [`follower`]: all partitions of a table.

pub(crate) mod change;
mod follower;
mod handover;
pub(crate) mod positions;
mod stream;
pub(crate) mod table_state;

pub(crate) use follower::follow_all;
