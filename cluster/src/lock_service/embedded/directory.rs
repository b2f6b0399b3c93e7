//! The directory of the embedded lock service: its files, and the counter.
//!
//! A file is replaced in four steps: write under a temporary name, sync,
//! rename, sync the directory. Up to the rename a failure changes nothing.
//! From it on the disk may hold either, so the directory is poisoned.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use vfs::{Access, FileLock, FileSystem};

use super::super::{LockError, Record, Revision, VALUE_BYTES_MAX};
use super::record_file::{self, FILE_BYTES_MAX, NAME_BYTES_MAX};

/// What a key's file name escapes. The dot too, so that no key is `.new`.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

/// A record on its way to its name.
const TEMPORARY: &str = ".new";

const COUNTER: &str = "counter";

/// Numbers that are reserved by one write of the counter.
const COUNTER_STEP: u64 = 1024;

/// Who may change the files.
#[derive(Debug)]
pub(super) struct Directory {
    fs: Arc<dyn FileSystem>,
    dir: PathBuf,
    records_dir: PathBuf,
    /// The last number handed out.
    last: u64,
    /// The greatest number that may be handed out: what the counter's file says.
    ceiling: u64,
    /// A file whose last change failed halfway.
    poisoned: Option<PathBuf>,
    _lock: Box<dyn FileLock>,
}

impl Directory {
    /// Locks `dir` and reads what is in it.
    pub(super) fn open(
        fs: Arc<dyn FileSystem>,
        dir: &Path,
    ) -> Result<(Self, BTreeMap<String, Record>), LockError> {
        let records_dir = dir.join("records");
        fs.create_dir_all(&records_dir)?;
        let lock = fs.lock(&dir.join("LOCK")).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => LockError::Held { name: dir.display().to_string() },
            _ => error.into(),
        })?;
        let mut records = BTreeMap::new();
        for name in fs.list(&records_dir)? {
            let path = records_dir.join(&name);
            if name == Path::new(TEMPORARY) {
                fs.remove(&path)?;
                continue;
            }
            let record = read(&*fs, &path)?;
            if name != Path::new(&file_name(&record.key)) {
                let key = percent_decode_str(&name.to_string_lossy()).decode_utf8_lossy().into_owned();
                return Err(damaged(&path, format!("its name says {key:?}, its content {:?}", record.key)));
            }
            records.insert(record.key.clone(), record);
        }
        let ceiling = read_ceiling(&*fs, &dir.join(COUNTER), &records)?;
        let directory = Self {
            fs,
            dir: dir.to_owned(),
            records_dir,
            last: ceiling,
            ceiling,
            poisoned: None,
            _lock: lock,
        };
        Ok((directory, records))
    }

    /// A number greater than all before, also after a power cut.
    pub(super) fn next_number(&mut self) -> Result<u64, LockError> {
        self.check()?;
        if self.last == self.ceiling {
            let ceiling = self.ceiling + COUNTER_STEP;
            let counter =
                Record { key: COUNTER.to_owned(), value: Bytes::new(), revision: Revision(ceiling) };
            let path = self.dir.join(COUNTER);
            self.replace(&self.dir.join("counter.new"), &path, &record_file::encode(&counter))?;
            self.ceiling = ceiling;
        }
        self.last += 1;
        Ok(self.last)
    }

    /// Writes the file of `record`; it is durable when this returns.
    pub(super) fn write(&mut self, record: &Record) -> Result<(), LockError> {
        self.check()?;
        let refused = |limit| Err(LockError::Refused { key: record.key.clone(), limit });
        if record.key.is_empty() {
            return refused("a key is not empty");
        }
        let name = file_name(&record.key);
        if name.len() > NAME_BYTES_MAX {
            return refused("a key is at most 255 bytes long, percent-encoded");
        }
        if record.value.len() > VALUE_BYTES_MAX {
            return refused("a value is at most 1 MiB long");
        }
        let path = self.records_dir.join(name);
        self.replace(&self.records_dir.join(TEMPORARY), &path, &record_file::encode(record))
    }

    /// Removes the record's file, which exists; that is durable when this returns.
    pub(super) fn remove(&mut self, key: &str) -> Result<(), LockError> {
        self.check()?;
        let path = self.records_dir.join(file_name(key));
        let removed = self.fs.remove(&path).and_then(|()| self.fs.sync_dir(&self.records_dir));
        self.poison_on_failure(&path, removed)
    }

    /// Gives `path` the content `bytes`, by way of `temporary` in the same directory.
    fn replace(&mut self, temporary: &Path, path: &Path, bytes: &[u8]) -> Result<(), LockError> {
        self.prepare(temporary, bytes)?;
        let parent = path.parent().expect("the service's files are in its directory");
        let replaced = self.fs.rename(temporary, path).and_then(|()| self.fs.sync_dir(parent));
        self.poison_on_failure(path, replaced)
    }

    /// Writes and syncs `temporary`, after what an earlier failure left of it.
    fn prepare(&self, temporary: &Path, bytes: &[u8]) -> Result<(), LockError> {
        if self.fs.exists(temporary)? {
            self.fs.remove(temporary)?;
        }
        let file = self.fs.create(temporary)?;
        file.write_all_at(&[IoSlice::new(bytes)], 0)?;
        Ok(file.sync()?)
    }

    fn poison_on_failure(&mut self, path: &Path, outcome: vfs::Result<()>) -> Result<(), LockError> {
        if outcome.is_err() {
            self.poisoned = Some(path.to_owned());
        }
        Ok(outcome?)
    }

    fn check(&self) -> Result<(), LockError> {
        match &self.poisoned {
            None => Ok(()),
            Some(path) => Err(LockError::Poisoned { path: path.display().to_string() }),
        }
    }
}

/// The ceiling that the counter's file says; 0 in a new directory.
fn read_ceiling(
    fs: &dyn FileSystem,
    path: &Path,
    records: &BTreeMap<String, Record>,
) -> Result<u64, LockError> {
    let newest = records.values().max_by_key(|record| record.revision);
    if !fs.exists(path)? {
        return match newest {
            None => Ok(0),
            Some(record) => Err(damaged(path, format!("it is missing, and {:?} is there", record.key))),
        };
    }
    let counter = read(fs, path)?;
    if counter.key != COUNTER || !counter.value.is_empty() {
        return Err(damaged(path, "it is no counter".to_owned()));
    }
    match newest {
        Some(record) if record.revision > counter.revision => {
            let (key, revision, ceiling) = (&record.key, record.revision.0, counter.revision.0);
            Err(damaged(path, format!("its ceiling is {ceiling}, and {key:?} has revision {revision}")))
        }
        _ => Ok(counter.revision.0),
    }
}

fn read(fs: &dyn FileSystem, path: &Path) -> Result<Record, LockError> {
    let file = fs.open(path, Access::Read)?;
    let len = file.len()?;
    if len > FILE_BYTES_MAX {
        return Err(damaged(path, format!("{len} bytes are more than a record's {FILE_BYTES_MAX}")));
    }
    let mut bytes = vec![0; usize::try_from(len).expect("it is bounded")];
    file.read_exact_at(&mut bytes, 0)?;
    record_file::decode(&bytes.into()).map_err(|found| damaged(path, found))
}

fn damaged(path: &Path, found: String) -> LockError {
    LockError::Damaged { path: path.display().to_string(), found }
}

fn file_name(key: &str) -> String {
    utf8_percent_encode(key, ESCAPED).to_string()
}
