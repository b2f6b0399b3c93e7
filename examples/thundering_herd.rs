//! A thundering herd: 500 clients read one hot key, and every time its value
//! expires those who miss go to a slow origin to refill it.
//!
//! Any memcached will do, by default Hayloft's at 127.0.0.1:11211:
//!
//! ```sh
//! cargo run --release -- serve &
//! cargo run --release --example thundering_herd [ADDRESS]
//! ```
//!
//! First everybody who misses asks the origin. Then `add` is a lock: who adds it
//! asks the origin, the others wait and look again. That is about one origin read
//! an expiry, but one who dies with the lock holds the others up until it expires,
//! and a fill slower than the lock overwrites a newer value. Leases ("Scaling
//! Memcache at Facebook", NSDI 2013, section 3.2.1) answer both.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const CLIENT_COUNT: usize = 500;
const ROUND: Duration = Duration::from_secs(10);
const VALUE_SECONDS: u64 = 2;
const ORIGIN_LATENCY: Duration = Duration::from_millis(200);

#[derive(Default)]
struct Counts {
    reads: AtomicU64,
    misses: AtomicU64,
    origin_reads: AtomicU64,
    longest_wait_ms: AtomicU64,
}

/// Sends one command and returns its answer, which ends with `end`.
async fn ask(stream: &mut TcpStream, command: &str, end: &str) -> Outcome<String> {
    stream.write_all(command.as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(end.as_bytes()) {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err("the cache closed the connection".into());
        }
    }
    Ok(String::from_utf8(answer)?)
}

/// Reads the hot key once, filling it if need be.
async fn read(stream: &mut TcpStream, with_lock: bool, counts: &Counts) -> Outcome<()> {
    let started = Instant::now();
    let mut missed = false;
    while ask(stream, "get hot\r\n", "END\r\n").await? == "END\r\n" {
        missed = true;
        let lock = "add hot:lock 0 2 0\r\n\r\n";
        if with_lock && ask(stream, lock, "STORED\r\n").await? != "STORED\r\n" {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        }
        counts.origin_reads.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(ORIGIN_LATENCY).await;
        ask(stream, &format!("set hot 0 {VALUE_SECONDS} 6\r\nanswer\r\n"), "STORED\r\n").await?;
        if with_lock {
            ask(stream, "delete hot:lock\r\n", "\r\n").await?;
        }
        break;
    }
    counts.reads.fetch_add(1, Ordering::Relaxed);
    counts.misses.fetch_add(u64::from(missed), Ordering::Relaxed);
    counts.longest_wait_ms.fetch_max(u64::try_from(started.elapsed().as_millis())?, Ordering::Relaxed);
    Ok(())
}

async fn round(address: &str, name: &str, with_lock: bool) -> Outcome<()> {
    let counts = Arc::new(Counts::default());
    let started = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENT_COUNT {
        let mut stream = TcpStream::connect(address).await?;
        let counts = Arc::clone(&counts);
        clients.spawn(async move {
            while started.elapsed() < ROUND {
                read(&mut stream, with_lock, &counts).await?;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Outcome::Ok(())
        });
    }
    let bar = ProgressBar::new(ROUND.as_secs() * 10).with_prefix(name.to_owned());
    bar.set_style(ProgressStyle::with_template("{prefix} [{bar:30}] {elapsed}, {msg} origin reads")?);
    while started.elapsed() < ROUND {
        tokio::time::sleep(Duration::from_millis(100)).await;
        bar.inc(1);
        bar.set_message(counts.origin_reads.load(Ordering::Relaxed).to_string());
    }
    while let Some(client) = clients.join_next().await {
        client??;
    }
    bar.finish_and_clear();
    let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let (reads, misses, origin) = (count(&counts.reads), count(&counts.misses), count(&counts.origin_reads));
    let longest = count(&counts.longest_wait_ms);
    println!("{name}: {reads} reads, {misses} missed, {origin} origin reads, longest wait {longest} ms");
    Ok(())
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:11211".to_owned());
    println!("{CLIENT_COUNT} clients, a value of {VALUE_SECONDS} s, an origin of {ORIGIN_LATENCY:?}");
    for (name, with_lock) in [("get and set", false), ("add as lock", true)] {
        round(&address, name, with_lock).await?;
        tokio::time::sleep(Duration::from_secs(VALUE_SECONDS + 1)).await;
    }
    Ok(())
}
