//! What a store takes of the machine, asked of Linux about this process: the
//! same question to every side.
//!
//! - Memory: the anonymous part of the resident set (`statm`: resident less
//!   shared), since mapped files are the system's to take away. Sampled, since
//!   Linux keeps no high-water mark of it.
//! - Bytes written: `wchar` of `/proc/self/io`, the bytes that the store hands
//!   to write calls for logs, tables and whatever else; no side writes through
//!   maps. Not `write_bytes`, which counts the page cache's folios as they
//!   become dirty: where those are large, as on ext4, a synced record of 140
//!   bytes counts as hundreds of KiB. What the disk adds, which writes whole
//!   pages, is in neither.
//! - Disk: the blocks of the files in the store's directory.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::Outcome;

/// Bytes of anonymous memory now.
fn anonymous_bytes() -> Outcome<u64> {
    let statm = fs::read_to_string("/proc/self/statm")?;
    let mut pages = statm.split(' ').skip(1).map(str::parse::<u64>);
    match (pages.next(), pages.next()) {
        (Some(Ok(resident)), Some(Ok(shared))) => {
            Ok(resident.saturating_sub(shared) * rustix::param::page_size() as u64)
        }
        _ => Err(format!("/proc/self/statm is {statm:?}").into()),
    }
}

/// Bytes that this process has written so far.
pub(crate) fn written_bytes() -> Outcome<u64> {
    let io = fs::read_to_string("/proc/self/io")?;
    let value = io.lines().find_map(|line| line.strip_prefix("wchar: "));
    Ok(value.ok_or("/proc/self/io has no wchar")?.parse()?)
}

/// Returns once this process has written nothing for a while: background work is done.
pub(crate) fn wait_until_quiet() -> Outcome<()> {
    const LOOK_EVERY: Duration = Duration::from_millis(50);
    const QUIET_FOR: Duration = Duration::from_millis(500);
    const AT_MOST: Duration = Duration::from_secs(120);
    let began = Instant::now();
    let (mut last, mut since) = (written_bytes()?, began);
    while since.elapsed() < QUIET_FOR && began.elapsed() < AT_MOST {
        thread::sleep(LOOK_EVERY);
        let now = written_bytes()?;
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    Ok(())
}

/// Bytes of disk that the files in `dir` and below take.
pub(crate) fn disk_bytes(dir: &Path) -> Outcome<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // Files come and go while a store is open.
        let Ok(metadata) = entry.metadata() else { continue };
        bytes += if metadata.is_dir() { disk_bytes(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}

/// Follows the peak of this process's anonymous memory.
pub(crate) struct MemoryWatch {
    shared: Arc<Watched>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Watched {
    peak_bytes: AtomicU64,
    is_over: AtomicBool,
}

impl MemoryWatch {
    const LOOK_EVERY: Duration = Duration::from_millis(10);

    pub(crate) fn start() -> Self {
        let shared = Arc::new(Watched::default());
        let watched = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            while !watched.is_over.load(Ordering::Relaxed) {
                watched.peak_bytes.fetch_max(anonymous_bytes().unwrap_or(0), Ordering::Relaxed);
                thread::sleep(Self::LOOK_EVERY);
            }
        });
        Self { shared, thread: Some(thread) }
    }

    /// The peak since the last call.
    pub(crate) fn take_peak(&self) -> Outcome<u64> {
        let now = anonymous_bytes()?;
        Ok(self.shared.peak_bytes.swap(now, Ordering::Relaxed).max(now))
    }
}

impl Drop for MemoryWatch {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}
