//! Each operation as a request, and what its answer says.
//!
//! A put writes four cells of two families at once, each of which follows from
//! the token and the row, so that a row of parts of two puts shows.

use bytes::Bytes;
use row_api::client::RowClient;
use row_api::data;
use row_api::data::mutation::{DeleteFromRow, Mutation as Kind, SetCell};
use row_api::data::read_modify_write_rule::Rule;
use row_api::data::row_filter::{Chain, Filter};
use row_api::data::{Mutation, RowFilter};
use row_api::names::TableName;
use row_api::row::Row;
use tonic::Status;

use crate::row::{Answer, Call, RowState};

/// The families that the table must have.
pub const FAMILIES: [&str; 2] = ["f", "g"];

/// All puts of a column take each other's place.
const TIMESTAMP_US: i64 = 1_000;

/// Asks `call` of the row `key`.
///
/// # Errors
///
/// The server's status.
pub async fn send(client: &RowClient, table: &TableName, key: &str, call: &Call) -> Result<Answer, Status> {
    match call {
        Call::Read => {
            let rows = read(client, table, &[key], false, newest()).await?;
            Ok(row_seen(key, rows.first()))
        }
        Call::ReadToken => {
            let filters = vec![
                RowFilter::from(Filter::FamilyNameRegexFilter("f".to_owned())),
                RowFilter::from(Filter::ColumnQualifierRegexFilter("token".into())),
                newest(),
            ];
            let filter = Filter::Chain(Chain { filters }).into();
            let rows = read(client, table, &[key], false, filter).await?;
            let cell = rows.first().and_then(|row| row.cell("f", b"token"));
            Ok(Answer::Token(cell.and_then(|cell| number(&cell.value))))
        }
        Call::Put(token) => {
            client.mutate_row(table, key.as_bytes(), put(key, *token)).await.map(|()| Answer::Done)
        }
        Call::Delete => {
            let mutations = vec![Kind::DeleteFromRow(DeleteFromRow {}).into()];
            client.mutate_row(table, key.as_bytes(), mutations).await.map(|()| Answer::Done)
        }
        Call::Add(amount) => {
            let value = modify(client, table, key, ("f", "count"), Rule::IncrementAmount(*amount)).await?;
            number(&value).map(|sum| Answer::Sum(sum.cast_signed())).ok_or_else(|| malformed(&value))
        }
        Call::Append(text) => {
            let rule = Rule::AppendValue(text.clone().into());
            let value = modify(client, table, key, ("g", "text"), rule).await?;
            String::from_utf8(value.to_vec()).map(Answer::Text).map_err(|_| malformed(&value))
        }
        Call::Swap(from, to) => {
            let token_is = Filter::Chain(Chain {
                filters: vec![
                    RowFilter::from(Filter::ColumnRangeFilter(data::ColumnRange {
                        family_name: "f".to_owned(),
                        start_qualifier: Some(data::column_range::StartQualifier::StartQualifierClosed(
                            "token".into(),
                        )),
                        end_qualifier: Some(data::column_range::EndQualifier::EndQualifierClosed(
                            "token".into(),
                        )),
                    })),
                    newest(),
                    RowFilter::from(Filter::ValueRangeFilter(data::ValueRange {
                        start_value: Some(data::value_range::StartValue::StartValueClosed(bytes_of(*from))),
                        end_value: Some(data::value_range::EndValue::EndValueClosed(bytes_of(*from))),
                    })),
                ],
            });
            check_and_put(client, table, key, Some(token_is.into()), (true, *to)).await
        }
        Call::PutIfEmpty(token) => check_and_put(client, table, key, None, (false, *token)).await,
    }
}

/// Reads all rows of `keys`, which ascend, by one scan; their answers in the order of the keys.
///
/// # Errors
///
/// The server's status.
///
/// # Panics
///
/// When the scan repeats a row or gives rows out of order, or one that is not among `keys`.
pub async fn scan(
    client: &RowClient,
    table: &TableName,
    keys: &[String],
    reversed: bool,
) -> Result<Vec<Answer>, Status> {
    let mut rows = read(client, table, keys, reversed, newest()).await?;
    if reversed {
        rows.reverse();
    }
    let found = || rows.iter().map(|row| &row.key);
    assert!(found().is_sorted_by(|a, b| a < b), "a scan gives {:?}", found().collect::<Vec<_>>());
    let mut rows = rows.iter().peekable();
    let answers =
        keys.iter().map(|key| row_seen(key, rows.next_if(|row| row.key == key.as_bytes()))).collect();
    assert!(rows.peek().is_none(), "a scan gives a row that nobody wrote: {:?}", rows.peek());
    Ok(answers)
}

/// What a put of `token` writes to the row `key`.
pub fn put(key: &str, token: u64) -> Vec<Mutation> {
    let cells = [
        ("f", "token", bytes_of(token)),
        ("f", "padding", padding(token)),
        ("g", "token", bytes_of(token)),
        ("g", "sum", bytes_of(sum(key, token))),
    ];
    let set = |(family, qualifier, value): (&str, &'static str, Bytes)| {
        let cell = SetCell {
            family_name: family.to_owned(),
            column_qualifier: qualifier.into(),
            timestamp_micros: TIMESTAMP_US,
            value,
        };
        Kind::SetCell(cell).into()
    };
    cells.into_iter().map(set).collect()
}

async fn read(
    client: &RowClient,
    table: &TableName,
    keys: &[impl AsRef<str>],
    reversed: bool,
    filter: RowFilter,
) -> Result<Vec<Row>, Status> {
    let key = |key: &str| Bytes::copy_from_slice(key.as_bytes());
    let rows = match keys {
        [only] => data::RowSet { row_keys: vec![key(only.as_ref())], row_ranges: Vec::new() },
        [first, .., last] => {
            let range = data::RowRange {
                start_key: Some(data::row_range::StartKey::StartKeyClosed(key(first.as_ref()))),
                end_key: Some(data::row_range::EndKey::EndKeyClosed(key(last.as_ref()))),
            };
            data::RowSet { row_keys: Vec::new(), row_ranges: vec![range] }
        }
        [] => return Ok(Vec::new()),
    };
    let request = data::ReadRowsRequest {
        table_name: table.to_string(),
        rows: Some(rows),
        filter: Some(filter),
        reversed,
        ..data::ReadRowsRequest::default()
    };
    let mut stream = client.read_rows(request).await?;
    let mut rows = Vec::new();
    while let Some(row) = stream.next().await? {
        rows.push(row);
    }
    Ok(rows)
}

async fn modify(
    client: &RowClient,
    table: &TableName,
    key: &str,
    (family, qualifier): (&str, &'static str),
    rule: Rule,
) -> Result<Bytes, Status> {
    let rule = data::ReadModifyWriteRule {
        family_name: family.to_owned(),
        column_qualifier: qualifier.into(),
        rule: Some(rule),
    };
    let request = data::ReadModifyWriteRowRequest {
        table_name: table.to_string(),
        row_key: key.as_bytes().to_vec().into(),
        rules: vec![rule],
        ..data::ReadModifyWriteRowRequest::default()
    };
    let answer = client.data().read_modify_write_row(request).await?.into_inner();
    let mut columns = answer.row.into_iter().flat_map(|row| row.families).flat_map(|family| family.columns);
    let cell = columns.next().and_then(|column| column.cells.into_iter().next());
    cell.map(|cell| cell.value).ok_or_else(|| Status::data_loss("an answer without the new cell"))
}

/// Puts the token if whether the predicate matches is as said.
async fn check_and_put(
    client: &RowClient,
    table: &TableName,
    key: &str,
    predicate_filter: Option<RowFilter>,
    (on_match, token): (bool, u64),
) -> Result<Answer, Status> {
    let mutations = put(key, token);
    let (true_mutations, false_mutations) =
        if on_match { (mutations, Vec::new()) } else { (Vec::new(), mutations) };
    let request = data::CheckAndMutateRowRequest {
        table_name: table.to_string(),
        row_key: key.as_bytes().to_vec().into(),
        predicate_filter,
        true_mutations,
        false_mutations,
        ..data::CheckAndMutateRowRequest::default()
    };
    let answer = client.data().check_and_mutate_row(request).await?.into_inner();
    Ok(Answer::Matched(answer.predicate_matched))
}

/// The newest cell of each column.
fn newest() -> RowFilter {
    Filter::CellsPerColumnLimitFilter(1).into()
}

/// What a row that was read says; none has no cell.
fn row_seen(key: &str, row: Option<&Row>) -> Answer {
    let Some(row) = row else { return Answer::Row(RowState::default()) };
    let value = |family, qualifier: &str| row.cell(family, qualifier.as_bytes()).map(|cell| &cell.value);
    let token = value("f", "token").and_then(|value| number(value));
    let expected = token.map(|token| [padding(token), bytes_of(token), bytes_of(sum(key, token))]);
    let expected = expected.map_or_else(|| [const { None }; 3], |values| values.map(Some));
    let seen = [value("f", "padding"), value("g", "token"), value("g", "sum")];
    if seen != expected.each_ref().map(Option::as_ref) {
        let cells = row.cells.iter().map(|cell| {
            let head = &cell.value[..cell.value.len().min(16)];
            let qualifier = cell.qualifier.escape_ascii();
            format!("{}:{qualifier} {} bytes {} ", cell.family, cell.value.len(), head.escape_ascii())
        });
        return Answer::Torn(cells.collect());
    }
    let text = value("g", "text").map(|text| String::from_utf8_lossy(text).into_owned());
    Answer::Row(RowState {
        token,
        count: value("f", "count").and_then(|value| number(value)).map(u64::cast_signed),
        text: text.unwrap_or_default(),
    })
}

fn number(value: &[u8]) -> Option<u64> {
    value.try_into().ok().map(u64::from_be_bytes)
}

fn malformed(value: &[u8]) -> Status {
    Status::data_loss(format!("a malformed value: {}", value.escape_ascii()))
}

fn bytes_of(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

/// Bytes that follow from `token`, none for some, and do not get smaller on disk.
fn padding(token: u64) -> Bytes {
    let words = (token % 5) * 50;
    (0..words).flat_map(|word| mixed(token ^ word << 32).to_be_bytes()).collect()
}

fn sum(key: &str, token: u64) -> u64 {
    key.bytes().fold(mixed(token), |sum, byte| mixed(sum ^ u64::from(byte)))
}

/// SplitMix64's output function (Steele, Lea and Flood, 2014).
fn mixed(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

#[cfg(test)]
mod tests {
    use row_api::row::Cell;

    use super::*;

    fn row_of(mutations: Vec<Mutation>) -> Row {
        let cells = mutations.into_iter().map(|mutation| match mutation.mutation {
            Some(Kind::SetCell(cell)) => Cell {
                family: cell.family_name,
                qualifier: cell.column_qualifier,
                timestamp_us: cell.timestamp_micros,
                value: cell.value,
                labels: Vec::new(),
            },
            other => panic!("{other:?}"),
        });
        Row { key: "a".into(), cells: cells.collect() }
    }

    #[test]
    fn a_row_of_parts_of_two_puts_is_torn() {
        let whole = row_of(put("a", 7));
        let state = RowState { token: Some(7), ..RowState::default() };
        assert_eq!(row_seen("a", Some(&whole)), Answer::Row(state));
        assert!(matches!(row_seen("b", Some(&whole)), Answer::Torn(_)), "the row of another key");
        for part in 0..whole.cells.len() {
            let mut torn = whole.clone();
            torn.cells[part] = row_of(put("a", 8)).cells[part].clone();
            assert!(matches!(row_seen("a", Some(&torn)), Answer::Torn(_)), "part {part}");
            torn.cells.remove(part);
            assert!(matches!(row_seen("a", Some(&torn)), Answer::Torn(_)), "without part {part}");
        }
    }
}
