//! One item: its key and value in one allocation, and what is known of them.
//!
//! The allocation holds the key, the value and the `\r\n` that ends a value on
//! the wire, in this order, so that an answer is one copy. A large one is
//! counted, so that an answer can hold it while the table goes on without it.

use std::sync::Arc;

/// The position of an item in its shard's slab.
pub(super) type Place = u32;

/// No place.
pub(super) const NOWHERE: Place = u32::MAX;

/// Longest key, in bytes: memcached's.
pub(crate) const KEY_BYTES_MAX: usize = 250;

/// From this many bytes on, an allocation is counted and sent without a copy.
/// Below, copying it costs less than another entry in a vectored write.
const SHARED_BYTES_MIN: usize = 16 << 10;

/// What ends a value on the wire.
const END: &[u8] = b"\r\n";

/// An allocation that answers may hold. The fat pointer is inside, so that an
/// [`ItemBytes`] stays at two words.
pub(crate) type SharedBytes = Arc<Box<[u8]>>;

/// Key, value and `\r\n`.
#[derive(Debug)]
pub(crate) enum ItemBytes {
    /// Belongs to the table alone.
    Owned(Box<[u8]>),
    /// May be held by answers too.
    Shared(SharedBytes),
}

// The pointer that is never null leaves room for the tag.
const _: () = assert!(size_of::<ItemBytes>() == 16);

impl ItemBytes {
    /// Copies `key` and `parts`, which are the value in order.
    pub(crate) fn copy(key: &[u8], parts: &[&[u8]]) -> Self {
        let value_bytes: usize = parts.iter().map(|part| part.len()).sum();
        let mut bytes = Vec::with_capacity(key.len() + value_bytes + END.len());
        bytes.extend_from_slice(key);
        for part in parts {
            bytes.extend_from_slice(part);
        }
        bytes.extend_from_slice(END);
        Self::from_vec(bytes)
    }

    /// Takes key, value and `\r\n` as they stand in `bytes`.
    ///
    /// REQUIRES: `bytes` ends with `\r\n`.
    pub(crate) fn from_vec(bytes: Vec<u8>) -> Self {
        debug_assert!(bytes.ends_with(END));
        let bytes = bytes.into_boxed_slice();
        if bytes.len() < SHARED_BYTES_MIN { Self::Owned(bytes) } else { Self::Shared(Arc::new(bytes)) }
    }

    /// All of it.
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }

    /// Bytes of memory this takes, as glibc's allocator rounds them: 16 at a
    /// time, 8 of them its own, 32 at least; whole pages when they are mapped.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let allocated = |len: usize| ((len + 8).next_multiple_of(16)).max(32) as u64;
        match self {
            Self::Owned(bytes) => allocated(bytes.len()),
            Self::Shared(bytes) if bytes.len() < 128 << 10 => allocated(bytes.len()) + 48,
            Self::Shared(bytes) => (bytes.len() + 16).next_multiple_of(4096) as u64 + 48,
        }
    }
}

/// Bits of [`Item::state`]; the two lowest count accesses.
pub(super) mod state {
    /// Accesses since the item was last considered for eviction, 3 at most.
    pub(crate) const ACCESS_MASK: u16 = 0b11;
    /// In the main queue; else in the small one.
    pub(crate) const MAIN: u16 = 1 << 2;
    /// Read at least once since it was stored.
    pub(crate) const FETCHED: u16 = 1 << 3;
    /// Marked stale by `md … I`.
    pub(crate) const STALE: u16 = 1 << 4;
    /// Somebody was told to refill it.
    pub(crate) const TOKEN_SENT: u16 = 1 << 5;
    /// Its key came base64-encoded.
    pub(crate) const BINARY_KEY: u16 = 1 << 6;
    /// Deleted: only those who take a stale value see it.
    pub(crate) const DELETED: u16 = 1 << 7;
    /// Its origin has no such thing: nobody sees it who did not ask the origin.
    pub(crate) const ABSENT: u16 = 1 << 8;
    /// Not there for commands that know nothing of leases and origins.
    pub(crate) const HIDDEN: u16 = DELETED | ABSENT;
}

/// What a restart gives back to an item.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Restored {
    pub(crate) is_stale: bool,
    pub(crate) in_main: bool,
    pub(crate) is_fetched: bool,
    /// 0 to 3.
    pub(crate) access_count: u8,
    pub(crate) accessed_at: u32,
}

/// An item, or a free place of the slab.
#[derive(Debug)]
pub(crate) struct Item {
    pub(super) bytes: ItemBytes,
    pub(super) cas: u64,
    pub(super) client_flags: u32,
    /// The second it expires in; 0 for never.
    pub(super) expires_at: u32,
    /// The second of its last access.
    pub(super) accessed_at: u32,
    /// The low half of its key's hash.
    pub(super) hash: u32,
    /// Neighbours in its queue; `next` also links the free places.
    pub(super) previous: Place,
    pub(super) next: Place,
    /// Where it stands in its expiry bucket.
    pub(super) expiry_position: u32,
    /// The table's generation when it was stored; `flush_all` begins a new one.
    pub(super) generation: u8,
    pub(super) key_bytes: u8,
    pub(super) state: u16,
}

// Less than a cache line.
const _: () = assert!(size_of::<Item>() == 56);

impl Item {
    /// The key.
    pub(crate) fn key(&self) -> &[u8] {
        &self.bytes.as_slice()[..usize::from(self.key_bytes)]
    }

    /// The value, without its end.
    pub(crate) fn value(&self) -> &[u8] {
        let bytes = self.bytes.as_slice();
        &bytes[usize::from(self.key_bytes)..bytes.len() - END.len()]
    }

    /// The value with its `\r\n`, and the allocation that it ends, if that is counted.
    pub(crate) fn wire_value(&self) -> (&[u8], Option<&SharedBytes>) {
        let value = &self.bytes.as_slice()[usize::from(self.key_bytes)..];
        match &self.bytes {
            ItemBytes::Owned(_) => (value, None),
            ItemBytes::Shared(bytes) => (value, Some(bytes)),
        }
    }

    /// Changes with every change of the item.
    pub(crate) fn cas(&self) -> u64 {
        self.cas
    }

    /// Bits that mean something to clients only.
    pub(crate) fn client_flags(&self) -> u32 {
        self.client_flags
    }

    /// The second it expires in; 0 for never.
    pub(crate) fn expires_at(&self) -> u32 {
        self.expires_at
    }

    /// The second of its last access.
    pub(crate) fn accessed_at(&self) -> u32 {
        self.accessed_at
    }

    /// Whether it was read since it was stored.
    pub(crate) fn is_fetched(&self) -> bool {
        self.state & state::FETCHED != 0
    }

    /// Whether its key came base64-encoded.
    pub(crate) fn has_binary_key(&self) -> bool {
        self.state & state::BINARY_KEY != 0
    }

    /// Whether it was marked stale.
    pub(crate) fn is_stale(&self) -> bool {
        self.state & state::STALE != 0
    }

    /// Whether somebody was told to refill it.
    pub(crate) fn is_token_sent(&self) -> bool {
        self.state & state::TOKEN_SENT != 0
    }

    /// What a restart is to give back, beside key, value, flags and times.
    pub(crate) fn to_restore(&self) -> Restored {
        Restored {
            is_stale: self.is_stale(),
            in_main: self.state & state::MAIN != 0,
            is_fetched: self.is_fetched(),
            access_count: u8::try_from(self.state & state::ACCESS_MASK).expect("two bits"),
            accessed_at: self.accessed_at,
        }
    }

    /// Whether ordinary commands do not see it.
    pub(super) fn is_hidden(&self) -> bool {
        self.state & state::HIDDEN != 0
    }

    /// Whether it was deleted, and is kept for those who take a stale value.
    pub(crate) fn is_deleted(&self) -> bool {
        self.state & state::DELETED != 0
    }

    /// Whether it says that its origin has no such thing.
    pub(crate) fn is_absent(&self) -> bool {
        self.state & state::HIDDEN == state::ABSENT
    }

    /// Bytes of memory charged for it, without its part of the table.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.bytes.memory_bytes() + size_of::<Self>() as u64
    }

    /// Marks it read at `now`.
    pub(super) fn access(&mut self, now: u32) {
        self.state |= state::FETCHED;
        self.accessed_at = now;
        self.bump();
    }

    /// Counts an access, to be evicted later.
    pub(super) fn bump(&mut self) {
        if self.state & state::ACCESS_MASK < state::ACCESS_MASK {
            self.state += 1;
        }
    }
}
