//! Looks into an engine's files offline, changing nothing, whether they hold or not.
//!
//! - [`log`](mod@log): a segment of the commit log.
//! - [`manifest`]: a tree's manifest.
//! - [`directory`]: everything of an engine, and whether it fits together.
//! - [`crate::sstable::inspect`]: a table.

pub mod directory;
pub mod log;
pub mod manifest;

use std::path::Path;

use crate::error::Damage;
use crate::{FileId, Result};

/// The two numbers that the name of `path` gives the file.
fn id_of(path: &Path, extension: &str) -> Result<FileId> {
    FileId::parse(path, extension)
        .ok_or_else(|| Damage("the file's name is not one that the engine gives").at(path, 0))
}
