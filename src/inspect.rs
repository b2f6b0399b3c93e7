//! `hayloft inspect`: looks into files of a data directory, offline.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use lsm::sstable::inspect::{self, Change, Summary};
use serde_json::json;
use vfs::RealFileSystem;

/// What to look into.
#[derive(Debug, Subcommand)]
pub(crate) enum Inspect {
    /// An SSTable: what it says about itself, whether every block holds, what is in it.
    ///
    /// Exits with 1 if it is damaged, naming each place by its offset.
    Sstable {
        /// The file, one of hayloft-data/tablet-server/tables/*.sst
        path: PathBuf,
        /// Print every write as well: sequence, key, and the value's size.
        #[arg(long)]
        keys: bool,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
}

/// A file that could not be read, or does not hold.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InspectError {
    #[error(transparent)]
    Engine(#[from] lsm::Error),
    #[error("{} is damaged in {} places:{}", path.display(), damages.len(), listed(damages))]
    Damaged { path: PathBuf, damages: Vec<lsm::Error> },
    #[error("cannot write the output")]
    Output(#[from] std::io::Error),
}

fn listed(damages: &[lsm::Error]) -> String {
    damages.iter().fold(String::new(), |mut text, damage| {
        let _ = write!(text, "\n  {damage}");
        text
    })
}

/// Carries out `what` and prints the result.
pub(crate) fn run(what: &Inspect) -> Result<(), InspectError> {
    let Inspect::Sstable { path, keys, json } = what;
    sstable(path, *keys, *json)
}

fn sstable(path: &Path, keys: bool, json: bool) -> Result<(), InspectError> {
    let table = inspect::open(&RealFileSystem, path)?;
    let damages = table.verify(|_, _| {})?;
    let summary = table.summary();
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    if json {
        writeln!(out, "{:#}", as_json(path, &summary, &damages))?;
    } else {
        for (name, value) in as_lines(&summary) {
            writeln!(out, "{name:<16} {value}")?;
        }
    }
    if keys && damages.is_empty() {
        for write in table.writes() {
            let write = write?;
            let change = match write.change {
                Change::Put(value) => format!("{} bytes", value.len()),
                Change::Delete => "delete".to_owned(),
                Change::Merge(operand) => format!("merge of {} bytes", operand.len()),
            };
            writeln!(out, "{:>12} {} {change}", write.sequence, write.key.escape_ascii())?;
        }
        for delete in table.range_deletes() {
            let [start, end] = [&delete.key_range.start, &delete.key_range.end].map(|key| key.escape_ascii());
            writeln!(out, "{:>12} {start} .. {end} delete", delete.sequence)?;
        }
    }
    out.flush()?;
    if damages.is_empty() { Ok(()) } else { Err(InspectError::Damaged { path: path.to_owned(), damages }) }
}

fn as_lines(summary: &Summary) -> Vec<(&'static str, String)> {
    let Summary { entry_count, tombstone_count, merge_count, .. } = summary;
    let entries = format!("{entry_count}, {tombstone_count} of them deletes, {merge_count} merges");
    let ratio = summary.raw_bytes as f64 / summary.data_bytes.max(1) as f64;
    vec![
        ("file bytes", summary.file_bytes.to_string()),
        ("first key", summary.key_range.start.escape_ascii().to_string()),
        ("past the last", summary.key_range.end.escape_ascii().to_string()),
        ("entries", entries),
        ("range deletes", summary.range_tombstone_count.to_string()),
        ("sequences", format!("{} to {}", summary.sequence_min, summary.sequence_max)),
        ("data blocks", format!("{}, {} bytes", summary.data_block_count, summary.data_bytes)),
        ("raw bytes", format!("{}, {ratio:.2} times the data blocks", summary.raw_bytes)),
        ("filters over", format!("{:?}", summary.filter_key)),
        ("memory when open", format!("{} bytes", summary.memory_bytes)),
    ]
}

fn as_json(path: &Path, summary: &Summary, damages: &[lsm::Error]) -> serde_json::Value {
    json!({
        "path": path,
        "file_bytes": summary.file_bytes,
        "first_key": summary.key_range.start.escape_ascii().to_string(),
        "past_the_last_key": summary.key_range.end.escape_ascii().to_string(),
        "entry_count": summary.entry_count,
        "tombstone_count": summary.tombstone_count,
        "merge_count": summary.merge_count,
        "range_tombstone_count": summary.range_tombstone_count,
        "sequence_min": summary.sequence_min,
        "sequence_max": summary.sequence_max,
        "raw_bytes": summary.raw_bytes,
        "data_bytes": summary.data_bytes,
        "data_block_count": summary.data_block_count,
        "damages": damages.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}
