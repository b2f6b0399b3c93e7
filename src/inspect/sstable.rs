//! `hayloft inspect sstable`.

use std::path::Path;

use lsm::sstable::inspect::{self, Change, Inspection, Summary};
use serde_json::json;
use vfs::RealFileSystem;

use super::listing::{Lister, Listing};
use super::{InspectError, Lines, Output, conclude, output, print_json, print_lines, texts};

pub(super) fn run(path: &Path, verify: bool, listing: &Listing) -> Result<(), InspectError> {
    let table = inspect::open(&RealFileSystem, path)?;
    let damages = if verify { table.verify(|_, _| {})? } else { Vec::new() };
    let summary = table.summary();
    let mut out = output();
    if !listing.json {
        print_lines(&mut out, as_lines(&summary, listing))?;
    }
    let mut lister = listing.lister();
    if listing.keys && damages.is_empty() {
        list(&table, listing, &mut lister, &mut out)?;
    }
    if listing.json {
        let mut object = as_json(path, &summary, &damages, listing);
        if listing.keys {
            object["writes"] = lister.into_json();
        }
        print_json(&mut out, &object)?;
    }
    conclude(out, path, damages)
}

fn list(
    table: &Inspection,
    listing: &Listing,
    lister: &mut Lister<'_>,
    out: &mut Output,
) -> Result<(), InspectError> {
    for write in table.writes() {
        let write = write?;
        let what = match &write.change {
            Change::Put(value) => format!("{} bytes", value.len()),
            Change::Delete => "delete".to_owned(),
            Change::Merge(operand) => format!("merge {} bytes", operand.len()),
        };
        lister.add(out, write.sequence, "", &write.key, &what)?;
        if lister.is_full() {
            return Ok(());
        }
    }
    for delete in table.range_deletes() {
        let what = format!(".. {} delete", listing.show(&delete.key_range.end));
        lister.add(out, delete.sequence, "", &delete.key_range.start, &what)?;
    }
    Ok(())
}

fn as_lines(summary: &Summary, listing: &Listing) -> Lines {
    let ratio = summary.raw_bytes as f64 / summary.data_bytes.max(1) as f64;
    let (deletes, merges) = (summary.tombstone_count, summary.merge_count);
    vec![
        ("file bytes", summary.file_bytes.to_string()),
        ("first key", listing.show(&summary.key_range.start)),
        ("past the last", listing.show(&summary.key_range.end)),
        ("entries", format!("{}, {deletes} of them deletes, {merges} merges", summary.entry_count)),
        ("range deletes", summary.range_tombstone_count.to_string()),
        ("sequences", format!("{} to {}", summary.sequence_min, summary.sequence_max)),
        ("data blocks", format!("{}, {} bytes", summary.data_block_count, summary.data_bytes)),
        ("raw bytes", format!("{}, {ratio:.2} times the data blocks", summary.raw_bytes)),
        ("filters over", format!("{:?}", summary.filter_key)),
        ("memory when open", format!("{} bytes", summary.memory_bytes)),
    ]
}

fn as_json(path: &Path, summary: &Summary, damages: &[lsm::Error], listing: &Listing) -> serde_json::Value {
    json!({
        "path": path,
        "file_bytes": summary.file_bytes,
        "first_key": listing.show(&summary.key_range.start),
        "past_the_last_key": listing.show(&summary.key_range.end),
        "entry_count": summary.entry_count,
        "tombstone_count": summary.tombstone_count,
        "merge_count": summary.merge_count,
        "range_tombstone_count": summary.range_tombstone_count,
        "sequence_min": summary.sequence_min,
        "sequence_max": summary.sequence_max,
        "raw_bytes": summary.raw_bytes,
        "data_bytes": summary.data_bytes,
        "data_block_count": summary.data_block_count,
        "damages": texts(damages),
    })
}
