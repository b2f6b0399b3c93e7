//! Salvage: makes an engine open again whose commit log is damaged.
//!
//! Opening stops at damage in the middle of the log, with file and offset,
//! because what follows it would be applied without what was lost. Somebody who
//! has looked at that, and has no better copy, asks for a salvage: offline, and
//! first as a trial that changes nothing. It keeps
//!
//! - every batch before the damage,
//! - every batch behind it whose group still holds, whole,
//!
//! and tells what is lost: files, offsets, bytes and sequence numbers, and
//! whether those had reached tables. Of a batch that is lost, a part may be in
//! the tables of trees that were flushed; that is not undone, and told as well.
//!
//! From the first damaged segment on, what is kept is written to new segments.
//! The old ones get names that no recovery looks at (`*.log-damaged`); nothing
//! is deleted. New segments get their names before the old ones lose theirs,
//! and the first damaged one loses its own last, so that a salvage which is
//! interrupted leaves a log that still refuses to open, and can be salvaged
//! again: batches that stand there twice count once.

use std::path::{Path, PathBuf};

use crate::commit_log::segment::{Descriptor, EXTENSION, PRELUDE, Record, encode_record};
pub use crate::commit_log::survey::Loss;
use crate::commit_log::survey::{Survey, survey};
use crate::frame::FrameWriter;
use crate::layout::Layout;
use crate::tables::sweeper::TABLE_EXTENSION;
use crate::{Error, FileId, Result, manifest};

const UNFINISHED_EXTENSION: &str = "log-salvaged";
const DAMAGED_EXTENSION: &str = "log-damaged";

/// New segments are about this long, and groups in them.
const SEGMENT_BYTES: u64 = 64 << 20;
const GROUP_BYTES: usize = 1 << 20;

/// What a salvage did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Salvage {
    /// Segments that were found.
    pub segment_count: usize,
    /// Batches that are kept.
    pub batch_count: u64,
    /// The last sequence number that is kept, in the log or in tables.
    pub last_sequence: u64,
    /// What is lost, each with how many trees have all of it in tables.
    pub losses: Vec<(Loss, usize)>,
    /// Trees that exist.
    pub tree_count: usize,
    /// Segments that are replaced, by their old names.
    pub set_aside: Vec<PathBuf>,
}

/// Looks through the log of the engine in `dir` and, if `write` says so, makes
/// it one that a recovery accepts.
///
/// # Errors
///
/// - [`Error::Locked`]: the engine is open.
/// - [`Error::Damaged`]: a manifest is damaged; salvage mends logs only.
/// - [`Error::Io`]: asking again is safe.
pub fn salvage(fs: &dyn vfs::FileSystem, dir: &Path, write: bool) -> Result<Salvage> {
    let layout = Layout::of(dir);
    let _lock = if write || fs.exists(&layout.lock)? {
        Some(fs.lock(&layout.lock).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => Error::Locked { dir: dir.to_owned() },
            _ => error.into(),
        })?)
    } else {
        None
    };
    let trees = manifest::records(fs, &layout.manifests)?;
    let redo_points: Vec<_> =
        trees.iter().filter(|tree| tree.dropped_at.is_none()).map(|tree| tree.redo_point).collect();
    let redo_point = redo_points.iter().copied().max().unwrap_or(0);
    let mut surveyed = survey(fs, &layout.log, &mut |_, _, _| Ok(()))?;
    surveyed.expect_end(redo_point);
    let has_all = |loss: &Loss| {
        let last = loss.last_sequence.unwrap_or(u64::MAX);
        redo_points.iter().filter(|redo_point| **redo_point >= last || last < loss.first_sequence).count()
    };
    let first = surveyed.first_damaged.unwrap_or(surveyed.segments.len());
    let report = Salvage {
        segment_count: surveyed.segments.len(),
        batch_count: surveyed.segments.iter().map(|segment| segment.batch_count).sum(),
        last_sequence: surveyed.last_sequence.max(redo_point),
        losses: surveyed.losses.iter().map(|loss| (loss.clone(), has_all(loss))).collect(),
        tree_count: redo_points.len(),
        set_aside: surveyed.segments[first..].iter().map(|segment| segment.path.clone()).collect(),
    };
    if write && surveyed.first_damaged.is_some() {
        rewrite(fs, &layout, &surveyed, first, redo_point)?;
    }
    Ok(report)
}

impl Survey {
    /// Counts it as a loss if the log ends before `redo_point`, up to which it was durable.
    fn expect_end(&mut self, redo_point: u64) {
        let Some(last) = self.segments.iter().rfind(|segment| segment.descriptor.is_some()) else { return };
        if self.last_sequence < redo_point {
            let (file, offset, bytes) = (last.path.clone(), last.end, last.file_bytes - last.end);
            let what = "the log ends before what is in tables";
            let first_sequence = self.last_sequence + 1;
            let at = self.segments.iter().position(|segment| segment.id == last.id);
            self.first_damaged = self.first_damaged.or(at);
            self.losses.push(Loss { file, offset, bytes, what, first_sequence, last_sequence: None });
        }
    }
}

/// Writes what holds from segment `first` on anew, and sets those segments aside.
fn rewrite(
    fs: &dyn vfs::FileSystem,
    layout: &Layout,
    surveyed: &Survey,
    first: usize,
    redo_point: u64,
) -> Result<()> {
    let previous = first.checked_sub(1).map(|at| (surveyed.segments[at].id, surveyed.segments[at].end));
    let mut output = Output {
        fs,
        dir: &layout.log,
        next: newest(fs, layout)?,
        previous,
        last_sequence: first.checked_sub(1).map_or(0, |at| surveyed.last_sequence_of(at)),
        current: None,
        group: Vec::new(),
        written: Vec::new(),
    };
    survey(fs, &layout.log, &mut |at, _, record| if at < first { Ok(()) } else { output.add(record) })?;
    output.finish(redo_point)?;
    for id in &output.written {
        fs.rename(&id.path(&layout.log, UNFINISHED_EXTENSION), &id.path(&layout.log, EXTENSION))?;
    }
    fs.sync_dir(&layout.log)?;
    for segment in surveyed.segments[first..].iter().rev() {
        let mut aside = segment.id.path(&layout.log, DAMAGED_EXTENSION);
        for count in 2.. {
            if !fs.exists(&aside)? {
                break;
            }
            aside = segment.id.path(&layout.log, &format!("{DAMAGED_EXTENSION}-{count}"));
        }
        fs.rename(&segment.path, &aside)?;
        fs.sync_dir(&layout.log)?;
    }
    Ok(())
}

impl Survey {
    /// The last sequence number that segment `at` or one before it holds.
    fn last_sequence_of(&self, at: usize) -> u64 {
        let held = self.segments[..=at].iter().filter_map(|segment| segment.sequences);
        let begun = self.segments[..=at].iter().filter_map(|segment| segment.descriptor);
        let held = held.map(|(_, last)| last).max().unwrap_or(0);
        held.max(begun.map(|descriptor| descriptor.first_sequence - 1).max().unwrap_or(0))
    }
}

/// A name behind those of all files.
fn newest(fs: &dyn vfs::FileSystem, layout: &Layout) -> Result<FileId> {
    let mut ids = manifest::list(fs, &layout.manifests)?;
    for (dir, extension) in [(&layout.tables, TABLE_EXTENSION), (&layout.log, EXTENSION)] {
        ids.extend(fs.list(dir)?.iter().filter_map(|name| FileId::parse(name, extension)));
    }
    Ok(ids.into_iter().max().unwrap_or_default())
}

/// New segments.
struct Output<'a> {
    fs: &'a dyn vfs::FileSystem,
    dir: &'a Path,
    /// The last name that is taken.
    next: FileId,
    previous: Option<(FileId, u64)>,
    last_sequence: u64,
    current: Option<(FileId, FrameWriter)>,
    group: Vec<u8>,
    written: Vec<FileId>,
}

impl Output<'_> {
    fn add(&mut self, record: &Record<'_>) -> Result<()> {
        if self.current.is_none() {
            self.begin(record.first_sequence)?;
        }
        let count = usize::try_from(record.count).expect("32 bits fit");
        encode_record(&mut self.group, record.first_sequence, count, record.batch);
        self.last_sequence = record.last_sequence();
        if self.group.len() >= GROUP_BYTES { self.write_group() } else { Ok(()) }
    }

    fn begin(&mut self, first_sequence: u64) -> Result<()> {
        self.next.number += 1;
        let id = self.next;
        let path = id.path(self.dir, UNFINISHED_EXTENSION);
        if self.fs.exists(&path)? {
            // Left by a salvage that was interrupted.
            self.fs.remove(&path)?;
        }
        let descriptor = Descriptor { first_sequence, previous: self.previous };
        let frames = FrameWriter::start(self.fs.create(&path)?, id, PRELUDE, &descriptor.encode())?;
        self.written.push(id);
        self.current = Some((id, frames));
        Ok(())
    }

    fn write_group(&mut self) -> Result<()> {
        let Some((_, frames)) = &mut self.current else { return Ok(()) };
        if !self.group.is_empty() {
            frames.append(&self.group, &[])?;
            self.group.clear();
        }
        if frames.offset() >= SEGMENT_BYTES { self.end() } else { Ok(()) }
    }

    fn end(&mut self) -> Result<()> {
        if let Some((id, frames)) = self.current.take() {
            frames.sync()?;
            self.previous = Some((id, frames.offset()));
        }
        Ok(())
    }

    /// Ends with a segment that reaches beyond everything in tables.
    fn finish(&mut self, redo_point: u64) -> Result<()> {
        self.write_group()?;
        self.end()?;
        if self.written.is_empty() || self.last_sequence < redo_point {
            self.begin(self.last_sequence.max(redo_point) + 1)?;
            self.end()?;
        }
        Ok(())
    }
}
