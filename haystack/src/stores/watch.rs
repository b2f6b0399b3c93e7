//! What a store that has replicas elsewhere learns of its own needles, for
//! whoever repairs them.

use std::collections::BTreeSet;

use parking_lot::Mutex;

use crate::overseer::{BadNeedle, Overseer};
use crate::photo_id::{PhotoKey, VolumeId};

/// Photos that are remembered; more are come upon again.
const DAMAGED_COUNT_MAX: usize = 1000;

/// Photos that the scrub or a reader found damaged, until they are written again.
#[derive(Debug, Default)]
pub struct ReplicaWatch {
    damaged: Mutex<BTreeSet<(VolumeId, PhotoKey)>>,
}

impl ReplicaWatch {
    /// The damaged photos that are known.
    pub fn damaged(&self) -> Vec<(VolumeId, PhotoKey)> {
        self.damaged.lock().iter().copied().collect()
    }

    /// The photo was written again, or deleted.
    pub(super) fn forget(&self, volume: VolumeId, key: PhotoKey) {
        self.damaged.lock().remove(&(volume, key));
    }
}

impl Overseer for ReplicaWatch {
    fn needle_is_bad(&self, needle: &BadNeedle) {
        let BadNeedle { volume, key, size, offset, error } = needle;
        tracing::warn!(%volume, key = key.0, size = size.name(), offset, %error, "a needle is damaged");
        let mut damaged = self.damaged.lock();
        if damaged.len() < DAMAGED_COUNT_MAX {
            damaged.insert((*volume, *key));
        }
    }

    fn keeps_tombstone(&self, _volume: VolumeId, _key: PhotoKey) -> bool {
        // A store does not know what others have.
        true
    }
}
