//! Which pages of a file the system has in memory: all that were ever read or
//! written, but for those that a test has put out.

use std::collections::BTreeSet;
use std::ops::Range;

/// What the system keeps or lacks as a whole.
const PAGE_BYTES: u64 = 4096;

/// The pages of one file.
#[derive(Debug, Default)]
pub(super) struct Residency {
    absent: BTreeSet<u64>,
}

impl Residency {
    /// Puts the pages of `range` out of memory.
    pub(super) fn evict(&mut self, range: Range<u64>) {
        self.absent.extend(pages(range));
    }

    /// What is read or written is in memory afterwards.
    pub(super) fn touch(&mut self, offset: u64, bytes: usize) {
        if !self.absent.is_empty() {
            pages(span(offset, bytes)).for_each(|page| _ = self.absent.remove(&page));
        }
    }

    /// Whether all of these bytes are in memory.
    pub(super) fn holds(&self, offset: u64, bytes: usize) -> bool {
        self.absent.range(pages(span(offset, bytes))).next().is_none()
    }
}

fn span(offset: u64, bytes: usize) -> Range<u64> {
    offset..offset.saturating_add(bytes as u64)
}

fn pages(range: Range<u64>) -> Range<u64> {
    range.start / PAGE_BYTES..range.end.max(range.start).div_ceil(PAGE_BYTES).max(range.start / PAGE_BYTES)
}
