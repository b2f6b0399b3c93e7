//! A stop that saves, and the start after it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cache_proxy::{Cache, CacheOptions, Clock, Error};

use crate::house::House;

/// A folder of a test's own, removed with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("hayloft-cache-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("items")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[derive(Debug)]
struct FixedClock(u32);

impl Clock for FixedClock {
    fn now_s(&self) -> u32 {
        self.0
    }
}

const NOW: u32 = 1_000_000_000;

fn cache_at(now: u32) -> Cache {
    Cache::new(CacheOptions::default(), Arc::new(FixedClock(now))).unwrap()
}

/// A house with items, stopped and saved.
fn save(file: &Path, item_count: usize) {
    let house = House::open(CacheOptions::default());
    let mut client = house.client();
    for number in 0..item_count {
        client.ask(format!("set k{number} 7 100 5\r\nv{number:04}\r\n").as_bytes(), b"STORED\r\n");
    }
    client.ask(b"set big 0 0 100000\r\n", b"");
    client.ask(&[vec![b'b'; 100_000], b"\r\n".to_vec()].concat(), b"STORED\r\n");
    client.ask(
        b"set soon 0 5 1\r\nx\r\nset gone 0 0 1\r\nx\r\ndelete gone\r\n",
        b"STORED\r\nSTORED\r\nDELETED\r\n",
    );
    client.ask(b"set old 0 0 1\r\nx\r\nmd old I\r\n", b"STORED\r\nHD\r\n");
    assert!(matches!(house.cache.save(file, b""), Err(Error::Busy { open_count: 1 })));
    assert!(!file.exists());
    drop(client);
    assert!(house.stop());
    assert_eq!(house.cache.save(file, b"from here").unwrap(), item_count as u64 + 3);
}

#[test]
fn what_was_saved_is_there_after_the_restart_once() {
    let folder = Folder::new("restart");
    save(&folder.file(), 1000);
    let house = House::open(CacheOptions::default());
    house.clock.advance(10);
    let loaded = house.cache.load(&folder.file(), |key| key != b"k5").unwrap();
    assert_eq!((loaded.item_count, loaded.saved_at), (999 + 2, NOW));
    assert_eq!(loaded.resume, b"from here");
    let mut client = house.client();
    client.ask(b"get k7 k5 soon gone\r\n", b"VALUE k7 7 5\r\nv0007\r\nEND\r\n");
    client.ask(b"mg k8 t f c v\r\n", b"VA 5 t90 f7 c9\r\nv0008\r\n");
    client.ask(b"mg old v\r\n", b"VA 1 X W\r\nx\r\n");
    client.ask(b"mg big s\r\n", b"HD s100000\r\n");
    // A cas is never given out twice.
    client.ask(b"ms new 1 c\r\nx\r\n", b"HD c1006\r\n");
    assert!(!folder.file().exists());
    assert_eq!(cache_at(NOW).load(&folder.file(), |_| true).unwrap().item_count, 0);
}

#[test]
fn a_delayed_flush_comes_after_the_restart_as_well() {
    let folder = Folder::new("flush");
    let house = House::open(CacheOptions::default());
    let mut client = house.client();
    client
        .ask(b"set k 0 0 1\r\nx\r\nset soon 0 20 1\r\nx\r\nflush_all 50\r\n", b"STORED\r\nSTORED\r\nOK\r\n");
    drop(client);
    assert!(house.stop());
    assert_eq!(house.cache.save(&folder.file(), b"").unwrap(), 2);
    let house = House::open(CacheOptions::default());
    house.clock.advance(20);
    house.cache.load(&folder.file(), |_| true).unwrap();
    let mut client = house.client();
    client.ask(b"get k soon\r\n", b"VALUE k 0 1\r\nx\r\nEND\r\n");
    house.clock.advance(30);
    client.ask(b"get k\r\n", b"END\r\n");
}

#[test]
fn a_file_with_any_byte_wrong_or_missing_loads_nothing() {
    let folder = Folder::new("damage");
    save(&folder.file(), 50);
    let whole = std::fs::read(folder.file()).unwrap();
    let check = |bytes: &[u8], what: &str| {
        std::fs::write(folder.file(), bytes).unwrap();
        let cache = cache_at(NOW);
        assert!(matches!(cache.load(&folder.file(), |_| true), Err(Error::Snapshot { .. })), "{what}");
        assert_eq!(cache.statistics().item_count, 0, "{what}");
        assert!(!folder.file().exists(), "{what}");
    };
    let flips = (0..2500).chain((2500..whole.len()).step_by(997)).chain(whole.len() - 16..whole.len());
    for at in flips {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x40;
        check(&bytes, &format!("byte {at} is wrong"));
    }
    for length in (0..whole.len()).step_by(331) {
        check(&whole[..length], &format!("only {length} bytes are there"));
    }
    std::fs::write(folder.file(), &whole).unwrap();
    assert!(cache_at(NOW - 100).load(&folder.file(), |_| true).is_err(), "the clock went back");
    std::fs::write(folder.file(), &whole).unwrap();
    assert_eq!(cache_at(NOW).load(&folder.file(), |_| true).unwrap().item_count, 53);
}

#[test]
fn the_files_bytes_are_these() {
    let folder = Folder::new("golden");
    let house = House::open(CacheOptions::default());
    let mut client = house.client();
    client.ask(b"set key 5 100 5\r\nvalue\r\nget key\r\nget key\r\n", {
        b"STORED\r\nVALUE key 5 5\r\nvalue\r\nEND\r\nVALUE key 5 5\r\nvalue\r\nEND\r\n"
    });
    drop(client);
    assert!(house.stop());
    house.cache.save(&folder.file(), b"resume").unwrap();
    let bytes = std::fs::read(folder.file()).unwrap();
    let golden = concat!(
        // Header, resume.
        "6861796c74636368",
        "01000000",
        "00ca9a3b",
        "0100000000000000",
        "06000000",
        "4bb1ec79",
        "726573756d65",
        // A block of one item.
        "24000000",
        "9ca8ca81",
        "03080200",
        "05000000",
        "64ca9a3b",
        "00ca9a3b",
        "0100000000000000",
        "05000000",
        "6b6579",
        "76616c7565",
        // The end.
        "00000000",
        "adcf14c5",
        "0100000000000000",
    );
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(text, golden);
}
