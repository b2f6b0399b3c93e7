//! Reading the log back, once, before an engine's first write.
//!
//! The tail of the last segment may be torn; everything before it must hold,
//! or recovery stops with the file and the offset. Nothing is appended to an
//! old segment: what follows begins a new one, which says where this reading
//! ended.

use std::collections::VecDeque;
use std::path::Path;

use super::segment::{Descriptor, EXTENSION, Record, take_record};
use super::writer::SealedSegment;
use crate::batch::Operations;
use crate::error::Damage;
use crate::log_store::{LogSegmentReader, LogStore};
use crate::{Error, FileId, Result};

/// What a log held.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    /// The segments, oldest first.
    pub(crate) segments: VecDeque<SealedSegment>,
    /// The greatest sequence number that was ever durable in the log.
    pub(crate) last_sequence: u64,
}

impl Replayed {
    /// The last segment and where it ends.
    pub(crate) fn previous(&self) -> Option<(FileId, u64)> {
        self.segments.back().map(|last| (last.id, last.bytes))
    }
}

/// A place in a segment, for errors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) file: &'a Path,
    pub(crate) offset: u64,
}

impl Place<'_> {
    pub(crate) fn damage(&self, what: &'static str) -> Error {
        Damage(what).at(self.file, self.offset)
    }
}

/// The segments in `store`, oldest first.
pub(crate) fn list(store: &dyn LogStore) -> Result<Vec<FileId>> {
    let mut ids = store.list()?;
    ids.sort_unstable();
    Ok(ids)
}

/// Shows each record of the log in `store`, which is sealed, to `apply`, in order.
///
/// # Errors
///
/// - [`Error::Damaged`]: something that was durable is lost or changed.
/// - [`Error::Io`], and whatever `apply` returns.
pub(crate) fn replay(
    store: &dyn LogStore,
    mut apply: impl FnMut(Record<'_>, Place<'_>) -> Result<()>,
) -> Result<Replayed> {
    let mut segments = open_segments(store)?;
    let mut replayed = Replayed::default();
    for at in 0..segments.len() {
        let successor =
            segments.get(at + 1).map(|next| (next.descriptor.previous, next.reader.path().to_owned()));
        let segment = &mut segments[at];
        let end = match successor {
            None => None,
            Some((Some((id, end)), _)) if id == segment.id => Some(end),
            Some((_, path)) => {
                return Err(Damage("the segment before this one is missing").at(&path, 0));
            }
        };
        let sealed = segment.replay(end, replayed.last_sequence, &mut apply)?;
        replayed.last_sequence = sealed.last_sequence;
        replayed.segments.push_back(sealed);
    }
    Ok(replayed)
}

struct OpenSegment {
    id: FileId,
    descriptor: Descriptor,
    reader: Box<dyn LogSegmentReader>,
}

/// Opens all segments. Those at the end that hold nothing go: their creation was cut short, or the
/// removal of one that could not be created, and no record was ever in them.
fn open_segments(store: &dyn LogStore) -> Result<Vec<OpenSegment>> {
    let ids = list(store)?;
    let mut segments = Vec::with_capacity(ids.len());
    let mut empty = Vec::new();
    for id in ids {
        let Some((reader, descriptor)) = open_segment(store, id)? else {
            empty.push(id);
            continue;
        };
        if let Some(id) = empty.first() {
            let name = id.path(Path::new(""), EXTENSION);
            return Err(Damage("a segment holds nothing and is not the last one").at(&name, 0));
        }
        segments.push(OpenSegment { id, descriptor, reader });
    }
    empty.into_iter().rev().try_for_each(|id| store.remove(id))?;
    Ok(segments)
}

/// A segment's reader and description; `None` if it has none.
fn open_segment(store: &dyn LogStore, id: FileId) -> Result<Option<(Box<dyn LogSegmentReader>, Descriptor)>> {
    let Some(mut reader) = store.read(id)? else { return Ok(None) };
    let Some(first) = reader.next()? else { return Ok(None) };
    match Descriptor::decode(first) {
        Ok(descriptor) if descriptor.first_sequence > 0 => Ok(Some((reader, descriptor))),
        _ => Err(Damage("a segment does not describe itself").at(reader.path(), 0)),
    }
}

impl OpenSegment {
    /// Reads through `end`, or as far as the segment holds if it is the last one.
    fn replay(
        &mut self,
        end: Option<u64>,
        mut last_sequence: u64,
        apply: &mut impl FnMut(Record<'_>, Place<'_>) -> Result<()>,
    ) -> Result<SealedSegment> {
        let first_sequence = self.descriptor.first_sequence;
        let file = self.reader.path().to_owned();
        if first_sequence <= last_sequence {
            return Err(Damage("a segment starts before the one before it ends").at(&file, 0));
        }
        last_sequence = first_sequence - 1;
        while end != Some(self.reader.end()) {
            let offset = self.reader.end();
            let place = Place { file: &file, offset };
            let Some(mut group) = self.reader.next()? else {
                match end {
                    Some(_) => return Err(place.damage("the segment ends before its successor says it does")),
                    None => break,
                }
            };
            while !group.is_empty() {
                let record = take_record(&mut group).map_err(|damage| damage.at(&file, offset))?;
                if record.first_sequence <= last_sequence {
                    return Err(place.damage("a record's sequence numbers came before"));
                }
                check_batch(&record).map_err(|damage| damage.at(&file, offset))?;
                last_sequence = record.last_sequence();
                apply(record, place)?;
            }
        }
        Ok(SealedSegment { id: self.id, bytes: self.reader.end(), first_sequence, last_sequence })
    }
}

/// Verifies that the batch is one of as many writes as the record says.
pub(super) fn check_batch(record: &Record<'_>) -> std::result::Result<(), Damage> {
    let mut count = 0_u64;
    for operation in Operations::new(record.batch) {
        operation?;
        count += 1;
    }
    if count == u64::from(record.count) { Ok(()) } else { Err(Damage("a record counts its writes wrong")) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use vfs::{Access, FileSystem, SimulatedFileSystem};

    use super::*;
    use crate::commit_log::files::LogFiles;
    use crate::commit_log::segment::encode_record;
    use crate::commit_log::writer::{SegmentNames, SegmentWriter};
    use crate::file_id::FileIds;
    use crate::{TreeId, WriteBatch};

    fn batch() -> WriteBatch {
        let mut batch = WriteBatch::new();
        batch.put(TreeId(1), b"key", b"value");
        batch.delete_range(TreeId(2), b"a", b"b");
        batch
    }

    /// A log of one segment with two groups, of one batch each.
    fn written() -> SimulatedFileSystem {
        let fs = SimulatedFileSystem::new();
        let store = Arc::new(LogFiles::new(Arc::new(fs.clone()), Path::new("/"), 1 << 20));
        let names = Arc::new(SegmentNames::new(Arc::new(FileIds::new(7))));
        let descriptor = Descriptor { first_sequence: 5, previous: None };
        let mut writer = SegmentWriter::create(store, names, 1 << 20, descriptor).expect("created");
        for first_sequence in [5, 7] {
            let mut group = Vec::new();
            encode_record(&mut group, first_sequence, batch().len(), batch().encoded());
            writer.append(&group, first_sequence + 1).expect("appended");
        }
        fs
    }

    #[test]
    fn golden_bytes_of_a_segment() {
        let fs = written();
        let file = fs.open(&FileId { epoch: 7, number: 1 }.path(Path::new("/"), EXTENSION), Access::Read);
        let bytes = file.expect("opened").map().expect("mapped");
        let golden = include_bytes!("../../tests/golden/commit-log-v1");
        let (frames, rest) = bytes.split_at(golden.len());
        assert!(frames == &golden[..], "the format has changed: {}", frames.escape_ascii());
        assert!(rest.iter().all(|byte| *byte == 0), "no frame stands behind the last one");
    }

    #[test]
    fn the_golden_segment_is_replayed() {
        let fs = SimulatedFileSystem::new();
        let id = FileId { epoch: 7, number: 1 };
        let file = fs.create(&id.path(Path::new("/"), EXTENSION)).expect("created");
        let golden = include_bytes!("../../tests/golden/commit-log-v1");
        file.write_all_at(&[std::io::IoSlice::new(golden)], 0).expect("written");
        let mut records = Vec::new();
        let store = LogFiles::new(Arc::new(fs), Path::new("/"), 1 << 20);
        let replayed = replay(&store, |record, _| {
            assert_eq!(record.batch, batch().encoded());
            records.push((record.first_sequence, record.count));
            Ok(())
        });
        let replayed = replayed.expect("holds");
        assert_eq!(records, [(5, 2), (7, 2)]);
        assert_eq!(replayed.last_sequence, 8);
        assert_eq!(replayed.previous(), Some((id, golden.len() as u64)));
    }
}
