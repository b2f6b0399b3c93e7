//! Options drawn at random, small, so that a short history meets every limit.

use lsm::{Background, Options};

use super::choices::Choices;
use super::patience::Patience;

/// A source of options.
pub enum Settings {
    /// Other ones for each opening.
    Drawn(Background, Choices<'static>),
    Fixed(Options),
}

impl Settings {
    pub fn new(background: Background, seed: u64) -> Self {
        Self::Drawn(background, Choices::seeded(seed))
    }

    /// The options of the next opening.
    pub fn draw(&mut self) -> Options {
        match self {
            Self::Drawn(background, choices) => Options { background: *background, ..draw(choices) },
            Self::Fixed(options) => options.clone(),
        }
    }

    /// How reads go after the next opening.
    pub fn draw_patience(&mut self) -> Patience {
        let tries = match self {
            Self::Drawn(_, choices) => choices.percent(50),
            Self::Fixed(_) => false,
        };
        if tries { Patience::Tries } else { Patience::Waits }
    }
}

fn draw(choices: &mut Choices<'_>) -> Options {
    if choices.percent(10) {
        return Options::default();
    }
    let l0_compaction_trigger = 1 + choices.below(5);
    let l0_slowdown = l0_compaction_trigger + choices.below(5);
    let log_segment_bytes = choices.one_of(&[4, 5, 16, 64]) << 10;
    let memtable_bytes_max: usize = choices.one_of(&[64, 65, 100, 256, 4096]) << 10;
    let log_buffer_bytes_max: usize = choices.one_of(&[1, 2, 10, 1000]) << 10;
    // What memtables and log buffers need, and more or less for blocks.
    let needed_bytes = (memtable_bytes_max + 2 * log_buffer_bytes_max) * 8 / 7 + 1;
    Options {
        memory_bytes_max: needed_bytes + choices.one_of(&[0, 1, 3000, 64 << 10, 16 << 20]),
        memtable_bytes_max,
        log_segment_bytes,
        log_bytes_max: log_segment_bytes * choices.one_of(&[2, 3, 20]),
        log_buffer_bytes_max,
        l0_compaction_trigger,
        l0_slowdown,
        l0_stop: l0_slowdown + 1 + choices.below(4),
        compaction_debt_slowdown: choices.one_of(&[0, 100_000, 1 << 20]),
        compaction_debt_stop: choices.one_of(&[2 << 20, 2 << 30]),
        level_bytes_base: choices.one_of(&[4, 8, 60, 1000]) << 10,
        level_ratio: choices.one_of(&[2, 3, 10, 100]),
        table_bytes: choices.one_of(&[4, 5, 30, 1000]) << 10,
        block_bytes: choices.one_of(&[256, 300, 1000, 8 << 10, 4 << 20]),
        ..Options::default()
    }
}
