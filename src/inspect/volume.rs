//! `hayloft inspect volume` and `hayloft inspect index`.

use std::io::Write as _;
use std::path::Path;

use haystack::index::Totals;
use haystack::index_file::{Content, IndexRecord};
use haystack::inspect::{IndexReport, VolumeReport, inspect_index, inspect_volume};
use haystack::photo_id::PhotoSize;
use serde_json::{Value, json};
use vfs::RealFileSystem;

use super::{InspectError, Lines, Output, output, print_json, print_lines};

pub(super) fn run_volume(path: &Path, verify: bool, list: bool, json: bool) -> Result<(), InspectError> {
    let mut lister = Lister::new(list, json);
    let report = inspect_volume(&RealFileSystem, path, verify, |record| lister.add(record))?;
    let damages = damages_of(&report);
    let mut out = output();
    if json {
        let mut object = volume_as_json(path, &report, &damages);
        lister.finish(&mut object);
        print_json(&mut out, &object)?;
    } else {
        lister.print(&mut out)?;
        print_lines(&mut out, volume_as_lines(&report))?;
    }
    out.flush()?;
    if damages.is_empty() { Ok(()) } else { Err(InspectError::Volume { path: path.to_owned(), damages }) }
}

pub(super) fn run_index(path: &Path, list: bool, json: bool) -> Result<(), InspectError> {
    let mut lister = Lister::new(list, json);
    let report = inspect_index(&RealFileSystem, path, |record| lister.add(record))?;
    let mut out = output();
    if json {
        let mut object = index_as_json(path, &report);
        lister.finish(&mut object);
        print_json(&mut out, &object)?;
    } else {
        lister.print(&mut out)?;
        print_lines(&mut out, index_as_lines(&report))?;
    }
    Ok(out.flush()?)
}

/// Collects what is shown of each record, if it is to be.
struct Lister {
    list: bool,
    json: bool,
    lines: Vec<String>,
    values: Vec<Value>,
}

impl Lister {
    fn new(list: bool, json: bool) -> Self {
        Self { list, json, lines: Vec::new(), values: Vec::new() }
    }

    fn add(&mut self, record: &IndexRecord) {
        if !self.list {
            return;
        }
        let IndexRecord { offset, bytes, content } = record;
        let (key, what) = match content {
            Content::Needle { key, alternate_key, .. } => {
                (key.0, PhotoSize::from_alternate_key(*alternate_key).map_or("unknown", PhotoSize::name))
            }
            Content::Tombstone { key } => (key.0, "deleted"),
            Content::Damage => (0, "DAMAGED"),
        };
        if self.json {
            self.values.push(
                json!({ "offset": offset, "bytes": bytes, "key": format!("{key:016x}"), "what": what }),
            );
        } else {
            self.lines.push(format!("{offset:>12} {bytes:>10}  {key:016x}  {what}"));
        }
    }

    fn print(&self, out: &mut Output) -> Result<(), InspectError> {
        for line in &self.lines {
            writeln!(out, "{line}")?;
        }
        Ok(())
    }

    fn finish(self, object: &mut Value) {
        if self.list {
            object["needles"] = self.values.into();
        }
    }
}

fn damages_of(report: &VolumeReport) -> Vec<String> {
    let stretches = report.damage.iter().map(|stretch| {
        format!(
            "{} bytes at {} are no needle, and needles follow",
            stretch.end - stretch.start,
            stretch.start
        )
    });
    let disagreements = report
        .disagreements
        .iter()
        .map(|offset| format!("the index file says otherwise than the volume of the needle at {offset}"));
    stretches.chain(disagreements).collect()
}

fn totals_as_lines(totals: &Totals) -> Lines {
    vec![
        ("photos", format!("{}, {} more deleted", totals.photo_count, totals.tombstone_count)),
        ("needles", format!("{}, {} bytes", totals.needle_count, totals.live_bytes)),
    ]
}

fn volume_as_lines(report: &VolumeReport) -> Lines {
    let superblock = &report.superblock;
    let mut lines = vec![
        ("logical volume", superblock.logical_volume.to_string()),
        ("physical volume", format!("{:016x}", superblock.physical_volume)),
        ("created", format!("{} ms since 1970", superblock.created_ms)),
        ("file bytes", report.file_bytes.to_string()),
        ("indexed", format!("the first {} bytes", report.indexed_bytes)),
    ];
    lines.extend(totals_as_lines(&report.totals));
    lines.push(("tombstones", report.tombstone_needle_count.to_string()));
    if report.torn_bytes > 0 {
        lines.push((
            "torn tail",
            format!("{} bytes that nobody was told of; the next start cuts them", report.torn_bytes),
        ));
    }
    lines
}

fn volume_as_json(path: &Path, report: &VolumeReport, damages: &[String]) -> Value {
    json!({
        "path": path,
        "logical_volume": report.superblock.logical_volume.0,
        "physical_volume": format!("{:016x}", report.superblock.physical_volume),
        "created_ms": report.superblock.created_ms,
        "file_bytes": report.file_bytes,
        "indexed_bytes": report.indexed_bytes,
        "photo_count": report.totals.photo_count,
        "deleted_count": report.totals.tombstone_count,
        "needle_count": report.totals.needle_count,
        "live_bytes": report.totals.live_bytes,
        "tombstone_needle_count": report.tombstone_needle_count,
        "torn_bytes": report.torn_bytes,
        "damages": damages,
    })
}

fn index_as_lines(report: &IndexReport) -> Lines {
    let (logical, physical) = report.volume;
    let mut lines = vec![
        ("logical volume", logical.to_string()),
        ("physical volume", format!("{physical:016x}")),
        ("file bytes", format!("{}, {} of them sound", report.file_bytes, report.sound_bytes)),
        ("indexed", format!("the first {} bytes of the volume", report.indexed_bytes)),
    ];
    lines.extend(totals_as_lines(&report.totals));
    lines
}

fn index_as_json(path: &Path, report: &IndexReport) -> Value {
    json!({
        "path": path,
        "logical_volume": report.volume.0.0,
        "physical_volume": format!("{:016x}", report.volume.1),
        "file_bytes": report.file_bytes,
        "sound_bytes": report.sound_bytes,
        "indexed_bytes": report.indexed_bytes,
        "photo_count": report.totals.photo_count,
        "deleted_count": report.totals.tombstone_count,
        "needle_count": report.totals.needle_count,
        "live_bytes": report.totals.live_bytes,
    })
}
