//! `hayloft inspect`: looks into files of a data directory, offline.
//!
//! Nothing here writes. Each kind of file has a module, which says what it
//! holds as lines or as JSON; [`directory`] verifies all of them together.
//! Damage is printed with file and offset, and the exit code is 1.

mod directory;
mod listing;
mod log;
mod manifest;
mod sstable;
mod volume;

use std::fmt::{Display, Write as _};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::Value;

pub(crate) use self::directory::engines_in;
use self::listing::Listing;

/// What to look into.
#[derive(Debug, Subcommand)]
pub(crate) enum Inspect {
    /// An SSTable: what it says about itself, whether every block holds, what is in it.
    Sstable {
        /// The file, one of hayloft-data/tablet-server/tables/*.sst
        path: PathBuf,
        /// Read every block: checksums, the order of keys, index, filters, counts.
        #[arg(long)]
        verify: bool,
        #[command(flatten)]
        listing: Listing,
    },
    /// A segment of the commit log: its groups and batches, and what of it is lost.
    ///
    /// All of it is read. A group behind the last one that holds was cut short
    /// by a crash and never acknowledged: that is no damage.
    Log {
        /// The file, one of hayloft-data/tablet-server/log/*.log
        path: PathBuf,
        #[command(flatten)]
        listing: Listing,
    },
    /// A manifest: the tree, how far its writes are in tables, and which tables those are.
    Manifest {
        /// The file, one of hayloft-data/tablet-server/manifests/*.manifest
        path: PathBuf,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// A photo volume: what it is, what is in it, whether every needle holds.
    ///
    /// Without --verify its index file is believed. A write at the end that was
    /// cut short by a crash was never acknowledged: that is no damage.
    Volume {
        /// The file, one of hayloft-data/haystack/*.volume
        path: PathBuf,
        /// Read every needle, and compare the index file with them.
        #[arg(long)]
        verify: bool,
        /// Print every needle as well: offset, length, key, size.
        #[arg(long)]
        needles: bool,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// The index file of a photo volume: how much of it is sound, and what it knows.
    Index {
        /// The file, one of hayloft-data/haystack/*.index; its volume lies beside it
        path: PathBuf,
        /// Print every record as well: offset, length, key, size.
        #[arg(long)]
        needles: bool,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Every manifest, table and log segment of a directory, and whether they fit together.
    ///
    /// Reads each block of each table: checksums, filters against keys, the
    /// order of keys, levels, sequence numbers; and each batch of the log. The
    /// last line is the verdict. Stop the server first, or what it is writing
    /// looks damaged.
    Verify {
        /// A data directory, or the directory of an engine, which holds log/, manifests/ and tables/
        dir: PathBuf,
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
    #[error(transparent)]
    Photos(#[from] haystack::Error),
    #[error("{} is damaged in {} places:{}", path.display(), damages.len(), listed(damages))]
    Volume { path: PathBuf, damages: Vec<String> },
    #[error("{} holds no engine: there is no log/, manifests/ or tables/ in it", .0.display())]
    NoEngine(PathBuf),
    #[error("cannot write the output")]
    Output(#[from] std::io::Error),
}

fn listed(damages: &[impl Display]) -> String {
    damages.iter().fold(String::new(), |mut text, damage| {
        let _ = write!(text, "\n  {damage}");
        text
    })
}

/// Carries out `what` and prints the result.
pub(crate) fn run(what: &Inspect) -> Result<(), InspectError> {
    match what {
        Inspect::Sstable { path, verify, listing } => sstable::run(path, *verify, listing),
        Inspect::Log { path, listing } => log::run(path, listing),
        Inspect::Manifest { path, json } => manifest::run(path, *json),
        Inspect::Volume { path, verify, needles, json } => volume::run_volume(path, *verify, *needles, *json),
        Inspect::Index { path, needles, json } => volume::run_index(path, *needles, *json),
        Inspect::Verify { dir, json } => directory::run(dir, *json),
    }
}

/// Standard output.
type Output = std::io::BufWriter<std::io::StdoutLock<'static>>;

fn output() -> Output {
    std::io::BufWriter::new(std::io::stdout().lock())
}

/// What a summary says, line by line.
type Lines = Vec<(&'static str, String)>;

fn print_lines(out: &mut Output, lines: Lines) -> Result<(), InspectError> {
    for (name, value) in lines {
        writeln!(out, "{name:<18} {value}")?;
    }
    Ok(())
}

fn print_json(out: &mut Output, value: &Value) -> Result<(), InspectError> {
    Ok(writeln!(out, "{value:#}")?)
}

fn texts(damages: &[lsm::Error]) -> Vec<String> {
    damages.iter().map(ToString::to_string).collect()
}

/// Ends an inspection that found `damages` in the file or directory at `path`.
fn conclude(mut out: Output, path: &Path, damages: Vec<lsm::Error>) -> Result<(), InspectError> {
    out.flush()?;
    if damages.is_empty() { Ok(()) } else { Err(InspectError::Damaged { path: path.to_owned(), damages }) }
}
