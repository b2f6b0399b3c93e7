//! A sample of a memtable's keys, each for as many bytes as were written since
//! the one before: how much of the memtable lies in a range is then a matter of
//! counting, where walking the range would take as long as flushing it.
//!
//! Entries are taken with a chance in proportion to their bytes: one each so
//! many bytes written, give or take a half, so that no rhythm of the writes falls in with
//! it. Once there are many, every second one goes, and the steps double.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::KeyRange;

/// Bytes from one sample to the next at first.
const STEP_BYTES_MIN: usize = 2 << 10;

/// Then every second sample goes.
const SAMPLES_MAX: usize = 4096;

/// What a sample takes, in a list with room for as many again.
pub(crate) const SAMPLE_BYTES: usize = 2 * size_of::<(Bytes, u64)>();

/// The sampled keys of one memtable.
#[derive(Debug)]
pub(crate) struct SizeSamples {
    /// Bytes until the next sample is due. Written by the memtable's one writer.
    due: AtomicUsize,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    /// As they were written, each with the bytes it stands for.
    samples: Vec<(Bytes, u64)>,
    step: usize,
    random: u64,
}

impl SizeSamples {
    pub(crate) fn new() -> Self {
        let kept = Kept { samples: Vec::new(), step: STEP_BYTES_MIN, random: 0x9e37_79b9_7f4a_7c15 };
        Self { due: AtomicUsize::new(STEP_BYTES_MIN / 2), kept: Mutex::new(kept) }
    }

    /// Counts an entry of so many bytes. Whether it became a sample.
    ///
    /// REQUIRES: one caller at a time.
    #[inline]
    pub(crate) fn count(&self, key: &[u8], bytes: usize) -> bool {
        let due = self.due.load(Ordering::Relaxed);
        if bytes < due {
            self.due.store(due - bytes, Ordering::Relaxed);
            return false;
        }
        self.sample(key, bytes - due);
        true
    }

    /// Takes `key`, whose entry goes on for so many bytes past the point where a sample was due.
    #[cold]
    fn sample(&self, key: &[u8], mut past: usize) {
        let mut kept = self.kept.lock();
        let mut stands_for = kept.step as u64;
        let due = loop {
            let next = kept.next_step();
            if past < next {
                break next - past;
            }
            past -= next;
            stands_for += kept.step as u64;
        };
        self.due.store(due, Ordering::Relaxed);
        kept.samples.push((Bytes::copy_from_slice(key), stands_for));
        if kept.samples.len() == SAMPLES_MAX {
            kept.thin_out();
        }
    }

    /// The samples in `range`, in no order, each with the bytes it stands for; and the bytes of all samples.
    pub(crate) fn within(&self, range: &KeyRange) -> (Vec<(Bytes, u64)>, u64) {
        let kept = self.kept.lock();
        let within = kept.samples.iter().filter(|(key, _)| range.contains(key)).cloned().collect();
        (within, kept.samples.iter().map(|(_, bytes)| bytes).sum())
    }
}

impl Kept {
    /// Bytes to the next sample: a step, give or take a half.
    fn next_step(&mut self) -> usize {
        // xorshift64: any spread will do.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let spread = usize::try_from(self.random >> 32).unwrap_or(0) % self.step;
        self.step / 2 + spread
    }

    /// Leaves every second sample, which stands for its neighbour's bytes, too.
    fn thin_out(&mut self) {
        let pairs = self.samples.chunks(2);
        let thinned = pairs.map(|pair| (pair[0].0.clone(), pair.iter().map(|(_, bytes)| bytes).sum()));
        self.samples = thinned.collect();
        self.step *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sstable::testing::Random;

    fn range(start: u32, end: u32) -> KeyRange {
        KeyRange { start: format!("{start:06}").into(), end: format!("{end:06}").into() }
    }

    #[test]
    fn samples_stand_for_the_bytes_of_their_range() {
        let mut random = Random::new(1);
        let samples = SizeSamples::new();
        let (mut total, mut low) = (0, 0);
        for i in 0..400_000 {
            let key = random.below(100_000);
            // One in a hundred is large, and every third one in the lower part.
            let bytes = if i % 100 == 0 { 20_000 } else { 100 + random.below(200) };
            let key = if i % 3 == 0 { key % 10_000 } else { key };
            total += bytes;
            low += if key < 10_000 { bytes } else { 0 };
            samples.count(format!("{key:06}").as_bytes(), bytes);
        }
        let (within, all) = samples.within(&range(0, 10_000));
        let within: u64 = within.iter().map(|(_, bytes)| bytes).sum();
        let share = |part: u64, whole: u64| part * 1000 / whole;
        let (found, expected) = (share(within, all), share(low as u64, total as u64));
        assert!(found.abs_diff(expected) <= expected / 10, "{found} for {expected} per mille");
        assert!(all.abs_diff(total as u64) < total as u64 / 20, "{all} for {total}");
        assert!(samples.kept.lock().samples.len() < SAMPLES_MAX);
    }

    #[test]
    fn one_great_entry_stands_for_itself() {
        let samples = SizeSamples::new();
        samples.count(b"a", 10 << 20);
        samples.count(b"b", 100);
        let (within, all) = samples.within(&KeyRange { start: "a".into(), end: "b".into() });
        assert_eq!(within.len(), 1);
        assert_eq!(within[0].1, all);
        assert!(all.abs_diff(10 << 20) < 1 << 20, "{all}");
    }
}
