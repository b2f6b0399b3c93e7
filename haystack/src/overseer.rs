//! Who watches over a store's volumes from outside: the replicas, where there
//! are any.
//!
//! A store alone knows what it has, not what others have. It tells its
//! [`Overseer`] of needles that are not what was written, and asks it which
//! tombstones a compaction must carry on. [`Alone`] is the overseer of a store
//! whose photos are nowhere else, [`Unknown`] that of one which was not told.

use std::fmt;

use crate::error::Error;
use crate::photo_id::{PhotoKey, PhotoSize, VolumeId};

/// A needle that is not what was written, or cannot be read.
#[derive(Clone, Debug)]
pub struct BadNeedle {
    /// The logical volume.
    pub volume: VolumeId,
    /// The photo. A [repair](crate::writer::Purpose::Repair) writes all its sizes again.
    pub key: PhotoKey,
    /// Its size.
    pub size: PhotoSize,
    /// Where it begins in the volume's file, bytes.
    pub offset: u64,
    /// What is wrong with it.
    pub error: Error,
}

/// Watches over the volumes of a store. Called by readers, the scrubber and the
/// compactor, from any thread: implementations return at once.
pub trait Overseer: Send + Sync + fmt::Debug {
    /// A read or the scrub came upon `needle`. The same needle is told of each
    /// time that it is come upon.
    fn needle_is_bad(&self, needle: &BadNeedle);

    /// Whether a replica of `volume` may still have the photo `key`, which was
    /// deleted: then its tombstone outlives the compaction.
    fn keeps_tombstone(&self, volume: VolumeId, key: PhotoKey) -> bool;
}

/// No replica anywhere: nobody repairs, and no tombstone outlives what it
/// deleted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Overseer for Alone {
    fn needle_is_bad(&self, needle: &BadNeedle) {
        tell(needle);
    }

    fn keeps_tombstone(&self, _volume: VolumeId, _key: PhotoKey) -> bool {
        false
    }
}

/// There may be replicas: nobody repairs, and every tombstone outlives
/// compactions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unknown;

impl Overseer for Unknown {
    fn needle_is_bad(&self, needle: &BadNeedle) {
        tell(needle);
    }

    fn keeps_tombstone(&self, _volume: VolumeId, _key: PhotoKey) -> bool {
        true
    }
}

fn tell(needle: &BadNeedle) {
    let BadNeedle { volume, key, size, offset, error } = needle;
    let size = size.name();
    tracing::error!(%volume, key = key.0, size, offset, %error, "a needle is damaged, and nobody repairs it");
}
