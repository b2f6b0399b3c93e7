//! Power cuts before every write, rename, sync, creation and removal of a
//! workload, its recoveries among them, and within the recovery from each cut.
//!
//! The file system tells of each operation before it is done: then and there
//! the test takes what a cut would leave, under one draw or several of what
//! survives, and recovers that. So a workload runs once, whatever the number of
//! its operations.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use lsm::inspect::directory;
use lsm::{Background, Options};
use vfs::{FileSystem, SimulatedFileSystem};

use crate::engine::inline_options;
use crate::history::model::Transcript;
use crate::history::recovered::{Reached, go_on, verify};
use crate::history::settings::Settings;
use crate::history::subject::{Checked, DIR, Failure, Progress, Subject, wrong};
use crate::history::workload::workload;
use crate::seeds::seed_factor;

/// The epoch of the first recovery: past that of every opening of the workload.
const RECOVERY_EPOCH: u64 = 1000;

/// Small enough that a few batches rotate the log, and a few more fill a level.
pub fn options() -> Options {
    Options {
        log_bytes_max: 12 << 10,
        l0_compaction_trigger: 2,
        level_bytes_base: 8 << 10,
        ..inline_options()
    }
}

/// Cuts, and what they found.
struct Sweep {
    seed: u64,
    /// Draws of what survives, for each cut.
    draws: u64,
    expected: Transcript,
    progress: Mutex<Arc<Progress>>,
    cuts: AtomicU64,
    nested_cuts: AtomicU64,
    failure: Mutex<Option<String>>,
}

impl Sweep {
    /// What a cut before an operation leaves is recovered.
    fn cut(&self, fs: &SimulatedFileSystem, number: u64) {
        let cut = self.cuts.fetch_add(1, Ordering::Relaxed);
        for draw in 0..self.draws {
            if self.failure.lock().expect("nobody panics with it").is_some() {
                return;
            }
            let survival = self.seed << 40 | cut << 8 | draw;
            if let Err(failure) = self.recover(fs, survival) {
                let what = format!(
                    "seed {}, cut {cut} before operation {number}, draw {draw}: {failure}",
                    self.seed
                );
                self.failure.lock().expect("nobody panics with it").get_or_insert(what);
            }
        }
    }

    fn recover(&self, fs: &SimulatedFileSystem, survival: u64) -> Checked<()> {
        let reached = Reached::by(&self.progress.lock().expect("nobody panics with it"));
        let image = fs.image(survival);
        // One more cut, anywhere within the recovery: each operation takes the place of those before it with
        // a chance that makes all equally likely (Vitter, "Random Sampling with a Reservoir", TOMS 1985).
        let within = Arc::new(Mutex::new(None));
        let taken = Arc::clone(&within);
        image.watch(move |fs, number| {
            if scrambled(survival ^ number << 32).is_multiple_of(number + 1) {
                *taken.lock().expect("nobody panics with it") = Some((number, fs.image(survival)));
            }
        });
        let looks_offline = survival.is_multiple_of(11);
        if looks_offline {
            verify_offline(&image)?;
        }
        let engine = verify(&image, RECOVERY_EPOCH, &options(), &self.expected, reached)?;
        let second = within.lock().expect("nobody panics with it").take();
        if survival.is_multiple_of(7) {
            go_on(&image, engine, RECOVERY_EPOCH + survival % 2, &options())?;
        } else {
            drop(engine);
            if looks_offline {
                verify_offline(&image)?;
            }
        }
        let Some((again, second)) = second else { return Ok(()) };
        self.nested_cuts.fetch_add(1, Ordering::Relaxed);
        // Under other options than those before.
        let options = Settings::new(Background::Inline, survival).draw();
        verify(&second, RECOVERY_EPOCH + 2, &options, &self.expected, reached).map(drop).map_err(|failure| {
            Failure::Wrong(format!("cut again before operation {again} of the recovery: {failure}"))
        })
    }
}

/// Power cuts are no damage to who looks at the directory without opening it.
fn verify_offline(fs: &SimulatedFileSystem) -> Checked<()> {
    if !fs.exists(&Path::new(DIR).join("tables")).map_err(lsm::Error::from)? {
        return Ok(());
    }
    let verdict = directory::verify(fs, Path::new(DIR), |_| {})?;
    if verdict.damages.is_empty() { Ok(()) } else { wrong(format!("{:?}", verdict.damages)) }
}

/// A number that looks random (the finalizer of SplitMix64).
fn scrambled(number: u64) -> u64 {
    let mixed = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb) >> 20
}

/// Cuts at every operation of a workload. Returns how many times.
fn sweep(seed: u64, rounds: usize, draws: u64) -> u64 {
    let steps = workload(seed, rounds);
    let sweep = Arc::new(Sweep {
        seed,
        draws,
        expected: Transcript::of(&steps),
        progress: Mutex::default(),
        cuts: AtomicU64::new(0),
        nested_cuts: AtomicU64::new(0),
        failure: Mutex::new(None),
    });
    let watching = Arc::clone(&sweep);
    let settings = Settings::Fixed(options());
    let mut subject = Subject::watched(settings, move |fs, number| watching.cut(fs, number));
    *sweep.progress.lock().expect("nobody panics with it") = Arc::clone(&subject.progress);
    let ran = subject.run(&steps, &sweep.expected);
    let failure = sweep.failure.lock().expect("nobody panics with it").take();
    if let Some(failure) = failure {
        panic!("{failure}");
    }
    ran.unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
    let (cuts, nested) = (sweep.cuts.load(Ordering::Relaxed), sweep.nested_cuts.load(Ordering::Relaxed));
    println!("seed {seed}: {cuts} cuts, {draws} draws of each, {nested} cuts within a recovery");
    cuts
}

#[test]
fn no_cut_loses_an_acknowledged_batch_or_halves_another() {
    let cuts = sweep(1, 75, 1);
    assert!(cuts > 2500, "the workload has only {cuts} operations");
}

#[test]
fn no_draw_of_what_survives_a_cut_matters() {
    let cuts: u64 = (2..2 + seed_factor()).map(|seed| sweep(seed, 18, 3)).sum();
    assert!(cuts > 550 * seed_factor(), "the workloads have only {cuts} operations");
}
