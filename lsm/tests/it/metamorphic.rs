//! Random histories under random options, against a `BTreeMap`.
//!
//! `HAYLOFT_TEST_SEEDS=200` runs two hundred times as many.

use lsm::Background;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::history::choices::Choices;
use crate::history::{check, step};
use crate::seeds::seed_factor;

/// Histories of each test by default.
const HISTORIES: u64 = 150;

fn run(first_seed: u64, backgrounds: &[Background]) {
    for seed in first_seed..first_seed + HISTORIES * seed_factor() {
        let mut choices = Choices::seeded(seed);
        let length = choices.one_of(&[30, 100, 100, 300]);
        check(seed, &step::history(&mut choices, length), backgrounds);
    }
}

#[test]
fn histories_agree_with_a_map_whatever_the_options() {
    run(0, &[Background::Inline; 2]);
}

#[test]
fn histories_agree_with_a_map_under_threads() {
    run(1 << 32, &[Background::Threads; 2]);
}

#[test]
fn histories_drawn_from_bytes_agree_with_a_map() {
    for seed in 0..HISTORIES / 2 * seed_factor() {
        let mut random = SmallRng::seed_from_u64(seed);
        let bytes: Vec<u8> = (0..random.random_range(0..2000)).map(|_| random.random()).collect();
        let steps = step::history(&mut Choices::Bytes(&bytes), usize::MAX);
        check(seed, &steps, &[Background::Inline]);
    }
}
