//! `watch`: what happens in the cache, line by line, for those who asked.
//!
//! The lines are memcached's (its `logger.c`). A watcher holds a bounded number
//! of bytes that it did not read yet; what does not fit is left out and counted,
//! so that a slow watcher costs nobody else a thing. Without watchers an event
//! costs a look at one byte.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

/// memcached's bound.
const WATCHER_COUNT_MAX: usize = 20;

/// Bytes that wait for a watcher to read them.
const BUFFER_BYTES_MAX: usize = 256 << 10;

#[derive(Debug, Default)]
struct Unread {
    lines: Vec<u8>,
    skipped_count: u64,
}

/// One who watches.
#[derive(Debug)]
pub(crate) struct Watcher {
    streams: u8,
    unread: Mutex<Unread>,
    news: Notify,
}

impl Watcher {
    /// Takes what there is to read.
    pub(crate) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.unread.lock().lines)
    }

    /// Waits until there is something to read.
    ///
    /// # Cancel safety
    ///
    /// Nothing is taken.
    pub(crate) async fn news(&self) {
        self.news.notified().await;
    }
}

/// All who watch.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    /// What any of them wants to hear of.
    streams: AtomicU8,
    all: RwLock<Vec<Arc<Watcher>>>,
    last_number: AtomicU64,
    pub(crate) skipped_count: AtomicU64,
    pub(crate) sent_count: AtomicU64,
}

impl Watchers {
    /// Whether anybody wants to hear of `stream`.
    #[inline]
    pub(crate) fn want(&self, stream: u8) -> bool {
        self.streams.load(Ordering::Relaxed) & stream != 0
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.all.read().len()
    }

    /// Adds a watcher of `streams`; none if there are too many.
    pub(crate) fn add(self: &Arc<Self>, streams: u8) -> Option<Watch> {
        let mut all = self.all.write();
        if all.len() >= WATCHER_COUNT_MAX {
            return None;
        }
        let watcher = Arc::new(Watcher { streams, unread: Mutex::default(), news: Notify::new() });
        all.push(Arc::clone(&watcher));
        self.streams.store(all.iter().fold(0, |any, watcher| any | watcher.streams), Ordering::Relaxed);
        Some(Watch { watchers: Arc::clone(self), watcher })
    }

    /// Tells those who want to hear of `stream` that `event` happened.
    pub(crate) fn tell(&self, stream: u8, event: std::fmt::Arguments<'_>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let number = self.last_number.fetch_add(1, Ordering::Relaxed) + 1;
        let (seconds, microseconds) = (now.as_secs(), now.subsec_micros());
        let line = format!("ts={seconds}.{microseconds:06} gid={number} {event}\n");
        for watcher in self.all.read().iter().filter(|watcher| watcher.streams & stream != 0) {
            let mut unread = watcher.unread.lock();
            if unread.lines.len() + line.len() > BUFFER_BYTES_MAX {
                unread.skipped_count += 1;
                self.skipped_count.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            if unread.skipped_count > 0 {
                let skipped_count = std::mem::take(&mut unread.skipped_count);
                let _ = writeln!(unread.lines, "skipped={skipped_count}");
            }
            unread.lines.extend_from_slice(line.as_bytes());
            self.sent_count.fetch_add(1, Ordering::Relaxed);
            drop(unread);
            watcher.news.notify_one();
        }
    }
}

/// A watcher's place among the others, until it is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    watchers: Arc<Watchers>,
    pub(crate) watcher: Arc<Watcher>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut all = self.watchers.all.write();
        all.retain(|watcher| !Arc::ptr_eq(watcher, &self.watcher));
        let streams = all.iter().fold(0, |any, watcher| any | watcher.streams);
        self.watchers.streams.store(streams, Ordering::Relaxed);
    }
}

/// A key as memcached's lines show it: percent-encoded.
pub(crate) struct ShownKey<'k>(pub(crate) &'k [u8]);

impl std::fmt::Display for ShownKey<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for byte in self.0 {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
                write!(formatter, "{}", char::from(*byte))?;
            } else {
                write!(formatter, "%{byte:02X}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watcher_that_does_not_read_is_told_how_much_it_missed() {
        let watchers = Arc::new(Watchers::default());
        watchers.tell(1, format_args!("nobody hears this"));
        let watch = watchers.add(1).unwrap();
        assert!(watchers.want(1) && !watchers.want(2));
        for number in 0..20_000 {
            watchers.tell(1, format_args!("type=test number={number}"));
        }
        watchers.tell(2, format_args!("not asked for"));
        let lines = String::from_utf8(watch.watcher.take()).unwrap();
        assert!(lines.len() <= BUFFER_BYTES_MAX && lines.contains("type=test number=0\n"));
        watchers.tell(1, format_args!("type=last"));
        let lines = String::from_utf8(watch.watcher.take()).unwrap();
        assert!(lines.starts_with("skipped=") && lines.ends_with("type=last\n"), "{lines}");
        drop(watch);
        assert!(!watchers.want(1));
        let all: Vec<_> = (0..WATCHER_COUNT_MAX).map(|_| watchers.add(1).unwrap()).collect();
        assert!(watchers.add(1).is_none());
        drop(all);
    }

    #[test]
    fn keys_are_shown_as_memcached_shows_them() {
        assert_eq!(ShownKey(b"a:b_c/\xff").to_string(), "a%3Ab_c%2F%FF");
    }
}
