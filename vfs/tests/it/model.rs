//! Without faults, the simulation is the real thing.

use std::io::{ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use vfs::{Access, File, FileSystem, RealFileSystem, SimulatedFileSystem};

/// Names are small numbers: the same few again and again.
#[derive(Clone, Debug)]
enum Step {
    CreateDirAll(u8),
    Create(u8),
    Open(u8, bool),
    Rename(u8, u8),
    HardLink(u8, u8),
    Remove(u8),
    RemoveDir(u8),
    List(u8),
    SyncDir(u8),
    Write(usize, Vec<u8>, u64),
    Read(usize, usize, u64),
    SetLen(usize, u64),
    Allocate(usize, u64, u64),
    Map(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let (name, handle) = (0..8_u8, 0..4_usize);
    let bytes = proptest::collection::vec(any::<u8>(), 0..40);
    prop_oneof![
        name.clone().prop_map(Step::CreateDirAll),
        name.clone().prop_map(Step::Create),
        (name.clone(), any::<bool>()).prop_map(|(name, write)| Step::Open(name, write)),
        (name.clone(), name.clone()).prop_map(|(from, to)| Step::Rename(from, to)),
        (name.clone(), name.clone()).prop_map(|(from, to)| Step::HardLink(from, to)),
        name.clone().prop_map(Step::Remove),
        name.clone().prop_map(Step::RemoveDir),
        name.clone().prop_map(Step::List),
        name.prop_map(Step::SyncDir),
        (handle.clone(), bytes, 0..100_u64).prop_map(|(file, bytes, at)| Step::Write(file, bytes, at)),
        (handle.clone(), 0..50_usize, 0..100_u64).prop_map(|(file, len, at)| Step::Read(file, len, at)),
        (handle.clone(), 0..100_u64).prop_map(|(file, len)| Step::SetLen(file, len)),
        (handle.clone(), 0..100_u64, 0..100_u64).prop_map(|(file, at, len)| Step::Allocate(file, at, len)),
        handle.prop_map(Step::Map),
    ]
}

/// Two directories below the first, files in each, and paths through files.
fn path(base: &Path, name: u8) -> PathBuf {
    base.join(["a", "b", "dir", "dir/a", "dir/b", "dir/dir", "dir/dir/a", "a/below"][usize::from(name)])
}

/// One file system and the files open on it.
struct Side<'a> {
    fs: &'a dyn FileSystem,
    base: &'a Path,
    files: Vec<Arc<dyn File>>,
}

/// What a step gave: bytes, or the kind of its failure.
type Outcome = Result<Vec<u8>, ErrorKind>;

impl Side<'_> {
    fn take(&mut self, step: &Step) -> Outcome {
        self.try_take(step).map_err(|error| error.kind())
    }

    fn try_take(&mut self, step: &Step) -> vfs::Result<Vec<u8>> {
        let at = |name: &u8| path(self.base, *name);
        let nothing = |()| Vec::new();
        match step {
            Step::CreateDirAll(name) => self.fs.create_dir_all(&at(name)).map(nothing),
            Step::Create(name) => {
                let file = self.fs.create(&at(name))?;
                self.keep(file);
                Ok(Vec::new())
            }
            Step::Open(name, write) => {
                let access = if *write { Access::ReadWrite } else { Access::Read };
                let file = self.fs.open(&at(name), access)?;
                self.keep(file);
                Ok(Vec::new())
            }
            Step::Rename(from, to) => self.fs.rename(&at(from), &at(to)).map(nothing),
            Step::HardLink(from, to) => self.fs.hard_link(&at(from), &at(to)).map(nothing),
            Step::Remove(name) => self.fs.remove(&at(name)).map(nothing),
            Step::RemoveDir(name) => self.fs.remove_dir(&at(name)).map(nothing),
            Step::List(name) => Ok(format!("{:?}", self.fs.list(&at(name))?).into_bytes()),
            Step::SyncDir(name) => self.fs.sync_dir(&at(name)).map(nothing),
            Step::Write(file, bytes, offset) => self.on(*file, |file| {
                let (first, second) = bytes.split_at(bytes.len() / 3);
                file.write_all_at(&[IoSlice::new(first), IoSlice::new(second)], *offset).map(nothing)
            }),
            Step::Read(file, len, offset) => self.on(*file, |file| {
                let mut buffer = vec![0; *len];
                file.read_exact_at(&mut buffer, *offset).map(|()| buffer)
            }),
            Step::SetLen(file, len) => self.on(*file, |file| file.set_len(*len).map(nothing)),
            Step::Allocate(file, offset, len) => {
                self.on(*file, |file| file.allocate(*offset, *len).map(nothing))
            }
            Step::Map(file) => self.on(*file, |file| Ok(file.map()?.to_vec())),
        }
    }

    /// Keeps the last few files open.
    fn keep(&mut self, file: Arc<dyn File>) {
        self.files.insert(0, file);
        self.files.truncate(4);
    }

    fn on(&self, file: usize, act: impl FnOnce(&dyn File) -> vfs::Result<Vec<u8>>) -> vfs::Result<Vec<u8>> {
        self.files.get(file).map_or(Ok(Vec::new()), |file| act(&**file))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_simulation_does_what_the_real_one_does(steps in proptest::collection::vec(step(), 1..80)) {
        let dir = tempfile::tempdir().unwrap();
        let simulated = SimulatedFileSystem::new();
        let mut real = Side { fs: &RealFileSystem, base: dir.path(), files: Vec::new() };
        let mut simulated = Side { fs: &simulated, base: Path::new("/"), files: Vec::new() };
        for (number, step) in steps.iter().enumerate() {
            prop_assert_eq!(simulated.take(step), real.take(step), "step {}: {:?}", number, step);
        }
    }
}
