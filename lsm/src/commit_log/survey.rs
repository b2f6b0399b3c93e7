//! A log's files as they are, damaged or not: for tools that work offline.
//!
//! Where a recovery stops, a survey goes on at the next frame that holds, and
//! tells what is lost between. It changes nothing.

use std::path::{Path, PathBuf};

use vfs::Access;

use super::replay::check_batch;
use super::segment::{Descriptor, EXTENSION, PRELUDE, Record, take_record};
use crate::error::Damage;
use crate::frame::{FrameReader, PRELUDE_BYTES, is_other_version};
use crate::{Error, FileId, Result};

const CAME_BEFORE: &str = "a record's sequence numbers came before";

/// Something that was durable in the log and is not there any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The segment.
    pub file: PathBuf,
    /// Where in it the loss begins.
    pub offset: u64,
    /// Its length.
    pub bytes: u64,
    /// What does not hold there.
    pub what: &'static str,
    /// The first sequence number that may be lost.
    pub first_sequence: u64,
    /// The last one; none where nothing behind it tells. Less than
    /// `first_sequence` where no batch was lost.
    pub last_sequence: Option<u64>,
}

impl Loss {
    /// The loss as what opening the engine would fail with.
    pub fn error(&self) -> Error {
        Damage(self.what).at(&self.file, self.offset)
    }
}

/// A segment's file.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) id: FileId,
    pub(crate) path: PathBuf,
    pub(crate) file_bytes: u64,
    /// None if its first frame does not hold.
    pub(crate) descriptor: Option<Descriptor>,
    /// Past the last frame that holds.
    pub(crate) end: u64,
    pub(crate) group_count: u64,
    pub(crate) batch_count: u64,
    pub(crate) write_count: u64,
    /// Of the records that hold, none if there are none.
    pub(crate) sequences: Option<(u64, u64)>,
    pub(crate) losses: Vec<Loss>,
}

/// The segments of a log, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    pub(crate) segments: Vec<Segment>,
    pub(crate) losses: Vec<Loss>,
    /// The first segment that a recovery does not get through.
    pub(crate) first_damaged: Option<usize>,
    pub(crate) last_sequence: u64,
}

/// Called with each record that holds and the offset of its group.
pub(crate) type Visit<'a> = &'a mut dyn FnMut(u64, &Record<'_>) -> Result<()>;

/// Surveys the file at `path`, named `id`, showing `visit` what holds. `last_sequence` is that of the segment before.
pub(crate) fn segment(
    fs: &dyn vfs::FileSystem,
    path: &Path,
    id: FileId,
    last_sequence: u64,
    visit: Visit<'_>,
) -> Result<Segment> {
    let mut reader = FrameReader::open_damaged(fs.open(path, Access::Read)?, path, id)?;
    let mut segment = Segment {
        id,
        path: path.to_owned(),
        file_bytes: reader.file_bytes(),
        descriptor: None,
        end: reader.offset(),
        group_count: 0,
        batch_count: 0,
        write_count: 0,
        sequences: None,
        losses: Vec::new(),
    };
    let mut last_sequence = last_sequence;
    let mut open_losses = 0;
    loop {
        let offset = reader.offset();
        let lost = match reader.next() {
            Ok(None) => break,
            Ok(Some(payload)) if offset == PRELUDE_BYTES as u64 => match Descriptor::decode(payload) {
                Ok(descriptor) => {
                    last_sequence = last_sequence.max(descriptor.first_sequence.saturating_sub(1));
                    segment.descriptor = Some(descriptor);
                    None
                }
                Err(damage) => Some(damage.0),
            },
            Ok(Some(group)) => match records(group, last_sequence) {
                Ok((records, repeats)) => {
                    let first = records.first().map_or(last_sequence + 1, |record| record.first_sequence);
                    close(&mut segment.losses[open_losses..], first);
                    open_losses = segment.losses.len();
                    segment.group_count += 1;
                    for record in &records {
                        segment.batch_count += 1;
                        segment.write_count += u64::from(record.count);
                        last_sequence = record.last_sequence();
                        let first = segment.sequences.map_or(record.first_sequence, |(first, _)| first);
                        segment.sequences = Some((first, last_sequence));
                        visit(offset, record)?;
                    }
                    repeats.then_some(CAME_BEFORE)
                }
                Err(damage) => Some(damage.0),
            },
            Err(Error::Damaged { what, .. }) => {
                reader.skip_damage()?;
                Some(what)
            }
            Err(error) => return Err(error),
        };
        segment.end = reader.offset();
        if let Some(what) = lost {
            let (file, bytes, first_sequence) = (path.to_owned(), segment.end - offset, last_sequence + 1);
            // What stands there twice is not lost.
            let last_sequence = (what == CAME_BEFORE).then_some(last_sequence);
            segment.losses.push(Loss { file, offset, bytes, what, first_sequence, last_sequence });
        }
    }
    let prelude = reader.prelude();
    if prelude != PRELUDE && (!segment.is_empty() || is_other_version(prelude, &[PRELUDE])) {
        let what = "magic or version is not one this program knows";
        let file = path.to_owned();
        // No batch stands there.
        let (first_sequence, last_sequence) = (1, Some(0));
        segment.losses.insert(
            0,
            Loss { file, offset: 0, bytes: PRELUDE_BYTES as u64, what, first_sequence, last_sequence },
        );
    }
    Ok(segment)
}

/// What is lost ends before `next_sequence`.
fn close(losses: &mut [Loss], next_sequence: u64) {
    for loss in losses {
        loss.last_sequence.get_or_insert(next_sequence - 1);
    }
}

/// The records of a group, if all of them hold, without those that came before, and whether there are such.
fn records(mut group: &[u8], mut last_sequence: u64) -> Result<(Vec<Record<'_>>, bool), Damage> {
    let (mut records, mut repeats) = (Vec::new(), false);
    while !group.is_empty() {
        let record = take_record(&mut group)?;
        check_batch(&record)?;
        if record.first_sequence <= last_sequence {
            repeats = true;
        } else {
            last_sequence = record.last_sequence();
            records.push(record);
        }
    }
    Ok((records, repeats))
}

/// Surveys the log in `dir`, showing `visit` each record that holds, in order, with its segment's index.
pub(crate) fn survey(
    fs: &dyn vfs::FileSystem,
    dir: &Path,
    visit: &mut dyn FnMut(usize, u64, &Record<'_>) -> Result<()>,
) -> Result<Survey> {
    let mut ids: Vec<_> = fs.list(dir)?.iter().filter_map(|name| FileId::parse(name, EXTENSION)).collect();
    ids.sort_unstable();
    let mut survey = Survey::default();
    for (at, id) in ids.iter().copied().enumerate() {
        let path = id.path(dir, EXTENSION);
        let before = survey.last_sequence;
        let mut segment = segment(fs, &path, id, before, &mut |offset, record| visit(at, offset, record))?;
        if segment.is_empty() {
            // At the end of the log its creation was cut short, or it is ready to be begun.
            survey.segments.push(segment);
            continue;
        }
        survey.end_empty_ones();
        survey.link(dir, &segment);
        if let Some((_, last_sequence)) = segment.sequences {
            survey.last_sequence = last_sequence;
        }
        if let Some(descriptor) = &segment.descriptor {
            survey.last_sequence = survey.last_sequence.max(descriptor.first_sequence.saturating_sub(1));
        }
        if segment.descriptor.is_none() && segment.losses.is_empty() {
            let what = "a segment does not describe itself";
            let first_sequence = before + 1;
            let (file, bytes) = (path.clone(), segment.file_bytes);
            segment.losses.push(Loss { file, offset: 0, bytes, what, first_sequence, last_sequence: None });
        }
        if !segment.losses.is_empty() {
            survey.first_damaged.get_or_insert(at);
        }
        survey.losses.append(&mut segment.losses);
        survey.segments.push(segment);
    }
    Ok(survey)
}

impl Segment {
    /// Whether no frame holds, nor seems to have been there.
    fn is_empty(&self) -> bool {
        self.end <= PRELUDE_BYTES as u64 && self.losses.is_empty()
    }
}

impl Survey {
    /// Empty segments so far are lost ones, since one follows that is not.
    fn end_empty_ones(&mut self) {
        let sound = self.segments.iter().rposition(|segment| !segment.is_empty()).map_or(0, |at| at + 1);
        for (at, segment) in self.segments.iter().enumerate().skip(sound) {
            self.first_damaged.get_or_insert(at);
            self.losses.push(Loss {
                file: segment.path.clone(),
                offset: 0,
                bytes: segment.file_bytes,
                what: "a segment holds nothing and is not the last one",
                first_sequence: self.last_sequence + 1,
                last_sequence: None,
            });
        }
    }

    /// Compares what `next` says of its predecessor with what was found.
    fn link(&mut self, dir: &Path, next: &Segment) {
        let first = next.descriptor.map(|descriptor| descriptor.first_sequence);
        let first = first.or(next.sequences.map(|(first, _)| first));
        if let Some(first) = first {
            close(&mut self.losses, first.max(self.last_sequence + 1));
        }
        let last = self.segments.last().filter(|last| !last.is_empty());
        let (Some(descriptor), Some(last)) = (&next.descriptor, last) else { return };
        let first_sequence = self.last_sequence + 1;
        let last_sequence = Some(descriptor.first_sequence - 1);
        let (damaged, loss) = match descriptor.previous {
            Some((id, end)) if id == last.id && end <= last.end => return,
            Some((id, end)) if id == last.id => {
                let what = "the segment ends before its successor says it does";
                let (file, offset, bytes) = (last.path.clone(), last.end, end - last.end);
                let loss = Loss { file, offset, bytes, what, first_sequence, last_sequence };
                (self.segments.len() - 1, loss)
            }
            previous => {
                let (id, bytes) = previous.unwrap_or_default();
                let what = "a segment is missing";
                let file = id.path(dir, EXTENSION);
                let loss = Loss { file, offset: 0, bytes, what, first_sequence, last_sequence };
                (self.segments.len(), loss)
            }
        };
        self.first_damaged.get_or_insert(damaged);
        self.losses.push(loss);
    }
}
