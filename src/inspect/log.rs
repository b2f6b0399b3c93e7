//! `hayloft inspect log`.

use std::path::Path;

use lsm::inspect::log::{self, Change, Summary, Write};
use serde_json::json;
use vfs::RealFileSystem;

use super::listing::Listing;
use super::{InspectError, Lines, conclude, output, print_json, print_lines, texts};

pub(super) fn run(path: &Path, listing: &Listing) -> Result<(), InspectError> {
    let (mut out, mut lister) = (output(), listing.lister());
    let mut written = Ok(());
    let summary = log::read(&RealFileSystem, path, |write| {
        if listing.keys && written.is_ok() {
            let place = format!("{:>10} tree {}", write.offset, write.tree.0);
            written = lister.add(&mut out, write.sequence, &place, write.key, &what(&write, listing));
        }
    })?;
    written?;
    let damages: Vec<_> = summary.losses.iter().map(log::Loss::error).collect();
    if listing.json {
        let mut object = as_json(path, &summary, &damages);
        if listing.keys {
            object["writes"] = lister.into_json();
        }
        print_json(&mut out, &object)?;
    } else {
        print_lines(&mut out, as_lines(&summary))?;
    }
    conclude(out, path, damages)
}

fn what(write: &Write<'_>, listing: &Listing) -> String {
    match write.change {
        Change::Put(value) => format!("{} bytes", value.len()),
        Change::Delete => "delete".to_owned(),
        Change::DeleteRange(end) => format!(".. {} delete", listing.show(end)),
        Change::Merge(operand) => format!("merge {} bytes", operand.len()),
    }
}

fn as_lines(summary: &Summary) -> Lines {
    let none = || "none".to_owned();
    let previous = summary
        .previous
        .map(|(id, end)| format!("{:016x}-{:016x}.log, which ends at {end}", id.epoch, id.number));
    let sequences = summary.sequences.map(|(first, last)| format!("{first} to {last}"));
    vec![
        ("file bytes", summary.file_bytes.to_string()),
        ("frames end at", summary.end.to_string()),
        ("segment before", previous.unwrap_or_else(none)),
        ("groups", summary.group_count.to_string()),
        ("batches", summary.batch_count.to_string()),
        ("writes", summary.write_count.to_string()),
        ("sequences", sequences.unwrap_or_else(none)),
    ]
}

fn as_json(path: &Path, summary: &Summary, damages: &[lsm::Error]) -> serde_json::Value {
    json!({
        "path": path,
        "file_bytes": summary.file_bytes,
        "end": summary.end,
        "previous_epoch": summary.previous.map(|(id, _)| id.epoch),
        "previous_number": summary.previous.map(|(id, _)| id.number),
        "previous_end": summary.previous.map(|(_, end)| end),
        "group_count": summary.group_count,
        "batch_count": summary.batch_count,
        "write_count": summary.write_count,
        "sequence_min": summary.sequences.map(|(first, _)| first),
        "sequence_max": summary.sequences.map(|(_, last)| last),
        "damages": texts(damages),
    })
}
