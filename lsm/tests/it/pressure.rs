//! What the engine takes and how long writes wait while it is under load, printed:
//! `cargo test --release -p lsm --test it -- --ignored --nocapture pressure`.
//!
//! Anonymous memory is `RssAnon` of this process, sampled; run one test at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lsm::{Engine, KeyRange, Options, Tree, TreeFormat, TreeId, WriteBatch};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use vfs::RealFileSystem;

const TREE: TreeId = TreeId(1);
const ENTRIES: u32 = 5_000_000;

/// Anonymous memory of this process now, bytes.
fn anonymous_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("a line for anonymous memory");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") << 10
}

/// Runs `run` and prints its time and the most anonymous memory it took.
fn watched(what: &str, engine: &Engine, run: impl FnOnce()) {
    let (done, peak) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                peak.fetch_max(anonymous_bytes(), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(5));
            }
        });
        let start = Instant::now();
        run();
        done.store(true, Ordering::Relaxed);
        let peak = peak.load(Ordering::Relaxed) as f64 / f64::from(1 << 20);
        println!(
            "{what:24} {:7.2} s, peak {peak:6.1} MiB\n  {:?}",
            start.elapsed().as_secs_f64(),
            engine.stats()
        );
    });
}

fn key(i: u32) -> [u8; 16] {
    let mut key = *b"user000000000000";
    key[8..12].copy_from_slice(&i.wrapping_mul(0x9e37_79b1).to_be_bytes());
    key
}

/// Puts random keys and prints how long the slowest puts took.
fn fill(engine: &Engine, seed: u64, count: u32) {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut value = [0; 100];
    // How many puts took so many microseconds; the last counts the longer ones, too.
    let mut puts = vec![0_u32; 1_000_000];
    let mut longest = Duration::ZERO;
    for _ in 0..count {
        random.fill(&mut value[..50]);
        let start = Instant::now();
        let mut batch = WriteBatch::new();
        batch.put(TREE, &key(random.random_range(0..ENTRIES)), &value);
        let _not_waited_for = engine.write(batch).expect("written");
        let took = start.elapsed();
        longest = longest.max(took);
        puts[(took.as_micros() as usize).min(999_999)] += 1;
    }
    engine.barrier().wait().expect("durable");
    let percentile = |of_ten_thousand: u32| {
        let mut left = count / 10_000 * of_ten_thousand;
        puts.iter().position(|puts| {
            let is_here = *puts > left;
            left = left.saturating_sub(*puts);
            is_here
        })
    };
    let [p50, p99, p999, p9999] = [5000, 9900, 9990, 9999].map(|part| percentile(part).unwrap_or(0));
    println!("  put us: p50 {p50} p99 {p99} p99.9 {p999} p99.99 {p9999} max {}", longest.as_micros());
}

fn opened(options: Options) -> (tempfile::TempDir, Engine, Tree) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let engine = Engine::open(Arc::new(RealFileSystem), dir.path(), 1, options).expect("opens");
    let tree = engine.create_tree(TREE, TreeFormat::default()).expect("created");
    (dir, engine, tree)
}

fn scan(engine: &Engine, tree: &Tree, range: KeyRange) -> u32 {
    let mut iter = tree.iter(&engine.snapshot(), range);
    let mut count = 0;
    while iter.next().expect("readable") {
        count += 1;
    }
    count
}

#[test]
#[ignore = "prints figures, checks nothing"]
fn pressure_memory() {
    let options = Options { memory_bytes_max: 128 << 20, memtable_bytes_max: 64 << 20, ..Options::default() };
    let (_dir, engine, tree) = opened(options);
    println!("before: {} MiB", anonymous_bytes() >> 20);
    watched("fillrandom", &engine, || fill(&engine, 1, ENTRIES));
    watched("overwrite", &engine, || fill(&engine, 2, ENTRIES));
    watched("readrandom", &engine, || {
        thread::scope(|scope| {
            for thread in 0..2 {
                let (engine, tree) = (&engine, &tree);
                scope.spawn(move || {
                    let mut random = SmallRng::seed_from_u64(thread);
                    for _ in 0..1_000_000 {
                        tree.get(&engine.snapshot(), &key(random.random_range(0..ENTRIES)))
                            .expect("readable");
                    }
                });
            }
        });
    });
    watched("short scans", &engine, || {
        let mut random = SmallRng::seed_from_u64(9);
        for _ in 0..100_000 {
            let start = key(random.random_range(0..ENTRIES)).to_vec().into();
            let mut iter = tree.iter(&engine.snapshot(), KeyRange { start, ..KeyRange::default() });
            for _ in 0..20 {
                iter.next().expect("readable");
            }
        }
    });
    watched("scan of everything", &engine, || _ = scan(&engine, &tree, KeyRange::default()));
    watched("read while writing", &engine, || {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut random = SmallRng::seed_from_u64(3);
                while !done.load(Ordering::Relaxed) {
                    tree.get(&engine.snapshot(), &key(random.random_range(0..ENTRIES))).expect("readable");
                }
            });
            fill(&engine, 4, ENTRIES / 5);
            done.store(true, Ordering::Relaxed);
        });
    });
    engine.close().expect("closed");
    println!("{:?}", tree.stats());
}

/// Waits until compactions have nothing left to do, idle ones included.
fn settle(engine: &Engine, tree: &Tree) {
    tree.flush().expect("flushed");
    let written = || {
        let stats = engine.stats();
        (stats.compaction_count, stats.move_count, stats.compaction_debt_bytes)
    };
    let mut before = written();
    loop {
        thread::sleep(Duration::from_secs(4));
        let after = written();
        if after == before && after.2 == 0 {
            return;
        }
        before = after;
    }
}

#[test]
#[ignore = "prints figures, checks nothing"]
fn pressure_space() {
    let (dir, engine, tree) = opened(Options::default());
    let files = || -> u64 {
        let tables = std::fs::read_dir(dir.path().join("tables")).expect("a directory");
        tables.map(|entry| entry.and_then(|entry| entry.metadata()).expect("a file").len()).sum()
    };
    for seed in 1..3 {
        fill(&engine, seed, ENTRIES);
        settle(&engine, &tree);
        let (now, stats) = (files(), engine.stats());
        let levels = tree.stats().level_bytes;
        println!(
            "fill {seed}: {} MiB in levels {levels:?}, w-amp {:.2}",
            now >> 20,
            stats.write_amplification()
        );
        println!("  estimate of space amplification {:.3}, {:?}", stats.space_amplification(), stats.stalls);
    }
    let before = files();
    tree.compact().expect("compacted");
    println!("space amplification {:.3}", before as f64 / files() as f64);
    engine.close().expect("closed");
}

#[test]
#[ignore = "prints figures, checks nothing"]
fn pressure_tombstones() {
    const COUNT: u32 = 1_000_000;
    for is_range in [false, true] {
        let (_dir, engine, tree) = opened(Options::default());
        let ordered = |i: u32| [&b"user"[..], &i.to_be_bytes()].concat();
        for i in 0..COUNT + 1000 {
            let mut batch = WriteBatch::new();
            batch.put(TREE, &ordered(i), &[7; 100]);
            let _not_waited_for = engine.write(batch).expect("written");
        }
        engine.barrier().wait().expect("durable");
        tree.compact().expect("compacted");
        let bytes = || tree.stats().sstable_bytes >> 20;
        let timed_scan = |what: &str| {
            let start = Instant::now();
            let mut iter = tree.iter(&engine.snapshot(), KeyRange::default());
            assert!(iter.next().expect("readable"));
            println!("{what:32} first key after {:9} us, {} MiB", start.elapsed().as_micros(), bytes());
        };
        timed_scan(if is_range { "before a range delete" } else { "before point deletes" });
        if is_range {
            let mut batch = WriteBatch::new();
            batch.delete_range(TREE, &ordered(0), &ordered(COUNT));
            engine.write(batch).expect("written").wait().expect("durable");
        } else {
            for i in 0..COUNT {
                let mut batch = WriteBatch::new();
                batch.delete(TREE, &ordered(i));
                let _not_waited_for = engine.write(batch).expect("written");
            }
            engine.barrier().wait().expect("durable");
        }
        timed_scan("right after");
        tree.flush().expect("flushed");
        timed_scan("after a flush");
        settle(&engine, &tree);
        timed_scan("settled");
        println!("{:?}", tree.stats().level_bytes);
        engine.close().expect("closed");
    }
}
