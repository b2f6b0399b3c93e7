//! `hayloft inspect verify`.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use lsm::inspect::directory::{Verdict, verify};
use serde_json::json;
use tablet_server::fleet::{SERVER_COUNT_MAX, dir_name};
use vfs::RealFileSystem;

use super::{InspectError, conclude, output, print_json, texts};

pub(super) fn run(dir: &Path, json: bool) -> Result<(), InspectError> {
    let mut outcome = Ok(());
    for engine in engines_in(dir)? {
        outcome = run_one(&engine, json).and(outcome);
    }
    outcome
}

fn run_one(engine: &Path, json: bool) -> Result<(), InspectError> {
    let bar = progress_bar();
    let verdict = verify(&RealFileSystem, engine, |progress| {
        bar.set_length(progress.total_bytes);
        bar.set_position(progress.done_bytes);
        bar.set_message(progress.file.file_name().unwrap_or_default().to_string_lossy().into_owned());
    })?;
    bar.finish_and_clear();
    let mut out = output();
    if json {
        print_json(&mut out, &as_json(engine, &verdict))?;
    } else {
        for orphan in &verdict.orphans {
            writeln!(out, "no manifest names {}: the next start deletes it", orphan.display())?;
        }
        writeln!(out, "{}", as_line(engine, &verdict))?;
    }
    conclude(out, engine, verdict.damages)
}

/// The engines' directories: `dir`, or those of the tablet servers in it.
pub(crate) fn engines_in(dir: &Path) -> Result<Vec<PathBuf>, InspectError> {
    let holds_engine = |dir: &Path| ["log", "manifests", "tables"].iter().all(|name| dir.join(name).is_dir());
    let servers = (1..=SERVER_COUNT_MAX).map(|number| dir.join(dir_name(number)));
    let engines: Vec<_> = servers.chain([dir.to_owned()]).filter(|dir| holds_engine(dir)).collect();
    if engines.is_empty() { Err(InspectError::NoEngine(dir.to_owned())) } else { Ok(engines) }
}

/// Shown on a terminal only.
fn progress_bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {bytes} of {total_bytes}, {eta} left  {msg}");
    ProgressBar::new(0).with_style(style.expect("the template is one"))
}

fn as_line(engine: &Path, verdict: &Verdict) -> String {
    let outcome = match verdict.damages.len() {
        0 => "sound".to_owned(),
        count => format!("DAMAGED in {count} places"),
    };
    format!(
        "{}: {outcome}; {} trees, {} manifests, {} tables with {} entries, {} log segments with {} batches, {} bytes",
        engine.display(),
        verdict.tree_count,
        verdict.manifest_count,
        verdict.table_count,
        verdict.entry_count,
        verdict.segment_count,
        verdict.batch_count,
        verdict.bytes,
    )
}

fn as_json(engine: &Path, verdict: &Verdict) -> serde_json::Value {
    json!({
        "path": engine,
        "sound": verdict.damages.is_empty(),
        "tree_count": verdict.tree_count,
        "manifest_count": verdict.manifest_count,
        "table_count": verdict.table_count,
        "entry_count": verdict.entry_count,
        "segment_count": verdict.segment_count,
        "batch_count": verdict.batch_count,
        "bytes": verdict.bytes,
        "orphans": verdict.orphans,
        "damages": texts(&verdict.damages),
    })
}
