//! Which unsynced changes a power cut leaves.
//!
//! A disk may write them in any order and stop anywhere. Independent coins
//! alone would hardly ever keep all, lose all, or keep a clean prefix, which
//! are what disks mostly do, so the manner is drawn first.

use super::random::SplitMix64;

/// What is left of one change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remains {
    Whole,
    Part,
    Nothing,
}

/// How a sequence of changes survives.
#[derive(Clone, Copy, Debug)]
pub(super) enum Survival {
    All,
    None,
    /// This many, and a part of the next.
    Prefix(usize),
    /// Each for itself.
    Any,
}

impl Survival {
    pub(super) fn draw(change_count: usize, random: &mut SplitMix64) -> Self {
        match random.below(8) {
            0 => Self::All,
            1 => Self::None,
            2..5 => Self::Prefix(random.below(change_count + 1)),
            _ => Self::Any,
        }
    }

    /// What is left of the change at `place` in the sequence.
    pub(super) fn remains(self, place: usize, random: &mut SplitMix64) -> Remains {
        match self {
            Self::All => Remains::Whole,
            Self::None => Remains::Nothing,
            Self::Prefix(count) if place < count => Remains::Whole,
            Self::Prefix(count) if place == count => Remains::Part,
            Self::Prefix(_) => Remains::Nothing,
            Self::Any => [Remains::Whole, Remains::Part, Remains::Nothing][random.below(3)],
        }
    }
}
