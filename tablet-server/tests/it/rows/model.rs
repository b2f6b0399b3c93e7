//! The filters as the proto's text defines them, applied to lists of cells with
//! no thought for speed. Patterns are looked up in [`PATTERNS`].

use std::cmp::Reverse;

use row_api::data::row_filter::Filter as Kind;
use row_api::data::{ColumnRange, RowFilter, TimestampRange, ValueRange};
use row_api::data::{column_range, value_range};

/// A cell as the model sees it; `family` is its place in the order of creation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ModelCell {
    pub(super) family: (u32, String),
    pub(super) qualifier: Vec<u8>,
    pub(super) timestamp_us: i64,
    pub(super) value: Vec<u8>,
    pub(super) label: Option<String>,
}

impl ModelCell {
    pub(super) fn position(&self) -> (u32, &[u8], Reverse<i64>) {
        (self.family.0, &self.qualifier, Reverse(self.timestamp_us))
    }

    fn column(&self) -> (u32, &[u8]) {
        (self.family.0, &self.qualifier)
    }
}

/// A pattern, and what it means.
pub(super) type MeaningOf = (&'static str, fn(&[u8]) -> bool);

/// All patterns that tests use with the model.
pub(super) const PATTERNS: &[MeaningOf] = &[
    ("a", |bytes| bytes == b"a"),
    ("b", |bytes| bytes == b"b"),
    ("fa", |bytes| bytes == b"fa"),
    ("f.", |bytes| bytes.len() == 2 && bytes[0] == b'f'),
    ("[^a]", |bytes| bytes.len() == 1 && bytes[0] != b'a'),
    ("a.*", |bytes| bytes.first() == Some(&b'a') && !bytes.contains(&b'\n')),
    ("a|x", |bytes| bytes == b"a" || bytes == b"x"),
    (".*", |bytes| !bytes.contains(&b'\n')),
    (r"\C+", |bytes| !bytes.is_empty()),
    ("", |bytes| bytes.is_empty()),
];

/// What `filter` leaves of a row: what its sinks let out, and what it passes.
pub(super) fn apply(filter: &RowFilter, row_key: &[u8], cells: &[ModelCell]) -> Vec<ModelCell> {
    let mut sunk = Vec::new();
    let passed = pass(filter, row_key, cells, &mut sunk);
    sunk.extend(passed);
    sunk.sort_by(|a, b| a.position().cmp(&b.position()));
    sunk
}

/// What `filter` passes on.
fn pass(
    filter: &RowFilter,
    row_key: &[u8],
    cells: &[ModelCell],
    sunk: &mut Vec<ModelCell>,
) -> Vec<ModelCell> {
    let keep =
        |holds: &dyn Fn(&ModelCell) -> bool| cells.iter().filter(|cell| holds(cell)).cloned().collect();
    let change = |change: &dyn Fn(&mut ModelCell)| {
        let mut cells = cells.to_vec();
        cells.iter_mut().for_each(change);
        cells
    };
    match filter.filter.as_ref() {
        None | Some(Kind::PassAllFilter(_)) => cells.to_vec(),
        Some(Kind::BlockAllFilter(_)) => Vec::new(),
        Some(Kind::Chain(chain)) => {
            chain.filters.iter().fold(cells.to_vec(), |cells, filter| pass(filter, row_key, &cells, sunk))
        }
        Some(Kind::Interleave(interleave)) => {
            let mut pool: Vec<_> =
                interleave.filters.iter().flat_map(|filter| pass(filter, row_key, cells, sunk)).collect();
            pool.sort_by(|a, b| a.position().cmp(&b.position()));
            pool
        }
        Some(Kind::Condition(condition)) => {
            let predicate = condition.predicate_filter.as_ref().unwrap();
            let matched = !pass(predicate, row_key, cells, sunk).is_empty();
            let branch = if matched { &condition.true_filter } else { &condition.false_filter };
            branch.as_ref().map_or_else(Vec::new, |filter| pass(filter, row_key, cells, sunk))
        }
        Some(Kind::RowKeyRegexFilter(pattern)) => keep(&|_| matches(pattern, row_key)),
        Some(Kind::FamilyNameRegexFilter(pattern)) => {
            keep(&|cell| matches(pattern.as_bytes(), cell.family.1.as_bytes()))
        }
        Some(Kind::ColumnQualifierRegexFilter(pattern)) => keep(&|cell| matches(pattern, &cell.qualifier)),
        Some(Kind::ValueRegexFilter(pattern)) => keep(&|cell| matches(pattern, &cell.value)),
        Some(Kind::ColumnRangeFilter(range)) => {
            keep(&|cell| cell.family.1 == range.family_name && in_columns(range, &cell.qualifier))
        }
        Some(Kind::TimestampRangeFilter(range)) => keep(&|cell| in_time(*range, cell.timestamp_us)),
        Some(Kind::ValueRangeFilter(range)) => keep(&|cell| in_values(range, &cell.value)),
        Some(Kind::CellsPerRowOffsetFilter(count)) => cells.iter().skip(size(*count)).cloned().collect(),
        Some(Kind::CellsPerRowLimitFilter(count)) => cells.iter().take(size(*count)).cloned().collect(),
        Some(Kind::CellsPerColumnLimitFilter(count)) => cells
            .chunk_by(|a, b| a.column() == b.column())
            .flat_map(|column| column.iter().take(size(*count)).cloned())
            .collect(),
        Some(Kind::StripValueTransformer(_)) => change(&|cell| cell.value.clear()),
        Some(Kind::ApplyLabelTransformer(label)) => change(&|cell| cell.label = Some(label.clone())),
        Some(Kind::ValueBitmaskFilter(bitmask)) => keep(&|cell| has_bits(&bitmask.mask, &cell.value)),
        Some(Kind::Sink(_)) => {
            sunk.extend_from_slice(cells);
            Vec::new()
        }
        Some(Kind::RowSampleFilter(_)) => unreachable!("not in the model"),
    }
}

fn size(count: i32) -> usize {
    usize::try_from(count).unwrap()
}

fn matches(pattern: &[u8], bytes: &[u8]) -> bool {
    let (_, meaning) = PATTERNS.iter().find(|(known, _)| known.as_bytes() == pattern).unwrap();
    meaning(bytes)
}

fn has_bits(mask: &[u8], value: &[u8]) -> bool {
    mask.len() == value.len() && (0..mask.len()).all(|at| value[at] & mask[at] == mask[at])
}

fn in_columns(range: &ColumnRange, qualifier: &[u8]) -> bool {
    use column_range::{EndQualifier, StartQualifier};
    let starts = match &range.start_qualifier {
        None => true,
        Some(StartQualifier::StartQualifierClosed(start)) => qualifier >= &start[..],
        Some(StartQualifier::StartQualifierOpen(start)) => qualifier > &start[..],
    };
    let ends = match &range.end_qualifier {
        None => true,
        Some(EndQualifier::EndQualifierClosed(end)) => qualifier <= &end[..],
        Some(EndQualifier::EndQualifierOpen(end)) => qualifier < &end[..],
    };
    starts && ends
}

fn in_values(range: &ValueRange, value: &[u8]) -> bool {
    use value_range::{EndValue, StartValue};
    let starts = match &range.start_value {
        None => true,
        Some(StartValue::StartValueClosed(start)) => value >= &start[..],
        Some(StartValue::StartValueOpen(start)) => value > &start[..],
    };
    let ends = match &range.end_value {
        None => true,
        Some(EndValue::EndValueClosed(end)) => value <= &end[..],
        Some(EndValue::EndValueOpen(end)) => value < &end[..],
    };
    starts && ends
}

fn in_time(range: TimestampRange, timestamp_us: i64) -> bool {
    let end_us = range.end_timestamp_micros;
    timestamp_us >= range.start_timestamp_micros && (end_us == 0 || timestamp_us < end_us)
}
