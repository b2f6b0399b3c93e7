//! A file system in memory that can lose power.
//!
//! It forgets what POSIX lets a disk forget: bytes that were not synced, and
//! names whose directory was not synced. What is left after
//! [`SimulatedFileSystem::power_cut`] is drawn from a seed, change by change:
//! kept, lost, or torn at a sector or a byte. [`FaultPlan`] makes operations
//! fail before that. One thread and one seed give one outcome, always.
//!
//! ```
//! # use std::path::Path;
//! # use vfs::{FileSystem, SimulatedFileSystem};
//! let before = SimulatedFileSystem::new();
//! before.create(Path::new("/log"))?;
//! before.sync_dir(Path::new("/"))?;
//! before.create(Path::new("/lost, perhaps"))?;
//! let after = before.power_cut(7);
//! assert!(after.exists(Path::new("/log"))?);
//! # Ok::<(), vfs::Error>(())
//! ```

mod faults;
mod file;
mod inode;
mod names;
mod random;
mod residency;
mod survival;

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rustix::io::Errno;

use self::faults::{Fate, Gate, power_is_off};
pub use self::faults::{FaultPlan, Operation};
use self::file::{SimulatedFile, SimulatedLock};
use self::inode::Inode;
use self::names::{Entry, Names};
use self::random::SplitMix64;
use crate::{Access, Error, File, FileLock, FileSystem, Result};

/// Files in memory. Clones are the same file system; all paths start at its
/// root, which exists.
#[derive(Clone, Debug, Default)]
pub struct SimulatedFileSystem {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    gate: Gate,
    names: Names,
    /// Bytes that all files use.
    used: Arc<AtomicU64>,
    watch: Option<Watch>,
}

/// Somebody to tell of each operation.
#[derive(Clone)]
struct Watch(Arc<Watcher>);

type Watcher = dyn Fn(&SimulatedFileSystem, u64) + Send + Sync;

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}

/// Tells the watch of the operation that comes next.
fn announce(state: &Arc<Mutex<State>>) {
    let (watch, number) = {
        let state = state.lock();
        (state.watch.clone(), state.gate.operation_count)
    };
    if let Some(Watch(watch)) = watch {
        watch(&SimulatedFileSystem { state: Arc::clone(state) }, number);
    }
}

impl State {
    /// Counts a change and makes it, as far as the plan lets it happen.
    fn perform<T>(
        &mut self,
        operation: Operation,
        change: impl FnOnce(&mut Self) -> io::Result<T>,
    ) -> io::Result<T> {
        match self.gate.begin(operation)? {
            Fate::Happens => change(self),
            Fate::Fails => Err(Errno::IO.into()),
            Fate::PowerGoes => {
                change(self)?;
                Err(power_is_off())
            }
        }
    }
}

impl SimulatedFileSystem {
    /// An empty file system on which nothing fails.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces what goes wrong from now on.
    pub fn set_faults(&self, plan: FaultPlan) {
        self.state.lock().gate.plan = plan;
    }

    /// Writes, syncs, renames, creates and removes so far, failed ones too.
    pub fn operation_count(&self) -> u64 {
        self.state.lock().gate.operation_count
    }

    /// Calls `watch` with this file system and the number of each counted
    /// operation from now on, before it is done, in the thread that does it. It
    /// may look, plan faults, and ask what a power cut would leave.
    pub fn watch(&self, watch: impl Fn(&Self, u64) + Send + Sync + 'static) {
        self.state.lock().watch = Some(Watch(Arc::new(watch)));
    }

    /// Takes the power away and returns the file system as it is found
    /// afterwards: everything on it durable, nobody holding a lock, no faults
    /// planned, nobody watching, the count of operations 0.
    ///
    /// This one and its open files fail from now on. Asking again, with another
    /// seed, draws another outcome of the same cut.
    pub fn power_cut(&self, seed: u64) -> Self {
        self.state.lock().gate.dead = true;
        self.image(seed)
    }

    /// What [`SimulatedFileSystem::power_cut`] would return now; the power stays.
    pub fn image(&self, seed: u64) -> Self {
        let used = Arc::default();
        let names = self.state.lock().names.cut(&mut SplitMix64::new(seed), &used);
        Self { state: Arc::new(Mutex::new(State { names, used, ..State::default() })) }
    }

    /// Flips bit `bit` (0 to 7) of the byte at `offset` of the file at `path`, in
    /// memory and on the disk.
    ///
    /// # Panics
    ///
    /// If there is no such byte.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u32) {
        let state = self.state.lock();
        let inode = state.names.file(path).expect("the file exists");
        let flipped = usize::try_from(offset).is_ok_and(|offset| inode.content.lock().flip_bit(offset, bit));
        assert!(flipped, "{} has no byte {offset}", path.display());
    }

    /// Puts the pages of the file at `path` that hold bytes of `range` out of
    /// memory, until they are read by [`File::read_exact_at`] or written.
    /// [`File::map`]s are not told: what is mapped can always be touched.
    /// Nothing happens if there is no such file.
    pub fn evict(&self, path: &Path, range: Range<u64>) {
        let state = self.state.lock();
        if let Ok(inode) = state.names.file(path) {
            inode.content.lock().evict(range);
        }
    }

    fn perform<T>(
        &self,
        (operation, verb): (Operation, &'static str),
        path: &Path,
        change: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> Result<T> {
        announce(&self.state);
        let outcome = self.state.lock().perform(operation, change);
        outcome.map_err(|source| Error::new(verb, path, source))
    }

    fn look<T>(
        &self,
        verb: &'static str,
        path: &Path,
        look: impl FnOnce(&State) -> io::Result<T>,
    ) -> Result<T> {
        let state = self.state.lock();
        let found = state.gate.check_power().and_then(|()| look(&state));
        found.map_err(|source| Error::new(verb, path, source))
    }
}

impl FileSystem for SimulatedFileSystem {
    fn create_dir_all(&self, dir: &Path) -> Result<()> {
        let ancestors: Vec<&Path> = dir.ancestors().collect();
        for ancestor in ancestors.into_iter().rev() {
            let found = self.look("create directory", dir, |state| state.names.find(ancestor))?;
            match found {
                Some(Entry::Directory(_)) => continue,
                Some(Entry::File(_)) => {
                    return Err(Error::new("create directory", dir, Errno::NOTDIR.into()));
                }
                None => {}
            }
            self.perform((Operation::Create, "create directory"), ancestor, |state| {
                state.names.create_directory(ancestor)
            })?;
            self.sync_dir(ancestor.parent().unwrap_or(Path::new("")))?;
        }
        Ok(())
    }

    fn create(&self, path: &Path) -> Result<Arc<dyn File>> {
        let inode = self.perform((Operation::Create, "create"), path, |state| {
            let inode = Inode::new(Vec::new(), &state.used);
            state.names.create(path, Entry::File(Arc::clone(&inode)))?;
            Ok(inode)
        })?;
        Ok(Arc::new(SimulatedFile::new(&self.state, inode, path, Access::ReadWrite)))
    }

    fn open(&self, path: &Path, access: Access) -> Result<Arc<dyn File>> {
        let inode = self.look("open", path, |state| state.names.file(path))?;
        Ok(Arc::new(SimulatedFile::new(&self.state, inode, path, access)))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.perform((Operation::Rename, "rename"), from, |state| state.names.rename(from, to))
    }

    fn hard_link(&self, from: &Path, to: &Path) -> Result<()> {
        self.perform((Operation::Create, "link"), to, |state| state.names.link(from, to))
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.perform((Operation::Remove, "remove"), path, |state| state.names.remove_file(path))
    }

    fn remove_dir(&self, dir: &Path) -> Result<()> {
        self.perform((Operation::Remove, "remove directory"), dir, |state| state.names.remove_directory(dir))
    }

    fn list(&self, dir: &Path) -> Result<Vec<PathBuf>> {
        self.look("list", dir, |state| {
            let names = state.names.list(state.names.directory(dir)?);
            Ok(names.into_iter().map(PathBuf::from).collect())
        })
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        self.look("look for", path, |state| Ok(state.names.find(path)?.is_some()))
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        let failed = |source| Error::new("sync directory", dir, source);
        announce(&self.state);
        let mut state = self.state.lock();
        let fate = state.gate.begin(Operation::Sync).map_err(failed)?;
        let directory = state.names.directory(dir).map_err(failed)?;
        match fate {
            Fate::Happens => {
                state.names.sync(directory);
                Ok(())
            }
            Fate::Fails => Err(failed(Errno::IO.into())),
            Fate::PowerGoes => Err(failed(power_is_off())),
        }
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn FileLock>> {
        if !self.exists(path)? {
            self.create(path)?;
        }
        let inode = self.look("lock", path, |state| {
            let inode = state.names.file(path)?;
            let held = std::mem::replace(&mut inode.content.lock().locked, true);
            if held { Err(Errno::WOULDBLOCK.into()) } else { Ok(inode) }
        })?;
        Ok(Box::new(SimulatedLock::new(&self.state, inode)))
    }

    fn available_bytes(&self, dir: &Path) -> Result<u64> {
        self.look("measure", dir, |state| {
            state.names.get(dir)?;
            Ok(state.gate.capacity_bytes().saturating_sub(state.used.load(Ordering::Relaxed)))
        })
    }
}
