//! Bytes of any length as a list of immutable chunks, each a needle of its own.
//!
//! A chunk is stored like the original of a photo, so it has an id, a cookie and
//! a checksum, and is read by one read. A list of them is a cell of the table
//! that names the bytes:
//!
//! | OFFSET  | SIZE | FIELD                                    |
//! |---------|------|------------------------------------------|
//! | 31 n    | 27   | id of chunk n, as in URLs                |
//! | 31 n+27 | 4    | its bytes, little-endian                 |
//!
//! Chunks are durable before anything names them. If a crash comes between, they
//! stay in their volume and nobody finds them.

use std::ops::Range;

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::in_flight::Room;
use crate::media_type::MediaType;
use crate::photo_id::{PhotoId, PhotoSize};
use crate::service::Haystack;

/// Bytes of a chunk, but for the last.
pub const CHUNK_BYTES: usize = 1 << 20;

const ID_BYTES: usize = 27;
const ENTRY_BYTES: usize = ID_BYTES + 4;

/// A stored chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Its id.
    pub id: PhotoId,
    /// Its length.
    pub bytes: u32,
}

/// `chunks` as a cell holds them.
pub fn encode(chunks: &[Chunk]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(chunks.len() * ENTRY_BYTES);
    for Chunk { id, bytes } in chunks {
        encoded.extend_from_slice(&id.encode());
        encoded.extend_from_slice(&bytes.to_le_bytes());
    }
    encoded
}

/// The chunks that [`encode`] wrote; none if `encoded` is something else.
pub fn decode(encoded: &[u8]) -> Option<Vec<Chunk>> {
    let entries = encoded.chunks_exact(ENTRY_BYTES);
    if !entries.remainder().is_empty() {
        return None;
    }
    let entry = |entry: &[u8]| {
        let (id, bytes) = entry.split_at(ID_BYTES);
        Some(Chunk { id: PhotoId::decode(id).ok()?, bytes: u32::from_le_bytes(bytes.try_into().ok()?) })
    };
    entries.map(entry).collect()
}

/// The chunks that `range` of the bytes in `chunks` touches, each with the part
/// of it that is meant.
pub fn touched(chunks: &[Chunk], range: &Range<u64>) -> Vec<(Chunk, Range<usize>)> {
    let mut touched = Vec::new();
    let mut start = 0;
    for chunk in chunks {
        let end = start + u64::from(chunk.bytes);
        if start < range.end && range.start < end {
            let within = |at: u64| usize::try_from(at.clamp(start, end) - start).expect("less than a chunk");
            touched.push((*chunk, within(range.start)..within(range.end)));
        }
        start = end;
    }
    touched
}

/// Cuts bytes that arrive into chunks and stores each as it is full.
#[derive(Debug)]
pub struct ChunkWriter<'a> {
    service: &'a Haystack,
    /// Bytes that will come, if that is known.
    expected_bytes: Option<u64>,
    /// The only piece of the chunk so far: a small body is stored as it came.
    only: Bytes,
    /// The chunk so far, once it has several pieces.
    joined: Vec<u8>,
    room: Option<Room>,
    chunks: Vec<Chunk>,
}

impl<'a> ChunkWriter<'a> {
    /// A writer of at most `expected_bytes`, if that is known, to `service`'s volumes.
    pub fn new(service: &'a Haystack, expected_bytes: Option<u64>) -> Self {
        Self {
            service,
            expected_bytes,
            only: Bytes::new(),
            joined: Vec::new(),
            room: None,
            chunks: Vec::new(),
        }
    }

    /// Takes the next bytes; waits while a chunk is stored, and for room.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`], and those of storing a chunk. [`ChunkWriter::chunks`] are stored.
    pub async fn push(&mut self, mut piece: Bytes) -> Result<()> {
        while !piece.is_empty() {
            if self.room.is_none() {
                let bytes =
                    self.expected_bytes.map_or(CHUNK_BYTES as u64, |bytes| bytes.min(CHUNK_BYTES as u64));
                self.room = Some(self.service.uploads_in_flight().room_for(bytes).await?);
            }
            let part = piece.split_to(piece.len().min(CHUNK_BYTES - self.held_bytes()));
            if self.held_bytes() == 0 {
                self.only = part;
            } else {
                if self.joined.is_empty() {
                    self.joined.reserve_exact(self.capacity());
                    self.joined.extend_from_slice(&std::mem::take(&mut self.only));
                }
                self.joined.extend_from_slice(&part);
            }
            if self.held_bytes() == CHUNK_BYTES {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// Stores what is held as a chunk, however small.
    ///
    /// # Durability
    ///
    /// All that was pushed is durable when this returns.
    ///
    /// # Errors
    ///
    /// Those of storing a chunk; what was held is lost.
    pub async fn flush(&mut self) -> Result<()> {
        let only = std::mem::take(&mut self.only);
        let data = if only.is_empty() { std::mem::take(&mut self.joined).into() } else { only };
        let _room = self.room.take();
        if data.is_empty() {
            return Ok(());
        }
        let chunk = self.service.append_chunk(data).await?;
        self.chunks.push(chunk);
        Ok(())
    }

    /// What is stored so far.
    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    fn held_bytes(&self) -> usize {
        self.only.len() + self.joined.len()
    }

    fn capacity(&self) -> usize {
        let stored = self.chunks.len() as u64 * CHUNK_BYTES as u64;
        let left = self.expected_bytes.map_or(u64::MAX, |bytes| bytes.saturating_sub(stored));
        usize::try_from(left).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES)
    }
}

impl Haystack {
    /// Stores `data` as a chunk.
    ///
    /// # Durability
    ///
    /// It is synced when this returns.
    ///
    /// # Errors
    ///
    /// As [`Store::append`](crate::store::Store::append).
    pub(crate) async fn append_chunk(&self, data: Bytes) -> Result<Chunk> {
        let bytes = u32::try_from(data.len()).expect("a chunk is small");
        let id = self.store().append(&[(PhotoSize::Original, MediaType::OctetStream, data)]).await?;
        Ok(Chunk { id, bytes })
    }

    /// Reads `chunk`; it takes room until it is dropped. None if it is gone.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`], and those of [`Haystack::read`].
    pub(crate) async fn read_chunk(&self, chunk: &Chunk) -> Result<Option<Bytes>> {
        let room = self.answers_in_flight().room_for(chunk.bytes.into()).await?;
        let needle = self.read(&chunk.id, PhotoSize::Original).await?;
        let whole = needle.filter(|needle| needle.data.len() == chunk.bytes as usize);
        Ok(whole.map(|needle| room.hold(needle.data)))
    }

    /// Deletes `chunks`, which nothing names any more. What fails is told and
    /// stays in its volume.
    pub(crate) async fn delete_chunks(&self, chunks: &[Chunk]) {
        /// Deletes that wait for one sync.
        const AT_ONCE: usize = 64;
        for chunks in chunks.chunks(AT_ONCE) {
            let deletes = chunks.iter().map(|chunk| self.store().delete(&chunk.id));
            for (chunk, outcome) in chunks.iter().zip(futures_util::future::join_all(deletes).await) {
                if let Err(error) = outcome {
                    let error: Error = error;
                    tracing::warn!(id = %chunk.id, %error, "a chunk that nobody knows of stays in its volume");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::photo_id::{Cookie, PhotoKey, VolumeId};

    fn chunk(key: u64, bytes: u32) -> Chunk {
        Chunk { id: PhotoId { volume: VolumeId(1), key: PhotoKey(key), cookie: Cookie(7) }, bytes }
    }

    #[test]
    fn a_list_survives_the_round_trip_and_other_bytes_are_none() {
        let chunks = [chunk(1, 10), chunk(2, u32::MAX)];
        let encoded = encode(&chunks);
        assert_eq!(decode(&encoded).unwrap(), chunks);
        assert_eq!(decode(&[]).unwrap(), []);
        assert_eq!(decode(&encoded[1..]), None);
        assert_eq!(decode(&[b'!'; ENTRY_BYTES]), None);
    }

    #[test]
    fn a_range_touches_the_chunks_that_it_overlaps() {
        let chunks = [chunk(1, 10), chunk(2, 10), chunk(3, 5)];
        let check = |range: Range<u64>, expected: &[(u64, Range<usize>)]| {
            let found: Vec<_> =
                touched(&chunks, &range).into_iter().map(|(chunk, part)| (chunk.id.key.0, part)).collect();
            assert_eq!(found, expected, "{range:?}");
        };
        check(0..25, &[(1, 0..10), (2, 0..10), (3, 0..5)]);
        check(9..11, &[(1, 9..10), (2, 0..1)]);
        check(10..20, &[(2, 0..10)]);
        check(24..25, &[(3, 4..5)]);
        check(0..0, &[]);
    }
}
