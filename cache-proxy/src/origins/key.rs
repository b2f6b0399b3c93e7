//! Keys with a route: which cell or photo they name.
//!
//! ```text
//! row:<table>:<row>:<family>:<qualifier>
//! photo:<id>:<size>
//! ```
//!
//! The parts of a cell's key are percent-encoded, so that they hold any bytes;
//! whatever a memcached key may contain may also stand as it is, but `:` and `%`.
//! A table is an id in the configured instance, or a whole
//! `projects/…/instances/…/tables/…`.
//!
//! One cell can be written in several ways, so items are kept under one of them,
//! the canonical key: only control bytes, spaces, `%` and `:` are encoded, in
//! upper case, and a table of the configured instance is its id.
//!
//! Invariant: two keys have one canonical key exactly if they name one cell.

use std::borrow::Cow;
use std::ops::Range;

use percent_encoding::{percent_decode, percent_encode_byte};
use row_api::names::{InstanceName, TableName};

use crate::item_table::KEY_BYTES_MAX;

const CELL_PREFIX: &[u8] = b"row:";
const PHOTO_PREFIX: &[u8] = b"photo:";

/// The sizes that a photo has.
const PHOTO_SIZES: [&[u8]; 5] = [b"original", b"large", b"medium", b"small", b"thumb"];

const PHOTO_ID_BYTES_MAX: usize = 128;

/// Why a key that begins like one with a route names nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadKey {
    #[error("a row key is row:<table>:<row>:<family>:<qualifier>, each percent-encoded")]
    CellParts,
    #[error("a part of the row key is not percent-encoded: % is followed by two hexadecimal digits")]
    Encoding,
    #[error("the table of the row key is neither an id nor projects/<p>/instances/<i>/tables/<t>")]
    Table,
    #[error("the row of the row key is empty")]
    Row,
    #[error("the family of the row key must be 1 to 64 of a-z A-Z 0-9 - _ .")]
    Family,
    #[error("the row key is longer than 250 bytes when its control bytes, spaces, % and : are encoded")]
    TooLong,
    #[error("a photo key is photo:<id>:<size>")]
    PhotoParts,
    #[error("the size of the photo key must be original, large, medium, small or thumb")]
    PhotoSize,
}

/// Whether `key` has a route: a cache with origins never answers it from elsewhere.
#[inline]
pub fn has_route(key: &[u8]) -> bool {
    key.starts_with(CELL_PREFIX) || key.starts_with(PHOTO_PREFIX)
}

/// A cell of a table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CellKey {
    canonical: Box<[u8]>,
    /// The table's part of the canonical key.
    table_part: Range<usize>,
    pub(crate) row: Vec<u8>,
    pub(crate) family: String,
    pub(crate) qualifier: Vec<u8>,
}

impl CellKey {
    /// The key that the cell's item is kept under.
    pub(crate) fn canonical(&self) -> &[u8] {
        &self.canonical
    }

    /// The table as the canonical key has it: the same for all cells of a table.
    pub(crate) fn table_part(&self) -> &[u8] {
        &self.canonical[self.table_part.clone()]
    }

    /// The canonical key of a cell, if it is short enough to be one.
    pub(crate) fn canonical_of(
        table_part: &[u8],
        row: &[u8],
        family: &str,
        qualifier: &[u8],
    ) -> Option<Box<[u8]>> {
        let length = CELL_PREFIX.len() + table_part.len() + row.len() + family.len() + qualifier.len() + 3;
        if length > KEY_BYTES_MAX {
            return None;
        }
        let mut key = Vec::with_capacity(length);
        key.extend_from_slice(CELL_PREFIX);
        key.extend_from_slice(table_part);
        key.push(b':');
        encode_part(row, &mut key);
        key.push(b':');
        key.extend_from_slice(family.as_bytes());
        key.push(b':');
        encode_part(qualifier, &mut key);
        (key.len() <= KEY_BYTES_MAX).then(|| key.into_boxed_slice())
    }

    fn parse(rest: &[u8], instance: &InstanceName) -> Result<Self, BadKey> {
        let mut parts = rest.split(|byte| *byte == b':');
        let mut next = || parts.next().ok_or(BadKey::CellParts);
        let (table, row, family, qualifier) = (next()?, next()?, next()?, next()?);
        if parts.next().is_some() {
            return Err(BadKey::CellParts);
        }
        let table = decode_part(table)?;
        let table_part = table_part(&table, instance).ok_or(BadKey::Table)?;
        let row = decode_part(row)?.into_owned();
        if row.is_empty() {
            return Err(BadKey::Row);
        }
        let family = decode_part(family)?;
        let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        if !(1..=64).contains(&family.len()) || !family.iter().all(is_name) {
            return Err(BadKey::Family);
        }
        let family = String::from_utf8(family.into_owned()).map_err(|_| BadKey::Family)?;
        let qualifier = decode_part(qualifier)?.into_owned();
        let canonical = Self::canonical_of(&table_part, &row, &family, &qualifier).ok_or(BadKey::TooLong)?;
        let start = CELL_PREFIX.len();
        Ok(Self { canonical, table_part: start..start + table_part.len(), row, family, qualifier })
    }
}

/// A size of a photo.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PhotoKey {
    canonical: Box<[u8]>,
}

impl PhotoKey {
    pub(crate) fn canonical(&self) -> &[u8] {
        &self.canonical
    }

    /// The path of its URL.
    pub(crate) fn path(&self) -> String {
        let mut path = String::from("/photos/");
        for byte in &self.canonical[PHOTO_PREFIX.len()..] {
            path.push(if *byte == b':' { '/' } else { char::from(*byte) });
        }
        path
    }

    fn parse(key: &[u8]) -> Result<Self, BadKey> {
        let rest = &key[PHOTO_PREFIX.len()..];
        let colon = rest.iter().position(|byte| *byte == b':').ok_or(BadKey::PhotoParts)?;
        let (id, size) = (&rest[..colon], &rest[colon + 1..]);
        let is_id = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        if !(1..=PHOTO_ID_BYTES_MAX).contains(&id.len()) || !id.iter().all(is_id) || id.starts_with(b".") {
            return Err(BadKey::PhotoParts);
        }
        if !PHOTO_SIZES.contains(&size) {
            return Err(BadKey::PhotoSize);
        }
        Ok(Self { canonical: key.into() })
    }
}

/// What a key with a route names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum OriginKey {
    Cell(CellKey),
    Photo(PhotoKey),
}

impl OriginKey {
    /// What `key` names, where tables without an instance are of `instance`.
    ///
    /// REQUIRES: [`has_route`].
    pub(crate) fn parse(key: &[u8], instance: &InstanceName) -> Result<Self, BadKey> {
        match key.strip_prefix(CELL_PREFIX) {
            Some(rest) => CellKey::parse(rest, instance).map(Self::Cell),
            None => PhotoKey::parse(key).map(Self::Photo),
        }
    }

    /// The key that its item is kept under.
    pub(crate) fn canonical(&self) -> &[u8] {
        match self {
            Self::Cell(cell) => cell.canonical(),
            Self::Photo(photo) => photo.canonical(),
        }
    }
}

/// The table that a canonical key's part names.
pub(crate) fn table_name(table_part: &[u8], instance: &InstanceName) -> Option<TableName> {
    let text = decode_part(table_part).ok()?;
    let text = std::str::from_utf8(&text).ok()?;
    if text.contains('/') {
        return TableName::parse("table", text).ok();
    }
    (!text.is_empty()).then(|| TableName { instance: instance.clone(), table: text.to_owned() })
}

/// The canonical part of a table that a key names as `table`, decoded.
fn table_part(table: &[u8], instance: &InstanceName) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(table).ok()?;
    let own;
    let name = if text.contains('/') {
        let name = TableName::parse("table", text).ok()?;
        own = if name.instance == *instance { name.table } else { text.to_owned() };
        &own
    } else {
        text
    };
    let mut part = Vec::with_capacity(name.len());
    encode_part(name.as_bytes(), &mut part);
    (!part.is_empty()).then_some(part)
}

fn encode_part(part: &[u8], key: &mut Vec<u8>) {
    for byte in part {
        if byte.is_ascii() && ENCODED_BYTES[usize::from(*byte)] {
            key.extend_from_slice(percent_encode_byte(*byte).as_bytes());
        } else {
            key.push(*byte);
        }
    }
}

/// ASCII bytes that canonical keys encode; others stand as they are.
const ENCODED_BYTES: [bool; 128] = {
    let mut bytes = [false; 128];
    let mut byte = 0;
    while byte < 128 {
        bytes[byte] = byte <= 0x20 || byte == 0x7f || byte == b'%' as usize || byte == b':' as usize;
        byte += 1;
    }
    bytes
};

fn decode_part(part: &[u8]) -> Result<Cow<'_, [u8]>, BadKey> {
    let mut rest = part;
    while let Some(place) = rest.iter().position(|byte| *byte == b'%') {
        let digits = rest.get(place + 1..place + 3).ok_or(BadKey::Encoding)?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(BadKey::Encoding);
        }
        rest = &rest[place + 3..];
    }
    Ok(percent_decode(part).into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn instance() -> InstanceName {
        InstanceName { project: "p".into(), instance: "i".into() }
    }

    fn cell(key: &[u8]) -> CellKey {
        match OriginKey::parse(key, &instance()) {
            Ok(OriginKey::Cell(cell)) => cell,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn ways_to_write_a_cell_have_one_canonical_key() {
        let canonical = b"row:users:a%20b%3A\xc3\xa9:f:q";
        for way in [
            &canonical[..],
            b"row:users:a%20b%3a%C3%A9:f:q",
            b"row:%75sers:%61%20%62%3A%c3\xa9:%66:%71",
            b"row:projects/p/instances/i/tables/users:a%20b%3A%C3%A9:f:q",
        ] {
            let cell = cell(way);
            assert_eq!(cell.canonical(), canonical);
            assert_eq!((cell.table_part(), cell.row.as_slice()), (&b"users"[..], "a b:é".as_bytes()));
            assert_eq!((cell.family.as_str(), cell.qualifier.as_slice()), ("f", &b"q"[..]));
        }
        let elsewhere = cell(b"row:projects%2Fp%2Finstances%2Fother%2Ftables%2Ft:r:f:");
        assert_eq!(elsewhere.canonical(), b"row:projects/p/instances/other/tables/t:r:f:");
        let name = table_name(elsewhere.table_part(), &instance()).unwrap();
        assert_eq!(name.to_string(), "projects/p/instances/other/tables/t");
    }

    #[test]
    fn keys_that_name_nothing_are_refused_with_a_reason() {
        for (key, why) in [
            (&b"row:"[..], BadKey::CellParts),
            (b"row:t:r:f", BadKey::CellParts),
            (b"row:t:r:f:q:q", BadKey::CellParts),
            (b"row:t:r%2:f:q", BadKey::Encoding),
            (b"row:t:r%zz:f:q", BadKey::Encoding),
            (b"row::r:f:q", BadKey::Table),
            (b"row:a/b:r:f:q", BadKey::Table),
            (b"row:%ff:r:f:q", BadKey::Table),
            (b"row:t::f:q", BadKey::Row),
            (b"row:t:r::q", BadKey::Family),
            (b"row:t:r:f%20:q", BadKey::Family),
            (b"photo:", BadKey::PhotoParts),
            (b"photo:../x:thumb", BadKey::PhotoParts),
            (b"photo:1-2-3:huge", BadKey::PhotoSize),
        ] {
            assert_eq!(OriginKey::parse(key, &instance()), Err(why), "{:?}", key.escape_ascii().to_string());
        }
        let long = [b"row:t:".as_slice(), &[1; 100], b":f:q"].concat();
        assert_eq!(OriginKey::parse(&long, &instance()), Err(BadKey::TooLong));
    }

    #[test]
    fn a_photo_is_a_path() {
        let Ok(OriginKey::Photo(photo)) = OriginKey::parse(b"photo:1-ab-cd:thumb", &instance()) else {
            panic!()
        };
        assert_eq!(photo.path(), "/photos/1-ab-cd/thumb");
    }

    proptest! {
        #[test]
        fn canonical_keys_come_back_and_tell_cells_apart(
            row in prop::collection::vec(any::<u8>(), 1..20),
            other in prop::collection::vec(any::<u8>(), 1..20),
            qualifier in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let key = |row: &[u8]| CellKey::canonical_of(b"t", row, "f", &qualifier).unwrap();
            let parsed = cell(&key(&row));
            prop_assert_eq!((&parsed.row, &parsed.qualifier), (&row, &qualifier));
            prop_assert_eq!(parsed.canonical(), &*key(&row));
            prop_assert_eq!(key(&row) == key(&other), row == other);
        }

        #[test]
        fn any_bytes_are_a_key_or_refused(rest in prop::collection::vec(any::<u8>(), 0..250)) {
            for prefix in [CELL_PREFIX, PHOTO_PREFIX] {
                let key = [prefix, &rest[..]].concat();
                if let Ok(parsed) = OriginKey::parse(&key, &instance()) {
                    prop_assert!(parsed.canonical().len() <= KEY_BYTES_MAX.max(key.len()));
                    let again = OriginKey::parse(parsed.canonical(), &instance());
                    prop_assert_eq!(again.as_ref().map(OriginKey::canonical), Ok(parsed.canonical()));
                }
            }
        }
    }
}
