//! Loads a memcached and prints requests a second and latencies:
//! `load ADDRESS WORKLOAD [PIPELINE [SECONDS [CONNECTIONS]]]`, where WORKLOAD is
//! `get`, `mg`, `set` or `multiget` (of 100 keys).
//!
//! A hundred thousand keys of 32 bytes with values of 100, keys drawn uniformly.
//! Each connection keeps one batch of PIPELINE requests under way; a batch's
//! latency is each of its requests'. Two threads, no runtime: each thread goes
//! round its connections, writes a batch to each, then reads each one's answers.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const KEY_COUNT: u64 = 100_000;
const VALUE: [u8; 100] = [b'v'; 100];
const THREAD_COUNT: usize = 2;

#[derive(Clone, Copy)]
struct Workload {
    verb: &'static str,
    pipeline: usize,
}

fn key(number: u64) -> String {
    format!("key:{:028}", number % KEY_COUNT)
}

/// xorshift64*.
fn next_random(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
}

impl Workload {
    fn put_request(self, batch: &mut Vec<u8>, random: &mut u64) {
        match self.verb {
            "get" => batch.extend(format!("get {}\r\n", key(next_random(random))).bytes()),
            "mg" => batch.extend(format!("mg {} v\r\n", key(next_random(random))).bytes()),
            "set" => put_set(batch, &key(next_random(random))),
            "multiget" => {
                batch.extend(b"get");
                for _ in 0..100 {
                    batch.extend(format!(" {}", key(next_random(random))).bytes());
                }
                batch.extend(b"\r\n");
            }
            other => panic!("no workload {other:?}: get, mg, set or multiget"),
        }
    }

    /// Bytes of one answer: every key is there, and every value is as long.
    fn answer_bytes(self) -> usize {
        let value_bytes = "VALUE ".len() + 32 + " 0 100\r\n".len() + VALUE.len() + 2;
        match self.verb {
            "get" => value_bytes + 5,
            "mg" => "VA 100\r\n".len() + VALUE.len() + 2,
            "set" => "STORED\r\n".len(),
            _ => 100 * value_bytes + 5,
        }
    }
}

fn put_set(batch: &mut Vec<u8>, key: &str) {
    batch.extend(format!("set {key} 0 0 {}\r\n", VALUE.len()).bytes());
    batch.extend(VALUE);
    batch.extend(b"\r\n");
}

fn fill(address: &str) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    for first in (0..KEY_COUNT).step_by(1000) {
        let mut batch = Vec::new();
        (first..first + 1000).for_each(|number| put_set(&mut batch, &key(number)));
        stream.write_all(&batch)?;
        let mut answers = vec![0; 1000 * "STORED\r\n".len()];
        stream.read_exact(&mut answers)?;
        assert!(answers.chunks(8).all(|answer| answer == b"STORED\r\n"), "not every key was stored");
    }
    Ok(())
}

/// One thread's batches; how long each took.
fn run(
    address: &str,
    workload: Workload,
    connections: usize,
    seconds: f64,
    seed: u64,
) -> std::io::Result<Vec<Duration>> {
    let connect = |_| {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    let mut streams = (0..connections).map(connect).collect::<std::io::Result<Vec<_>>>()?;
    let mut random = seed;
    // Batches are prepared, so that the client costs little more than its system calls.
    let batches: Vec<Vec<u8>> = (0..1024)
        .map(|_| {
            let mut batch = Vec::new();
            (0..workload.pipeline).for_each(|_| workload.put_request(&mut batch, &mut random));
            batch
        })
        .collect();
    let mut answers = vec![0; workload.answer_bytes() * workload.pipeline];
    let mut latencies = Vec::new();
    let started = Instant::now();
    let mut turn = 0;
    while started.elapsed().as_secs_f64() < seconds {
        let mut sent_at = Vec::with_capacity(streams.len());
        for stream in &mut streams {
            turn += 1;
            sent_at.push(Instant::now());
            stream.write_all(&batches[turn % batches.len()])?;
        }
        for (stream, sent_at) in streams.iter_mut().zip(sent_at) {
            stream.read_exact(&mut answers)?;
            latencies.push(sent_at.elapsed());
        }
    }
    Ok(latencies)
}

fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |index: usize, default: &str| arguments.get(index).cloned().unwrap_or(default.to_owned());
    let address = argument(0, "127.0.0.1:11211");
    let verb: &'static str = argument(1, "get").leak();
    let pipeline = argument(2, "1").parse().expect("PIPELINE is a number");
    let seconds: f64 = argument(3, "3").parse().expect("SECONDS is a number");
    let connections: usize = argument(4, "50").parse().expect("CONNECTIONS is a number");
    let workload = Workload { verb, pipeline };
    fill(&address)?;
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (1..=THREAD_COUNT as u64)
            .map(|thread| {
                let address = &address;
                let per_thread = connections.div_ceil(THREAD_COUNT);
                scope.spawn(move || run(address, workload, per_thread, seconds, thread * 77_777))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a load thread")).collect()
    });
    let mut latencies = outcomes.into_iter().collect::<std::io::Result<Vec<_>>>()?.concat();
    latencies.sort();
    let share = |share: usize| latencies[(latencies.len() - 1) * share / 100].as_secs_f64() * 1e3;
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let rate = (latencies.len() * pipeline) as f64 / seconds;
    println!("{verb} x{pipeline}: {rate:.0}/s, p50 {:.2} ms, p99 {:.2} ms", share(50), share(99));
    Ok(())
}
