//! The directories: names as they are seen, names as the disk has them, and
//! the changes between.
//!
//! A change is atomic: a rename takes one name away and gives the other in
//! one. A change that reaches the disk takes every earlier change of the same
//! names with it; others may stay behind, also within one directory, which is
//! all that POSIX promises (Pillai et al., "All File Systems Are Not Created
//! Equal", OSDI 2014, section 3).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Component, Path};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use rustix::io::Errno;

use super::inode::Inode;
use super::random::SplitMix64;
use super::survival::{Remains, Survival};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct DirectoryId(u64);

const ROOT: DirectoryId = DirectoryId(0);

/// What a name stands for.
#[derive(Clone, Debug)]
pub(super) enum Entry {
    Directory(DirectoryId),
    File(Arc<Inode>),
}

type Entries = BTreeMap<OsString, Entry>;

#[derive(Clone, Debug, Default)]
struct Directory {
    current: Entries,
    durable: Entries,
}

/// A name in a directory.
type Place = (DirectoryId, OsString);

/// Names that change together: each with what it stands for from now on.
type NameChange = Vec<(Place, Option<Entry>)>;

#[derive(Clone, Debug)]
pub(super) struct Names {
    directories: HashMap<DirectoryId, Directory>,
    /// What was not synced, oldest first.
    pending: Vec<NameChange>,
}

impl Default for Names {
    fn default() -> Self {
        Self { directories: HashMap::from([(ROOT, Directory::default())]), pending: Vec::new() }
    }
}

impl Names {
    /// What `path` stands for. All paths start at the root.
    pub(super) fn find(&self, path: &Path) -> io::Result<Option<Entry>> {
        let mut found = Entry::Directory(ROOT);
        for component in path.components() {
            let name = match component {
                Component::RootDir | Component::CurDir => continue,
                Component::Normal(name) => name,
                Component::ParentDir | Component::Prefix(_) => return Err(Errno::INVAL.into()),
            };
            let Entry::Directory(directory) = found else { return Err(Errno::NOTDIR.into()) };
            match self.entries(directory).get(name) {
                Some(entry) => found = entry.clone(),
                None => return Ok(None),
            }
        }
        Ok(Some(found))
    }

    pub(super) fn get(&self, path: &Path) -> io::Result<Entry> {
        self.find(path)?.ok_or_else(|| Errno::NOENT.into())
    }

    pub(super) fn file(&self, path: &Path) -> io::Result<Arc<Inode>> {
        match self.get(path)? {
            Entry::File(inode) => Ok(inode),
            Entry::Directory(_) => Err(Errno::ISDIR.into()),
        }
    }

    pub(super) fn directory(&self, path: &Path) -> io::Result<DirectoryId> {
        match self.get(path)? {
            Entry::Directory(id) => Ok(id),
            Entry::File(_) => Err(Errno::NOTDIR.into()),
        }
    }

    pub(super) fn list(&self, directory: DirectoryId) -> Vec<OsString> {
        self.entries(directory).keys().cloned().collect()
    }

    /// Gives `entry` the name `path`, which must be free.
    pub(super) fn create(&mut self, path: &Path, entry: Entry) -> io::Result<()> {
        let place = self.free_place(path)?;
        self.change(vec![(place, Some(entry))]);
        Ok(())
    }

    /// Gives the file at `from` the name `to` too, which must be free.
    pub(super) fn link(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let entry = self.get(from)?;
        let place = self.free_place(to)?;
        if matches!(entry, Entry::Directory(_)) {
            return Err(Errno::PERM.into());
        }
        self.change(vec![(place, Some(entry))]);
        Ok(())
    }

    pub(super) fn create_directory(&mut self, path: &Path) -> io::Result<()> {
        let id = DirectoryId(self.directories.len() as u64);
        self.directories.insert(id, Directory::default());
        self.create(path, Entry::Directory(id))
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        self.file(path)?;
        let place = self.place(path)?;
        self.change(vec![(place, None)]);
        Ok(())
    }

    pub(super) fn remove_directory(&mut self, path: &Path) -> io::Result<()> {
        let id = self.directory(path)?;
        if !self.entries(id).is_empty() {
            return Err(Errno::NOTEMPTY.into());
        }
        let place = self.place(path)?;
        self.change(vec![(place, None)]);
        Ok(())
    }

    /// Checks in Linux's order, so that the error is Linux's too.
    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (old, new) = (self.place(from)?, self.place(to)?);
        let entry = self.get(from)?;
        if from != to && to.starts_with(from) {
            return Err(Errno::INVAL.into());
        }
        if from != to && from.starts_with(to) {
            return Err(Errno::NOTEMPTY.into());
        }
        match (&entry, self.entries(new.0).get(&new.1)) {
            (_, None) => {}
            // Two names of one file: POSIX leaves both.
            (Entry::File(inode), Some(Entry::File(there))) if Arc::ptr_eq(inode, there) => return Ok(()),
            (Entry::File(_), Some(Entry::File(_))) => {}
            (Entry::File(_), Some(Entry::Directory(_))) => return Err(Errno::ISDIR.into()),
            (Entry::Directory(_), Some(Entry::File(_))) => return Err(Errno::NOTDIR.into()),
            (Entry::Directory(id), Some(Entry::Directory(there))) if id == there => return Ok(()),
            (Entry::Directory(_), Some(Entry::Directory(there))) if self.entries(*there).is_empty() => {}
            (Entry::Directory(_), Some(Entry::Directory(_))) => return Err(Errno::NOTEMPTY.into()),
        }
        self.change(vec![(old, None), (new, Some(entry))]);
        Ok(())
    }

    /// Makes the names in `directory` durable.
    pub(super) fn sync(&mut self, directory: DirectoryId) {
        self.persist(|_, change| change.iter().any(|((parent, _), _)| *parent == directory));
    }

    /// The names that are on the disk when power comes back, and their files.
    pub(super) fn cut(&self, random: &mut SplitMix64, used: &Arc<AtomicU64>) -> Self {
        let survival = Survival::draw(self.pending.len(), random);
        let mut disk = self.clone();
        disk.persist(|place, _| match survival.remains(place, random) {
            Remains::Whole => true,
            Remains::Part => random.coin(),
            Remains::Nothing => false,
        });
        let mut found = Self::default();
        let mut inodes = HashMap::new();
        disk.copy_durable(ROOT, ROOT, &mut found, &mut |inode: &Arc<Inode>| {
            let copy = inodes
                .entry(Arc::as_ptr(inode))
                .or_insert_with(|| Inode::new(inode.content.lock().after_cut(random), used));
            Arc::clone(copy)
        });
        found
    }

    fn copy_durable(
        &self,
        from: DirectoryId,
        to: DirectoryId,
        found: &mut Self,
        copy_inode: &mut dyn FnMut(&Arc<Inode>) -> Arc<Inode>,
    ) {
        for (name, entry) in &self.directories[&from].durable {
            let copy = match entry {
                Entry::File(inode) => Entry::File(copy_inode(inode)),
                Entry::Directory(id) => {
                    let copy = DirectoryId(found.directories.len() as u64);
                    found.directories.insert(copy, Directory::default());
                    self.copy_durable(*id, copy, found, copy_inode);
                    Entry::Directory(copy)
                }
            };
            let directory = found.directories.entry(to).or_default();
            directory.current.insert(name.clone(), copy.clone());
            directory.durable.insert(name.clone(), copy);
        }
    }

    /// Writes to the disk the pending changes that `is_chosen`, asked newest
    /// first, says, and every earlier change of the same names.
    fn persist(&mut self, mut is_chosen: impl FnMut(usize, &NameChange) -> bool) {
        let mut names: HashSet<Place> = HashSet::new();
        let mut chosen = vec![false; self.pending.len()];
        for (index, change) in self.pending.iter().enumerate().rev() {
            if is_chosen(index, change) || change.iter().any(|(place, _)| names.contains(place)) {
                chosen[index] = true;
                names.extend(change.iter().map(|(place, _)| place.clone()));
            }
        }
        let mut chosen = chosen.into_iter();
        let taken: Vec<NameChange> =
            self.pending.extract_if(.., |_| chosen.next().unwrap_or_default()).collect();
        for change in taken {
            self.apply(change, |directory| &mut directory.durable);
        }
    }

    fn change(&mut self, change: NameChange) {
        self.apply(change.clone(), |directory| &mut directory.current);
        self.pending.push(change);
    }

    fn apply(&mut self, change: NameChange, image: impl Fn(&mut Directory) -> &mut Entries) {
        for ((parent, name), entry) in change {
            let entries = image(self.directories.entry(parent).or_default());
            match entry {
                Some(entry) => entries.insert(name, entry),
                None => entries.remove(&name),
            };
        }
    }

    fn entries(&self, directory: DirectoryId) -> &Entries {
        &self.directories[&directory].current
    }

    fn free_place(&self, path: &Path) -> io::Result<Place> {
        let place = self.place(path)?;
        if self.entries(place.0).contains_key(&place.1) { Err(Errno::EXIST.into()) } else { Ok(place) }
    }

    /// Where the name `path` stands; its directory must exist.
    fn place(&self, path: &Path) -> io::Result<Place> {
        let name: &OsStr = path.file_name().ok_or(Errno::EXIST)?;
        let parent = self.directory(path.parent().unwrap_or(Path::new("")))?;
        Ok((parent, name.to_owned()))
    }
}
