//! The same random commands to this cache and to memcached, byte for byte.
//!
//! Runs where a `memcached` is installed. The streams leave out what is known
//! to differ from Debian 12's memcached 1.6.18:
//!
//! - an incr or decr to fewer digits: memcached pads the value with spaces;
//! - an exptime or client flags beyond 32 bits: it cuts them off;
//! - `ms … MA N…`, `E`, `x` and the `s` of `ms`: newer than it;
//! - a `noreply` line with a bad argument before a value: it runs the value as
//!   a command;
//! - `version`, `stats`, `me`: they show what each server is;
//! - a get with a key that is too long: it drops the answers of the commands
//!   before it;
//! - the marks of an item after an incr: it replaces the item, or not, by
//!   whether an answer still holds it;
//! - a delete with seconds to hold adds off: it takes 0 only;
//! - slabs, lru, lru_crawler, watch, stats detail and cachedump: not here.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cache_proxy::CacheOptions;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::house::{House, PATIENCE, show};

struct Memcached {
    child: Child,
    port: u16,
}

impl Memcached {
    /// None if there is no such program.
    fn start() -> Option<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let program = std::env::var_os("MEMCACHED").unwrap_or("memcached".into());
        let mut command = Command::new(program);
        command.args(["-l", "127.0.0.1", "-p", &port.to_string(), "-t", "2", "-u", "nobody"]);
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(started.elapsed() < PATIENCE, "memcached does not listen");
            assert!(child.try_wait().unwrap().is_none(), "memcached ended");
            std::thread::yield_now();
        }
        Some(Self { child, port })
    }
}

impl Drop for Memcached {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `stream` is answered, up to the end that its `quit` asks for.
fn answers(mut connection: TcpStream, stream: &[u8]) -> Vec<u8> {
    connection.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut writer = connection.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || writer.write_all(stream).unwrap());
        let mut answers = Vec::new();
        connection.read_to_end(&mut answers).expect("answers, and an end");
        answers
    })
}

fn pick<'a>(random: &mut SmallRng, words: &[&'a str]) -> &'a str {
    words[random.random_range(0..words.len())]
}

fn value(random: &mut SmallRng) -> String {
    match random.random_range(0..10) {
        0..5 => random.random_range(0..1000u32).to_string(),
        5 => random.random_range(0..u64::MAX / 2).to_string(),
        6 => String::new(),
        7 => "12apples".to_owned(),
        8 => "x".repeat(random.random_range(0..20_000)),
        _ => "a\r\nb".to_owned(),
    }
}

fn put_value(random: &mut SmallRng, stream: &mut String, line: impl Fn(usize) -> String) {
    let value = value(random);
    stream.push_str(&line(value.len()));
    stream.push_str(&value);
    stream.push_str(if random.random_ratio(1, 50) { "??\r\n" } else { "\r\n" });
}

fn random_stream(random: &mut SmallRng) -> String {
    let long_key = "k".repeat(random.random_range(249..252));
    let keys = ["a", "b", "c", "d", "key:1", long_key.as_str()];
    let (mut stream, mut flushes) = (String::from("flush_all\r\n"), 0);
    for _ in 0..random.random_range(5..120) {
        let key = pick(random, &keys);
        let exptime = pick(random, &["0", "0", "0", "1000", "-1", "2592001"]);
        let no_reply = if random.random_ratio(1, 10) { " noreply" } else { "" };
        match random.random_range(0..22) {
            0..4 if key.len() <= 250 => {
                let verb = pick(random, &["get", "gets", "gat 0", "gats 1000"]);
                let others = random.random_range(0..3);
                stream.push_str(&format!("{verb} {key}"));
                (0..others).for_each(|_| stream.push_str(&format!(" {}", pick(random, &keys[..5]))));
                stream.push_str("\r\n");
            }
            4..10 if key.len() <= 250 => {
                let verb = pick(random, &["set", "add", "replace", "append", "prepend"]);
                let flags = pick(random, &["0", "1", "4294967295"]);
                put_value(random, &mut stream, |length| {
                    format!("{verb} {key} {flags} {exptime} {length}{no_reply}\r\n")
                });
            }
            10 if key.len() <= 250 => {
                let unique = random.random_range(0..80);
                put_value(random, &mut stream, |length| {
                    format!("cas {key} 0 {exptime} {length} {unique}{no_reply}\r\n")
                });
            }
            11 | 12 => {
                let delta = pick(random, &["1", "7", "x", "-1", ""]);
                let key = pick(random, &keys[..3]);
                stream.push_str(&format!("incr {key} {delta}{no_reply}\r\n"));
            }
            13 => stream.push_str(&format!("delete {key}{no_reply}\r\n")),
            14 => stream.push_str(&format!("touch {key} {exptime}{no_reply}\r\n")),
            15 | 16 => {
                let flags =
                    pick(random, &["v", "v k", "t v", "s f c", "k O77 q", "v v", "T1000 t", "@", "N100 v"]);
                stream.push_str(&format!("mg {key} {flags}\r\n"));
            }
            17 if key.len() <= 250 => {
                let flags = pick(
                    random,
                    &["", "c", "k O1", "ME", "MR", "MA", "MP", "q", "T100", "F5", "C5 c", "C30 I", "MX"],
                );
                let key = if flags.ends_with('I') { pick(random, &keys[3..5]) } else { key };
                put_value(random, &mut stream, |length| format!("ms {key} {length} {flags}\r\n"));
            }
            18 => {
                let flags = pick(random, &["", "k", "I", "I T50", "q", "C7", "O9", "v v"]);
                let key = if flags.contains('I') { pick(random, &keys[3..5]) } else { key };
                stream.push_str(&format!("md {key} {flags}\r\n"));
            }
            19 => {
                let flags = pick(random, &["v", "v c", "N0 J5 v", "D3 v", "k t", "MX", "Dx"]);
                let key = pick(random, &keys[..3]);
                stream.push_str(&format!("ma {key} {flags}\r\n"));
            }
            20 if flushes < 2 => {
                flushes += 1;
                stream.push_str(pick(
                    random,
                    &["flush_all\r\n", "flush_all noreply\r\n", "flush_all 0\r\n", "flush_all x\r\n"],
                ));
            }
            _ => stream.push_str(pick(
                random,
                &[
                    "bogus\r\n",
                    "\r\n",
                    "get\r\n",
                    "set a 0 0\r\n",
                    "verbosity 1\r\n",
                    "verbosity\r\n",
                    "mn\r\n",
                    "delete a 0\r\n",
                    "delete a x\r\n",
                    "incr a\r\n",
                    "touch a x\r\n",
                    "gat x a\r\n",
                    "get  a \r\n",
                    "set a 0 x 1\r\n",
                    "set a 0 0 -1\r\n",
                    "cache_memlimit 1\r\n",
                    "stats sizes\r\n",
                    "cas a 0 0 1\r\n",
                    "flush_all 1 2 3\r\n",
                    "mx a\r\n",
                    "ms a\r\n",
                    "ms a x\r\n",
                    "mg\r\n",
                ],
            )),
        }
    }
    stream + "quit\r\n"
}

#[test]
fn memcached_answers_the_same() {
    let Some(memcached) = Memcached::start() else {
        eprintln!("skipped: there is no memcached here");
        return;
    };
    let house = House::open(CacheOptions::default());
    for seed in 0..300 {
        let mut random = SmallRng::seed_from_u64(seed);
        let stream = random_stream(&mut random);
        let ours = answers(house.client().0, stream.as_bytes());
        let theirs = answers(TcpStream::connect(("127.0.0.1", memcached.port)).unwrap(), stream.as_bytes());
        if ours != theirs {
            let at = ours.iter().zip(&theirs).take_while(|(our, their)| our == their).count();
            let from = at.saturating_sub(200);
            panic!(
                "seed {seed}: after {at} bytes ours is\n{}\ntheirs is\n{}\nof\n{}",
                show(&ours[from.min(ours.len())..]),
                show(&theirs[from.min(theirs.len())..]),
                stream.lines().map(|line| format!("{}\n", &line[..line.len().min(80)])).collect::<String>(),
            );
        }
    }
}
