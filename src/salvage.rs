//! `hayloft salvage`: makes a server start again whose commit log is damaged.

use std::path::{Path, PathBuf};

use clap::Args;
use lsm::salvage::{Loss, Salvage, salvage};
use vfs::RealFileSystem;

use crate::inspect::{InspectError, engines_in};

/// What to salvage, and whether to.
#[derive(Args, Debug)]
pub(crate) struct Settings {
    /// A data directory, or the directory of an engine
    dir: PathBuf,
    /// Do it. Without this flag nothing is changed.
    #[arg(long)]
    write: bool,
}

/// Salvages, or tells what that would do.
pub(crate) fn run(settings: &Settings) -> Result<(), InspectError> {
    engines_in(&settings.dir)?.iter().try_for_each(|engine| run_one(engine, settings.write))
}

fn run_one(engine: &Path, write: bool) -> Result<(), InspectError> {
    let report = salvage(&RealFileSystem, engine, write)?;
    for (loss, trees) in &report.losses {
        println!("{}", lost(loss, *trees, &report));
    }
    let would = if write { "" } else { "would be " };
    for path in &report.set_aside {
        println!("{would}set aside: {}", path.display());
    }
    println!(
        "{}: {} losses, {} batches of the log kept, sequences through {}{}",
        engine.display(),
        report.losses.len(),
        report.batch_count,
        report.last_sequence,
        match (report.losses.is_empty(), write) {
            (true, _) => "; there is nothing to do",
            (false, true) => "; written",
            (false, false) => "; nothing was changed: --write does it",
        },
    );
    Ok(())
}

fn lost(loss: &Loss, trees: usize, report: &Salvage) -> String {
    let sequences = match loss.last_sequence {
        Some(last) if last < loss.first_sequence => "no batch".to_owned(),
        Some(last) => format!("sequences {} to {last}", loss.first_sequence),
        None => format!("sequences from {} on", loss.first_sequence),
    };
    let place = format!("{} at offset {}, {} bytes", loss.file.display(), loss.offset, loss.bytes);
    let what = loss.what;
    format!("lost: {sequences}, {place}: {what}; in tables of {trees} of {} trees", report.tree_count)
}
