//! Filters that judge a cell by itself or by how many came before it.
//!
//! A run of them is one pass over a row's cells in order. Nothing may be
//! skipped that a filter counting the row's cells has yet to count: hence
//! `counted`, which is set behind the first of those.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;
use twox_hash::XxHash3_64;

use super::pattern::Pattern;
use crate::authorized_view::ViewColumns;
use crate::row::Cell;
use crate::schema::FamilyId;

/// One simple filter.
#[derive(Clone, Debug)]
pub(super) enum Leaf {
    BlockAll,
    RowKey(Pattern),
    /// The row passes where its hash, salted with this filter's number, falls
    /// below the probability.
    RowSample {
        probability: f64,
        salt: u64,
    },
    /// Sorted.
    Families(Vec<FamilyId>),
    Qualifier(Pattern),
    /// Those of an authorized view.
    ViewColumns(Arc<ViewColumns>),
    /// No family where the table has none of that name.
    ColumnRange {
        family: Option<FamilyId>,
        start: Bound<Bytes>,
        end: Bound<Bytes>,
    },
    TimestampRange {
        start_us: i64,
        /// None is the end of time.
        end_us: Option<i64>,
    },
    Value(Pattern),
    ValueRange {
        start: Bound<Bytes>,
        end: Bound<Bytes>,
    },
    /// Values of the mask's length that have all of its bits.
    ValueBitmask(Bytes),
    CellsPerRowOffset(u64),
    CellsPerRowLimit(u64),
    CellsPerColumnLimit(u64),
    StripValue,
    Label(Arc<str>),
}

/// A column, as filters see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column<'a> {
    pub(crate) family: FamilyId,
    pub(crate) qualifier: &'a [u8],
}

/// What to do with a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Whether the cell passes.
    pub(crate) take: bool,
    /// Where the next cell that can matter is.
    pub(crate) next: Next,
}

/// Where the next cell that can matter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Next {
    Cell,
    Column,
    Row,
}

/// What becomes of the cells that pass.
#[derive(Clone, Debug, Default)]
pub(crate) struct Transform {
    /// Their values are dropped.
    pub(crate) strip_value: bool,
    /// They get this label.
    pub(crate) label: Option<Arc<str>>,
}

impl Transform {
    pub(super) fn of(leaves: &[Leaf]) -> Self {
        let mut transform = Self::default();
        for leaf in leaves {
            match leaf {
                Leaf::StripValue => transform.strip_value = true,
                Leaf::Label(label) => transform.label = Some(label.clone()),
                _ => {}
            }
        }
        transform
    }

    /// Applies it to a cell.
    pub(super) fn apply(&self, cell: &mut Cell) {
        if self.strip_value {
            cell.value = Bytes::new();
        }
        if let Some(label) = &self.label {
            cell.label = Some(label.clone());
        }
    }
}

/// How far each leaf of a run is in the current row.
#[derive(Clone, Debug, Default)]
pub(crate) struct LeafStates(SmallVec<[LeafState; 4]>);

#[derive(Clone, Copy, Debug, Default)]
struct LeafState {
    /// Cells counted, in the row or the column.
    count: u64,
    /// Whether the current column passes.
    column_passes: bool,
}

impl Leaf {
    /// Whether it counts the cells of a row, so that none before it may be skipped.
    fn counts_row(&self) -> bool {
        matches!(self, Self::CellsPerRowOffset(_) | Self::CellsPerRowLimit(_))
    }

    fn passes_row(&self, row_key: &[u8], sample_seed: u64) -> bool {
        match self {
            Self::BlockAll => false,
            Self::RowKey(pattern) => pattern.matches(row_key),
            Self::RowSample { probability, salt } => {
                // The top 53 bits, as a fraction of one.
                let hash = XxHash3_64::oneshot_with_seed(sample_seed.wrapping_add(*salt), row_key);
                #[expect(clippy::cast_precision_loss, reason = "53 bits fit a double")]
                let fraction = (hash >> 11) as f64 / (1u64 << 53) as f64;
                fraction < *probability
            }
            _ => true,
        }
    }

    fn passes_column(&self, column: Column<'_>) -> bool {
        match self {
            Self::Families(ids) => ids.binary_search(&column.family).is_ok(),
            Self::Qualifier(pattern) => pattern.matches(column.qualifier),
            Self::ViewColumns(columns) => columns.contains(column.family, column.qualifier),
            Self::ColumnRange { family, start, end } => {
                *family == Some(column.family) && within(start, end, column.qualifier)
            }
            _ => true,
        }
    }
}

impl LeafStates {
    /// Begins a row; false where nothing of it can pass.
    pub(super) fn start_row(&mut self, leaves: &[Leaf], row_key: &[u8], sample_seed: u64) -> bool {
        self.0.clear();
        self.0.resize(leaves.len(), LeafState::default());
        leaves.iter().all(|leaf| leaf.passes_row(row_key, sample_seed))
    }

    /// Begins a column; false where its cells neither pass nor count.
    pub(super) fn start_column(&mut self, leaves: &[Leaf], column: Column<'_>) -> bool {
        let mut counted = false;
        for (leaf, state) in leaves.iter().zip(&mut self.0) {
            counted |= leaf.counts_row();
            if matches!(leaf, Leaf::CellsPerColumnLimit(_)) {
                state.count = 0;
            }
            state.column_passes = leaf.passes_column(column);
            if !state.column_passes && !counted {
                return false;
            }
        }
        true
    }

    /// Judges the column's next cell; cells come newest first.
    pub(super) fn judge(&mut self, leaves: &[Leaf], timestamp_us: i64, value: &[u8]) -> Verdict {
        let mut value = value;
        let mut counted = false;
        let mut next = Next::Cell;
        let skip = |next| Verdict { take: false, next };
        for (leaf, state) in leaves.iter().zip(&mut self.0) {
            if !state.column_passes {
                return skip(next);
            }
            let rest_of_column = if counted { Next::Cell } else { Next::Column };
            let passes = match leaf {
                Leaf::TimestampRange { start_us, .. } if timestamp_us < *start_us => {
                    return skip(next.max(rest_of_column));
                }
                Leaf::TimestampRange { end_us, .. } => end_us.is_none_or(|end_us| timestamp_us < end_us),
                Leaf::Value(pattern) => pattern.matches(value),
                Leaf::ValueRange { start, end } => within(start, end, value),
                Leaf::ValueBitmask(mask) => has_bits(mask, value),
                Leaf::StripValue => {
                    value = &[];
                    true
                }
                Leaf::CellsPerColumnLimit(limit) => {
                    state.count += 1;
                    if state.count >= *limit {
                        next = next.max(rest_of_column);
                    }
                    state.count <= *limit
                }
                Leaf::CellsPerRowLimit(limit) => {
                    counted = true;
                    state.count += 1;
                    if state.count >= *limit {
                        next = Next::Row;
                    }
                    state.count <= *limit
                }
                Leaf::CellsPerRowOffset(offset) => {
                    counted = true;
                    state.count += 1;
                    state.count > *offset
                }
                _ => true,
            };
            if !passes {
                return skip(next);
            }
        }
        Verdict { take: true, next }
    }
}

fn has_bits(mask: &[u8], value: &[u8]) -> bool {
    value.len() == mask.len() && value.iter().zip(mask).all(|(value, mask)| value & mask == *mask)
}

fn within(start: &Bound<Bytes>, end: &Bound<Bytes>, bytes: &[u8]) -> bool {
    let after_start = match start {
        Bound::Unbounded => true,
        Bound::Included(start) => bytes >= &start[..],
        Bound::Excluded(start) => bytes > &start[..],
    };
    let before_end = match end {
        Bound::Unbounded => true,
        Bound::Included(end) => bytes <= &end[..],
        Bound::Excluded(end) => bytes < &end[..],
    };
    after_start && before_end
}
