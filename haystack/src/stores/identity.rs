//! Who a store is. Its number is drawn when its directory is first opened and
//! kept in the file `STORE`, so that a store whose disk was replaced or wiped
//! comes back as another one, and nobody takes its emptiness for deletes.
//!
//! | OFFSET | SIZE | FIELD                     |
//! |--------|------|---------------------------|
//! | 0      | 8    | magic, `HAYSTORE`         |
//! | 8      | 4    | format version, 1         |
//! | 12     | 8    | the store's number        |
//! | 20     | 4    | crc32c of bytes 0 to 20   |
//!
//! Little-endian. The file is written under another name, synced and renamed.

use std::collections::BTreeMap;
use std::fmt;
use std::io::IoSlice;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use vfs::{Access, FileSystem};

use crate::error::{Error, Result};

const MAGIC: [u8; 8] = *b"HAYSTORE";
const FORMAT_VERSION: u32 = 1;
const VERSION_AT: usize = 8;
const ID_AT: usize = VERSION_AT + 4;
const CHECKSUM_AT: usize = ID_AT + 8;
const FILE_BYTES: usize = CHECKSUM_AT + 4;
const _: () = assert!(FILE_BYTES == 24);

const FILE_NAME: &str = "STORE";
const NEW_FILE_NAME: &str = "STORE.new";

/// Labels of a store, and the bytes of a name or value.
const LABEL_COUNT_MAX: usize = 16;
const LABEL_BYTES_MAX: usize = 64;

/// A store's number: 16 hexadecimal digits in text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StoreId(pub u64);

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<StoreId> for String {
    fn from(id: StoreId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for StoreId {
    type Error = BadStoreId;

    fn try_from(text: String) -> std::result::Result<Self, BadStoreId> {
        text.parse()
    }
}

impl FromStr for StoreId {
    type Err = BadStoreId;

    fn from_str(text: &str) -> std::result::Result<Self, BadStoreId> {
        let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        digits.then(|| u64::from_str_radix(text, 16).ok().map(Self)).flatten().ok_or(BadStoreId)
    }
}

/// Text that is no store's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a store's number has 16 hexadecimal digits")]
pub struct BadStoreId;

impl StoreId {
    /// The number in the directory `dir`; `fresh` is written there if there is none.
    ///
    /// # Durability
    ///
    /// The number is synced when this returns.
    ///
    /// # Errors
    ///
    /// - [`Error::StoreIll`]: the file is damaged. Nothing was changed.
    /// - [`Error::Io`]
    pub fn open(fs: &dyn FileSystem, dir: &Path, fresh: Self) -> Result<Self> {
        let path = dir.join(FILE_NAME);
        if fs.exists(&path)? {
            let file = fs.open(&path, Access::Read)?;
            let mut bytes = [0; FILE_BYTES];
            let complete = file.len()? == FILE_BYTES as u64;
            if complete {
                file.read_exact_at(&mut bytes, 0)?;
            }
            return Self::decode(&bytes).ok_or_else(|| Error::StoreIll { path });
        }
        let new = dir.join(NEW_FILE_NAME);
        if fs.exists(&new)? {
            fs.remove(&new)?;
        }
        let file = fs.create(&new)?;
        file.write_all_at(&[IoSlice::new(&fresh.encode())], 0)?;
        file.sync()?;
        fs.rename(&new, &path)?;
        fs.sync_dir(dir)?;
        Ok(fresh)
    }

    fn encode(self) -> [u8; FILE_BYTES] {
        let mut bytes = [0; FILE_BYTES];
        bytes[..VERSION_AT].copy_from_slice(&MAGIC);
        bytes[VERSION_AT..ID_AT].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[ID_AT..CHECKSUM_AT].copy_from_slice(&self.0.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[..CHECKSUM_AT]);
        bytes[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; FILE_BYTES]) -> Option<Self> {
        let id = u64::from_le_bytes(bytes[ID_AT..CHECKSUM_AT].try_into().expect("eight bytes"));
        (*bytes == Self(id).encode()).then_some(Self(id))
    }
}

/// What an operator says of where a store stands: `rack=a,room=2`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// The rack; stores that do not say share one that has no name.
    pub fn rack(&self) -> &str {
        self.0.get("rack").map_or("", String::as_str)
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs: Vec<String> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        f.write_str(&pairs.join(","))
    }
}

/// Text that is no labels.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "labels are up to {LABEL_COUNT_MAX} pairs such as rack=a,room=2; names and values have 1 to \
     {LABEL_BYTES_MAX} letters, digits, dots, dashes or underscores"
)]
pub struct BadLabels;

impl FromStr for Labels {
    type Err = BadLabels;

    fn from_str(text: &str) -> std::result::Result<Self, BadLabels> {
        let word = |text: &str| {
            let sound = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
            (1..=LABEL_BYTES_MAX).contains(&text.len()) && text.bytes().all(sound)
        };
        let pairs = text.split(',').filter(|pair| !pair.is_empty()).map(|pair| match pair.split_once('=') {
            Some((name, value)) if word(name) && word(value) => Ok((name.to_owned(), value.to_owned())),
            _ => Err(BadLabels),
        });
        let labels = pairs.collect::<std::result::Result<BTreeMap<_, _>, _>>()?;
        if labels.len() > LABEL_COUNT_MAX { Err(BadLabels) } else { Ok(Self(labels)) }
    }
}

#[cfg(test)]
mod tests {
    use vfs::SimulatedFileSystem;

    use super::*;

    #[test]
    fn the_bytes_are_pinned_and_every_flipped_bit_is_seen() {
        let id = StoreId(0x0102_0304_0506_0708);
        let golden = *b"HAYSTORE\x01\0\0\0\x08\x07\x06\x05\x04\x03\x02\x01";
        let bytes = id.encode();
        assert_eq!(bytes[..CHECKSUM_AT], golden);
        assert_eq!(StoreId::decode(&bytes), Some(id));
        for bit in 0..FILE_BYTES * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(StoreId::decode(&flipped), None, "bit {bit}");
        }
    }

    #[test]
    fn a_directory_keeps_its_number_until_it_is_wiped() {
        let fs = SimulatedFileSystem::new();
        let dir = Path::new("/store");
        fs.create_dir_all(dir).unwrap();
        assert_eq!(StoreId::open(&fs, dir, StoreId(1)).unwrap(), StoreId(1));
        assert_eq!(StoreId::open(&fs, dir, StoreId(2)).unwrap(), StoreId(1));
        fs.remove(&dir.join(FILE_NAME)).unwrap();
        assert_eq!(StoreId::open(&fs, dir, StoreId(3)).unwrap(), StoreId(3));
    }

    #[test]
    fn labels_are_pairs() {
        let labels: Labels = "rack=a,room=2".parse().unwrap();
        assert_eq!((labels.rack(), labels.to_string().as_str()), ("a", "rack=a,room=2"));
        assert_eq!("".parse::<Labels>().unwrap().rack(), "");
        for bad in ["rack", "=a", "rack=", "rack=a b", "r\u{e4}ck=a"] {
            assert_eq!(bad.parse::<Labels>(), Err(BadLabels), "{bad}");
        }
    }
}
