//! Which rows of a tablet are asked for: one request in so many is remembered,
//! the last few of them, at the price of one atomic addition for the others.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

/// Requests from one that is remembered to the next.
const STEP: u64 = 32;

/// Requests remembered.
const SAMPLES_MAX: usize = 128;

/// Fewer say nothing.
const SAMPLES_MIN: usize = 32;

/// The rows of some of the last requests.
#[derive(Debug, Default)]
pub(crate) struct RequestSamples {
    count: AtomicU64,
    rows: Mutex<Vec<Bytes>>,
}

impl RequestSamples {
    /// Counts a request for `row`.
    #[inline]
    pub(crate) fn note(&self, row: &[u8]) {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        if number.is_multiple_of(STEP) {
            self.keep(number / STEP, row);
        }
    }

    #[cold]
    fn keep(&self, number: u64, row: &[u8]) {
        // Whoever would have to wait is not needed for the picture.
        let Some(mut rows) = self.rows.try_lock() else { return };
        let row = Bytes::copy_from_slice(row);
        if rows.len() < SAMPLES_MAX {
            rows.push(row);
        } else {
            rows[usize::try_from(number).unwrap_or(0) % SAMPLES_MAX] = row;
        }
    }

    /// A row before which, and from which on, there are at least a quarter of the requests.
    pub(crate) fn middle(&self) -> Option<Bytes> {
        let mut rows = self.rows.lock().clone();
        if rows.len() < SAMPLES_MIN {
            return None;
        }
        rows.sort_unstable();
        let median = rows[rows.len() / 2].clone();
        let first = rows.partition_point(|row| *row < median);
        let behind = rows.partition_point(|row| *row <= median);
        let is_even = |place: &usize| (rows.len() / 4..=rows.len() * 3 / 4).contains(place);
        [first, behind].into_iter().find(is_even).and_then(|place| rows.get(place).cloned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn middle(requests: impl Iterator<Item = u64>) -> Option<String> {
        let samples = RequestSamples::default();
        requests.for_each(|row| samples.note(format!("{row:05}").as_bytes()));
        samples.middle().map(|row| String::from_utf8(row.to_vec()).unwrap())
    }

    #[test]
    fn the_middle_parts_the_requests() {
        let row: u64 = middle((0..10_000).map(|i| i * 7919 % 10_000)).unwrap().parse().unwrap();
        assert!((3_500..6_500).contains(&row), "{row}");
        // Most of it is for two rows.
        assert_eq!(middle((0..10_000).map(|i| 3 + i / 32 % 2)), Some("00004".to_owned()));
    }

    #[test]
    fn one_row_alone_cannot_be_parted_and_few_requests_say_nothing() {
        assert_eq!(middle((0..10_000).map(|_| 7)), None);
        assert_eq!(middle(0..100), None);
    }
}
