//! Every interleaving of small histories of readers and writers, against the
//! real table: no fill that raced a change is ever seen.
//!
//! `shuttle` runs the threads one at a time and tries every choice of which goes
//! on at each `step()`. A call into the cache holds one lock from its beginning
//! to its end, so steps between calls are all the interleavings there are.
//!
//! The origin is a number that only grows. A writer acknowledges when it has
//! told the cache; a reader that begins after that must not see less.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use shuttle::scheduler::DfsScheduler;
use shuttle::{Config, Runner, thread};

use super::*;
use crate::clock::Clock;
use crate::options::CacheOptions;
use crate::protocol::output::Output;
use crate::session::{Session, SharedState};

const NOW: u32 = 1_000_000_000;
const KEY: CacheKey<'_> = CacheKey(b"k");

#[derive(Debug)]
struct StoppedClock;

impl Clock for StoppedClock {
    fn now_s(&self) -> u32 {
        NOW
    }
}

/// Another thread may go on here.
fn step() {
    thread::yield_now();
}

struct World {
    cache: Cache,
    origin: AtomicU64,
    acknowledged: AtomicU64,
}

impl World {
    fn new() -> Arc<Self> {
        let options = CacheOptions { memory_bytes_max: 4 << 20, ..CacheOptions::default() };
        let shared = Arc::new(SharedState::new(options, 7, NOW));
        let cache = Cache { shared, clock: Arc::new(StoppedClock) };
        Arc::new(Self { cache, origin: AtomicU64::new(1), acknowledged: AtomicU64::new(1) })
    }

    fn read_origin(&self) -> Found {
        let value = Bytes::from(self.origin.load(Ordering::SeqCst).to_string());
        Found::Value(CachedValue { value, client_flags: 0, expires_at: 0, cas: 0 })
    }

    fn acknowledge(&self, version: u64) {
        self.acknowledged.fetch_max(version, Ordering::SeqCst);
    }

    fn check(&self, value: &[u8], floor: u64) {
        let version: u64 = std::str::from_utf8(value).unwrap().parse().unwrap();
        assert!(version >= floor, "saw {version} after {floor} was acknowledged");
    }

    fn ask(&self, line: &str) -> String {
        let mut session = Session::new(Arc::clone(&self.cache.shared), 1);
        let mut output = Output::default();
        session.advance(line.as_bytes(), &mut output, NOW);
        let (slices, count) = output.slices();
        slices[..count].iter().map(|slice| String::from_utf8_lossy(slice)).collect()
    }

    /// Looks up, reads the origin if it is to, and fills.
    fn read_inside(&self) {
        let floor = self.acknowledged.load(Ordering::SeqCst);
        match self.cache.look_up(KEY) {
            Lookup::Found(Found::Value(found)) => self.check(&found.value, floor),
            Lookup::Found(Found::Absent { .. }) => panic!("it was never absent"),
            Lookup::Lease(lease) => {
                step();
                let found = self.read_origin();
                step();
                lease.fill(&found);
            }
            Lookup::Wait(_) => {}
        }
    }

    /// The same as a client does it.
    fn read_as_client(&self) {
        let floor = self.acknowledged.load(Ordering::SeqCst);
        let answer = self.ask("lease-get k\r\n");
        if answer.starts_with("VALUE") {
            return self.check(answer.lines().nth(1).unwrap().as_bytes(), floor);
        }
        let token: u64 = answer.split(' ').nth(2).unwrap().parse().unwrap();
        if token > 1 {
            step();
            let version = self.origin.load(Ordering::SeqCst).to_string();
            step();
            self.ask(&format!("lease-set k {token} 0 0 {}\r\n{version}\r\n", version.len()));
        }
    }

    /// The same by meta commands.
    fn read_by_meta(&self) {
        let floor = self.acknowledged.load(Ordering::SeqCst);
        let answer = self.ask("mg k v c N30\r\n");
        let (line, value) = answer.split_once("\r\n").unwrap();
        if !line.contains(['W', 'Z', 'X']) {
            return self.check(value.trim_end().as_bytes(), floor);
        }
        if line.contains('W') {
            let cas = line.split(" c").nth(1).unwrap().split(' ').next().unwrap();
            step();
            let version = self.origin.load(Ordering::SeqCst).to_string();
            step();
            self.ask(&format!("ms k {} C{cas}\r\n{version}\r\n", version.len()));
        }
    }

    /// Writes beside the cache, and then tells it.
    fn write_beside(&self, tell: impl Fn()) {
        let version = self.origin.fetch_add(1, Ordering::SeqCst) + 1;
        step();
        tell();
        self.acknowledge(version);
    }

    fn write_through(&self) {
        let lease = self.cache.begin_write(KEY);
        step();
        let version = self.origin.fetch_add(1, Ordering::SeqCst) + 1;
        step();
        let value = Bytes::from(version.to_string());
        lease.finish(&Found::Value(CachedValue { value, client_flags: 0, expires_at: 0, cas: 0 }));
        self.acknowledge(version);
    }
}

type Part = fn(&World);

const DELETE: Part = |world| world.write_beside(|| _ = world.ask("delete k\r\n"));
const META_DELETE: Part = |world| world.write_beside(|| _ = world.ask("md k\r\n"));
const MARK_STALE: Part = |world| world.write_beside(|| _ = world.ask("md k I T30\r\n"));
const INVALIDATE: Part = |world| world.write_beside(|| _ = world.cache.invalidate(KEY));
const FLUSH: Part = |world| world.write_beside(|| _ = world.ask("flush_all\r\n"));
const WRITE_THROUGH: Part = World::write_through;
const READ: Part = World::read_inside;
const CLIENT: Part = World::read_as_client;
const META: Part = World::read_by_meta;

/// Runs `parts` as threads in every order, and reads once more at the end.
fn check(parts: &'static [&'static [Part]]) {
    let runner = Runner::new(DfsScheduler::new(None, false), Config::default());
    let count = runner.run(move || {
        let world = World::new();
        let threads: Vec<_> = parts
            .iter()
            .map(|parts| {
                let world = Arc::clone(&world);
                thread::spawn(move || parts.iter().for_each(|part| part(&world)))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let floor = world.origin.load(Ordering::SeqCst);
        if let Lookup::Found(Found::Value(found)) = world.cache.look_up(KEY) {
            world.check(&found.value, floor);
        }
    });
    eprintln!("{count} interleavings");
    assert!(count > 50, "{count} interleavings are not all");
}

#[test]
fn a_fill_that_raced_a_delete_is_never_seen() {
    check(&[&[CLIENT], &[DELETE]]);
    check(&[&[READ], &[INVALIDATE], &[READ]]);
    check(&[&[CLIENT, CLIENT], &[DELETE, DELETE]]);
    check(&[&[READ], &[DELETE], &[CLIENT]]);
    check(&[&[READ], &[META_DELETE], &[CLIENT]]);
    check(&[&[CLIENT, CLIENT], &[MARK_STALE, META_DELETE]]);
}

#[test]
fn a_fill_that_raced_a_flush_is_never_seen() {
    check(&[&[READ, READ], &[FLUSH]]);
    check(&[&[CLIENT], &[FLUSH], &[READ]]);
}

#[test]
fn a_fill_that_raced_a_write_through_is_never_seen() {
    check(&[&[READ], &[WRITE_THROUGH]]);
    check(&[&[CLIENT, READ], &[WRITE_THROUGH]]);
    check(&[&[WRITE_THROUGH], &[WRITE_THROUGH], &[READ]]);
    check(&[&[WRITE_THROUGH], &[DELETE], &[READ]]);
}

#[test]
fn a_fill_by_meta_commands_that_raced_is_never_seen() {
    check(&[&[META, META], &[META_DELETE]]);
    check(&[&[META], &[MARK_STALE], &[META]]);
    check(&[&[META], &[META_DELETE], &[META]]);
}
