//! Faults short of a power cut, one at each operation of a workload: a disk
//! that fails once, one that is full for a while, and bits that rot.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;

use lsm::{Engine, Error, Options, TreeFormat, WriteBatch};
use vfs::simulated::FaultPlan;
use vfs::{Access, FileSystem, SimulatedFileSystem};

use crate::engine::TREE;
use crate::history::model::Transcript;
use crate::history::recovered::{Reached, verify, verify_contents};
use crate::history::settings::Settings;
use crate::history::step::Step;
use crate::history::subject::{Checked, DIR, Failure, LEDGER, Subject, wrong};
use crate::history::workload::workload;
use crate::power_cut::options;
use crate::seeds::seed_factor;

const RECOVERY_EPOCH: u64 = 1000;

/// A workload, and a fault planned before one of its operations.
struct Faulty {
    steps: Vec<Step>,
    expected: Transcript,
}

/// What became of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It goes on once the fault is over.
    GoesOn,
    /// It has to be reopened.
    Poisoned,
    /// It could not be opened during the fault.
    Closed,
}

impl Faulty {
    fn new(seed: u64, rounds: usize) -> Self {
        let steps = workload(seed, rounds);
        Self { expected: Transcript::of(&steps), steps }
    }

    /// Runs the workload with `plan` in force from the operation `at` on, until
    /// the engine refuses a step, and verifies what can be read then, what can
    /// be written after the fault, and what a reopening finds. `None` if the
    /// workload has no such operation.
    fn run(&self, at: u64, plan: fn(&SimulatedFileSystem, u64) -> FaultPlan) -> Checked<Option<Fate>> {
        let count = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&count);
        let mut subject = Subject::watched(Settings::Fixed(options()), move |fs, number| {
            if counted.fetch_add(1, Ordering::Relaxed) == at {
                fs.set_faults(plan(fs, number));
            }
        });
        if let Err(failure @ Failure::Wrong(_)) = subject.run(&self.steps, &self.expected) {
            return Err(failure);
        }
        if count.load(Ordering::Relaxed) <= at {
            return Ok(None);
        }
        let reached = Reached::by(&subject.progress);
        if let Some(engine) = subject.engine.as_ref().filter(|engine| engine.tree(LEDGER).is_some()) {
            verify_contents(engine, &self.expected, reached)?;
        }
        let during_fault = subject.fs.image(at);
        subject.fs.set_faults(FaultPlan::default());
        let fate = subject.engine.as_ref().map_or(Ok(Fate::Closed), go_on)?;
        let fs = subject.fs.clone();
        drop(subject);
        verify(&during_fault, RECOVERY_EPOCH, &options(), &self.expected, reached)?;
        let image = fs.image(at);
        for fs in [fs, image] {
            let engine = verify(&fs, RECOVERY_EPOCH, &options(), &self.expected, reached)?;
            let snapshot = engine.snapshot();
            let more = engine.tree(LEDGER).map(|ledger| ledger.get(&snapshot, b"more")).transpose()?;
            if fate == Fate::GoesOn && more.flatten().is_none() {
                return wrong("what was written after the fault is lost".to_owned());
            }
        }
        Ok(Some(fate))
    }

    /// Runs the workload with hardly any space left from the operation `at` on and no power `after` operations later, and
    /// verifies what a reopening finds. False if the workload has no such operation.
    fn run_to_a_cut(&self, at: u64, after: u64) -> Checked<bool> {
        let count = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&count);
        let mut subject = Subject::watched(Settings::Fixed(options()), move |fs, number| {
            if counted.fetch_add(1, Ordering::Relaxed) == at {
                fs.set_faults(FaultPlan { cut_at: Some(number + after), ..space_for(number * 37 % 400, fs) });
            }
        });
        if let Err(failure @ Failure::Wrong(_)) = subject.run(&self.steps, &self.expected) {
            return Err(failure);
        }
        // Writes that are turned away try again what was not before.
        if let Some(engine) = &subject.engine {
            for _ in 0..after {
                _ = go_on(engine);
            }
        }
        let reached = Reached::by(&subject.progress);
        let image = subject.fs.power_cut(at);
        verify(&image, RECOVERY_EPOCH, &options(), &self.expected, reached)?;
        Ok(count.load(Ordering::Relaxed) > at)
    }

    /// Runs the workload once for every one of its operations. Returns how often each fate was met.
    fn run_at_each(&self, plan: fn(&SimulatedFileSystem, u64) -> FaultPlan) -> [u64; 3] {
        let mut fates = [0; 3];
        for at in 0.. {
            match self.run(at, plan) {
                Ok(Some(fate)) => fates[fate as usize] += 1,
                Ok(None) => break,
                Err(failure) => panic!("fault at {at}: {failure}"),
            }
        }
        fates
    }
}

/// A disk that has space for `bytes` more.
fn space_for(bytes: u64, fs: &SimulatedFileSystem) -> FaultPlan {
    let capacity = 1 << 40;
    let free = fs.available_bytes(Path::new("/")).expect("the power is on");
    FaultPlan { capacity_bytes: Some(capacity - free + bytes), ..FaultPlan::default() }
}

/// Writes and flushes, now that nothing fails any more.
fn go_on(engine: &Engine) -> Checked<Fate> {
    if engine.tree(LEDGER).is_none() {
        return Ok(Fate::Closed);
    }
    let mut batch = WriteBatch::new();
    batch.put(LEDGER, b"more", b"");
    match engine.write(batch).and_then(|commit| commit.wait()) {
        Ok(()) => {}
        Err(Error::Poisoned) => return Ok(Fate::Poisoned),
        Err(error) => return Err(error.into()),
    }
    for tree in engine.trees() {
        tree.compact()?;
    }
    Ok(Fate::GoesOn)
}

#[test]
fn an_operation_that_fails_once_costs_at_most_a_reopening() {
    for seed in 0..seed_factor().div_ceil(10) {
        let fates = Faulty::new(seed, 15)
            .run_at_each(|_, number| FaultPlan { fail_at: Some(number), ..FaultPlan::default() });
        let [goes_on, poisoned, closed] = fates;
        println!("seed {seed}: {goes_on} went on, {poisoned} were poisoned, {closed} did not open");
        assert!(goes_on > 50 && poisoned > 100 && closed > 10);
    }
}

#[test]
fn a_full_disk_turns_writes_away_keeps_reads_and_is_forgotten_once_there_is_room() {
    for seed in 0..seed_factor().div_ceil(10) {
        let faulty = Faulty::new(seed, 15);
        let [goes_on, poisoned, closed] = faulty.run_at_each(|fs, number| space_for(number * 37 % 400, fs));
        println!("seed {seed}: {goes_on} went on, {poisoned} were poisoned, {closed} did not open");
        assert!(goes_on > 100 && poisoned == 0);
    }
}

#[test]
fn a_power_cut_while_the_disk_is_full_loses_nothing_that_was_acknowledged() {
    const STRIDE: usize = 5;
    for seed in 0..seed_factor().div_ceil(10) {
        let faulty = Faulty::new(seed, 15);
        for after in 1..8 {
            for at in (after..).step_by(STRIDE) {
                match faulty.run_to_a_cut(at, after) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(failure) => panic!("full at {at}, cut {after} later: {failure}"),
                }
            }
        }
    }
}

/// Writes keys with this prefix until so many are acknowledged, waiting for each in another way.
/// Counts how often it was turned away.
fn write_until_acknowledged(
    engine: &Engine,
    prefix: usize,
    count: usize,
    turned_away: &AtomicU64,
) -> Vec<String> {
    let (mut acknowledged, mut tries) = (Vec::new(), 0);
    while acknowledged.len() < count {
        tries += 1;
        let key = format!("{prefix}-{tries}");
        let mut batch = WriteBatch::new();
        batch.put(TREE, key.as_bytes(), &[7; 100]);
        let written = match tries % 3 {
            0 => engine.write(batch).and_then(|commit| {
                let (sender, receiver) = mpsc::channel();
                commit.on_durable(move |outcome| sender.send(outcome).expect("received"));
                receiver.recv().expect("it is called")
            }),
            1 => match engine.try_write(batch) {
                Ok(Ok(commit)) => commit.wait(),
                Ok(Err(_)) => continue,
                Err(error) => Err(error),
            },
            _ => engine.write(batch).and_then(|commit| commit.wait()),
        };
        match written {
            Ok(()) => acknowledged.push(key),
            Err(Error::DiskFull) => _ = turned_away.fetch_add(1, Ordering::Relaxed),
            Err(error) => panic!("{error:?}"),
        }
    }
    acknowledged
}

#[test]
fn whoever_waits_is_turned_away_from_a_full_disk_and_let_in_again() {
    const WRITERS: usize = 4;
    let fs = SimulatedFileSystem::new();
    let options = Options { log_segment_bytes: 16 << 10, ..Options::default() };
    let open = |fs: &SimulatedFileSystem, epoch| {
        Engine::open(Arc::new(fs.clone()), Path::new(DIR), epoch, options.clone()).expect("opens")
    };
    let engine = open(&fs, 1);
    engine.create_tree(TREE, TreeFormat::default()).expect("created");
    let turned_away = AtomicU64::new(0);
    let acknowledged: Vec<_> = thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|prefix| {
                let (engine, turned_away) = (&engine, &turned_away);
                scope.spawn(move || write_until_acknowledged(engine, prefix, 300, turned_away))
            })
            .collect();
        for round in 1..4 {
            fs.set_faults(space_for(0, &fs));
            let is_over = || writers.iter().all(thread::ScopedJoinHandle::is_finished);
            while turned_away.load(Ordering::Relaxed) < round * 50 && !is_over() {
                thread::yield_now();
            }
            fs.set_faults(FaultPlan::default());
        }
        writers.into_iter().flat_map(|writer| writer.join().expect("no assertion failed")).collect()
    });
    assert!(turned_away.into_inner() >= 50);
    let fs = fs.power_cut(1);
    let engine = open(&fs, 2);
    let (tree, snapshot) = (engine.tree(TREE).expect("created"), engine.snapshot());
    for key in acknowledged {
        assert!(tree.get(&snapshot, key.as_bytes()).expect("readable").is_some(), "{key} was acknowledged");
    }
}

/// The files below a directory, and their lengths.
fn files(fs: &SimulatedFileSystem, kind: &str) -> Vec<(PathBuf, u64)> {
    let dir = Path::new(DIR).join(kind);
    let names = fs.list(&dir).expect("listed");
    let length = |path: &Path| fs.open(path, Access::Read).and_then(|file| file.len()).expect("measured");
    names.iter().map(|name| dir.join(name)).map(|path| (path.clone(), length(&path))).collect()
}

/// Flips a bit of each `stride`-th byte of every file below `kind`. Returns how many flips were found out.
fn flip(kind: &str, stride: usize) -> (u64, u64) {
    let steps = workload(7, 25);
    let expected = Transcript::of(&steps);
    let mut subject = Subject::new(Settings::Fixed(options()));
    subject.run(&steps, &expected).unwrap_or_else(|failure| panic!("{failure}"));
    let mut reached = Reached::by(&subject.progress).with_all_acknowledged();
    if kind == "log" {
        // The last frame's damage cannot be told from a write that power cut short.
        reached = reached.but_for_the_last_group();
    }
    let fs = subject.fs.clone();
    drop(subject);
    let fs = fs.power_cut(0);
    let (mut detected, mut harmless) = (0, 0);
    for (path, length) in files(&fs, kind) {
        for offset in (0..length).step_by(stride) {
            let image = fs.image(0);
            image.flip_bit(&path, offset, (offset % 8) as u32);
            match verify(&image, RECOVERY_EPOCH, &options(), &expected, reached) {
                Ok(_) => harmless += 1,
                // A table that was linked has several names.
                Err(Failure::Engine(Error::Damaged { file, .. })) if file == path || kind == "tables" => {
                    detected += 1;
                }
                Err(failure) => panic!("{} at {offset}: {failure}", path.display()),
            }
        }
    }
    println!("{kind}: {detected} flips were detected, {harmless} were harmless");
    (detected, harmless)
}

fn stride(default: usize) -> usize {
    if seed_factor() > 1 { 1 } else { default }
}

#[test]
fn a_bit_that_rots_in_a_manifest_is_detected_or_harmless() {
    assert!(flip("manifests", stride(3)).0 > 100);
}

#[test]
fn a_bit_that_rots_in_the_log_is_detected_or_harmless() {
    assert!(flip("log", stride(17)).0 > 100);
}

#[test]
fn a_bit_that_rots_in_a_table_is_detected_or_harmless() {
    assert!(flip("tables", stride(23)).0 > 100);
}
