//! Warm restart: a clean stop saves the table, the next start loads it.
//!
//! The file is taken away before it is read, so that it is loaded once: whoever
//! crashes, before or after, starts cold and never with values from before the
//! last stop. It is saved only when nobody is connected any more, since a value
//! that changed behind the writer's back would come back old; and it is complete
//! or not there, by a rename. Each block is checked before it is looked into.
//! A delayed `flush_all` becomes the items' expiry.
//!
//! For keys that have an origin, what changed while nobody followed it must be
//! invalidated before anybody reads: [`Cache::save`] keeps `resume`, a few bytes
//! of the caller's, such as the positions of change streams, and
//! [`Cache::load`] gives them back, and asks `admit` about each key.
//!
//! ```text
//! OFFSET  SIZE  FIELD, little-endian
//! 0       8     "hayltcch"
//! 8       4     version, 1
//! 12      4     second of the Unix epoch at which it was saved
//! 16      8     the last cas given out
//! 24      4     bytes of resume
//! 28      4     crc32c of bytes 0 to 28 and of resume
//! 32      n     resume
//! then blocks, each
//! 0       4     bytes of its body; 0 for the last, whose body is the number of items
//! 4       4     crc32c of its body
//! 8       n     body: items; of the last, 8 bytes
//! an item
//! 0       1     bytes of its key, 1 to 250
//! 1       1     1: key in base64, 2: marked stale, 4: in the main queue, 8: read since it was stored
//! 2       1     accesses that count for eviction, 0 to 3
//! 3       1     0
//! 4       4     client flags
//! 8       4     second it expires in, 0 for never
//! 12      4     second of its last access
//! 16      8     cas
//! 24      4     bytes of its value
//! 28      n     key, value
//! ```

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

use crate::error::{Error, Result};
use crate::item_table::{DumpCursor, Item, ItemBytes, KEY_BYTES_MAX, NewItem, Restored};
use crate::server::Cache;

const MAGIC: &[u8; 8] = b"hayltcch";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 32;
const BLOCK_HEADER_BYTES: usize = 8;
const ITEM_HEADER_BYTES: usize = 28;

/// A block is written once it has so many bytes; one item can make it larger.
const BLOCK_BYTES: usize = 1 << 20;
const RESUME_BYTES_MAX: usize = 1 << 20;

/// Places looked at before a shard's lock is let go.
const DUMP_PLACES: usize = 1024;

/// Seconds by which the clock may have gone back since the file was saved.
const CLOCK_PATIENCE_S: u32 = 2;

mod mark {
    pub(super) const BINARY_KEY: u8 = 1;
    pub(super) const STALE: u8 = 2;
    pub(super) const MAIN: u8 = 4;
    pub(super) const FETCHED: u8 = 8;
}

/// What a file held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Items that are in the table now, unless memory ran out.
    pub item_count: u64,
    /// What the one who saved it gave to keep.
    pub resume: Vec<u8>,
    /// When it was saved, in seconds of the Unix epoch.
    pub saved_at: u32,
}

impl Cache {
    /// Saves every item at `path`, with `resume`; how many there were.
    ///
    /// # Durability
    ///
    /// The file is synced and then renamed: after a crash there is all of it or nothing.
    ///
    /// # Errors
    ///
    /// - [`Error::Busy`]: somebody is still connected; no file is there.
    /// - [`Error::Snapshot`]: no file is there.
    pub fn save(&self, path: &Path, resume: &[u8]) -> Result<u64> {
        let wrong = |source| Error::Snapshot { path: path.to_owned(), source };
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(wrong(error)),
            _ => {}
        }
        let open_count = self.shared.connections.open_count();
        if open_count > 0 {
            return Err(Error::Busy { open_count });
        }
        let unfinished = path.with_extension("unfinished");
        let outcome = self.write_snapshot(&unfinished, resume).and_then(|item_count| {
            std::fs::rename(&unfinished, path)?;
            sync_directory(path)?;
            Ok(item_count)
        });
        outcome.map_err(|error| {
            let _ = std::fs::remove_file(&unfinished);
            wrong(error)
        })
    }

    /// Takes the file at `path` away and its items into the table, those whose
    /// key `admit` admits; nothing if there is no file. To be called before
    /// anybody is served.
    ///
    /// # Errors
    ///
    /// [`Error::Snapshot`]: the file is damaged, of another version, or of the
    /// future; the table is empty, and the file gone.
    pub fn load(&self, path: &Path, admit: impl FnMut(&[u8]) -> bool) -> Result<Loaded> {
        let wrong = |source| Error::Snapshot { path: path.to_owned(), source };
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Loaded::default()),
            outcome => outcome.map_err(wrong)?,
        };
        // Synced, or a power cut would bring back what is old by then.
        std::fs::remove_file(path).and_then(|()| sync_directory(path)).map_err(wrong)?;
        let outcome = self.read_snapshot(file, admit);
        if outcome.is_err() {
            self.shared.table.clear();
        }
        outcome.map_err(wrong)
    }

    fn write_snapshot(&self, path: &Path, resume: &[u8]) -> io::Result<u64> {
        if resume.len() > RESUME_BYTES_MAX {
            return Err(io::Error::other("there is too much to resume from"));
        }
        let (table, now) = (&self.shared.table, self.clock.now_s());
        table.flush_if_due(now);
        let flush_at = table.flush_at();
        let mut file = File::create(path)?;
        let mut header = Vec::with_capacity(HEADER_BYTES + resume.len());
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&now.to_le_bytes());
        header.extend_from_slice(&table.last_cas().to_le_bytes());
        header.extend_from_slice(&length(resume.len()).to_le_bytes());
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&header), resume);
        header.extend_from_slice(&checksum.to_le_bytes());
        header.extend_from_slice(resume);
        file.write_all(&header)?;
        let (mut body, mut item_count, mut cursor) =
            (Vec::with_capacity(2 * BLOCK_BYTES), 0u64, DumpCursor::default());
        loop {
            let more = table.dump(&mut cursor, now, DUMP_PLACES, |item| {
                encode(item, earlier(item.expires_at(), flush_at), &mut body);
                item_count += 1;
            });
            if body.len() >= BLOCK_BYTES || !more && !body.is_empty() {
                write_block(&mut file, length(body.len()), &body)?;
                body.clear();
            }
            if !more {
                break;
            }
        }
        write_block(&mut file, 0, &item_count.to_le_bytes())?;
        file.sync_all()?;
        Ok(item_count)
    }

    fn read_snapshot(&self, mut file: File, mut admit: impl FnMut(&[u8]) -> bool) -> io::Result<Loaded> {
        // Without its end it was cut off: not a byte of it counts.
        file.seek(SeekFrom::End(-(BLOCK_HEADER_BYTES as i64 + 8)))?;
        let mut end = [0; BLOCK_HEADER_BYTES + 8];
        file.read_exact(&mut end)?;
        let expected_count = u64_at(&end, BLOCK_HEADER_BYTES);
        if u32_at(&end, 0) != 0 || u32_at(&end, 4) != crc32c::crc32c(&end[BLOCK_HEADER_BYTES..]) {
            return Err(damage("has no end"));
        }
        file.seek(SeekFrom::Start(0))?;
        let mut file = BufReader::with_capacity(1 << 20, file);
        let (saved_at, last_cas, resume) = read_header(&mut file)?;
        let now = self.clock.now_s();
        if saved_at > now.saturating_add(CLOCK_PATIENCE_S) {
            return Err(damage("was saved in the future: the clock went back"));
        }
        let body_bytes_max = self.shared.options.item_bytes_max + 2 * BLOCK_BYTES as u64;
        let (mut body, mut found_count, mut item_count) = (Vec::new(), 0u64, 0u64);
        while let Some(()) = read_block(&mut file, body_bytes_max, &mut body)? {
            let mut rest = body.as_slice();
            while !rest.is_empty() {
                let (record, after) =
                    Record::decode(rest).ok_or_else(|| damage("has an item that is none"))?;
                rest = after;
                found_count += 1;
                if record.expires_at != 0 && record.expires_at <= now || !admit(record.key) {
                    continue;
                }
                self.restore(&record, now);
                item_count += 1;
            }
        }
        if found_count != expected_count {
            return Err(damage("has not the items that it says"));
        }
        self.shared.table.raise_cas(last_cas);
        Ok(Loaded { item_count, resume, saved_at })
    }

    fn restore(&self, record: &Record<'_>, now: u32) {
        let new = NewItem {
            bytes: ItemBytes::copy(record.key, &[record.value]),
            key_bytes: u8::try_from(record.key.len()).expect("decoded from a byte"),
            client_flags: record.client_flags,
            expires_at: record.expires_at,
            binary_key: record.marks & mark::BINARY_KEY != 0,
        };
        let restored = Restored {
            is_stale: record.marks & mark::STALE != 0,
            in_main: record.marks & mark::MAIN != 0,
            is_fetched: record.marks & mark::FETCHED != 0,
            access_count: record.access_count,
            accessed_at: record.accessed_at.min(now),
        };
        let mut slot = self.shared.table.slot(record.key, now);
        slot.put(new, Some(record.cas));
        slot.restore(&restored);
        drop(slot);
        self.shared.table.relieve(now);
    }
}

/// Makes what became of `path` durable.
fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

fn damage(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the file {what}"))
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("items have at most 1 GiB, blocks little more")
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    bytes[offset..offset + 4].try_into().map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    bytes[offset..offset + 8].try_into().map_or(0, u64::from_le_bytes)
}

fn write_block(file: &mut File, body_bytes: u32, body: &[u8]) -> io::Result<()> {
    let mut header = [0; BLOCK_HEADER_BYTES];
    header[..4].copy_from_slice(&body_bytes.to_le_bytes());
    header[4..].copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
    file.write_all(&header)?;
    file.write_all(body)
}

fn read_header(file: &mut impl Read) -> io::Result<(u32, u64, Vec<u8>)> {
    let mut header = [0; HEADER_BYTES];
    file.read_exact(&mut header)?;
    if header[..8] != *MAGIC || u32_at(&header, 8) != VERSION {
        return Err(damage("is of another kind or version"));
    }
    let resume_bytes = u32_at(&header, 24) as usize;
    if resume_bytes > RESUME_BYTES_MAX {
        return Err(damage("has a damaged header"));
    }
    let mut resume = vec![0; resume_bytes];
    file.read_exact(&mut resume)?;
    if u32_at(&header, 28) != crc32c::crc32c_append(crc32c::crc32c(&header[..28]), &resume) {
        return Err(damage("has a damaged header"));
    }
    Ok((u32_at(&header, 12), u64_at(&header, 16), resume))
}

/// Reads the next block's body; none after the last.
fn read_block(file: &mut impl Read, body_bytes_max: u64, body: &mut Vec<u8>) -> io::Result<Option<()>> {
    let mut header = [0; BLOCK_HEADER_BYTES];
    file.read_exact(&mut header)?;
    let body_bytes = u32_at(&header, 0);
    if body_bytes == 0 {
        return Ok(None);
    }
    if u64::from(body_bytes) > body_bytes_max {
        return Err(damage("has a damaged block"));
    }
    body.clear();
    // Grown by what is there, not by what a damaged length says.
    file.take(u64::from(body_bytes)).read_to_end(body)?;
    if body.len() != body_bytes as usize || u32_at(&header, 4) != crc32c::crc32c(body) {
        return Err(damage("has a damaged block"));
    }
    Ok(Some(()))
}

/// The earlier of two seconds, of which 0 is never.
fn earlier(one: u32, other: u32) -> u32 {
    [one, other].into_iter().filter(|second| *second != 0).min().unwrap_or(0)
}

fn encode(item: &Item, expires_at: u32, body: &mut Vec<u8>) {
    let restored = item.to_restore();
    let marks = [
        (mark::BINARY_KEY, item.has_binary_key()),
        (mark::STALE, restored.is_stale),
        (mark::MAIN, restored.in_main),
        (mark::FETCHED, restored.is_fetched),
    ];
    let marks = marks.into_iter().filter(|(_, is_so)| *is_so).fold(0, |all, (mark, _)| all | mark);
    body.push(u8::try_from(item.key().len()).expect("a key has at most 250 bytes"));
    body.extend_from_slice(&[marks, restored.access_count, 0]);
    body.extend_from_slice(&item.client_flags().to_le_bytes());
    body.extend_from_slice(&expires_at.to_le_bytes());
    body.extend_from_slice(&restored.accessed_at.to_le_bytes());
    body.extend_from_slice(&item.cas().to_le_bytes());
    body.extend_from_slice(&length(item.value().len()).to_le_bytes());
    body.extend_from_slice(item.key());
    body.extend_from_slice(item.value());
}

/// An item as it stands in a block.
struct Record<'b> {
    marks: u8,
    access_count: u8,
    client_flags: u32,
    expires_at: u32,
    accessed_at: u32,
    cas: u64,
    key: &'b [u8],
    value: &'b [u8],
}

impl<'b> Record<'b> {
    /// The first item of `bytes` and what follows it; none if that is no item.
    fn decode(bytes: &'b [u8]) -> Option<(Self, &'b [u8])> {
        let (header, rest) = bytes.split_at_checked(ITEM_HEADER_BYTES)?;
        let (key, rest) = rest.split_at_checked(usize::from(header[0]))?;
        let (value, rest) = rest.split_at_checked(u32_at(header, 24) as usize)?;
        let is_valid =
            (1..=KEY_BYTES_MAX).contains(&key.len()) && header[1] < 16 && header[2] < 4 && header[3] == 0;
        let record = Self {
            marks: header[1],
            access_count: header[2],
            client_flags: u32_at(header, 4),
            expires_at: u32_at(header, 8),
            accessed_at: u32_at(header, 12),
            cas: u64_at(header, 16),
            key,
            value,
        };
        is_valid.then_some((record, rest))
    }
}
