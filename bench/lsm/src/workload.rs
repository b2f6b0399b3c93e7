//! The workloads, named as db_bench of LevelDB and RocksDB names them.
//!
//! Fills begin with an empty store each round. The others share one store a
//! side, filled in random order and compacted, so that both read from settled
//! tables; `overwrite` runs first among them and is compacted away again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use clap::ValueEnum;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::data::{Shuffled, Values, key, missing_key};
use crate::measure::{Figures, Measured, Stopwatch, report};
use crate::store::{Direction, Store, StoreKind};
use crate::{Outcome, Plan};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lowercase")]
pub(crate) enum Workload {
    /// Every key once, in order.
    FillSeq,
    /// Every key once, in no order.
    FillRandom,
    /// Keys in no order, each on disk before the next.
    FillSync,
    /// As many keys as there are, at random, over those that are there.
    Overwrite,
    /// Keys that are there.
    ReadRandom,
    /// Keys that are not there, between those that are.
    ReadMissing,
    /// readrandom beside a thread that overwrites 20,000 keys a second.
    ReadWhileWriting,
    /// A cursor made, and its first entry.
    SeekRandom,
    /// Every entry in order.
    ReadSeq,
    /// Every entry in the reverse order.
    ReadReverse,
}

/// Entries of a scan between two looks at the clock.
const SCAN_LAP: u64 = 100;

/// What the writer of readwhilewriting writes each millisecond.
const WRITES_PER_MS: u32 = 20;

impl Workload {
    fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    fn needs_empty_store(self) -> bool {
        matches!(self, Self::FillSeq | Self::FillRandom | Self::FillSync)
    }
}

/// Runs the plan's workloads, round after round, on each side in turn.
pub(crate) fn compare(plan: &Plan) -> Outcome<()> {
    let (fills, others): (Vec<_>, Vec<_>) =
        plan.workloads().into_iter().partition(|workload| workload.needs_empty_store());
    for workload in fills {
        rounds(plan, workload, |kind| {
            let dir = tempfile::tempdir_in(plan.dir())?;
            let store = kind.open(dir.path(), plan.cache_bytes())?;
            run(plan, workload, &*store)
        })?;
    }
    if others.is_empty() {
        return Ok(());
    }
    let mut filled = Vec::new();
    for kind in plan.sides() {
        let dir = tempfile::tempdir_in(plan.dir())?;
        let store = kind.open(dir.path(), plan.cache_bytes())?;
        fill(plan, &*store, false)?;
        store.settle()?;
        filled.push((kind, store, dir));
    }
    for workload in others {
        rounds(plan, workload, |kind| {
            let store = filled.iter().find(|(of, ..)| *of == kind).map(|(_, store, _)| &**store);
            let store = store.expect("each side has a store");
            let figures = run(plan, workload, store)?;
            if matches!(workload, Workload::Overwrite | Workload::ReadWhileWriting) {
                store.settle()?;
            }
            Ok(figures)
        })?;
    }
    Ok(())
}

fn rounds(
    plan: &Plan,
    workload: Workload,
    mut round: impl FnMut(StoreKind) -> Outcome<Figures>,
) -> Outcome<()> {
    let mut sides: Vec<_> = plan.sides().into_iter().map(|kind| (kind, Vec::new())).collect();
    for _ in 0..plan.rounds {
        for (kind, figures) in &mut sides {
            figures.push(round(*kind)?);
        }
    }
    report(&workload.name(), &sides);
    Ok(())
}

fn run(plan: &Plan, workload: Workload, store: &dyn Store) -> Outcome<Figures> {
    match workload {
        Workload::FillSeq => Ok(Figures::of(vec![fill(plan, store, true)?])),
        Workload::FillRandom => Ok(Figures::of(vec![fill(plan, store, false)?])),
        Workload::Overwrite => Ok(Figures::of(vec![overwrite(plan, store)?])),
        Workload::FillSync => in_threads(plan, |thread| fill_sync(plan, store, thread)),
        Workload::ReadRandom | Workload::ReadMissing | Workload::SeekRandom => {
            in_threads(plan, |thread| read(plan, store, workload, thread))
        }
        Workload::ReadWhileWriting => read_while_writing(plan, store),
        Workload::ReadSeq => in_threads(plan, |_| scan(plan, store, Direction::Forward)),
        Workload::ReadReverse => in_threads(plan, |_| scan(plan, store, Direction::Backward)),
    }
}

/// Runs `part` in each of the plan's threads, given their numbers.
fn in_threads(plan: &Plan, part: impl Fn(u8) -> Outcome<Measured> + Sync) -> Outcome<Figures> {
    let parts: Outcome<Vec<_>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..plan.threads)
            .map(|thread| {
                let part = &part;
                scope.spawn(move || part(thread))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no thread panics")).collect()
    });
    Ok(Figures::of(parts?))
}

fn fill(plan: &Plan, store: &dyn Store, in_order: bool) -> Outcome<Measured> {
    let shuffled = Shuffled::new(plan.keys(), 1);
    let mut values = Values::new(1);
    let mut stopwatch = Stopwatch::start();
    for i in 0..plan.keys() {
        let i = if in_order { i } else { shuffled.get(i) };
        store.put(&key(i), values.next())?;
        stopwatch.lap(1);
    }
    store.sync()?;
    Ok(stopwatch.stop())
}

fn overwrite(plan: &Plan, store: &dyn Store) -> Outcome<Measured> {
    let mut random = SmallRng::seed_from_u64(2);
    let mut values = Values::new(2);
    let mut stopwatch = Stopwatch::start();
    for _ in 0..plan.keys() {
        store.put(&key(random.random_range(0..plan.keys())), values.next())?;
        stopwatch.lap(1);
    }
    store.sync()?;
    Ok(stopwatch.stop())
}

fn fill_sync(plan: &Plan, store: &dyn Store, thread: u8) -> Outcome<Measured> {
    let mut random = SmallRng::seed_from_u64(thread.into());
    let mut values = Values::new(thread.into());
    let mut stopwatch = Stopwatch::start();
    loop {
        store.put_synced(&key(random.random_range(0..plan.keys())), values.next())?;
        if stopwatch.lap(1) >= plan.duration() {
            return Ok(stopwatch.stop());
        }
    }
}

fn read(plan: &Plan, store: &dyn Store, workload: Workload, thread: u8) -> Outcome<Measured> {
    let mut random = SmallRng::seed_from_u64(thread.into());
    let mut stopwatch = Stopwatch::start();
    loop {
        let i = random.random_range(0..plan.keys());
        let found = match workload {
            Workload::ReadMissing => store.get(&missing_key(i))?.is_none(),
            Workload::SeekRandom => store.seek(&key(i))?.is_some(),
            _ => store.get(&key(i))?.is_some(),
        };
        if !found {
            return Err(format!("key {i} was read wrong").into());
        }
        if stopwatch.lap(1) >= plan.duration() {
            return Ok(stopwatch.stop());
        }
    }
}

fn read_while_writing(plan: &Plan, store: &dyn Store) -> Outcome<Figures> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = scope.spawn(|| -> Outcome<()> {
            let mut random = SmallRng::seed_from_u64(3);
            let mut values = Values::new(3);
            while !done.load(Ordering::Relaxed) {
                for _ in 0..WRITES_PER_MS {
                    store.put(&key(random.random_range(0..plan.keys())), values.next())?;
                }
                thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        });
        let figures = in_threads(plan, |thread| read(plan, store, Workload::ReadRandom, thread));
        done.store(true, Ordering::Relaxed);
        writer.join().expect("no thread panics")?;
        figures
    })
}

/// Goes through all of the store, again and again while there is time.
fn scan(plan: &Plan, store: &dyn Store, direction: Direction) -> Outcome<Measured> {
    let mut stopwatch = Stopwatch::start();
    let mut is_over = false;
    while !is_over {
        let mut count: u64 = 0;
        let mut byte_count = 0;
        store.scan(direction, &mut |key, value| {
            count += 1;
            byte_count += key.len() + value.len();
            if count.is_multiple_of(SCAN_LAP) {
                is_over = stopwatch.lap(SCAN_LAP) >= plan.duration();
            }
            !is_over
        })?;
        if !is_over && count != u64::from(plan.keys()) {
            return Err(format!("a scan found {count} keys and {byte_count} bytes").into());
        }
    }
    Ok(stopwatch.stop())
}
