//! The cache's items, from a clean stop to the next start.
//!
//! What rows and photos became while nobody followed their changes is not
//! known, so keys that have a route are read anew from their origin.

use std::error::Error;
use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

use cache_proxy::{Cache, has_route};

/// Takes the items of the last clean stop into `cache`, if there are any.
pub(super) fn load(cache: &Cache, path: &Path) {
    match cache.load(path, |key| !has_route(key)) {
        Ok(loaded) => tracing::info!(items = loaded.item_count, "the cache has what the last stop saved"),
        Err(error) => tracing::warn!(%error, cause = ?error.source(), "the cache starts cold"),
    }
}

/// Saves the items; a stop goes on if that fails.
pub(super) fn save(cache: &Cache, path: &Path) {
    match cache.save(path, &[]) {
        Ok(items) => tracing::info!(items, "saved the cache"),
        Err(error) => tracing::warn!(%error, cause = ?error.source(), "the cache will start cold"),
    }
}

/// Removes items that nobody is to load: they would be stale at the start after this one.
pub(super) fn discard(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        outcome => outcome.and_then(|()| File::open(path.parent().unwrap_or(path))?.sync_all()),
    }
}
