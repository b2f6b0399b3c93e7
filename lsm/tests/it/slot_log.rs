//! A commit log in numbered objects that are created if they are absent and
//! never replaced, as a bucket offers it to several machines.
//!
//! Each opening has a sequence of slots of its own, filled one after the other.
//! Slot 0 says that it began; then each slot is a group, tagged with its
//! segment, or says that a segment is removed, so that removals are fenced as
//! groups are. Two openings exclude each other because both first create their
//! slot 0 and then look for the other's. The later one seals the earlier one's
//! sequence: a tombstone ahead of its frontier, the gap doubled if the writer
//! was there first, and then tombstones in every empty slot below. The sequence
//! ends at the first tombstone, and a writer who meets one is fenced. What is
//! removed keeps its slots, so that nobody who slept can create one again.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lsm::log_store::{LogSegment, LogSegmentReader};
use lsm::{Error, FileId, LogStore, Result};
use parking_lot::Mutex;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Object {
    Began { writer: u64 },
    Group { writer: u64, segment: u64, bytes: Vec<u8> },
    Removed { writer: u64, id: FileId },
    Tombstone { by: u64 },
}

/// Done before a request of the bucket, or after it took effect and before its reply.
type Interruption = Box<dyn FnOnce() + Send>;

/// Objects, by epoch and slot.
#[derive(Clone, Default)]
pub struct Bucket {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    objects: Mutex<BTreeMap<(u64, u64), Object>>,
    writers: AtomicU64,
    requests: AtomicU64,
    interruption: Mutex<Option<(u64, Interruption)>>,
}

/// What became of a request to create an object.
enum Created {
    Yes,
    Exists(Object),
    /// Nobody knows: the reply was lost.
    Unknown,
}

impl Bucket {
    /// Runs `interruption` once, at a moment counted from now on: each request has one before and one after it.
    pub fn interrupt(&self, moment: u64, interruption: impl FnOnce() + Send + 'static) {
        let now = self.inner.requests.load(Ordering::Relaxed) * 2;
        *self.inner.interruption.lock() = Some((now + moment, Box::new(interruption)));
    }

    /// Whether the interruption's moment has not come yet.
    pub fn is_to_be_interrupted(&self) -> bool {
        self.inner.interruption.lock().is_some()
    }

    fn pass_moment(&self, moment: u64) {
        let due = self.inner.interruption.lock().take_if(|(at, _)| *at == moment);
        if let Some((_, interruption)) = due {
            interruption();
        }
    }

    fn request<T>(&self, answer: impl FnOnce(&mut BTreeMap<(u64, u64), Object>) -> T) -> (u64, T) {
        let number = self.inner.requests.fetch_add(1, Ordering::Relaxed);
        self.pass_moment(number * 2);
        let answer = answer(&mut self.inner.objects.lock());
        self.pass_moment(number * 2 + 1);
        (number, answer)
    }

    fn create(&self, name: (u64, u64), object: &Object) -> Created {
        let (number, existing) = self.request(|objects| match objects.get(&name) {
            Some(existing) => Some(existing.clone()),
            None => {
                objects.insert(name, object.clone());
                None
            }
        });
        match existing {
            _ if number % 7 == 3 => Created::Unknown,
            Some(existing) => Created::Exists(existing),
            None => Created::Yes,
        }
    }

    /// Creates an object, asking again until the outcome is known. The one that is there instead, if another one is.
    fn put(&self, name: (u64, u64), object: &Object) -> Option<Object> {
        loop {
            match self.create(name, object) {
                Created::Yes => return None,
                Created::Exists(existing) if existing == *object => return None,
                Created::Exists(existing) => return Some(existing),
                Created::Unknown => {}
            }
        }
    }

    fn epoch(&self, epoch: u64) -> BTreeMap<u64, Object> {
        let slots = (epoch, 0)..=(epoch, u64::MAX);
        self.request(|objects| {
            objects.range(slots).map(|((_, slot), object)| (*slot, object.clone())).collect()
        })
        .1
    }

    fn epochs(&self) -> Vec<u64> {
        self.request(|objects| {
            let mut epochs: Vec<_> = objects.keys().map(|(epoch, _)| *epoch).collect();
            epochs.dedup();
            epochs
        })
        .1
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket").finish_non_exhaustive()
    }
}

/// The slots of one opening, filled one at a time: who is acknowledged has no empty slot before its own.
#[derive(Debug)]
struct Sequence {
    bucket: Bucket,
    /// Tells this opening from every other one.
    writer: u64,
    /// Its epoch and next slot, once it began.
    next: Mutex<(u64, u64)>,
}

impl Sequence {
    fn append(&self, object: &Object) -> Result<()> {
        let mut next = self.next.lock();
        let (epoch, slot) = *next;
        match self.bucket.put((epoch, slot), object) {
            None => {
                next.1 += 1;
                Ok(())
            }
            Some(Object::Tombstone { by }) => Err(Error::Fenced { by }),
            Some(_) => Err(Error::Fenced { by: epoch }),
        }
    }
}

/// The log of one opening.
#[derive(Debug)]
pub struct SlotLog {
    bucket: Bucket,
    sequence: Arc<Sequence>,
}

impl SlotLog {
    pub fn new(bucket: &Bucket) -> Self {
        let writer = bucket.inner.writers.fetch_add(1, Ordering::Relaxed);
        let sequence = Sequence { bucket: bucket.clone(), writer, next: Mutex::default() };
        Self { bucket: bucket.clone(), sequence: Arc::new(sequence) }
    }

    fn seal(&self, epoch: u64, by: u64) {
        let tombstone = Object::Tombstone { by };
        let mut gap = 1;
        let end = loop {
            let slots = self.bucket.epoch(epoch);
            if let Some((slot, _)) =
                slots.iter().find(|(_, object)| matches!(object, Object::Tombstone { .. }))
            {
                break *slot;
            }
            let ahead = slots.last_key_value().expect("it began").0 + gap;
            match self.bucket.put((epoch, ahead), &tombstone) {
                None => break ahead,
                Some(_) => gap *= 2,
            }
        };
        for slot in 0..end {
            // Where the writer was faster, its group stays.
            let _existing = self.bucket.put((epoch, slot), &tombstone);
        }
    }

    /// What an epoch's opening made durable, as far as it is in the log.
    fn objects(&self, epoch: u64) -> Vec<Object> {
        let slots = (0..).zip(self.bucket.epoch(epoch));
        let whole = slots.take_while(|(expected, (slot, object))| {
            slot == expected && !matches!(object, Object::Tombstone { .. })
        });
        whole.map(|(_, (_, object))| object).collect()
    }
}

impl LogStore for SlotLog {
    fn seal_before(&self, epoch: u64) -> Result<()> {
        *self.sequence.next.lock() = (epoch, 0);
        self.sequence.append(&Object::Began { writer: self.sequence.writer })?;
        let epochs = self.bucket.epochs();
        if let Some(by) = epochs.iter().copied().find(|other| *other > epoch) {
            return Err(Error::Fenced { by });
        }
        epochs.into_iter().filter(|other| *other < epoch).for_each(|other| self.seal(other, epoch));
        Ok(())
    }

    fn list(&self) -> Result<Vec<FileId>> {
        let (mut ids, mut removed) = (Vec::new(), Vec::new());
        for epoch in self.bucket.epochs() {
            for object in self.objects(epoch) {
                match object {
                    Object::Group { segment: number, .. } => ids.push(FileId { epoch, number }),
                    Object::Removed { id, .. } => removed.push(id),
                    Object::Began { .. } | Object::Tombstone { .. } => {}
                }
            }
        }
        ids.dedup();
        ids.retain(|id| !removed.contains(id));
        Ok(ids)
    }

    fn create(&self, id: FileId, first: &[u8]) -> Result<Box<dyn LogSegment>> {
        let mut segment = SlotSegment { sequence: Arc::clone(&self.sequence), number: id.number, end: 0 };
        segment.append(first)?;
        Ok(Box::new(segment))
    }

    fn read(&self, id: FileId) -> Result<Option<Box<dyn LogSegmentReader>>> {
        let of_segment = |object| match object {
            Object::Group { segment, bytes, .. } if segment == id.number => Some(bytes),
            _ => None,
        };
        let groups: Vec<_> = self.objects(id.epoch).into_iter().filter_map(of_segment).collect();
        let path = PathBuf::from(format!("log of epoch {}, segment {}", id.epoch, id.number));
        let reader = SlotReader { path, groups: groups.into_iter(), group: Vec::new(), end: 0 };
        Ok(if reader.groups.len() > 0 { Some(Box::new(reader)) } else { None })
    }

    fn remove(&self, id: FileId) -> Result<()> {
        self.sequence.append(&Object::Removed { writer: self.sequence.writer, id })
    }
}

#[derive(Debug)]
struct SlotSegment {
    sequence: Arc<Sequence>,
    number: u64,
    end: u64,
}

impl LogSegment for SlotSegment {
    fn append(&mut self, group: &[u8]) -> Result<()> {
        let writer = self.sequence.writer;
        self.sequence.append(&Object::Group { writer, segment: self.number, bytes: group.to_vec() })?;
        self.end += group.len() as u64;
        Ok(())
    }

    fn end(&self) -> u64 {
        self.end
    }
}

#[derive(Debug)]
struct SlotReader {
    path: PathBuf,
    groups: std::vec::IntoIter<Vec<u8>>,
    group: Vec<u8>,
    end: u64,
}

impl LogSegmentReader for SlotReader {
    fn next(&mut self) -> Result<Option<&[u8]>> {
        let Some(group) = self.groups.next() else { return Ok(None) };
        self.end += group.len() as u64;
        self.group = group;
        Ok(Some(&self.group))
    }

    fn end(&self) -> u64 {
        self.end
    }

    fn path(&self) -> &Path {
        &self.path
    }
}
