//! The operating system's file system.

/// Files of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealFileSystem;
