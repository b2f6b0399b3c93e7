//! What one asks a Webtable: by row range, by family, by timestamp.

use std::time::{Instant, SystemTime};

use indicatif::{HumanBytes, HumanCount};
use row_api::client::RowClient;
use row_api::data::row_filter::{Chain, Filter};
use row_api::data::row_range::{EndKey, StartKey};
use row_api::data::{ReadRowsRequest, RowFilter, RowRange, RowSet, TimestampRange};
use row_api::names::TableName;

use crate::{Outcome, timestamp_us};

/// Lines of an answer that are printed.
const LINE_COUNT_MAX: usize = 8;

/// A row range and a family: the pages whose keys start with `prefix`.
pub(crate) async fn pages_below(client: &RowClient, table: &TableName, prefix: &str) -> Outcome<()> {
    println!("\nPages below {prefix}");
    let filter = vec![family("language"), newest()];
    let (mut count, began) = (0, Instant::now());
    let mut rows = client.read_rows(request(table, below(prefix), filter)).await?;
    while let Some(row) = rows.next().await? {
        count += 1;
        if count <= LINE_COUNT_MAX {
            let language = String::from_utf8_lossy(&row.cells[0].value).into_owned();
            println!("  {language:6} {}", String::from_utf8_lossy(&row.key));
        }
    }
    finish(count, "pages", began);
    Ok(())
}

/// One row, one family: the pages that link to `key`, and with which words.
pub(crate) async fn who_links_to(client: &RowClient, table: &TableName, key: &str) -> Outcome<()> {
    println!("\nWho links to {key}");
    let one = RowSet { row_keys: vec![key.as_bytes().to_vec().into()], row_ranges: Vec::new() };
    let began = Instant::now();
    let mut rows = client.read_rows(request(table, one, vec![family("anchor"), newest()])).await?;
    let anchors = rows.next().await?.map(|row| row.cells).unwrap_or_default();
    for anchor in anchors.iter().take(LINE_COUNT_MAX) {
        let text = String::from_utf8_lossy(&anchor.value).chars().take(40).collect::<String>();
        println!("  {text:40} {}", String::from_utf8_lossy(&anchor.qualifier));
    }
    finish(anchors.len(), "links", began);
    Ok(())
}

/// A row range, a family and a timestamp range: what was crawled lately.
pub(crate) async fn contents_since(
    client: &RowClient,
    table: &TableName,
    prefix: &str,
    since: SystemTime,
) -> Outcome<()> {
    println!("\nContents below {prefix} of the last {:.0} s", since.elapsed()?.as_secs_f64().ceil());
    let range = TimestampRange { start_timestamp_micros: timestamp_us(since)?, end_timestamp_micros: 0 };
    let filter = vec![family("contents"), only(Filter::TimestampRangeFilter(range)), newest()];
    let (mut count, mut bytes, began) = (0, 0, Instant::now());
    let mut rows = client.read_rows(request(table, below(prefix), filter)).await?;
    while let Some(row) = rows.next().await? {
        count += 1;
        bytes += row.cells[0].value.len() as u64;
        if count <= LINE_COUNT_MAX {
            let size = HumanBytes(row.cells[0].value.len() as u64).to_string();
            println!("  {size:>12}  {}", String::from_utf8_lossy(&row.key));
        }
    }
    finish(count, &format!("pages, {},", HumanBytes(bytes)), began);
    Ok(())
}

fn finish(count: usize, what: &str, began: Instant) {
    let more = if count > LINE_COUNT_MAX { "  …\n" } else { "" };
    println!("{more}  {} {what} in {:.1} ms", HumanCount(count as u64), began.elapsed().as_secs_f64() * 1e3);
}

fn request(table: &TableName, rows: RowSet, filters: Vec<RowFilter>) -> ReadRowsRequest {
    ReadRowsRequest {
        table_name: table.to_string(),
        rows: Some(rows),
        filter: Some(only(Filter::Chain(Chain { filters }))),
        ..ReadRowsRequest::default()
    }
}

/// The rows whose keys start with `prefix`, which ends in an ASCII character.
fn below(prefix: &str) -> RowSet {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    let start_key = Some(StartKey::StartKeyClosed(prefix.as_bytes().to_vec().into()));
    RowSet {
        row_keys: Vec::new(),
        row_ranges: vec![RowRange { start_key, end_key: Some(EndKey::EndKeyOpen(end.into())) }],
    }
}

fn family(name: &str) -> RowFilter {
    only(Filter::FamilyNameRegexFilter(name.to_owned()))
}

/// Of each column its newest cell.
fn newest() -> RowFilter {
    only(Filter::CellsPerColumnLimitFilter(1))
}

fn only(filter: Filter) -> RowFilter {
    filter.into()
}
