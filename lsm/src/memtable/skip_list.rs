//! A sorted list of internal keys and values for one writer and many readers,
//! which only grows (Pugh, "Skip Lists", CACM 1990; LevelDB, `db/skiplist.h`).
//!
//! Nodes lie in an arena, each with its links, key and value in one piece:
//! inserting allocates a chunk now and then, a step of a search looks at one
//! place in memory, and all of it goes at once, chunk by chunk. Readers take no
//! lock and pin no epoch. Each node knows its neighbour on both sides.
//!
//! ```text
//! A node, aligned to 8 bytes; pointers to it point at `previous`:
//!
//! ...  links upward: level h - 1, ..., level 1, level 0 (8 bytes each)
//!  0   previous node, on level 0
//!  8   length of the encoded internal key
//! 12   length of the value
//! 16   encoded internal key
//! ...  value
//! ```
//!
//! # Invariants, on which the `unsafe` blocks below stand
//!
//! 1. Nodes are made by [`Writer::new_node`] alone, complete before a pointer to
//!    one is stored anywhere; but for links and `previous`, which are atomic,
//!    nothing of a node is ever written again.
//! 2. A node's memory goes with the arena, the arena with the list, and whoever
//!    holds a node borrows or shares the list.
//! 3. A pointer to a node is stored with `Release` and loaded with `Acquire`, so
//!    that who sees it sees what the node was made of.
//! 4. A node is reached by its link of a level only if it has that level.

#![expect(unsafe_code, reason = "nodes of many sizes in one arena; measured in memtable/measure.rs")]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cmp::Ordering as Order;
use std::fmt;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::internal_key::{self, TRAILER_BYTES, Trailer};

/// Levels at most: enough for 4^12 nodes at a quarter of them a level.
const HEIGHT_MAX: usize = 12;
/// One in so many nodes of a level is on the next one, too.
const BRANCHING: u64 = 4;
const ALIGN: usize = align_of::<Node>();
const LINK_BYTES: usize = size_of::<AtomicPtr<Node>>();
/// The first chunk, small since most trees are hardly written to; each next one is as large as all before.
const CHUNK_BYTES_MIN: usize = 1 << 10;
const CHUNK_BYTES_MAX: usize = 1 << 20;
/// Once a list is that long its chunks are huge pages: a search goes all over the list, and with small ones
/// it misses the processor's address cache at each step.
const HUGE_FROM_BYTES: usize = 8 << 20;
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// What an entry takes beside its user key and value: four thirds of a link, the head, the trailer, alignment.
pub(crate) const ENTRY_OVERHEAD_BYTES: usize = 40;

/// The fixed part of a node. Links stand before it, key and value behind it.
#[repr(C)]
struct Node {
    previous: AtomicPtr<Node>,
    key_bytes: u32,
    value_bytes: u32,
}
const _: () = assert!(size_of::<Node>() == 16 && align_of::<Node>() == LINK_BYTES);

/// A pointer to a node of a list that outlives it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct NodeRef(NonNull<Node>);

// SAFETY: by invariants 1 and 3 nodes are written once before they are shared, and their links are atomic.
unsafe impl Send for NodeRef {}
// SAFETY: as above.
unsafe impl Sync for NodeRef {}

impl NodeRef {
    /// REQUIRES: the node has this level, and its list lives for `'a`.
    unsafe fn link<'a>(self, level: usize) -> &'a AtomicPtr<Node> {
        // SAFETY: `level + 1` links stand before the node, in the same piece of the arena; they were
        // initialized with it, are aligned as pointers are, and are only accessed as atomics.
        unsafe { self.0.cast::<AtomicPtr<Node>>().sub(level + 1).as_ref() }
    }

    /// REQUIRES: as [`NodeRef::link`].
    unsafe fn next(self, level: usize) -> Option<Self> {
        // SAFETY: promised by the caller.
        let link = unsafe { self.link(level) };
        NonNull::new(link.load(Ordering::Acquire)).map(Self)
    }

    /// REQUIRES: its list lives for `'a`.
    unsafe fn node<'a>(self) -> &'a Node {
        // SAFETY: it was initialized before it was shared, and changes in its atomic alone.
        unsafe { self.0.as_ref() }
    }

    /// The encoded internal key. REQUIRES: it is not the head, and its list lives for `'a`.
    unsafe fn key<'a>(self) -> &'a [u8] {
        // SAFETY: as many initialized bytes follow the node in its piece of the arena, never written again.
        unsafe {
            let start = self.0.add(1).cast::<u8>();
            std::slice::from_raw_parts(start.as_ptr(), self.node().key_bytes as usize)
        }
    }

    /// REQUIRES: as [`NodeRef::key`].
    unsafe fn value<'a>(self) -> &'a [u8] {
        // SAFETY: the value's initialized bytes follow the key's, never written again.
        unsafe {
            let node = self.node();
            let start = self.0.add(1).cast::<u8>().add(node.key_bytes as usize);
            std::slice::from_raw_parts(start.as_ptr(), node.value_bytes as usize)
        }
    }
}

/// Where nodes live: chunks that are given back together.
struct Arena {
    chunks: Vec<(NonNull<u8>, Layout)>,
    /// The free rest of the chunk made last for small pieces.
    free: NonNull<u8>,
    free_bytes: usize,
    /// Whether that chunk is a huge page.
    is_huge: bool,
    /// Bytes that were touched: pieces, or whole pages where they are huge.
    touched_bytes: usize,
}

// SAFETY: it owns its chunks, and nothing in it belongs to a thread.
unsafe impl Send for Arena {}

impl Arena {
    fn new() -> Self {
        let (chunks, free) = (Vec::new(), NonNull::dangling());
        Self { chunks, free, free_bytes: 0, is_huge: false, touched_bytes: 0 }
    }

    /// `bytes` of uninitialized memory, aligned as nodes are.
    fn allocate(&mut self, bytes: usize) -> NonNull<u8> {
        let bytes = bytes.next_multiple_of(ALIGN);
        if bytes > self.free_bytes {
            let chunk_bytes = self.next_chunk_bytes();
            if bytes > chunk_bytes / 4 {
                // A chunk of its own, so that the rest of the current one is not lost.
                self.touched_bytes += bytes;
                return self.new_chunk(bytes, ALIGN);
            }
            self.refill(chunk_bytes);
        }
        if !self.is_huge {
            self.touched_bytes += bytes;
        }
        let piece = self.free;
        // SAFETY: at least `bytes` of the chunk from `free` on belong to nobody.
        self.free = unsafe { self.free.add(bytes) };
        self.free_bytes -= bytes;
        piece
    }

    fn next_chunk_bytes(&self) -> usize {
        if self.touched_bytes >= HUGE_FROM_BYTES {
            HUGE_PAGE_BYTES
        } else {
            self.touched_bytes.clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX)
        }
    }

    /// Takes another chunk for small pieces.
    fn refill(&mut self, chunk_bytes: usize) {
        self.is_huge = chunk_bytes == HUGE_PAGE_BYTES;
        self.free = self.new_chunk(chunk_bytes, if self.is_huge { HUGE_PAGE_BYTES } else { ALIGN });
        self.free_bytes = chunk_bytes;
        if self.is_huge {
            self.touched_bytes += chunk_bytes;
            advise_huge_page(self.free);
        }
    }

    fn new_chunk(&mut self, bytes: usize, align: usize) -> NonNull<u8> {
        let layout = Layout::from_size_align(bytes, align).expect("entries are bounded");
        // SAFETY: a node is never empty, so neither is the layout.
        let chunk = NonNull::new(unsafe { alloc(layout) }).unwrap_or_else(|| handle_alloc_error(layout));
        self.chunks.push((chunk, layout));
        chunk
    }
}

/// Asks for a chunk of [`HUGE_PAGE_BYTES`], aligned as such, to be one page; without it, it is many.
fn advise_huge_page(chunk: NonNull<u8>) {
    #[cfg(all(target_os = "linux", not(miri)))]
    {
        // SAFETY: the chunk is allocated, and the advice changes nothing about what is in it.
        let advised = unsafe {
            let advice = rustix::mm::Advice::LinuxHugepage;
            rustix::mm::madvise(chunk.as_ptr().cast(), HUGE_PAGE_BYTES, advice)
        };
        // A kernel without huge pages refuses.
        let _speed_only = advised;
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        for (chunk, layout) in self.chunks.drain(..) {
            // SAFETY: it was allocated with this layout; by invariant 2 nobody looks into it any more.
            unsafe { dealloc(chunk.as_ptr(), layout) };
        }
    }
}

/// What the one who inserts needs.
struct Writer {
    arena: Arena,
    random: u64,
    /// The node inserted last, itself on the levels it has and what is before it on the others: keys that
    /// ascend need not be searched for.
    last: [NodeRef; HEIGHT_MAX],
}

impl Writer {
    /// A node without neighbours that is in no list yet.
    fn new_node(arena: &mut Arena, height: usize, key: [&[u8]; 2], value: &[u8]) -> NodeRef {
        let key_bytes = key[0].len() + key[1].len();
        let node = Node {
            previous: AtomicPtr::new(ptr::null_mut()),
            key_bytes: u32::try_from(key_bytes).expect("entries are bounded"),
            value_bytes: u32::try_from(value.len()).expect("entries are bounded"),
        };
        let piece = arena.allocate(height * LINK_BYTES + size_of::<Node>() + key_bytes + value.len());
        // SAFETY: the piece has room for the links, the node, the key and the value one behind the other,
        // is aligned for links and node, and belongs to nobody else.
        unsafe {
            let links = piece.cast::<AtomicPtr<Node>>();
            for level in 0..height {
                links.add(level).write(AtomicPtr::new(ptr::null_mut()));
            }
            let at = links.add(height).cast::<Node>();
            at.write(node);
            let mut end = at.add(1).cast::<u8>();
            for bytes in [key[0], key[1], value] {
                end.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len());
                end = end.add(bytes.len());
            }
            NodeRef(at)
        }
    }

    fn random_height(&mut self) -> usize {
        // xorshift64 from one seed, so that runs repeat. A node's height follows from how many came before it
        // and not from its key.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let (mut height, mut bits) = (1, self.random >> 8);
        while height < HEIGHT_MAX && bits.is_multiple_of(BRANCHING) {
            height += 1;
            bits /= BRANCHING;
        }
        height
    }
}

/// A sorted list of internal keys and values.
pub(crate) struct SkipList {
    /// Before all nodes; has every level and no key.
    head: NodeRef,
    /// The most levels of any node.
    height: AtomicUsize,
    count: AtomicUsize,
    /// Of nodes, and of memory.
    bytes: AtomicUsize,
    memory_bytes: AtomicUsize,
    writer: Mutex<Writer>,
}

impl SkipList {
    pub(crate) fn new() -> Self {
        let mut arena = Arena::new();
        let head = Writer::new_node(&mut arena, HEIGHT_MAX, [&[], &[]], &[]);
        let writer = Writer { arena, random: 0x9e37_79b9_7f4a_7c15, last: [head; HEIGHT_MAX] };
        Self {
            head,
            height: AtomicUsize::new(1),
            count: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            memory_bytes: AtomicUsize::new(0),
            writer: Mutex::new(writer),
        }
    }

    /// Adds an entry, whose internal key is not in the list.
    pub(crate) fn insert(&self, user_key: &[u8], trailer: Trailer, value: &[u8]) {
        let mut writer = self.writer.lock();
        let writer = &mut *writer;
        let node_height = writer.random_height();
        let node = Writer::new_node(&mut writer.arena, node_height, [user_key, &trailer.encode()], value);
        // SAFETY: the list lives, and the node is not its head.
        let key = unsafe { node.key() };
        let height = self.height.load(Ordering::Relaxed).max(node_height);
        self.find_before(key, height, &mut writer.last);
        for (level, before) in writer.last.iter_mut().enumerate().take(node_height) {
            // SAFETY: the list lives; who is before the node on a level has that level, and the node has it.
            unsafe {
                let next = before.next(level);
                let next_ptr = next.map_or(ptr::null_mut(), |next| next.0.as_ptr());
                node.link(level).store(next_ptr, Ordering::Relaxed);
                if level == 0 {
                    node.node().previous.store(before.0.as_ptr(), Ordering::Relaxed);
                }
                before.link(level).store(node.0.as_ptr(), Ordering::Release);
                if let Some(next) = next.filter(|_| level == 0) {
                    next.node().previous.store(node.0.as_ptr(), Ordering::Release);
                }
            }
            *before = node;
        }
        // Levels that are not there yet lead nowhere, and who does not see them yet goes by lower ones.
        self.height.store(height, Ordering::Release);
        self.count.fetch_add(1, Ordering::Relaxed);
        let bytes = node_height * LINK_BYTES + size_of::<Node>() + key.len() + value.len();
        self.bytes.fetch_add(bytes.next_multiple_of(ALIGN), Ordering::Relaxed);
        self.memory_bytes.store(writer.arena.touched_bytes, Ordering::Relaxed);
    }

    /// Makes `before` the last nodes before `key` on the levels below `height`.
    /// They are those of the last insertion when this is called.
    fn find_before(&self, key: &[u8], height: usize, before: &mut [NodeRef; HEIGHT_MAX]) {
        // What was inserted last is before it on all levels if it is on the lowest one.
        let mut follows_last = before[0] != self.head && self.is_before(before[0], key);
        let (mut at, mut behind) = (self.head, None);
        for level in (0..height).rev() {
            if follows_last {
                at = before[level];
            }
            // SAFETY: the list lives; `at` is the head or was reached by its link of this level or one above.
            while let Some(next) = unsafe { at.next(level) } {
                // What was found behind the key on the level above is behind it here.
                if Some(next) == behind || !self.is_before(next, key) {
                    behind = Some(next);
                    break;
                }
                at = next;
                follows_last = false;
            }
            before[level] = at;
        }
    }

    /// REQUIRES: `node` is a node of this list and not its head.
    fn is_before(&self, node: NodeRef, key: &[u8]) -> bool {
        // SAFETY: the list lives while it is borrowed.
        internal_key::compare(unsafe { node.key() }, key) == Order::Less
    }

    /// The last node before `key`, or the head, and the node behind it.
    fn search(&self, key: &[u8]) -> (NodeRef, Option<NodeRef>) {
        let (mut at, mut behind) = (self.head, None);
        for level in (0..self.height.load(Ordering::Acquire)).rev() {
            loop {
                // SAFETY: the list lives; `at` is the head or was reached by its link of this level or one above.
                let next = unsafe { at.next(level) };
                match next {
                    Some(node) if next != behind && self.is_before(node, key) => at = node,
                    _ => {
                        behind = next;
                        break;
                    }
                }
            }
        }
        (at, behind)
    }

    /// The first entry at or after the encoded internal key.
    pub(crate) fn seek(&self, key: &[u8]) -> Option<Entry<'_>> {
        self.search(key).1.map(|node| Entry { list: self, node })
    }

    /// The last entry before the encoded internal key.
    pub(crate) fn seek_before(&self, key: &[u8]) -> Option<Entry<'_>> {
        self.entry_unless_head(self.search(key).0)
    }

    pub(crate) fn first(&self) -> Option<Entry<'_>> {
        // SAFETY: the list lives, and the head has every level.
        unsafe { self.head.next(0) }.map(|node| Entry { list: self, node })
    }

    pub(crate) fn last(&self) -> Option<Entry<'_>> {
        let mut at = self.head;
        for level in (0..self.height.load(Ordering::Acquire)).rev() {
            // SAFETY: the list lives; `at` is the head or was reached by its link of this level or one above.
            while let Some(next) = unsafe { at.next(level) } {
                at = next;
            }
        }
        self.entry_unless_head(at)
    }

    fn entry_unless_head(&self, node: NodeRef) -> Option<Entry<'_>> {
        (node != self.head).then_some(Entry { list: self, node })
    }

    /// Entries in it.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Bytes that its entries lie in.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Bytes of memory that were touched for its entries; those of an empty list do not count.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory_bytes.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for SkipList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SkipList").field("count", &self.count()).field("bytes", &self.bytes()).finish()
    }
}

/// An entry of a list.
#[derive(Clone, Copy)]
pub(crate) struct Entry<'a> {
    list: &'a SkipList,
    /// Not the head.
    node: NodeRef,
}

impl<'a> Entry<'a> {
    /// The encoded internal key.
    pub(crate) fn key(self) -> &'a [u8] {
        // SAFETY: the list is borrowed for `'a`, and the node is not its head.
        unsafe { self.node.key() }
    }

    pub(crate) fn user_key(self) -> &'a [u8] {
        let key = self.key();
        &key[..key.len() - TRAILER_BYTES]
    }

    pub(crate) fn value(self) -> &'a [u8] {
        // SAFETY: as for the key.
        unsafe { self.node.value() }
    }

    pub(crate) fn next(self) -> Option<Self> {
        // SAFETY: the list is borrowed; every node has level 0.
        unsafe { self.node.next(0) }.map(|node| Self { node, ..self })
    }

    pub(crate) fn previous(self) -> Option<Self> {
        // SAFETY: the list is borrowed.
        let previous = unsafe { self.node.node() }.previous.load(Ordering::Acquire);
        // Only the head has none before it, and it is no entry.
        NonNull::new(previous).map(NodeRef).and_then(|node| self.list.entry_unless_head(node))
    }
}

/// A place in a list that it shares: on an entry, or nowhere.
#[derive(Clone)]
pub(crate) struct Place {
    list: Arc<SkipList>,
    /// Of `list`, and not its head.
    node: Option<NodeRef>,
}

impl Place {
    pub(crate) fn nowhere(list: Arc<SkipList>) -> Self {
        Self { list, node: None }
    }

    /// Where it stands.
    pub(crate) fn entry(&self) -> Option<Entry<'_>> {
        self.node.map(|node| Entry { list: &self.list, node })
    }

    /// Moves to the entry that `find` finds in the list, or nowhere. Whether there is one.
    pub(crate) fn stand_on(&mut self, find: impl for<'a> FnOnce(&'a SkipList) -> Option<Entry<'a>>) -> bool {
        self.node = find(&self.list).map(|entry| {
            assert!(ptr::eq(entry.list, &*self.list), "an entry of another list was found");
            entry.node
        });
        self.node.is_some()
    }

    /// Moves to the next entry, or nowhere. Whether there is one. REQUIRES: it stands on an entry.
    pub(crate) fn next(&mut self) -> bool {
        let node = self.node.expect("the place is on an entry");
        self.stand_on(|list| Entry { list, node }.next())
    }

    /// Moves to the entry before, or nowhere. Whether there is one. REQUIRES: it stands on an entry.
    pub(crate) fn previous(&mut self) -> bool {
        let node = self.node.expect("the place is on an entry");
        self.stand_on(|list| Entry { list, node }.previous())
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.entry().map(|entry| entry.key().escape_ascii().to_string());
        f.debug_tuple("Place").field(&key).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::internal_key::{Kind, SEQUENCE_MAX};
    use crate::sstable::testing::{Random, key};

    /// Rounds of what takes long under an interpreter.
    const ENTRIES: u64 = if cfg!(miri) { 200 } else { 20_000 };

    fn sought(user_key: &[u8]) -> Vec<u8> {
        let mut sought = Vec::new();
        internal_key::encode(&mut sought, user_key, Trailer::seek(SEQUENCE_MAX));
        sought
    }

    #[test]
    fn it_agrees_with_a_sorted_map_in_every_direction() {
        for order in ["ascending", "descending", "random"] {
            let (list, mut map) = (SkipList::new(), BTreeMap::new());
            let mut random = Random::new(7);
            for i in 0..ENTRIES / 10 {
                let number = match order {
                    "ascending" => i,
                    "descending" => u64::MAX - i,
                    _ => random.number() % 300,
                };
                let user_key = number.to_be_bytes()[..8 - random.below(2)].to_vec();
                let value = vec![random.byte(); random.below(40)];
                list.insert(&user_key, Trailer::new(i, Kind::Put), &value);
                map.insert((user_key, u64::MAX - i), value);
            }
            let expected: Vec<_> = map
                .iter()
                .map(|((user_key, age), value)| (key(user_key, u64::MAX - age, Kind::Put), value))
                .collect();
            let forward: Vec<_> = std::iter::successors(list.first(), |entry| entry.next()).collect();
            let mut backward: Vec<_> = std::iter::successors(list.last(), |entry| entry.previous()).collect();
            backward.reverse();
            for entries in [&forward, &backward] {
                assert_eq!(entries.len(), expected.len(), "{order}");
                for (entry, (key, value)) in entries.iter().zip(&expected) {
                    assert_eq!((entry.key(), entry.value()), (&key[..], &value[..]));
                }
            }
            for (at, (key, _)) in expected.iter().enumerate().step_by(7) {
                assert_eq!(list.seek(key).unwrap().key(), key);
                let before = list.seek_before(key).map(Entry::key);
                assert_eq!(before, at.checked_sub(1).map(|at| &expected[at].0[..]));
            }
            assert_eq!(list.count(), expected.len());
            assert!(list.seek(&sought(&[0xff; 9])).is_none());
            assert!(list.seek_before(&sought(b"")).is_none());
        }
    }

    #[test]
    fn places_and_long_values_outlive_who_made_the_list() {
        let list = Arc::new(SkipList::new());
        let long = vec![7; 3 * CHUNK_BYTES_MAX];
        list.insert(b"long", Trailer::new(1, Kind::Put), &long);
        list.insert(b"short", Trailer::new(2, Kind::Put), b"v");
        assert!(list.bytes() > long.len());
        assert!(list.memory_bytes() > long.len());
        let mut place = Place::nowhere(Arc::clone(&list));
        assert!(place.stand_on(SkipList::first));
        drop(list);
        assert_eq!(place.entry().unwrap().value(), long);
        assert!(place.next());
        assert_eq!(place.entry().unwrap().value(), b"v");
        assert!(!place.clone().next());
        assert!(place.previous());
        assert!(!place.previous());
    }

    #[test]
    fn memory_is_charged_for_entries_of_any_size_and_not_for_an_empty_list() {
        let list = SkipList::new();
        assert_eq!((list.bytes(), list.memory_bytes()), (0, 0));
        let mut random = Random::new(3);
        for i in 0..ENTRIES / 20 {
            // Every chunk size is met, and values that get a chunk of their own.
            let value = vec![0; random.below(if i % 50 == 0 { 600_000 } else { 2_000 })];
            list.insert(&i.to_be_bytes(), Trailer::new(i, Kind::Put), &value);
            assert!(list.memory_bytes() >= list.bytes());
        }
        assert!(list.memory_bytes() <= list.bytes() + CHUNK_BYTES_MIN + HUGE_PAGE_BYTES);
    }

    #[test]
    fn readers_beside_the_writer_see_whole_entries_in_order_and_all_that_was_there_before() {
        let list = SkipList::new();
        let inserted = AtomicU64::new(0);
        let user_key = |i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
        let check = |entry: Entry<'_>| assert_eq!(entry.user_key(), entry.value());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for i in 0..ENTRIES {
                    list.insert(&user_key(i), Trailer::new(i, Kind::Put), &user_key(i));
                    inserted.store(i + 1, Ordering::Release);
                }
            });
            for seed in 0..3 {
                let (list, inserted) = (&list, &inserted);
                scope.spawn(move || {
                    let mut random = Random::new(seed);
                    loop {
                        let count = inserted.load(Ordering::Acquire);
                        for _ in 0..count.min(50) {
                            let i = random.number() % count;
                            let found = list.seek(&sought(&user_key(i))).expect("it was inserted");
                            assert_eq!(found.user_key(), user_key(i));
                            check(found);
                        }
                        if random.below(20) == 0 {
                            let forward = std::iter::successors(list.first(), |entry| entry.next());
                            let forward: Vec<_> =
                                forward.inspect(|entry| check(*entry)).map(Entry::key).collect();
                            assert!(forward.len() as u64 >= count);
                            assert!(forward.is_sorted_by(|a, b| internal_key::compare(a, b).is_lt()));
                            let backward = std::iter::successors(list.last(), |entry| entry.previous());
                            assert!(backward.inspect(|entry| check(*entry)).count() as u64 >= count);
                        }
                        if count == ENTRIES {
                            break;
                        }
                    }
                });
            }
        });
    }
}
