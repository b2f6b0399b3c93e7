//! What every file system promises, asked of each.

use std::io::{ErrorKind, IoSlice};
use std::path::{Path, PathBuf};

use vfs::{Access, File, FileSystem, RealFileSystem, SimulatedFileSystem};

/// Runs each promise over the real and over the simulated file system.
macro_rules! promises {
    ($($name:ident),* $(,)?) => {
        mod real {
            $(#[test]
            fn $name() {
                let dir = tempfile::tempdir().unwrap();
                super::$name(&super::RealFileSystem, dir.path());
            })*
        }
        mod simulated {
            $(#[test]
            fn $name() {
                super::$name(&super::SimulatedFileSystem::new(), std::path::Path::new("/"));
            })*
        }
    };
}

promises!(
    creating_twice_is_refused_and_leaves_the_first,
    slices_are_written_one_after_the_other,
    more_slices_than_one_call_takes_are_written,
    writing_past_the_end_leaves_zeros,
    reading_past_the_end_is_an_error,
    a_read_only_handle_refuses_to_write,
    lengths_are_set_both_ways,
    reserved_space_does_not_count_as_length,
    a_map_is_the_whole_file,
    rename_replaces,
    a_link_is_a_second_name,
    names_are_listed_in_order_without_their_directory,
    directories_come_with_their_ancestors_and_go_when_empty,
    a_file_outlives_its_name,
    a_lock_excludes_until_it_is_dropped,
    the_wrong_kind_of_name_is_an_error,
    space_is_measured,
);

pub(crate) fn write(file: &dyn File, bytes: &[u8], offset: u64) -> vfs::Result<()> {
    file.write_all_at(&[IoSlice::new(bytes)], offset)
}

pub(crate) fn content(fs: &dyn FileSystem, path: &Path) -> vfs::Result<Vec<u8>> {
    let file = fs.open(path, Access::Read)?;
    let mut bytes = vec![0; usize::try_from(file.len()?).unwrap()];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn make(fs: &dyn FileSystem, path: &Path, bytes: &[u8]) {
    write(&*fs.create(path).unwrap(), bytes, 0).unwrap();
}

#[track_caller]
fn refused<T>(outcome: vfs::Result<T>, kind: ErrorKind) {
    match outcome {
        Ok(_) => panic!("it succeeded"),
        Err(error) => assert_eq!(error.kind(), kind, "{error}: {}", error.source),
    }
}

fn creating_twice_is_refused_and_leaves_the_first(fs: &dyn FileSystem, dir: &Path) {
    let path = dir.join("a");
    make(fs, &path, b"first");
    refused(fs.create(&path), ErrorKind::AlreadyExists);
    refused(fs.create(dir), ErrorKind::AlreadyExists);
    assert_eq!(content(fs, &path).unwrap(), b"first");
}

fn slices_are_written_one_after_the_other(fs: &dyn FileSystem, dir: &Path) {
    let path = dir.join("a");
    let file = fs.create(&path).unwrap();
    let slices = [&b""[..], b"hay", b"", b"lo", b"ft", b""].map(IoSlice::new);
    file.write_all_at(&slices, 2).unwrap();
    file.write_all_at(&[], 100).unwrap();
    assert_eq!(content(fs, &path).unwrap(), b"\0\0hayloft");
}

fn more_slices_than_one_call_takes_are_written(fs: &dyn FileSystem, dir: &Path) {
    let path = dir.join("a");
    let bytes: Vec<u8> = (0..=255).cycle().take(5000).collect();
    let slices: Vec<IoSlice<'_>> = bytes.chunks(2).map(IoSlice::new).collect();
    fs.create(&path).unwrap().write_all_at(&slices, 0).unwrap();
    assert_eq!(content(fs, &path).unwrap(), bytes);
}

fn writing_past_the_end_leaves_zeros(fs: &dyn FileSystem, dir: &Path) {
    let path = dir.join("a");
    let file = fs.create(&path).unwrap();
    write(&*file, b"end", 4).unwrap();
    write(&*file, b"b", 0).unwrap();
    assert_eq!(content(fs, &path).unwrap(), b"b\0\0\0end");
}

fn reading_past_the_end_is_an_error(fs: &dyn FileSystem, dir: &Path) {
    let path = dir.join("a");
    make(fs, &path, b"four");
    let file = fs.open(&path, Access::Read).unwrap();
    let mut buffer = [0; 3];
    refused(file.read_exact_at(&mut buffer, 2), ErrorKind::UnexpectedEof);
    refused(file.read_exact_at(&mut buffer, 1000), ErrorKind::UnexpectedEof);
    file.read_exact_at(&mut [], 1000).unwrap();
    file.read_exact_at(&mut buffer, 1).unwrap();
    assert_eq!(&buffer, b"our");
    // Some file systems cannot tell what is in memory.
    if file.try_read_exact_at(&mut buffer, 0).unwrap() {
        assert_eq!(&buffer, b"fou");
        refused(file.try_read_exact_at(&mut buffer, 2), ErrorKind::UnexpectedEof);
    }
}

fn a_read_only_handle_refuses_to_write(fs: &dyn FileSystem, dir: &Path) {
    let path = dir.join("a");
    make(fs, &path, b"kept");
    let file = fs.open(&path, Access::Read).unwrap();
    assert!(write(&*file, b"lost", 0).is_err());
    assert!(file.set_len(0).is_err());
    assert!(file.allocate(0, 9).is_err());
    file.sync().unwrap();
    assert_eq!(content(fs, &path).unwrap(), b"kept");
    let file = fs.open(&path, Access::ReadWrite).unwrap();
    write(&*file, b"new", 0).unwrap();
    assert_eq!(content(fs, &path).unwrap(), b"newt");
}

fn lengths_are_set_both_ways(fs: &dyn FileSystem, dir: &Path) {
    let path = dir.join("a");
    let file = fs.create(&path).unwrap();
    assert!(file.is_empty().unwrap());
    write(&*file, b"four", 0).unwrap();
    file.set_len(2).unwrap();
    file.set_len(5).unwrap();
    assert_eq!(content(fs, &path).unwrap(), b"fo\0\0\0");
    assert_eq!(file.len().unwrap(), 5);
}

fn reserved_space_does_not_count_as_length(fs: &dyn FileSystem, dir: &Path) {
    let path = dir.join("a");
    let file = fs.create(&path).unwrap();
    write(&*file, b"four", 0).unwrap();
    file.allocate(0, 1 << 16).unwrap();
    file.allocate(7, 0).unwrap();
    assert_eq!(content(fs, &path).unwrap(), b"four");
}

fn a_map_is_the_whole_file(fs: &dyn FileSystem, dir: &Path) {
    let path = dir.join("a");
    let file = fs.create(&path).unwrap();
    assert!(file.map().unwrap().is_empty());
    write(&*file, &[7; 10_000], 0).unwrap();
    let map = file.map().unwrap();
    drop(file);
    fs.remove(&path).unwrap();
    assert_eq!(map, vec![7; 10_000]);
}

fn rename_replaces(fs: &dyn FileSystem, dir: &Path) {
    let (a, b) = (dir.join("a"), dir.join("b"));
    make(fs, &a, b"a");
    make(fs, &b, b"b");
    fs.rename(&a, &b).unwrap();
    assert!(!fs.exists(&a).unwrap());
    assert_eq!(content(fs, &b).unwrap(), b"a");
    refused(fs.rename(&a, &b), ErrorKind::NotFound);
    refused(fs.rename(&b, &dir.join("none/b")), ErrorKind::NotFound);
}

fn a_link_is_a_second_name(fs: &dyn FileSystem, dir: &Path) {
    let (a, b) = (dir.join("a"), dir.join("b"));
    make(fs, &a, b"one");
    fs.hard_link(&a, &b).unwrap();
    refused(fs.hard_link(&a, &b), ErrorKind::AlreadyExists);
    write(&*fs.open(&b, Access::ReadWrite).unwrap(), b"two", 0).unwrap();
    fs.rename(&a, &b).unwrap();
    assert!(fs.exists(&a).unwrap(), "two names of one file stay two");
    fs.remove(&a).unwrap();
    assert_eq!(content(fs, &b).unwrap(), b"two");
}

fn names_are_listed_in_order_without_their_directory(fs: &dyn FileSystem, dir: &Path) {
    for name in ["b", "B", "a.1", "a"] {
        fs.create(&dir.join(name)).unwrap();
    }
    fs.create_dir_all(&dir.join("a-dir")).unwrap();
    assert_eq!(fs.list(dir).unwrap(), ["B", "a", "a-dir", "a.1", "b"].map(PathBuf::from));
    refused(fs.list(&dir.join("none")), ErrorKind::NotFound);
}

fn directories_come_with_their_ancestors_and_go_when_empty(fs: &dyn FileSystem, dir: &Path) {
    let deep = dir.join("a/b/c");
    fs.create_dir_all(&deep).unwrap();
    fs.create_dir_all(&deep).unwrap();
    make(fs, &deep.join("file"), b"");
    fs.sync_dir(&deep).unwrap();
    refused(fs.create_dir_all(&deep.join("file")), ErrorKind::NotADirectory);
    refused(fs.create_dir_all(&deep.join("file/d")), ErrorKind::NotADirectory);
    refused(fs.remove_dir(&deep), ErrorKind::DirectoryNotEmpty);
    fs.remove(&deep.join("file")).unwrap();
    fs.remove_dir(&deep).unwrap();
    refused(fs.remove_dir(&deep), ErrorKind::NotFound);
    assert!(!fs.exists(&deep).unwrap());
    assert!(fs.exists(&dir.join("a/b")).unwrap());
}

fn a_file_outlives_its_name(fs: &dyn FileSystem, dir: &Path) {
    let path = dir.join("a");
    let file = fs.create(&path).unwrap();
    fs.remove(&path).unwrap();
    refused(fs.remove(&path), ErrorKind::NotFound);
    write(&*file, b"still here", 0).unwrap();
    assert_eq!(file.len().unwrap(), 10);
}

fn a_lock_excludes_until_it_is_dropped(fs: &dyn FileSystem, dir: &Path) {
    let path = dir.join("LOCK");
    let held = fs.lock(&path).unwrap();
    refused(fs.lock(&path), ErrorKind::WouldBlock);
    drop(held);
    drop(fs.lock(&path).unwrap());
    assert!(fs.exists(&path).unwrap());
}

fn the_wrong_kind_of_name_is_an_error(fs: &dyn FileSystem, dir: &Path) {
    let (file, sub) = (dir.join("file"), dir.join("sub"));
    make(fs, &file, b"");
    fs.create_dir_all(&sub).unwrap();
    refused(fs.open(&dir.join("none"), Access::Read), ErrorKind::NotFound);
    refused(fs.open(&sub, Access::Read), ErrorKind::IsADirectory);
    refused(fs.open(&sub, Access::ReadWrite), ErrorKind::IsADirectory);
    refused(fs.remove(&sub), ErrorKind::IsADirectory);
    refused(fs.remove_dir(&file), ErrorKind::NotADirectory);
    refused(fs.list(&file), ErrorKind::NotADirectory);
    refused(fs.sync_dir(&file), ErrorKind::NotADirectory);
    refused(fs.rename(&file, &sub), ErrorKind::IsADirectory);
    refused(fs.rename(&sub, &file), ErrorKind::NotADirectory);
    refused(fs.rename(&sub, &sub.join("below")), ErrorKind::InvalidInput);
    refused(fs.hard_link(&sub, &dir.join("link")), ErrorKind::PermissionDenied);
    refused(fs.exists(&file.join("below")), ErrorKind::NotADirectory);
    refused(fs.create(&file.join("below")), ErrorKind::NotADirectory);
    refused(fs.create(&dir.join("none/below")), ErrorKind::NotFound);
}

fn space_is_measured(fs: &dyn FileSystem, dir: &Path) {
    assert!(fs.available_bytes(dir).unwrap() > 0);
    refused(fs.available_bytes(&dir.join("none")), ErrorKind::NotFound);
}
