//! Random requests, the same for each seed: mutations, filters, and sets of rows.

use row_api::admin;
use row_api::admin::r#type::aggregate::{Aggregator, Sum};
use row_api::admin::r#type::int64::encoding::{BigEndianBytes, Encoding};
use row_api::admin::r#type::{self as types, Kind as TypeKind};
use row_api::data::mutation::{
    AddToCell, DeleteFromColumn, DeleteFromFamily, DeleteFromRow, Mutation as Kind, SetCell,
};
use row_api::data::read_rows_request::RequestStatsView;
use row_api::data::row_filter::{Chain, Condition, Filter, Interleave};
use row_api::data::row_range::{EndKey, StartKey};
use row_api::data::value::Kind as ValueKind;
use row_api::data::{
    ColumnRange, Mutation, ReadRowsRequest, RowFilter, RowRange, RowSet, TimestampRange, Value, ValueRange,
    column_range, value_range,
};
use row_api::names::TableName;

use crate::stack::{INSTANCE, Stack, name};

/// The families of [`create`]'s tables; the last one is of sums.
pub const FAMILIES: [&str; 4] = ["f", "g", "h", "sum"];

const QUALIFIERS: [&str; 4] = ["", "a", "b", "c"];

/// Numbers that look random (splitmix64).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("below a usize")
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }
}

/// Creates a table with [`FAMILIES`]; of a column of `h` two versions stay.
pub async fn create(stack: &Stack, table: &str, splits: &[&str]) -> TableName {
    let encoding =
        types::int64::Encoding { encoding: Some(Encoding::BigEndianBytes(BigEndianBytes::default())) };
    let int64 = TypeKind::Int64Type(types::Int64 { encoding: Some(encoding) });
    let aggregate = types::Aggregate {
        input_type: Some(Box::new(admin::Type { kind: Some(int64) })),
        state_type: None,
        aggregator: Some(Aggregator::Sum(Sum {})),
    };
    let sum = admin::Type { kind: Some(TypeKind::AggregateType(Box::new(aggregate))) };
    let two = admin::GcRule { rule: Some(admin::gc_rule::Rule::MaxNumVersions(2)) };
    let families = FAMILIES.map(|name| {
        let family = match name {
            "sum" => admin::ColumnFamily { value_type: Some(sum.clone()), ..Default::default() },
            "h" => admin::ColumnFamily { gc_rule: Some(two.clone()), ..Default::default() },
            _ => admin::ColumnFamily::default(),
        };
        (name.to_owned(), family)
    });
    let split = |key: &&str| admin::create_table_request::Split { key: key.as_bytes().to_vec().into() };
    let request = admin::CreateTableRequest {
        parent: INSTANCE.to_owned(),
        table_id: table.to_owned(),
        table: Some(admin::Table { column_families: families.into(), ..admin::Table::default() }),
        initial_splits: splits.iter().map(split).collect(),
    };
    stack.client.table_admin().create_table(request).await.unwrap();
    name(table)
}

/// Some changes of a row.
pub fn mutations(random: &mut Random) -> Vec<Mutation> {
    (0..=random.below(4)).map(|_| mutation(random).into()).collect()
}

fn mutation(random: &mut Random) -> Kind {
    let column_qualifier = random.pick(&QUALIFIERS).as_bytes().to_vec().into();
    let timestamp_micros = random.below(6) as i64 * 1_000;
    match random.below(12) {
        0..=5 => Kind::SetCell(SetCell {
            family_name: random.pick(&FAMILIES[..3]).to_owned(),
            column_qualifier,
            timestamp_micros,
            value: vec![b"abcd"[random.below(4)]; random.below(40)].into(),
        }),
        6..=8 => {
            let value = |kind| Some(Value { r#type: None, kind: Some(kind) });
            Kind::AddToCell(AddToCell {
                family_name: "sum".to_owned(),
                column_qualifier: value(ValueKind::RawValue(column_qualifier)),
                timestamp: value(ValueKind::RawTimestampMicros(timestamp_micros)),
                input: value(ValueKind::IntValue(random.below(9) as i64)),
            })
        }
        9 => Kind::DeleteFromColumn(DeleteFromColumn {
            family_name: random.pick(&FAMILIES).to_owned(),
            column_qualifier,
            time_range: (random.below(2) == 0).then_some(TimestampRange {
                start_timestamp_micros: timestamp_micros,
                end_timestamp_micros: timestamp_micros + 2_000,
            }),
        }),
        10 => Kind::DeleteFromFamily(DeleteFromFamily { family_name: random.pick(&FAMILIES).to_owned() }),
        _ => Kind::DeleteFromRow(DeleteFromRow {}),
    }
}

/// A filter of filters of at most this depth.
pub fn filter(random: &mut Random, depth: usize) -> RowFilter {
    let some = |random: &mut Random| -> Vec<RowFilter> {
        (0..2 + random.below(2)).map(|_| filter(random, depth - 1)).collect()
    };
    let kind = match random.below(if depth == 0 { 14 } else { 20 }) {
        14..=16 => Filter::Chain(Chain { filters: some(random) }),
        17 | 18 => Filter::Interleave(Interleave { filters: some(random) }),
        19 => {
            let mut parts = some(random).into_iter().map(Box::new);
            Filter::Condition(Box::new(Condition {
                predicate_filter: parts.next(),
                true_filter: parts.next(),
                false_filter: parts.next(),
            }))
        }
        simple => leaf(random, simple),
    };
    kind.into()
}

fn leaf(random: &mut Random, kind: usize) -> Filter {
    let count = [0, 1, 2, 3][random.below(4)];
    match kind {
        0 | 1 => Filter::FamilyNameRegexFilter(random.pick(&["f", "g|sum", ".*m", "h", "x"]).to_owned()),
        2 => Filter::ColumnQualifierRegexFilter(
            random.pick(&["a", "[ab]", ".*", ""]).as_bytes().to_vec().into(),
        ),
        3 | 4 => Filter::ColumnRangeFilter(ColumnRange {
            family_name: random.pick(&FAMILIES).to_owned(),
            start_qualifier: (random.below(2) == 0)
                .then(|| column_range::StartQualifier::StartQualifierClosed("a".into())),
            end_qualifier: (random.below(2) == 0)
                .then(|| column_range::EndQualifier::EndQualifierOpen("c".into())),
        }),
        5 => Filter::TimestampRangeFilter(TimestampRange {
            start_timestamp_micros: i64::from(count) * 1_000,
            end_timestamp_micros: i64::from(count) * 1_000 + 2_000,
        }),
        6 => Filter::CellsPerColumnLimitFilter(count + 1),
        7 => Filter::CellsPerRowLimitFilter(count + 1),
        8 => Filter::CellsPerRowOffsetFilter(count + 1),
        9 => Filter::ValueRegexFilter(random.pick(&["a*", "[bc]+", ".*"]).as_bytes().to_vec().into()),
        10 => Filter::ValueRangeFilter(ValueRange {
            start_value: Some(value_range::StartValue::StartValueClosed("b".into())),
            end_value: None,
        }),
        11 => Filter::RowKeyRegexFilter(random.pick(&["[a-d]", "f", ".*"]).as_bytes().to_vec().into()),
        12 => Filter::StripValueTransformer(true),
        _ => match count {
            0 => Filter::BlockAllFilter(true),
            _ => Filter::PassAllFilter(true),
        },
    }
}

/// A read of some rows, of no table yet.
pub fn rows_request(random: &mut Random) -> ReadRowsRequest {
    let key =
        |random: &mut Random| random.pick(&["a", "b", "c", "d", "e", "f", "g", "h"]).as_bytes().to_vec();
    let rows = match random.below(4) {
        0 => None,
        1 => Some(RowSet {
            row_keys: (0..=random.below(3)).map(|_| key(random).into()).collect(),
            row_ranges: Vec::new(),
        }),
        _ => {
            let mut ends = [key(random), key(random)];
            ends.sort();
            let [start, end] = ends;
            let range = RowRange {
                start_key: Some(StartKey::StartKeyClosed(start.into())),
                end_key: Some(EndKey::EndKeyClosed(end.into())),
            };
            Some(RowSet { row_keys: Vec::new(), row_ranges: vec![range] })
        }
    };
    ReadRowsRequest {
        rows,
        filter: (random.below(5) > 0).then(|| filter(random, 3)),
        rows_limit: [0, 0, 1, 3][random.below(4)],
        reversed: random.below(3) == 0,
        request_stats_view: RequestStatsView::RequestStatsNone.into(),
        ..ReadRowsRequest::default()
    }
}
