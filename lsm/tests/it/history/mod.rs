//! Random histories: an engine under any options does what a `BTreeMap` does.
//!
//! A history is drawn once from a seed, or from the bytes of a fuzzer, and its
//! [`model`] says what each step must show. Engines under different options
//! then go through it: all must show the same (Pebble's metamorphic tests, and
//! Chen et al., "Metamorphic Testing", HKUST 1998). A history that fails is
//! shrunk before it is shown.

mod appending;
pub mod choices;
pub mod model;
mod patience;
pub mod recovered;
pub mod settings;
mod shrink;
pub mod step;
pub mod subject;
pub mod workload;

use std::panic::{AssertUnwindSafe, catch_unwind};

use lsm::Background;

use self::model::Transcript;
use self::settings::Settings;
use self::step::Step;
use self::subject::Subject;

/// Goes through `steps` once with each of `backgrounds`, under options drawn from `seed`.
///
/// # Panics
///
/// If an engine shows something else than the model, with what it takes to see it again.
pub fn check(seed: u64, steps: &[Step], backgrounds: &[Background]) {
    let expected = Transcript::of(steps);
    for (number, background) in (0..).zip(backgrounds) {
        let subject = || {
            let settings = Settings::new(*background, seed << 8 | number);
            // Where the commit log is makes no difference either.
            if (seed + number) % 4 == 3 {
                Subject::with_log_in_slots(settings)
            } else {
                Subject::new(settings)
            }
        };
        let Err(failure) = run(steps, &expected, subject()) else { continue };
        eprintln!("seed {seed}, options {number}: {failure}\nit is being shrunk");
        let fails = |steps: &[Step]| run(steps, &Transcript::of(steps), subject()).is_err();
        let shrunk = shrink::shrink(steps.to_vec(), fails);
        // One that fails only now and then may not have shrunk at all.
        let failure = run(&shrunk, &Transcript::of(&shrunk), subject()).err().unwrap_or(failure);
        let shown: Vec<_> = shrunk.iter().map(|step| format!("    {step:?}")).collect();
        panic!("seed {seed}, {background:?}, options {number}: {failure}\n{}", shown.join(",\n"));
    }
}

/// Goes through a history; a panic is a failure too.
fn run(steps: &[Step], expected: &Transcript, mut subject: Subject) -> Result<(), String> {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        subject.run(steps, expected).map_err(|failure| failure.to_string())
    }));
    outcome.unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().cloned();
        let message = message.or_else(|| panic.downcast_ref::<&str>().map(|&message| message.to_owned()));
        Err(format!("it panicked: {}", message.unwrap_or_default()))
    })
}
