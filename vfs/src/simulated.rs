//! A file system in memory that can lose power.

/// Files in memory.
#[derive(Clone, Debug, Default)]
pub struct SimulatedFileSystem;
