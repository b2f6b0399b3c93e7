//! Where the streams of a table's changes go on, kept in a file over restarts.
//!
//! A file a table, named by the hash of the table's name:
//!
//! ```text
//! OFFSET    SIZE  FIELD
//! 0         1     version, 1
//! 1         n     a protobuf message, [`Positions`]
//! 1 + n     8     XXH3 of all before, little-endian
//! ```
//!
//! It is written beside and renamed, so it is always whole. Positions are saved
//! after what stands before them was evicted, so what is read again is evicted
//! again, and nothing is missed. A file that is damaged, of another version or of
//! another table is as good as none.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::Message;
use row_api::data::StreamContinuationToken;
use twox_hash::XxHash3_64;
use vfs::{Access, FileSystem};

const VERSION: u8 = 1;
const CHECKSUM_BYTES: usize = size_of::<u64>();

/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Where all streams of a table are.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Positions {
    /// The table's name.
    #[prost(string, tag = "1")]
    pub(crate) table: String,
    /// When they were saved, µs since 1970.
    #[prost(uint64, tag = "2")]
    pub(crate) saved_at_us: u64,
    /// The generations of the table's rows then.
    #[prost(uint32, repeated, tag = "3")]
    pub(crate) generations: Vec<u32>,
    /// One for each stream.
    #[prost(message, repeated, tag = "4")]
    pub(crate) streams: Vec<StreamPosition>,
}

/// Where a stream goes on.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct StreamPosition {
    /// The first row of its partition.
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) start: Vec<u8>,
    /// The row behind its partition; empty if there is none.
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) end: Vec<u8>,
    /// The tokens that its partition is made of.
    #[prost(message, repeated, tag = "3")]
    pub(crate) tokens: Vec<StreamContinuationToken>,
}

/// The files of all tables.
#[derive(Debug)]
pub(crate) struct PositionFiles {
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
}

impl PositionFiles {
    /// Files in `dir`, which is made if it is missing.
    ///
    /// # Errors
    ///
    /// The directory cannot be made.
    pub(crate) fn open(fs: Arc<dyn FileSystem>, dir: &Path) -> vfs::Result<Self> {
        fs.create_dir_all(dir)?;
        Ok(Self { fs, dir: dir.to_owned() })
    }

    fn path(&self, table: &str, extension: &str) -> PathBuf {
        self.dir.join(format!("{:016x}.{extension}", XxHash3_64::oneshot(table.as_bytes())))
    }

    /// The positions of `table`, if they were saved.
    pub(crate) fn load(&self, table: &str) -> Option<Positions> {
        let file = self.fs.open(&self.path(table, "positions"), Access::Read).ok()?;
        let length = file.len().ok().filter(|length| *length <= FILE_BYTES_MAX)?;
        let mut bytes = vec![0; usize::try_from(length).ok()?];
        file.read_exact_at(&mut bytes, 0).ok()?;
        decode(&bytes).filter(|positions| positions.table == table)
    }

    /// Saves `positions` in place of those before.
    ///
    /// # Durability
    ///
    /// They are synced when this returns; a crash before leaves the ones before.
    ///
    /// # Errors
    ///
    /// The ones before are left.
    pub(crate) fn save(&self, positions: &Positions) -> vfs::Result<()> {
        let (temporary, path) =
            (self.path(&positions.table, "new"), self.path(&positions.table, "positions"));
        if self.fs.exists(&temporary)? {
            self.fs.remove(&temporary)?;
        }
        let file = self.fs.create(&temporary)?;
        file.write_all_at(&[IoSlice::new(&encode(positions))], 0)?;
        file.sync()?;
        self.fs.rename(&temporary, &path)?;
        self.fs.sync_dir(&self.dir)
    }
}

fn encode(positions: &Positions) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + positions.encoded_len() + CHECKSUM_BYTES);
    bytes.push(VERSION);
    positions.encode_raw(&mut bytes);
    bytes.extend_from_slice(&XxHash3_64::oneshot(&bytes).to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<Positions> {
    let (message, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>()?;
    if XxHash3_64::oneshot(message) != u64::from_le_bytes(*checksum) {
        return None;
    }
    Positions::decode(message.strip_prefix(&[VERSION])?).ok()
}

#[cfg(test)]
mod tests {
    use vfs::SimulatedFileSystem;
    use vfs::simulated::FaultPlan;

    use super::*;

    fn positions() -> Positions {
        let token = StreamContinuationToken { partition: None, token: "t".to_owned() };
        let stream = StreamPosition { start: b"a".to_vec(), end: b"m".to_vec(), tokens: vec![token] };
        Positions {
            table: "name".to_owned(),
            saved_at_us: 5,
            generations: vec![1, 300],
            streams: vec![stream],
        }
    }

    #[test]
    fn bytes_are_the_golden_ones() {
        let bytes = encode(&positions());
        let golden =
            b"\x01\x0a\x04name\x10\x05\x1a\x03\x01\xac\x02\x22\x0b\x0a\x01a\x12\x01m\x1a\x03\x12\x01t";
        assert_eq!(bytes[..bytes.len() - CHECKSUM_BYTES], golden[..]);
        assert_eq!(decode(&bytes), Some(positions()));
    }

    #[test]
    fn damage_is_as_good_as_no_file() {
        let bytes = encode(&positions());
        for place in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 1;
            assert_eq!(decode(&damaged), None);
            assert_eq!(decode(&bytes[..place]), None);
        }
    }

    #[test]
    fn a_power_cut_leaves_positions_of_before_or_after() {
        let later = Positions { saved_at_us: 6, ..positions() };
        for cut in 0.. {
            let fs = SimulatedFileSystem::new();
            let files = PositionFiles::open(Arc::new(fs.clone()), Path::new("/p")).unwrap();
            files.save(&positions()).unwrap();
            fs.set_faults(FaultPlan { cut_at: Some(fs.operation_count() + cut), ..FaultPlan::default() });
            let is_saved = files.save(&later).is_ok();
            let files = PositionFiles::open(Arc::new(fs.power_cut(cut)), Path::new("/p")).unwrap();
            let found = files.load("name").unwrap();
            assert!(found == later || (!is_saved && found == positions()), "cut at {cut}");
            if is_saved {
                return;
            }
        }
    }
}
