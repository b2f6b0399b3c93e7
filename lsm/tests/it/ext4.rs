//! A real power cut: a process writes to an ext4 file system in a file, whose
//! shutdown ioctl then drops whatever the kernel has not written, as a cut would.
//!
//! The process is this test's binary again. It says on its standard output what
//! was acknowledged; after the cut the file system is mounted anew, and all of
//! that must be there, and no batch half.
//!
//! Needs root, loop devices and `mkfs.ext4`; where they are not there it says so
//! on standard error and passes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use lsm::{Engine, KeyRange, Options, TreeFormat, TreeId, WriteBatch};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use vfs::RealFileSystem;

use crate::seeds::seed_factor;

const TREES: [TreeId; 2] = [TreeId(1), TreeId(2)];
const DIR_VARIABLE: &str = "HAYLOFT_TEST_EXT4_DIR";
const EPOCH_VARIABLE: &str = "HAYLOFT_TEST_EXT4_EPOCH";
const CUTS: u64 = 5;
const IMAGE_BYTES: u64 = 256 << 20;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// Small enough that flushes, compactions and new segments come all the time.
fn options() -> Options {
    Options {
        memtable_bytes_max: 256 << 10,
        log_segment_bytes: 64 << 10,
        log_bytes_max: 256 << 10,
        level_bytes_base: 128 << 10,
        level_ratio: 4,
        table_bytes: 32 << 10,
        ..Options::default()
    }
}

fn open(dir: &Path, epoch: u64) -> Engine {
    Engine::open(Arc::new(RealFileSystem), dir, epoch, options()).expect("opens")
}

/// The batch of a number, to the engine and to a map of each tree. Each tree then says the number, too.
fn batch(number: u64, maps: &mut [Map; 2]) -> WriteBatch {
    let mut random = SmallRng::seed_from_u64(number);
    let mut batch = WriteBatch::new();
    for (id, map) in TREES.into_iter().zip(maps) {
        let mut put = |key: &[u8], value: &[u8]| {
            batch.put(id, key, value);
            map.insert(key.to_vec(), value.to_vec());
        };
        put(b"number", &number.to_be_bytes());
        for _ in 0..random.random_range(1..4) {
            let key = format!("{:03}", random.random_range(0..400));
            put(key.as_bytes(), &vec![number.to_le_bytes()[0]; random.random_range(0..1500)]);
        }
        let start = format!("{:03}", random.random_range(0..400));
        if random.random_bool(0.1) {
            let end = format!("{start}~");
            batch.delete_range(id, start.as_bytes(), end.as_bytes());
            map.retain(|key, _| key.as_slice() < start.as_bytes() || key.as_slice() >= end.as_bytes());
        } else {
            batch.delete(id, start.as_bytes());
            map.remove(start.as_bytes());
        }
    }
    batch
}

fn contents(engine: &Engine, id: TreeId) -> Map {
    let Some(tree) = engine.tree(id) else { return Map::new() };
    let mut iter = tree.iter(&engine.snapshot(), KeyRange::default());
    let mut map = Map::new();
    while iter.next().expect("readable") {
        map.insert(iter.key().to_vec(), iter.value().to_vec());
    }
    map
}

/// The number of the last batch that is there. Both trees must be as it left them.
fn verified(engine: &Engine) -> u64 {
    let found = TREES.map(|id| contents(engine, id));
    let number = found[0].get(&b"number"[..]);
    let number = number.map_or(0, |number| u64::from_be_bytes(number[..].try_into().expect("8 bytes")));
    let mut expected: [Map; 2] = Default::default();
    (1..=number).for_each(|number| drop(batch(number, &mut expected)));
    assert!(found == expected, "the trees are not as after batch {number}");
    number
}

/// An ext4 file system in a file, mounted.
struct Disk {
    image: PathBuf,
    mount: PathBuf,
}

impl Disk {
    /// `Err` says what is missing.
    fn new(dir: &Path) -> Result<Self, String> {
        let disk = Self { image: dir.join("image"), mount: dir.join("mount") };
        let image = File::create(&disk.image).and_then(|image| image.set_len(IMAGE_BYTES));
        image.and_then(|()| std::fs::create_dir(&disk.mount)).map_err(|error| error.to_string())?;
        run(Command::new("mkfs.ext4").arg("-qF").arg(&disk.image))?;
        disk.mount()?;
        Ok(disk)
    }

    fn mount(&self) -> Result<(), String> {
        run(Command::new("mount").args(["-o", "loop"]).arg(&self.image).arg(&self.mount))
    }

    fn unmount(&self) -> Result<(), String> {
        run(Command::new("umount").arg(&self.mount))
    }

    /// Drops what was not written, and fails every operation from now on.
    fn cut_power(&self) -> Result<(), String> {
        /// `_IOR('X', 125, u32)` of Linux's `ext4.h`, which xfs has, too.
        const SHUTDOWN: rustix::ioctl::Opcode = 0x8004_587d;
        /// The journal is not flushed.
        const NOLOGFLUSH: u32 = 2;
        let root = File::open(&self.mount).map_err(|error| error.to_string())?;
        #[expect(unsafe_code, reason = "no library has this ioctl")]
        // SAFETY: it reads the 32 bits of flags that it is given a pointer to, and writes nothing.
        let done =
            unsafe { rustix::ioctl::ioctl(&root, rustix::ioctl::Setter::<SHUTDOWN, u32>::new(NOLOGFLUSH)) };
        done.map_err(|errno| errno.to_string())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // It is not mounted where that failed.
        _ = run(Command::new("umount").args(["-q", "-l"]).arg(&self.mount));
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {}", said.trim())) }
}

/// Lets a process write until it has acknowledged `count` batches, cuts the power, and returns how many it had.
fn write_and_cut(disk: &Disk, epoch: u64, count: u64) -> Result<u64, String> {
    let mut writer = Command::new(std::env::current_exe().expect("it runs"))
        .args(["--exact", "ext4::writes_until_the_power_goes", "--ignored", "--nocapture"])
        .env(DIR_VARIABLE, disk.mount.join("engine"))
        .env(EPOCH_VARIABLE, epoch.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it runs again");
    let mut last = 0;
    let mut acknowledged = 0;
    let mut is_cut = Ok(());
    for line in BufReader::new(writer.stdout.take().expect("piped")).lines() {
        let line = line.expect("readable");
        let Some(number) = line.strip_prefix("acknowledged ") else { continue };
        last = number.parse().expect("a number");
        acknowledged += 1;
        if acknowledged == count {
            is_cut = disk.cut_power();
            // It cannot write any more, and might wait for ever. What it has said can still be read.
            writer.kill().expect("it is ours");
        }
    }
    writer.wait().expect("it is ours");
    is_cut?;
    assert!(acknowledged >= count, "the writer stopped before the power went");
    Ok(last)
}

#[test]
fn nothing_acknowledged_is_lost_by_power_cuts_on_ext4() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let skipped = |reason: String| {
        // Past the test harness, which would keep it to itself, and at the beginning of a line.
        writeln!(std::io::stderr(), "\nskipped power cuts on ext4: {reason}").expect("somebody listens");
    };
    let disk = match Disk::new(dir.path()) {
        Ok(disk) => disk,
        Err(reason) => return skipped(reason),
    };
    let mut random = SmallRng::seed_from_u64(1);
    for cut in 0..CUTS * seed_factor().min(20) {
        let acknowledged = match write_and_cut(&disk, 2 * cut + 1, random.random_range(1..600)) {
            Ok(acknowledged) => acknowledged,
            Err(reason) if cut == 0 => return skipped(reason),
            Err(reason) => panic!("cut {cut}: {reason}"),
        };
        disk.unmount().and_then(|()| disk.mount()).expect("it is mounted again");
        let engine = open(&disk.mount.join("engine"), 2 * cut + 2);
        let found = verified(&engine);
        println!("cut {cut}: {acknowledged} batches acknowledged, {found} found");
        assert!(found >= acknowledged, "cut {cut}: {found} batches are there, {acknowledged} acknowledged");
    }
}

#[test]
#[ignore = "the test above runs it in a process of its own"]
fn writes_until_the_power_goes() {
    let Ok(dir) = std::env::var(DIR_VARIABLE) else { return };
    let epoch = std::env::var(EPOCH_VARIABLE).expect("given").parse().expect("a number");
    let engine = open(Path::new(&dir), epoch);
    for id in TREES {
        if engine.tree(id).is_none() {
            engine.create_tree(id, TreeFormat::default()).expect("created");
        }
    }
    let mut maps = Default::default();
    for number in verified(&engine) + 1.. {
        let commit = engine.write(batch(number, &mut maps)).expect("the power is on");
        // Some are acknowledged from the sync thread, out of step with what is written.
        if number.is_multiple_of(3) {
            commit.wait().expect("the power is on");
            println!("acknowledged {number}");
        } else {
            commit.on_durable(move |outcome| {
                if outcome.is_ok() {
                    println!("acknowledged {number}");
                }
            });
        }
    }
}
