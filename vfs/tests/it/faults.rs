//! Failures short of a power cut.

use std::io::ErrorKind;
use std::path::Path;

use vfs::simulated::{FaultPlan, Operation};
use vfs::{FileSystem, SimulatedFileSystem};

use crate::promises::{content, write};

fn plan(fs: &SimulatedFileSystem, change: impl FnOnce(&mut FaultPlan)) {
    let mut plan = FaultPlan::default();
    change(&mut plan);
    fs.set_faults(plan);
}

#[test]
fn each_kind_of_operation_can_fail() {
    let fs = SimulatedFileSystem::new();
    let (a, b) = (Path::new("/a"), Path::new("/b"));
    let file = fs.create(a).unwrap();
    let attempt = |operation| match operation {
        Operation::Read => file.read_exact_at(&mut [], 0).and_then(|()| file.map().map(drop)),
        Operation::Write => write(&*file, b"x", 0).and_then(|()| file.set_len(0)),
        Operation::Sync => file.sync().and_then(|()| fs.sync_dir(Path::new("/"))),
        Operation::Rename => fs.rename(a, b).and_then(|()| fs.rename(b, a)),
        Operation::Create => fs.create(b).map(drop),
        Operation::Remove => fs.remove(b),
    };
    let all = [
        Operation::Read,
        Operation::Write,
        Operation::Sync,
        Operation::Rename,
        Operation::Create,
        Operation::Remove,
    ];
    for operation in all {
        plan(&fs, |plan| plan.failing = vec![operation]);
        assert_eq!(attempt(operation).unwrap_err().source.raw_os_error(), Some(5), "{operation:?}");
        plan(&fs, |_| {});
        attempt(operation).unwrap();
    }
}

#[test]
fn the_operation_of_a_number_fails_once() {
    let fs = SimulatedFileSystem::new();
    let file = fs.create(Path::new("/a")).unwrap();
    plan(&fs, |plan| plan.fail_at = Some(2));
    write(&*file, b"1", 0).unwrap();
    assert!(write(&*file, b"2", 1).is_err());
    write(&*file, b"3", 1).unwrap();
    assert_eq!(content(&fs, Path::new("/a")).unwrap(), b"13");
    assert_eq!(fs.operation_count(), 4);
}

#[test]
fn a_failed_sync_loses_what_readers_still_see() {
    let fs = SimulatedFileSystem::new();
    let file = fs.create(Path::new("/a")).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    write(&*file, b"lost", 0).unwrap();
    plan(&fs, |plan| plan.failing = vec![Operation::Sync]);
    assert!(file.sync().is_err());
    plan(&fs, |_| {});
    file.sync().unwrap();
    assert_eq!(content(&fs, Path::new("/a")).unwrap(), b"lost");
    for seed in 0..100 {
        assert_eq!(content(&fs.power_cut(seed), Path::new("/a")).unwrap(), b"", "seed {seed}");
    }
}

#[test]
fn what_a_failed_sync_left_in_memory_can_be_synced_anew() {
    let fs = SimulatedFileSystem::new();
    let file = fs.create(Path::new("/a")).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    let bytes = vec![7; (2 << 20) + 5];
    write(&*file, &bytes, 0).unwrap();
    plan(&fs, |plan| plan.failing = vec![Operation::Sync]);
    assert!(file.sync().is_err());
    assert!(file.sync_anew().is_err());
    plan(&fs, |_| {});
    file.sync_anew().unwrap();
    for seed in 0..10 {
        assert!(content(&fs.power_cut(seed), Path::new("/a")).unwrap() == bytes, "seed {seed}");
    }
}

#[test]
fn a_full_disk_takes_what_fits_and_room_comes_back() {
    let fs = SimulatedFileSystem::new();
    plan(&fs, |plan| plan.capacity_bytes = Some(10));
    let first = fs.create(Path::new("/a")).unwrap();
    write(&*first, b"123456", 0).unwrap();
    let second = fs.create(Path::new("/b")).unwrap();
    assert_eq!(write(&*second, b"123456", 0).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(content(&fs, Path::new("/b")).unwrap(), b"1234");
    assert_eq!(fs.available_bytes(Path::new("/")).unwrap(), 0);
    write(&*first, b"over", 0).unwrap();
    assert_eq!(second.allocate(0, 5).unwrap_err().kind(), ErrorKind::StorageFull);
    fs.remove(Path::new("/a")).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    assert_eq!(fs.available_bytes(Path::new("/")).unwrap(), 0, "it is still open");
    drop(first);
    assert_eq!(fs.available_bytes(Path::new("/")).unwrap(), 6);
    second.set_len(1).unwrap();
    assert_eq!(fs.available_bytes(Path::new("/")).unwrap(), 9);
}

#[test]
fn reserved_space_is_there_when_the_disk_is_full() {
    let fs = SimulatedFileSystem::new();
    plan(&fs, |plan| plan.capacity_bytes = Some(10));
    let log = fs.create(Path::new("/log")).unwrap();
    log.allocate(0, 8).unwrap();
    let other = fs.create(Path::new("/other")).unwrap();
    assert!(write(&*other, b"123", 0).is_err());
    write(&*log, b"12345678", 0).unwrap();
    assert!(write(&*log, b"9", 8).is_err());
}

#[test]
fn a_bit_rots_in_memory_and_on_the_disk() {
    let fs = SimulatedFileSystem::new();
    let file = fs.create(Path::new("/a")).unwrap();
    write(&*file, &[0; 4], 0).unwrap();
    file.sync().unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    fs.flip_bit(Path::new("/a"), 2, 7);
    assert_eq!(content(&fs, Path::new("/a")).unwrap(), [0, 0, 128, 0]);
    assert_eq!(content(&fs.power_cut(0), Path::new("/a")).unwrap(), [0, 0, 128, 0]);
}

#[test]
fn a_cold_disk_answers_nothing_from_memory() {
    let fs = SimulatedFileSystem::new();
    let file = fs.create(Path::new("/a")).unwrap();
    write(&*file, b"x", 0).unwrap();
    plan(&fs, |plan| plan.cold = true);
    let mut buffer = [0];
    assert!(!file.try_read_exact_at(&mut buffer, 0).unwrap());
    file.read_exact_at(&mut buffer, 0).unwrap();
    assert_eq!(&buffer, b"x");
}

#[test]
fn evicted_pages_have_to_be_waited_for_until_they_are_read() {
    let fs = SimulatedFileSystem::new();
    let path = Path::new("/a");
    let file = fs.create(path).unwrap();
    write(&*file, &[7; 20_000], 0).unwrap();
    let mut buffer = [0; 10];
    let mut is_in_memory = |offset| file.try_read_exact_at(&mut buffer, offset).unwrap();
    assert!(is_in_memory(0));
    fs.evict(path, 5000..9000);
    assert!(is_in_memory(4086) && !is_in_memory(4087) && !is_in_memory(12_280) && is_in_memory(12_288));
    file.read_exact_at(&mut [0; 2], 4095).unwrap();
    assert!(is_in_memory(8182) && !is_in_memory(8183));
    write(&*file, b"x", 8192).unwrap();
    assert!(is_in_memory(8183));
    fs.evict(path, 0..u64::from(u32::MAX));
    assert!(!is_in_memory(0) && !is_in_memory(19_000));
}
