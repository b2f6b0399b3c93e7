//! Names of files: (epoch, number), never used twice in one engine directory.
//!
//! The epoch is that of the opening that created the file and only ever grows,
//! so numbers may start at one again with each opening.
//!
//! ```text
//! log/EEEEEEEEEEEEEEEE-NNNNNNNNNNNNNNNN.log         a segment of the commit log
//! tables/EEEEEEEEEEEEEEEE-NNNNNNNNNNNNNNNN.sst      an SSTable
//! manifests/EEEEEEEEEEEEEEEE-NNNNNNNNNNNNNNNN.manifest
//! ```
//!
//! Sixteen hexadecimal digits each: names sort as files were created.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The two numbers that name a file. Ordered by creation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId {
    /// That of the engine's opening that created the file.
    pub epoch: u64,
    /// Which of that opening's files it is, from 1 on.
    pub number: u64,
}

impl FileId {
    /// The path of this file in `dir`.
    pub(crate) fn path(self, dir: &Path, extension: &str) -> PathBuf {
        dir.join(format!("{:016x}-{:016x}.{extension}", self.epoch, self.number))
    }

    /// The file that `name` names, if it has this extension and exactly the form that [`FileId::path`] gives.
    pub(crate) fn parse(name: &Path, extension: &str) -> Option<Self> {
        let stem = name.file_name()?.to_str()?.strip_suffix(extension)?.strip_suffix('.')?;
        let (epoch, number) = stem.split_once('-')?;
        Some(Self { epoch: hexadecimal(epoch)?, number: hexadecimal(number)? })
    }
}

fn hexadecimal(digits: &str) -> Option<u64> {
    let canonical =
        digits.len() == 16 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    canonical.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}

/// Hands out the names of one epoch.
#[derive(Debug)]
pub(crate) struct FileIds {
    epoch: u64,
    next_number: AtomicU64,
}

impl FileIds {
    pub(crate) fn new(epoch: u64) -> Self {
        Self { epoch, next_number: AtomicU64::new(1) }
    }

    /// A name that no file had and none will have.
    pub(crate) fn next(&self) -> FileId {
        FileId { epoch: self.epoch, number: self.next_number.fetch_add(1, Ordering::Relaxed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_and_others_are_refused() {
        let id = FileId { epoch: 0xab, number: 7 };
        let path = id.path(Path::new("dir"), "log");
        assert_eq!(path, Path::new("dir/00000000000000ab-0000000000000007.log"));
        assert_eq!(FileId::parse(&path, "log"), Some(id));
        assert_eq!(FileId::parse(&path, "sst"), None);
        for name in
            ["", "a-b.log", "00000000000000AB-0000000000000007.log", "00000000000000ab-000000000000007.log"]
        {
            assert_eq!(FileId::parse(Path::new(name), "log"), None, "{name}");
        }
    }
}
