//! How fast writers go while flushes, compactions or syncs lag behind.
//!
//! Three lags, each of which ends in a stop, and each a slope before it:
//!
//! - *Memtables*: what is left of their budget has to last until the flush that
//!   runs is done, so writers go at the pace of flushes, times what is left over
//!   what is still to be flushed.
//! - *Log*: from half of the buffer on, the fuller the slower.
//! - *Compactions*, a tree each: from the slowdown on, the more tables in level 0
//!   or bytes of debt the slower.
//!
//! A pace holds on a [`Lane`]: writers take their turns on it, each as far
//! behind the one before as that one's bytes last. (A leaky bucket as a meter;
//! the virtual scheduling algorithm of ITU-T I.371, annex A.)

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::Options;

/// The pace where nothing lags.
pub(crate) const UNLIMITED: u64 = u64::MAX;

/// A turn that comes no later than this is taken at once: to sleep takes longer.
const EARLY_US: u64 = 1_000;
/// Nobody waits longer for a turn, however large what was written before.
const WAIT_US_MAX: u64 = 50_000;

/// Where a slope begins: more than writers reach.
const BYTES_PER_S_MAX: u64 = 512 << 20;
/// From there to the stop the pace halves so many times: any disk's is somewhere on the slope.
const HALVINGS: u64 = 11;
/// Where slopes end.
const BYTES_PER_S_MIN: u64 = BYTES_PER_S_MAX >> HALVINGS;

/// Bytes a second with `found` of something of which less than `from` is
/// harmless, and writes stop at `to`.
fn slope(found: u64, from: u64, to: u64) -> u64 {
    if found <= from {
        return UNLIMITED;
    }
    let range = to.saturating_sub(from).max(1);
    let lag = (found - from).min(range);
    // Of a halving, how many and how many thousandths.
    let thousandths = u128::from(lag) * u128::from(HALVINGS) * 1000 / u128::from(range);
    let thousandths = u64::try_from(thousandths).unwrap_or(HALVINGS * 1000);
    let pace = BYTES_PER_S_MAX >> (thousandths / 1000);
    pace - pace / 2 * (thousandths % 1000) / 1000
}

/// Bytes a second that memtables take with `room` left in their budget, of
/// which `unflushed` bytes are being flushed at `flush_bytes_per_s`.
pub(crate) fn of_memtables(room: usize, unflushed: usize, flush_bytes_per_s: u64) -> u64 {
    /// There is so much more room than needed that the pace need not be known.
    const ROOMY: usize = 4;
    if unflushed == 0 || room / ROOMY >= unflushed {
        return UNLIMITED;
    }
    let pace = u128::from(flush_bytes_per_s) * room as u128 / unflushed as u128;
    u64::try_from(pace).unwrap_or(UNLIMITED).max(BYTES_PER_S_MIN)
}

/// Bytes a second that the log takes with `gathered` bytes in its buffer.
pub(crate) fn of_log(gathered: usize, options: &Options) -> u64 {
    let bytes_max = options.log_buffer_bytes_max as u64;
    slope(gathered as u64, bytes_max / 2, bytes_max)
}

/// Bytes a second that a tree takes with as many tables in level 0 and as much compaction debt.
pub(crate) fn of_tree(l0_tables: usize, debt_bytes: u64, options: &Options) -> u64 {
    let of_tables = slope(l0_tables as u64, options.l0_slowdown as u64, options.l0_stop as u64);
    of_tables.min(slope(debt_bytes, options.compaction_debt_slowdown, options.compaction_debt_stop))
}

/// Whether a tree takes no more writes until a compaction is done.
pub(crate) fn is_tree_stopped(l0_tables: usize, debt_bytes: u64, options: &Options) -> bool {
    l0_tables >= options.l0_stop || debt_bytes >= options.compaction_debt_stop
}

/// What writers pass in turn: the engine's lane and that of each tree they
/// write to. `now_us` is the time of the gate's clock.
#[derive(Debug)]
pub(crate) struct Lane {
    is_stopped: AtomicBool,
    bytes_per_s: AtomicU64,
    /// When the next turn is.
    turn_us: AtomicU64,
}

impl Default for Lane {
    fn default() -> Self {
        Self {
            is_stopped: AtomicBool::new(false),
            bytes_per_s: AtomicU64::new(UNLIMITED),
            turn_us: AtomicU64::new(0),
        }
    }
}

impl Lane {
    /// Sets the pace, or stops.
    pub(crate) fn set(&self, is_stopped: bool, bytes_per_s: u64) {
        self.bytes_per_s.store(bytes_per_s, Ordering::Relaxed);
        self.is_stopped.store(is_stopped, Ordering::Release);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Acquire)
    }

    /// Whether nobody waits on it.
    pub(crate) fn is_free(&self) -> bool {
        !self.is_stopped() && self.bytes_per_s.load(Ordering::Relaxed) == UNLIMITED
    }

    /// How long the next turn is off; 0 if it can be taken now.
    pub(crate) fn wait_us(&self, now_us: u64) -> u64 {
        if self.bytes_per_s.load(Ordering::Relaxed) == UNLIMITED {
            return 0;
        }
        let wait_us = self.turn_us.load(Ordering::Relaxed).saturating_sub(now_us);
        if wait_us <= EARLY_US { 0 } else { wait_us }
    }

    /// Takes the next turn for `bytes` and returns how long it is off.
    pub(crate) fn take_turn(&self, bytes: u64, now_us: u64) -> u64 {
        let bytes_per_s = self.bytes_per_s.load(Ordering::Relaxed);
        if bytes_per_s == UNLIMITED {
            return 0;
        }
        let wait_us = self.wait_us(now_us);
        let lasts_us = bytes.saturating_mul(1_000_000) / bytes_per_s.max(1);
        let next_us = |turn_us: u64| (turn_us.max(now_us).saturating_add(lasts_us)).min(now_us + WAIT_US_MAX);
        let _before =
            self.turn_us.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |turn_us| Some(next_us(turn_us)));
        wait_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slope_falls_without_a_cliff_until_the_stop() {
        let options = Options::default();
        let mib = 1_usize << 20;
        let log = |step: usize| of_log(options.log_buffer_bytes_max * step / 200, &options);
        let debt = |step: usize| of_tree(0, options.compaction_debt_stop * step as u64 / 200, &options);
        let memtables = |step: usize| of_memtables((200 - step) * mib / 4, 8 * mib, 64 << 20);
        for pace in [&log as &dyn Fn(usize) -> u64, &debt, &memtables] {
            assert_eq!(pace(0), UNLIMITED);
            for step in 1..200 {
                let (before, after) = (pace(step - 1), pace(step));
                assert!(after <= before);
                assert!(before == UNLIMITED || after >= before / 2 || after < 1 << 20, "{before} {after}");
            }
            assert!(pace(200) <= 1 << 20);
        }
        for tables in options.l0_slowdown + 1..=options.l0_stop {
            assert!(of_tree(tables, 0, &options) < of_tree(tables - 1, 0, &options));
        }
        assert!(is_tree_stopped(options.l0_stop, 0, &options));
        assert!(!is_tree_stopped(options.l0_stop - 1, options.compaction_debt_stop - 1, &options));
    }

    #[test]
    fn memtables_fill_up_just_when_the_flush_is_done() {
        // Half of the budget is flushed at 64 KiB a ms while writers take whatever they get.
        let (mut room, mut unflushed) = (32_usize << 20, 32_usize << 20);
        while unflushed > 1 << 20 {
            let pace = of_memtables(room, unflushed, 64 << 20);
            room -= usize::try_from(pace >> 10).expect("limited").min(room);
            unflushed -= 64 << 10;
            assert!(room.abs_diff(unflushed) < 1 << 20, "{room} {unflushed}");
        }
    }

    #[test]
    fn turns_are_as_far_apart_as_their_bytes_last() {
        let lane = Lane::default();
        assert_eq!(lane.take_turn(1 << 30, 0), 0, "nothing is limited yet");
        lane.set(false, 1_000_000);
        // 4 ms of bytes each: the first goes at once.
        assert_eq!(lane.take_turn(4_000, 10), 0);
        assert_eq!(lane.wait_us(10), 4_000);
        assert_eq!(lane.take_turn(4_000, 10), 4_000);
        assert_eq!(lane.take_turn(4_000, 10), 8_000);
        assert_eq!(lane.wait_us(11_500), 0, "it is early enough");
        assert_eq!(lane.take_turn(1 << 30, 20_000), 0, "time passed and nobody used it");
        assert_eq!(lane.wait_us(20_000), WAIT_US_MAX);
        lane.set(false, UNLIMITED);
        assert_eq!(lane.wait_us(20_000), 0);
        assert!(lane.is_free());
    }
}
