//! What is left when power goes.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use vfs::simulated::FaultPlan;
use vfs::{Access, FileSystem, SimulatedFileSystem};

use crate::promises::{content, write};

const SEEDS: std::ops::Range<u64> = 0..300;

/// What a file holds, or that it is not there.
fn found(fs: &SimulatedFileSystem, path: &str) -> Option<Vec<u8>> {
    let path = Path::new(path);
    fs.exists(path).unwrap().then(|| content(fs, path).unwrap())
}

/// The different outcomes of `look` over many cuts of `fs`.
fn outcomes<T: Ord>(fs: &SimulatedFileSystem, look: impl Fn(&SimulatedFileSystem) -> T) -> BTreeSet<T> {
    SEEDS.map(|seed| look(&fs.power_cut(seed))).collect()
}

#[test]
fn what_was_synced_stays() {
    let fs = SimulatedFileSystem::new();
    fs.create_dir_all(Path::new("/data/tables")).unwrap();
    let file = fs.create(Path::new("/data/tables/1")).unwrap();
    write(&*file, b"synced", 0).unwrap();
    file.sync().unwrap();
    fs.sync_dir(Path::new("/data/tables")).unwrap();
    assert_eq!(outcomes(&fs, |fs| found(fs, "/data/tables/1")), [Some(b"synced".to_vec())].into());
}

#[test]
fn a_synced_file_needs_a_synced_name() {
    let fs = SimulatedFileSystem::new();
    let file = fs.create(Path::new("/a")).unwrap();
    write(&*file, b"synced", 0).unwrap();
    file.sync().unwrap();
    assert_eq!(outcomes(&fs, |fs| found(fs, "/a")), [None, Some(b"synced".to_vec())].into());
}

#[test]
fn unsynced_writes_are_kept_lost_or_torn_each_for_itself() {
    let fs = SimulatedFileSystem::new();
    let file = fs.create(Path::new("/a")).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    write(&*file, b"11", 0).unwrap();
    write(&*file, b"22", 2).unwrap();
    let outcomes = outcomes(&fs, |fs| found(fs, "/a").unwrap());
    for expected in [&b""[..], b"1", b"11", b"112", b"1122", b"\0\0" /* only its length */, b"\0\x0022"] {
        assert!(outcomes.contains(expected), "{expected:?} is not among {outcomes:?}");
    }
}

#[test]
fn a_rename_happens_whole_or_not_at_all() {
    let fs = SimulatedFileSystem::new();
    for (name, bytes) in [("/new", b"new"), ("/current", b"old")] {
        let file = fs.create(Path::new(name)).unwrap();
        write(&*file, bytes, 0).unwrap();
        file.sync().unwrap();
    }
    fs.sync_dir(Path::new("/")).unwrap();
    fs.rename(Path::new("/new"), Path::new("/current")).unwrap();
    let before = (Some(b"new".to_vec()), Some(b"old".to_vec()));
    let after = (None, Some(b"new".to_vec()));
    assert_eq!(outcomes(&fs, |fs| (found(fs, "/new"), found(fs, "/current"))), [before, after].into());
}

#[test]
fn names_of_one_directory_survive_each_for_itself() {
    let fs = SimulatedFileSystem::new();
    for name in ["/a", "/b"] {
        fs.create(Path::new(name)).unwrap();
    }
    let there = |fs: &SimulatedFileSystem| [found(fs, "/a").is_some(), found(fs, "/b").is_some()];
    assert_eq!(outcomes(&fs, there).len(), 4);
}

#[test]
fn a_later_change_of_a_name_implies_the_earlier() {
    let fs = SimulatedFileSystem::new();
    let file = fs.create(Path::new("/a")).unwrap();
    write(&*file, b"first", 0).unwrap();
    file.sync().unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    fs.rename(Path::new("/a"), Path::new("/b")).unwrap();
    fs.create(Path::new("/a")).unwrap();
    let first_is_somewhere =
        |fs: &SimulatedFileSystem| [found(fs, "/a"), found(fs, "/b")].contains(&Some(b"first".to_vec()));
    assert_eq!(outcomes(&fs, first_is_somewhere), [true].into());
}

#[test]
fn links_share_one_file_afterwards_too() {
    let fs = SimulatedFileSystem::new();
    fs.create(Path::new("/a")).unwrap();
    fs.hard_link(Path::new("/a"), Path::new("/b")).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    let after = fs.power_cut(1);
    write(&*after.open(Path::new("/a"), Access::ReadWrite).unwrap(), b"x", 0).unwrap();
    assert_eq!(found(&after, "/b").unwrap(), b"x");
}

#[test]
fn everything_of_before_fails_and_its_locks_are_free() {
    let fs = SimulatedFileSystem::new();
    let file = fs.create(Path::new("/a")).unwrap();
    let lock = fs.lock(Path::new("/LOCK")).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    let after = fs.power_cut(1);
    assert!(write(&*file, b"x", 0).is_err());
    assert!(file.sync().is_err());
    assert!(file.read_exact_at(&mut [], 0).is_err());
    assert!(file.len().is_err());
    assert!(fs.exists(Path::new("/a")).is_err());
    assert!(fs.create(Path::new("/b")).is_err());
    let taken = after.lock(Path::new("/LOCK")).unwrap();
    drop(lock);
    assert!(after.lock(Path::new("/LOCK")).is_err(), "the dead holder let go of a lock not its own");
    drop(taken);
}

#[test]
fn every_operation_is_a_point_at_which_power_can_go() {
    // The old or the new content, whole, wherever the cut; new once it was answered.
    let publish = |fs: &SimulatedFileSystem| -> vfs::Result<()> {
        let file = fs.create(Path::new("/next"))?;
        write(&*file, b"new", 0)?;
        file.sync()?;
        fs.rename(Path::new("/next"), Path::new("/current"))?;
        fs.sync_dir(Path::new("/"))
    };
    let begin = || {
        let fs = SimulatedFileSystem::new();
        let file = fs.create(Path::new("/current")).unwrap();
        write(&*file, b"old", 0).unwrap();
        file.sync().unwrap();
        fs.sync_dir(Path::new("/")).unwrap();
        fs
    };
    let fs = begin();
    let first = fs.operation_count();
    publish(&fs).unwrap();
    let end = fs.operation_count();
    assert_eq!(end - first, 5);
    for cut_at in first..=end {
        let fs = begin();
        fs.set_faults(FaultPlan { cut_at: Some(cut_at), ..FaultPlan::default() });
        assert_eq!(publish(&fs).is_ok(), cut_at == end);
        let outcomes = outcomes(&fs, |fs| found(fs, "/current").unwrap());
        let old_or_new = [b"new".to_vec(), b"old".to_vec()].into();
        let expected = match cut_at - first {
            0..3 => [b"old".to_vec()].into(),
            3..5 => old_or_new,
            _ => [b"new".to_vec()].into(),
        };
        assert_eq!(outcomes, expected, "cut {cut_at}");
    }
}

#[test]
fn one_seed_is_one_outcome() {
    let build = || {
        let fs = SimulatedFileSystem::new();
        for number in 0..20 {
            let file = fs.create(Path::new(&format!("/{number}"))).unwrap();
            write(&*file, &[number; 3000], 0).unwrap();
        }
        fs
    };
    let look = |fs: &SimulatedFileSystem| -> Vec<_> {
        fs.list(Path::new("/")).unwrap().into_iter().map(|name| (content(fs, &name).unwrap(), name)).collect()
    };
    for seed in 0..20 {
        assert_eq!(look(&build().power_cut(seed)), look(&build().power_cut(seed)), "seed {seed}");
    }
}

#[test]
fn what_was_answered_while_power_went_is_there() {
    // How far each thread gets is up to the scheduler; what it was told must hold all the same.
    for seed in 0..20 {
        let fs = SimulatedFileSystem::new();
        let paths = ["/0", "/1", "/2"].map(Path::new);
        let files = paths.map(|path| fs.create(path).unwrap());
        fs.sync_dir(Path::new("/")).unwrap();
        let (after, answered) = std::thread::scope(|scope| {
            let writers = files.map(|file| {
                scope.spawn(move || {
                    let append = |offset| write(&*file, &[1; 100], offset).and_then(|()| file.sync());
                    (0..).step_by(100).find(|offset| append(*offset).is_err()).unwrap()
                })
            });
            while fs.operation_count() < 100 * (seed + 1) {
                std::thread::yield_now();
            }
            (fs.power_cut(seed), writers.map(|writer| writer.join().unwrap()))
        });
        for (path, answered) in paths.into_iter().zip(answered) {
            let content = content(&after, path).unwrap();
            let answered = usize::try_from(answered).unwrap();
            assert!(content.len() >= answered && content[..answered].iter().all(|byte| *byte == 1));
        }
    }
}

#[test]
fn who_watches_sees_what_a_cut_before_each_operation_would_leave() {
    let fs = SimulatedFileSystem::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let watched = Arc::clone(&seen);
    fs.watch(move |fs, number| {
        let image = fs.image(number);
        watched.lock().unwrap().push((number, fs.operation_count(), found(&image, "/a")));
    });
    let file = fs.create(Path::new("/a")).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    write(&*file, b"synced", 0).unwrap();
    file.sync().unwrap();
    fs.remove(Path::new("/a")).unwrap();
    let seen = seen.lock().unwrap().clone();
    let numbers: Vec<_> = seen.iter().map(|(number, count, _)| (*number, *count)).collect();
    assert_eq!(numbers, [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4)]);
    assert_eq!((&seen[0].2, &seen[2].2, &seen[4].2), (&None, &Some(Vec::new()), &Some(b"synced".to_vec())));
    assert!(!fs.exists(Path::new("/a")).unwrap(), "the power never went");
}
