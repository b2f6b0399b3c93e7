//! Table files taken over from elsewhere and given away: as a second name of
//! the same file where the file system allows it, else as a copy.

use std::io::IoSlice;
use std::path::Path;

use vfs::Access;

use crate::Result;

/// Bytes that are copied at once.
const PIECE_BYTES: u64 = 1 << 20;

/// Gives the table file at `from`, which nobody changes any more, the new name
/// `to` too, or copies it there. Its bytes are durable when this returns, its name
/// once its directory is synced. Tells `copied` how many bytes were just copied.
///
/// # Errors
///
/// [`crate::Error::Io`]: there may be a part of the file at `to`.
pub(crate) fn link_or_copy(
    fs: &dyn vfs::FileSystem,
    from: &Path,
    to: &Path,
    copied: &mut dyn FnMut(u64),
) -> Result<()> {
    // Whatever is against a link, a copy finds out whether it is against that, too.
    if fs.hard_link(from, to).is_ok() {
        // Who wrote the file may not have synced it.
        return Ok(fs.open(to, Access::Read)?.sync()?);
    }
    let source = fs.open(from, Access::Read)?;
    let target = fs.create(to)?;
    let bytes = source.len()?;
    let mut piece = Vec::new();
    let mut offset = 0;
    while offset < bytes {
        let piece_bytes = PIECE_BYTES.min(bytes - offset);
        piece.resize(usize::try_from(piece_bytes).expect("a piece fits memory"), 0);
        source.read_exact_at(&mut piece, offset)?;
        target.write_all_at(&[IoSlice::new(&piece)], offset)?;
        offset += piece_bytes;
        copied(piece_bytes);
    }
    Ok(target.sync()?)
}

#[cfg(test)]
mod tests {
    use vfs::simulated::FaultPlan;
    use vfs::{FileSystem, SimulatedFileSystem};

    use super::*;

    #[test]
    fn what_cannot_be_linked_is_copied() {
        let fs = SimulatedFileSystem::new();
        let from = Path::new("/from");
        let file = fs.create(from).expect("created");
        let bytes: Vec<u8> = (0..5 << 19).map(|i: u32| i.to_le_bytes()[1]).collect();
        file.write_all_at(&[IoSlice::new(&bytes)], 0).expect("written");
        let contents = |path| fs.open(path, Access::Read).expect("opened").map().expect("mapped");
        let mut copied = 0;
        link_or_copy(&fs, from, Path::new("/link"), &mut |bytes| copied += bytes).expect("linked");
        assert_eq!(copied, 0);
        assert_eq!(contents(Path::new("/link")), bytes);
        fs.set_faults(FaultPlan { fail_at: Some(fs.operation_count()), ..FaultPlan::default() });
        link_or_copy(&fs, from, Path::new("/copy"), &mut |bytes| copied += bytes).expect("copied");
        assert_eq!(copied, bytes.len() as u64);
        assert_eq!(contents(Path::new("/copy")), bytes);
    }
}
