//! `hayloft inspect manifest`.

use std::io::Write as _;
use std::path::Path;

use lsm::inspect::manifest::{self, Summary, Table};
use serde_json::json;
use vfs::RealFileSystem;

use super::{InspectError, conclude, output, print_json, print_lines};

pub(super) fn run(path: &Path, json: bool) -> Result<(), InspectError> {
    let summary = manifest::read(&RealFileSystem, path)?;
    let mut out = output();
    if json {
        print_json(&mut out, &as_json(path, &summary))?;
        return conclude(out, path, Vec::new());
    }
    let dropped = summary.dropped_at.map_or("no".to_owned(), |at| format!("at sequence {at}"));
    let operator = summary.format.merge_operator.as_deref().unwrap_or("none");
    print_lines(
        &mut out,
        vec![
            ("tree", summary.tree.0.to_string()),
            ("filters over", format!("{:?}", summary.format.filter_key)),
            ("merge operator", operator.to_owned()),
            ("redo point", summary.redo_point.to_string()),
            ("dropped", dropped),
            ("edits", summary.edit_count.to_string()),
            ("tables", summary.tables.len().to_string()),
        ],
    )?;
    for table in &summary.tables {
        let (first, last) = table.sequences;
        let [start, end] = [&table.key_range.start, &table.key_range.end].map(|key| key.escape_ascii());
        let (level, bytes) = (table.level, table.file_bytes);
        writeln!(
            out,
            "L{level} {} {bytes:>12} bytes, sequences {first} to {last}, {start} .. {end}",
            name(table)
        )?;
    }
    conclude(out, path, Vec::new())
}

fn name(table: &Table) -> String {
    format!("{:016x}-{:016x}.sst", table.id.epoch, table.id.number)
}

fn as_json(path: &Path, summary: &Summary) -> serde_json::Value {
    let tables = summary.tables.iter().map(|table| {
        json!({
            "name": name(table),
            "level": table.level,
            "file_bytes": table.file_bytes,
            "sequence_min": table.sequences.0,
            "sequence_max": table.sequences.1,
            "assigned_sequence": table.assigned_sequence,
            "first_key": table.key_range.start.escape_ascii().to_string(),
            "past_the_last_key": table.key_range.end.escape_ascii().to_string(),
        })
    });
    json!({
        "path": path,
        "tree": summary.tree.0,
        "merge_operator": summary.format.merge_operator,
        "redo_point": summary.redo_point,
        "dropped_at": summary.dropped_at,
        "edit_count": summary.edit_count,
        "tables": tables.collect::<Vec<_>>(),
    })
}
