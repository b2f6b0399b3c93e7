//! How many threads compact at once.

use parking_lot::Mutex;

/// The threads that may compact, over all trees.
#[derive(Debug)]
pub(crate) struct CompactionThreads {
    free: Mutex<usize>,
}

impl CompactionThreads {
    pub(crate) fn new(count: usize) -> Self {
        Self { free: Mutex::new(count) }
    }

    /// Permits for `count` threads; none unless as many are free.
    pub(crate) fn take(&self, count: usize) -> Option<Permits<'_>> {
        let mut free = self.free.lock();
        *free = free.checked_sub(count)?;
        Some(Permits { count, threads: self })
    }

    /// No permit, to be extended.
    pub(crate) fn none(&self) -> Permits<'_> {
        Permits { count: 0, threads: self }
    }
}

/// Permits to compact in some threads, given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Permits<'a> {
    count: usize,
    threads: &'a CompactionThreads,
}

impl Permits<'_> {
    /// Takes what is free until there are `count`.
    pub(crate) fn extend(&mut self, count: usize) {
        let mut free = self.threads.free.lock();
        let more = count.saturating_sub(self.count).min(*free);
        *free -= more;
        self.count += more;
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }
}

impl Drop for Permits<'_> {
    fn drop(&mut self) {
        *self.threads.free.lock() += self.count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_given_than_there_are() {
        let threads = CompactionThreads::new(3);
        let mut first = threads.take(1).expect("three are free");
        let second = threads.take(1).expect("two are free");
        first.extend(4);
        assert_eq!(first.count(), 2);
        assert!(threads.take(1).is_none());
        let mut caller = threads.none();
        caller.extend(2);
        assert_eq!(caller.count(), 0);
        drop(second);
        caller.extend(2);
        assert_eq!(caller.count(), 1);
    }
}
