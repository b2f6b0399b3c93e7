//! How thorough a run is.

/// How many times as many seeds as by default are tried: the environment's `HAYLOFT_TEST_SEEDS`.
pub fn seed_factor() -> u64 {
    let given = std::env::var("HAYLOFT_TEST_SEEDS").ok();
    given.map_or(1, |given| given.parse().expect("HAYLOFT_TEST_SEEDS is a number"))
}
