//! The scrub: reads every live needle and reports those that are bad, before
//! somebody wants them or the last good replica is lost.

use crate::error::Result;
use crate::overseer::BadNeedle;
use crate::pace::Pace;
use crate::volume::Volume;

/// Keys looked up at a time.
const PAGE_KEY_COUNT: usize = 256;

/// Bad needles that are named, at most; others are counted.
const NAMED_COUNT_MAX: usize = 100;

/// What a scrub of a volume found.
#[derive(Clone, Debug, Default)]
pub struct Scrubbed {
    /// Needles read.
    pub needle_count: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those of them that are not what was written, or cannot be read.
    pub bad_count: u64,
    /// The first of those.
    pub bad: Vec<BadNeedle>,
}

/// Reads every needle that is live in `volume`, each once if nobody moves it
/// meanwhile. Blocks. The volume's [`Overseer`](crate::overseer::Overseer) is told of bad ones.
///
/// # Errors
///
/// [`Closing`](crate::Error::Closing): it was told to stop. Bad needles are no error.
pub fn scrub_volume(volume: &Volume, pace: &mut Pace) -> Result<Scrubbed> {
    let mut scrubbed = Scrubbed::default();
    let scrubbed_bytes = metrics::counter!("hayloft_haystack_scrubbed_bytes_total");
    let mut after = None;
    loop {
        let page = volume.core().index().keys_after(after, PAGE_KEY_COUNT);
        let Some(last) = page.last() else { return Ok(scrubbed) };
        after = Some(last.key);
        for known in page.iter().filter(|known| !known.buried) {
            // Largest first: the order in which they lie.
            for needle in volume.locate_all(known.key).iter().rev() {
                pace.spend(needle.location.needle_bytes)?;
                scrubbed.needle_count += 1;
                scrubbed.bytes += needle.location.needle_bytes;
                scrubbed_bytes.increment(needle.location.needle_bytes);
                let Err(error) = needle.read() else { continue };
                let Some(bad) = volume.core().report(needle, &error) else { continue };
                scrubbed.bad_count += 1;
                if scrubbed.bad.len() < NAMED_COUNT_MAX {
                    scrubbed.bad.push(bad);
                }
            }
        }
    }
}
