//! Cells read and written over the row API.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;
use row_api::client::RowClient;
use row_api::data::column_range::{EndQualifier, StartQualifier};
use row_api::data::row_filter::{Chain, Filter, Interleave};
use row_api::data::value_range::{EndValue, StartValue};
use row_api::data::{
    CheckAndMutateRowRequest, ColumnRange, MutateRowRequest, Mutation, ReadRowsRequest, RowFilter, RowSet,
    TimestampRange, ValueRange,
};
use row_api::names::TableName;
use tonic::{Request, Status};

use super::cell::{CellValue, GRANULARITY_US, companion_of};
use super::key::CellKey;

/// Columns of one request: a filter has 20 KiB at most.
const COLUMN_COUNT_MAX: usize = 30;

/// Bytes of values of one request; what comes after them is read later.
const READ_BYTES_MAX: usize = 16 << 20;

/// Bytes of a value that a condition compares, beside its timestamp: a filter
/// has 20 KiB at most.
const COMPARED_BYTES_MAX: usize = 8 << 10;

/// What was found of one cell.
#[derive(Debug)]
pub(super) enum Found {
    Value(CellValue),
    Absent,
    /// Its row was not reached.
    Unread,
}

/// Reads `keys`, cells of `table`, with as few requests as there may be; what was
/// found stands in their order.
///
/// # Errors
///
/// The origin's status, for all of them.
pub(super) async fn read_cells(
    client: &RowClient,
    table: &TableName,
    keys: &[&CellKey],
    timeout: Duration,
) -> Result<Vec<Found>, Status> {
    let mut found: Vec<Found> = keys.iter().map(|_| Found::Unread).collect();
    let mut left_bytes = READ_BYTES_MAX;
    for places in requests(keys) {
        if left_bytes == 0 {
            break;
        }
        let mut of_row: HashMap<&[u8], Vec<usize>> = HashMap::new();
        for place in places {
            of_row.entry(&keys[place].row).or_default().push(place);
        }
        let request = read_request(table, &of_row, keys);
        let mut request = Request::new(request);
        request.set_timeout(timeout);
        let mut rows = client.read_rows_request(request).await?;
        let mut is_complete = true;
        while let Some(row) = rows.next().await? {
            for place in of_row.remove(&row.key[..]).unwrap_or_default() {
                let value = CellValue::of_row(&row, keys[place]);
                left_bytes = left_bytes.saturating_sub(value.as_ref().map_or(0, |value| value.value.len()));
                found[place] = value.map_or(Found::Absent, Found::Value);
            }
            if left_bytes == 0 && !of_row.is_empty() {
                is_complete = false;
                break;
            }
        }
        if is_complete {
            of_row.into_values().flatten().for_each(|place| found[place] = Found::Absent);
        }
    }
    Ok(found)
}

/// The places of `keys` in groups of few enough columns.
fn requests(keys: &[&CellKey]) -> Vec<Vec<usize>> {
    let mut groups = Vec::new();
    let mut group = Vec::new();
    let mut columns = BTreeSet::new();
    for (place, key) in keys.iter().enumerate() {
        let column = (&key.family, &key.qualifier);
        if columns.len() == COLUMN_COUNT_MAX && !columns.contains(&column) {
            groups.push(std::mem::take(&mut group));
            columns.clear();
        }
        columns.insert(column);
        group.push(place);
    }
    groups.push(group);
    groups
}

fn read_request(
    table: &TableName,
    of_row: &HashMap<&[u8], Vec<usize>>,
    keys: &[&CellKey],
) -> ReadRowsRequest {
    let places = || of_row.values().flatten().map(|place| keys[*place]);
    let columns: BTreeSet<_> = places().map(|key| (&key.family, &key.qualifier)).collect();
    let mut filters: Vec<RowFilter> = columns
        .into_iter()
        .map(|(family, qualifier)| columns_filter(family, qualifier.clone().into(), companion_of(qualifier)))
        .collect();
    let filter = match filters.len() {
        1 => filters.remove(0),
        _ => Filter::Interleave(Interleave { filters }).into(),
    };
    ReadRowsRequest {
        table_name: table.to_string(),
        rows: Some(RowSet {
            row_keys: of_row.keys().map(|row| Bytes::copy_from_slice(row)).collect(),
            row_ranges: Vec::new(),
        }),
        filter: Some(filter),
        ..ReadRowsRequest::default()
    }
}

/// The newest cell of each column of `family` from `first` to `last`.
fn columns_filter(family: &str, first: Bytes, last: Bytes) -> RowFilter {
    let range = ColumnRange {
        family_name: family.to_owned(),
        start_qualifier: Some(StartQualifier::StartQualifierClosed(first)),
        end_qualifier: Some(EndQualifier::EndQualifierClosed(last)),
    };
    chain(vec![Filter::ColumnRangeFilter(range), Filter::CellsPerColumnLimitFilter(1)])
}

fn chain(filters: Vec<Filter>) -> RowFilter {
    Filter::Chain(Chain { filters: filters.into_iter().map(RowFilter::from).collect() }).into()
}

/// The cell of `key` as it is now.
///
/// # Errors
///
/// The origin's status.
pub(super) async fn read_cell(
    client: &RowClient,
    table: &TableName,
    key: &CellKey,
    timeout: Duration,
) -> Result<Option<CellValue>, Status> {
    let found = read_cells(client, table, &[key], timeout).await?;
    Ok(found.into_iter().find_map(|found| match found {
        Found::Value(value) => Some(value),
        Found::Absent | Found::Unread => None,
    }))
}

/// Applies `mutations` to the row of `key`.
///
/// # Errors
///
/// The origin's status.
pub(super) async fn mutate(
    client: &RowClient,
    table: &TableName,
    key: &CellKey,
    mutations: Vec<Mutation>,
    timeout: Duration,
) -> Result<(), Status> {
    let mut request = Request::new(MutateRowRequest {
        table_name: table.to_string(),
        row_key: key.row.clone().into(),
        mutations,
        ..MutateRowRequest::default()
    });
    request.set_timeout(timeout);
    client.data().mutate_row(request).await.map(drop)
}

/// What a write depends on.
#[derive(Clone, Copy, Debug)]
pub(super) enum Condition<'v> {
    /// The column has a cell.
    Present,
    /// It has none.
    Absent,
    /// Its newest cell is this.
    Is(&'v CellValue),
}

/// Applies `mutations` to the row of `key` if the condition holds; whether it did.
///
/// # Errors
///
/// The origin's status.
pub(super) async fn mutate_if(
    client: &RowClient,
    table: &TableName,
    key: &CellKey,
    condition: Condition<'_>,
    mutations: Vec<Mutation>,
    timeout: Duration,
) -> Result<bool, Status> {
    let on_match = !matches!(condition, Condition::Absent);
    let (true_mutations, false_mutations) =
        if on_match { (mutations, Vec::new()) } else { (Vec::new(), mutations) };
    let mut request = Request::new(CheckAndMutateRowRequest {
        table_name: table.to_string(),
        row_key: key.row.clone().into(),
        predicate_filter: Some(predicate(key, condition)),
        true_mutations,
        false_mutations,
        ..CheckAndMutateRowRequest::default()
    });
    request.set_timeout(timeout);
    let answer = client.data().check_and_mutate_row(request).await?.into_inner();
    Ok(answer.predicate_matched == on_match)
}

fn predicate(key: &CellKey, condition: Condition<'_>) -> RowFilter {
    let qualifier = Bytes::copy_from_slice(&key.qualifier);
    let newest = columns_filter(&key.family, qualifier.clone(), qualifier);
    let Condition::Is(value) = condition else { return newest };
    let at = TimestampRange {
        start_timestamp_micros: value.timestamp_us,
        end_timestamp_micros: value.timestamp_us.saturating_add(GRANULARITY_US),
    };
    let filters = vec![
        newest,
        Filter::TimestampRangeFilter(at).into(),
        Filter::ValueRangeFilter(value_range(&value.value)).into(),
    ];
    Filter::Chain(Chain { filters }).into()
}

/// Values that are `value`, or where it is too long for a filter begin like it.
fn value_range(value: &Bytes) -> ValueRange {
    let is_whole = value.len() <= COMPARED_BYTES_MAX;
    let first = value.slice(..value.len().min(COMPARED_BYTES_MAX));
    let end = match (is_whole, after_prefix(&first)) {
        (true, _) => Some(EndValue::EndValueClosed(first.clone())),
        (false, Some(end)) => Some(EndValue::EndValueOpen(end)),
        (false, None) => None,
    };
    ValueRange { start_value: Some(StartValue::StartValueClosed(first)), end_value: end }
}

/// The first value behind all that begin with `prefix`.
fn after_prefix(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_compared_by_how_they_begin() {
        let exact = value_range(&Bytes::from_static(b"v"));
        assert_eq!(exact.end_value, Some(EndValue::EndValueClosed("v".into())));
        let long = value_range(&vec![b'v'; COMPARED_BYTES_MAX + 1].into());
        let Some(EndValue::EndValueOpen(end)) = long.end_value else { panic!("{long:?}") };
        assert_eq!((end.len(), end[COMPARED_BYTES_MAX - 1]), (COMPARED_BYTES_MAX, b'w'));
        assert_eq!(after_prefix(b"a\xff\xff").as_deref(), Some(&b"b"[..]));
        assert_eq!(after_prefix(b"\xff"), None);
        assert_eq!(value_range(&vec![0xff; COMPARED_BYTES_MAX + 1].into()).end_value, None);
    }
}
