//! The workloads, named as db_bench of LevelDB and RocksDB names them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use clap::ValueEnum;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::Outcome;
use crate::data::{KEY_BYTES, Shuffled, VALUE_BYTES, Values, key, missing_key};
use crate::data_set::DataSet;
use crate::measure::{Measured, Speed, Stopwatch};
use crate::store::{Direction, Store};

/// In the order in which they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lowercase")]
pub(crate) enum Workload {
    /// Every key once, in order.
    FillSeq,
    /// Keys in no order, each on disk before the next.
    FillSync,
    /// Every key once, in no order.
    FillRandom,
    /// Keys that are there.
    ReadRandom,
    /// Keys that are not there, between those that are.
    ReadMissing,
    /// A cursor made, and its first entry.
    SeekRandom,
    /// Every entry in order.
    ReadSeq,
    /// Every entry in the reverse order.
    ReadReverse,
    /// readrandom beside a thread that overwrites 20,000 keys a second.
    ReadWhileWriting,
    /// As many keys as there are, at random, over those that are there.
    Overwrite,
    /// A tenth of the keys deleted in rows of 2,000, then scans of 100 entries from where such a row began.
    /// An operation is a scan; the time of the deletes counts.
    #[value(name = "deleterange-then-scan")]
    DeleteRangeThenScan,
}

/// Entries of a scan between two looks at the clock.
const SCAN_LAP: u64 = 100;

/// What the writer of readwhilewriting writes each millisecond.
const WRITES_PER_MS: u32 = 20;

/// Of deleterange-then-scan: how many keys in a row are deleted, in which part of all, and entries of a scan.
const DELETED_KEYS: u32 = 2_000;
const DELETED_PART: u32 = 10;
const SCANNED_ENTRIES: u64 = 100;

impl Workload {
    pub(crate) fn name(self) -> String {
        self.to_possible_value().expect("none is skipped").get_name().to_owned()
    }

    pub(crate) fn needs_empty_store(self) -> bool {
        matches!(self, Self::FillSeq | Self::FillRandom | Self::FillSync)
    }

    /// Whether it leaves the store other than it found it.
    pub(crate) fn writes(self) -> bool {
        self.needs_empty_store()
            || matches!(self, Self::ReadWhileWriting | Self::Overwrite | Self::DeleteRangeThenScan)
    }
}

/// One round of a workload on one side.
pub(crate) struct Round<'a> {
    pub(crate) store: &'a dyn Store,
    pub(crate) set: &'a DataSet,
    pub(crate) threads: u8,
    /// Of those that end by time.
    pub(crate) duration: Duration,
    /// Its number among the rounds of the same workload.
    pub(crate) round: u8,
}

impl Round<'_> {
    /// Runs `workload`; how fast, and how many bytes of keys and values it put where that tells something.
    pub(crate) fn run(&self, workload: Workload) -> Outcome<(Speed, u64)> {
        let speed = match workload {
            Workload::FillSeq => Speed::of(vec![self.fill(true)?]),
            Workload::FillRandom => Speed::of(vec![self.fill(false)?]),
            Workload::Overwrite => Speed::of(vec![self.overwrite()?]),
            Workload::FillSync => self.in_threads(|thread| self.fill_sync(thread))?,
            Workload::ReadRandom | Workload::ReadMissing | Workload::SeekRandom => {
                self.in_threads(|thread| self.read(workload, thread))?
            }
            Workload::ReadWhileWriting => self.read_while_writing()?,
            Workload::ReadSeq => self.in_threads(|_| self.scan(Direction::Forward))?,
            Workload::ReadReverse => self.in_threads(|_| self.scan(Direction::Backward))?,
            Workload::DeleteRangeThenScan => Speed::of(vec![self.delete_range_then_scan()?]),
        };
        let put_bytes = match workload {
            Workload::FillSeq | Workload::FillRandom | Workload::Overwrite => self.set.bytes(),
            Workload::FillSync => {
                let puts = speed.operations_per_second * self.duration.as_secs_f64();
                puts as u64 * (KEY_BYTES + VALUE_BYTES) as u64
            }
            _ => 0,
        };
        Ok((speed, put_bytes))
    }

    /// Runs `part` in each of the threads, given their numbers.
    fn in_threads(&self, part: impl Fn(u8) -> Outcome<Measured> + Sync) -> Outcome<Speed> {
        let parts: Outcome<Vec<_>> = thread::scope(|scope| {
            let threads: Vec<_> = (0..self.threads)
                .map(|thread| {
                    let part = &part;
                    scope.spawn(move || part(thread))
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("no thread panics")).collect()
        });
        Ok(Speed::of(parts?))
    }

    fn values(&self, seed: u64) -> Values {
        Values::new(self.set.values, seed)
    }

    /// Of keys at random; another each round and thread.
    fn random(&self, thread: u8) -> SmallRng {
        SmallRng::seed_from_u64(u64::from(self.round) << 8 | u64::from(thread))
    }

    fn random_key(&self, random: &mut SmallRng) -> u32 {
        random.random_range(0..self.set.keys)
    }

    fn fill(&self, in_order: bool) -> Outcome<Measured> {
        let shuffled = Shuffled::new(self.set.keys, 1);
        let mut values = self.values(1);
        let mut stopwatch = Stopwatch::start();
        for i in 0..self.set.keys {
            let i = if in_order { i } else { shuffled.get(i) };
            self.store.put(&key(i), values.next())?;
            stopwatch.lap(1);
        }
        self.store.sync()?;
        Ok(stopwatch.stop())
    }

    fn overwrite(&self) -> Outcome<Measured> {
        let mut random = self.random(0);
        let mut values = self.values(2);
        let mut stopwatch = Stopwatch::start();
        for _ in 0..self.set.keys {
            self.store.put(&key(self.random_key(&mut random)), values.next())?;
            stopwatch.lap(1);
        }
        self.store.sync()?;
        Ok(stopwatch.stop())
    }

    fn fill_sync(&self, thread: u8) -> Outcome<Measured> {
        let mut random = self.random(thread);
        let mut values = self.values(thread.into());
        let mut stopwatch = Stopwatch::start();
        loop {
            self.store.put_synced(&key(self.random_key(&mut random)), values.next())?;
            if stopwatch.lap(1) >= self.duration {
                return Ok(stopwatch.stop());
            }
        }
    }

    fn read(&self, workload: Workload, thread: u8) -> Outcome<Measured> {
        let mut random = self.random(thread);
        let mut stopwatch = Stopwatch::start();
        loop {
            let i = self.random_key(&mut random);
            let is_right = match workload {
                Workload::ReadMissing => self.store.get(&missing_key(i))?.is_none(),
                Workload::SeekRandom => self.store.seek(&key(i))? == Some(VALUE_BYTES),
                _ => self.store.get(&key(i))? == Some(VALUE_BYTES),
            };
            if !is_right {
                return Err(format!("key {i} was read wrong").into());
            }
            if stopwatch.lap(1) >= self.duration {
                return Ok(stopwatch.stop());
            }
        }
    }

    fn read_while_writing(&self) -> Outcome<Speed> {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let writer = scope.spawn(|| -> Outcome<()> {
                let mut random = self.random(u8::MAX);
                let mut values = self.values(3);
                while !done.load(Ordering::Relaxed) {
                    for _ in 0..WRITES_PER_MS {
                        self.store.put(&key(self.random_key(&mut random)), values.next())?;
                    }
                    thread::sleep(Duration::from_millis(1));
                }
                Ok(())
            });
            let speed = self.in_threads(|thread| self.read(Workload::ReadRandom, thread));
            done.store(true, Ordering::Relaxed);
            writer.join().expect("no thread panics")?;
            speed
        })
    }

    /// Goes through all of the store, again and again while there is time.
    fn scan(&self, direction: Direction) -> Outcome<Measured> {
        let mut stopwatch = Stopwatch::start();
        let mut is_over = false;
        while !is_over {
            let mut count: u64 = 0;
            let mut byte_count = 0;
            self.store.scan(None, direction, &mut |key, value| {
                count += 1;
                byte_count += key.len() + value.len();
                if count.is_multiple_of(SCAN_LAP) {
                    is_over = stopwatch.lap(SCAN_LAP) >= self.duration;
                }
                !is_over
            })?;
            if !is_over && byte_count as u64 != self.set.bytes() {
                return Err(format!("a scan found {count} keys and {byte_count} bytes").into());
            }
        }
        Ok(stopwatch.stop())
    }

    /// Each round deletes other keys, spread over all of them.
    fn delete_range_then_scan(&self) -> Outcome<Measured> {
        let deleted_keys = DELETED_KEYS.min(self.set.keys / DELETED_PART);
        let apart = deleted_keys * DELETED_PART;
        let deletes = self.set.keys / apart;
        let start_of = |delete| delete * apart + u32::from(self.round) % DELETED_PART * deleted_keys;
        let mut random = self.random(0);
        let mut stopwatch = Stopwatch::start();
        for delete in 0..deletes {
            let start = start_of(delete);
            self.store.delete_range(start..start + deleted_keys)?;
        }
        loop {
            let start = start_of(random.random_range(0..deletes));
            let behind = key(start + deleted_keys);
            let (mut count, mut is_right) = (0, true);
            self.store.scan(Some(&key(start)), Direction::Forward, &mut |key, _| {
                count += 1;
                is_right &= *key >= behind[..];
                count < SCANNED_ENTRIES
            })?;
            if !is_right {
                return Err(format!("a key behind {start} was deleted and is there").into());
            }
            if stopwatch.lap(1) >= self.duration {
                return Ok(stopwatch.stop());
            }
        }
    }
}
