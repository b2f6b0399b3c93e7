//! A log of two segments with flipped bits: what opening, a survey and a salvage make of it.

use std::path::Path;
use std::sync::Arc;

use vfs::SimulatedFileSystem;

use crate::commit_log::files::LogFiles;
use crate::commit_log::replay::replay;
use crate::commit_log::segment::{Descriptor, EXTENSION, PRELUDE, encode_record};
use crate::frame::FrameWriter;
use crate::layout::Layout;
use crate::log_store::LogStore;
use crate::salvage::salvage;
use crate::{Error, FileId, TreeId, WriteBatch};

const DIR: &str = "/engine";

/// Writes groups that `bytes` describe, flips bits, and compares what stops a
/// replay with what a survey names; a salvaged log is replayed whole.
pub fn damaged_log(bytes: &[u8]) {
    let Some(([damages, split], mut rest)) = bytes.split_first_chunk() else { return };
    let mut take = |most: u8| {
        let (taken, left) = rest.split_at(usize::from(most).min(rest.len()));
        rest = left;
        taken
    };
    let damages: Vec<_> = (0..damages % 4).map(|_| take(4)).collect();
    let mut groups = Vec::new();
    while let &[length] = take(1) {
        groups.push(take(length).to_vec());
    }
    let fs = SimulatedFileSystem::new();
    let layout = Layout::create(&fs, Path::new(DIR)).expect("no faults are planned");
    let ends = write(&fs, &layout.log, &groups, usize::from(*split));
    for damage in damages {
        let &[segment, high, low, bit] = damage else { continue };
        let (path, end) = &ends[usize::from(segment % 2)];
        fs.flip_bit(path, u64::from(u16::from_be_bytes([high, low])) % end, u32::from(bit % 8));
    }
    let trial = salvage(&fs, Path::new(DIR), false).expect("no manifest is damaged");
    let before = replayed(&fs, &layout.log);
    assert_eq!(before.is_err(), !trial.losses.is_empty(), "{before:?} {trial:?}");
    salvage(&fs, Path::new(DIR), true).expect("no faults are planned");
    assert_eq!(replayed(&fs, &layout.log).ok(), Some(trial.batch_count), "{trial:?}");
}

/// Two segments, the second one beginning at group `split`: their paths and ends.
fn write(
    fs: &SimulatedFileSystem,
    dir: &Path,
    groups: &[Vec<u8>],
    split: usize,
) -> [(std::path::PathBuf, u64); 2] {
    let (first, second) = groups.split_at(split.min(groups.len()));
    let (mut sequence, mut previous) = (1, None);
    [first, second].map(|groups| {
        let id = FileId { epoch: 1, number: if previous.is_none() { 1 } else { 2 } };
        let path = id.path(dir, EXTENSION);
        let descriptor = Descriptor { first_sequence: sequence, previous };
        let file = vfs::FileSystem::create(fs, &path).expect("the name is new");
        let writer = FrameWriter::start(Arc::clone(&file), id, PRELUDE, &descriptor.encode());
        let mut writer = writer.expect("no faults are planned");
        for value in groups {
            let (mut batch, mut group) = (WriteBatch::new(), Vec::new());
            batch.put(TreeId(1), b"key", value);
            encode_record(&mut group, sequence, batch.len(), batch.encoded());
            writer.append(&group, &[]).expect("no faults are planned");
            sequence += 1;
        }
        previous = Some((id, writer.offset()));
        (path, writer.offset())
    })
}

/// How many batches a replay shows, or what stops it.
fn replayed(fs: &SimulatedFileSystem, dir: &Path) -> Result<u64, Error> {
    let store: &dyn LogStore = &LogFiles::new(Arc::new(fs.clone()), dir, 1 << 20);
    let mut count = 0;
    replay(store, |_, _| {
        count += 1;
        Ok(())
    })?;
    Ok(count)
}
