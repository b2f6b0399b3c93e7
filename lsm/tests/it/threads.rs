//! Many threads over real files.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use lsm::{Engine, KeyRange, Options, TreeFormat, TreeId, WriteBatch};
use vfs::RealFileSystem;

const LEFT: TreeId = TreeId(1);
const RIGHT: TreeId = TreeId(2);

fn options() -> Options {
    Options {
        memtable_bytes_max: 512 << 10,
        log_segment_bytes: 256 << 10,
        log_bytes_max: 1 << 20,
        level_bytes_base: 256 << 10,
        table_bytes: 64 << 10,
        ..Options::default()
    }
}

fn open(dir: &Path, epoch: u64) -> Engine {
    Engine::open(Arc::new(RealFileSystem), dir, epoch, options()).expect("opens")
}

/// Each tree holds, per writer, how often it wrote: the same in both, in every snapshot.
fn counts(engine: &Engine) -> Vec<(Vec<u8>, Vec<u8>)> {
    let snapshot = engine.snapshot();
    let read = |id| {
        let mut iter = engine.tree(id).expect("exists").iter(&snapshot, KeyRange::of_prefix(b"writer"));
        let mut pairs = Vec::new();
        while iter.next().expect("readable") {
            pairs.push((iter.key().to_vec(), iter.value().to_vec()));
        }
        pairs
    };
    let left = read(LEFT);
    assert_eq!(left, read(RIGHT), "a batch takes effect as one");
    left
}

#[test]
fn batches_stay_whole_under_writers_readers_flushes_and_a_kill_by_drop() {
    const WRITERS: u64 = 6;
    let dir = tempfile::tempdir().expect("temporary directory");
    let engine = open(dir.path(), 1);
    engine.create_tree(LEFT, TreeFormat::default()).expect("created");
    engine.create_tree(RIGHT, TreeFormat::default()).expect("created");
    let acknowledged: Arc<Vec<AtomicU64>> = Arc::new((0..WRITERS).map(|_| AtomicU64::new(0)).collect());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (engine, acknowledged) = (&engine, Arc::clone(&acknowledged));
                scope.spawn(move || {
                    for count in 1..=400_u64 {
                        let mut batch = WriteBatch::new();
                        for tree in [LEFT, RIGHT] {
                            batch.put(tree, format!("writer{writer}").as_bytes(), &count.to_be_bytes());
                            batch.put(
                                tree,
                                format!("filler{writer}{:03}", count % 100).as_bytes(),
                                &[1; 700],
                            );
                        }
                        let commit = engine.write(batch).expect("written");
                        let acknowledged = Arc::clone(&acknowledged);
                        let acknowledge = move |result: lsm::Result<()>| {
                            result.expect("durable");
                            acknowledged[usize::try_from(writer).expect("small")]
                                .fetch_max(count, Ordering::Relaxed);
                        };
                        if count % 2 == 0 {
                            acknowledge(commit.wait());
                        } else {
                            commit.on_durable(acknowledge);
                        }
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                counts(&engine);
                engine.tree(LEFT).expect("exists").compact().expect("compacted");
            }
        });
        writers.into_iter().for_each(|writer| writer.join().expect("writes"));
        done.store(true, Ordering::Relaxed);
    });
    let stats = engine.stats();
    assert!(stats.flush_count > 0 && stats.compaction_count > 0, "{stats:?}");
    drop(engine);

    let engine = open(dir.path(), 2);
    let recovered = counts(&engine);
    for (writer, (key, count)) in recovered.iter().enumerate() {
        assert_eq!(*key, format!("writer{writer}").into_bytes());
        let count = u64::from_be_bytes(count.as_slice().try_into().expect("eight bytes"));
        assert!(count >= acknowledged[writer].load(Ordering::Relaxed));
    }
    assert_eq!(recovered.len() as u64, WRITERS);
}

#[test]
fn stalled_writes_are_handed_back_and_called_for() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let engine = open(dir.path(), 1);
    engine.create_tree(LEFT, TreeFormat::default()).expect("created");
    let (mut handed_back, calls) = (0, Arc::new(AtomicU64::new(0)));
    for i in 0..20_000_u32 {
        let mut batch = WriteBatch::new();
        batch.put(LEFT, &i.to_be_bytes(), &[3; 400]);
        while let Err(refused) = engine.try_write(batch.clone()).expect("written") {
            assert_eq!(refused.bytes(), batch.bytes());
            handed_back += 1;
            let (sender, receiver) = std::sync::mpsc::channel();
            let calls = Arc::clone(&calls);
            engine.on_writable(&refused, move || {
                calls.fetch_add(1, Ordering::Relaxed);
                sender.send(()).expect("somebody waits");
            });
            receiver.recv().expect("called");
        }
    }
    engine.barrier().wait().expect("durable");
    assert_eq!(calls.load(Ordering::Relaxed), handed_back);
    let mut iter = engine.tree(LEFT).expect("exists").iter(&engine.snapshot(), KeyRange::default());
    let mut count = 0;
    while iter.next().expect("readable") {
        count += 1;
    }
    assert_eq!(count, 20_000);
}
