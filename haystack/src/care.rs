//! What a store does to its volumes while nobody asks: a thread compacts those
//! with much garbage, another reads all needles over and over.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::pace::{Pace, Stop};
use crate::photo_id::VolumeId;
use crate::scrub::{Scrubbed, scrub_volume};
use crate::store::Store;
use crate::volume::Volume;

/// Time between two looks for garbage.
const LOOK_PERIOD: Duration = Duration::from_secs(5);

/// Time between the starts of two scrubs of everything, at least.
const SCRUB_PERIOD_MIN: Duration = Duration::from_secs(3600);

/// Time before a volume that could not be compacted is tried again.
const COMPACTION_RETRY_PERIOD: Duration = Duration::from_secs(3600);

/// Less garbage is not worth two syncs and a rename, bytes.
const GARBAGE_BYTES_MIN: u64 = 1 << 20;

/// How a store cares for its volumes.
#[derive(Clone, Copy, Debug)]
pub struct CareOptions {
    /// Part of a volume that is garbage, in percent, from which it is compacted;
    /// 0 compacts by command only.
    pub compaction_garbage_percent: u8,
    /// Bytes of a volume that a compaction reads a second; 0 is no limit.
    pub compaction_bytes_per_second: u64,
    /// Bytes that the scrub reads a second; 0 scrubs by command only.
    pub scrub_bytes_per_second: u64,
}

/// Starts the threads that care for `store` until `stop`.
///
/// # Errors
///
/// The system gives no thread.
pub(crate) fn start(
    store: &Arc<Store>,
    options: CareOptions,
    stop: &Stop,
) -> std::io::Result<Vec<JoinHandle<()>>> {
    let mut threads = Vec::new();
    if options.compaction_garbage_percent > 0 {
        let (store, stop) = (Arc::downgrade(store), stop.clone());
        let name = "haystack-compactor".to_owned();
        threads.push(
            std::thread::Builder::new().name(name).spawn(move || compact_ever(&store, options, &stop))?,
        );
    }
    if options.scrub_bytes_per_second > 0 {
        let (store, stop) = (Arc::downgrade(store), stop.clone());
        let name = "haystack-scrubber".to_owned();
        threads
            .push(std::thread::Builder::new().name(name).spawn(move || scrub_ever(&store, options, &stop))?);
    }
    Ok(threads)
}

fn compact_ever(store: &Weak<Store>, options: CareOptions, stop: &Stop) {
    let mut failed_at: BTreeMap<VolumeId, Instant> = BTreeMap::new();
    while !stop.wait(LOOK_PERIOD) {
        let Some(store) = store.upgrade() else { return };
        failed_at.retain(|_, at| at.elapsed() < COMPACTION_RETRY_PERIOD);
        for volume in store.served() {
            let id = volume.core().id();
            if failed_at.contains_key(&id) || !is_due(&volume, options.compaction_garbage_percent) {
                continue;
            }
            let pace = Pace::new(options.compaction_bytes_per_second, stop.clone());
            match store.compact(&volume, pace) {
                Ok(_) => {}
                Err(Error::Closing) => return,
                Err(error) => {
                    tracing::warn!(volume = %id, %error, "a volume is not compacted");
                    failed_at.insert(id, Instant::now());
                }
            }
        }
    }
}

/// Whether a compaction of `volume` is worth its while.
pub(crate) fn is_due(volume: &Volume, garbage_percent: u8) -> bool {
    let core = volume.core();
    let garbage_bytes = core.garbage_bytes();
    let is_much =
        garbage_bytes.saturating_mul(100) >= core.tail_offset().saturating_mul(garbage_percent.into());
    core.wants_compaction() || is_much && garbage_bytes >= GARBAGE_BYTES_MIN
}

fn scrub_ever(store: &Weak<Store>, options: CareOptions, stop: &Stop) {
    let mut pause = LOOK_PERIOD;
    while !stop.wait(pause) {
        let Some(volumes) = store.upgrade().map(|store| store.served()) else { return };
        let begun = Instant::now();
        let mut pace = Pace::new(options.scrub_bytes_per_second, stop.clone());
        for volume in volumes {
            let Ok(Scrubbed { needle_count, bytes, bad_count, .. }) = scrub_volume(&volume, &mut pace) else {
                return;
            };
            tracing::info!(volume = %volume.core().id(), needle_count, bytes, bad_count, "a volume is scrubbed");
        }
        pause = SCRUB_PERIOD_MIN.saturating_sub(begun.elapsed());
    }
}
