//! What a load client sends to a memcached, and how much it gets back.
//!
//! Batches are written before the measurement: during it a client does one
//! write and as many reads as the answer takes, so that it costs less than the
//! servers do. Every key is there and every value has one length, so that the
//! length of an answer tells whether it is right; its end is looked at too.

use std::net::SocketAddr;
use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Outcome;
use crate::measure::Worker;

pub(super) const VALUE_BYTES: usize = 100;
pub(super) const KEY_BYTES: usize = 32;

/// Keys of a multiget.
const MULTIGET_KEYS: usize = 100;

/// Batches that are written beforehand; connections share them.
const BATCH_COUNT: usize = 512;

/// Items set at once to fill a server.
const FILL_BATCH: u64 = 1000;

const STORED: &str = "STORED\r\n";

/// A kind of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Traffic {
    Get,
    Set,
    /// Nine gets and a set, in turn.
    Mixed,
    MetaGet,
    /// A get of a hundred keys; each counts.
    Multiget,
}

impl Traffic {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Set => "set",
            Self::Mixed => "90-10",
            Self::MetaGet => "mg",
            Self::Multiget => "multiget-100",
        }
    }

    /// Keys that a request asks for or stores.
    fn key_count(self) -> u64 {
        if self == Self::Multiget { MULTIGET_KEYS as u64 } else { 1 }
    }

    /// Appends the request of this turn; how long its answer is.
    fn put(self, turn: usize, keys: &mut impl FnMut() -> u64, batch: &mut Vec<u8>) -> usize {
        let value_bytes = "VALUE ".len() + KEY_BYTES + " 0 100\r\n".len() + VALUE_BYTES + "\r\n".len();
        match self {
            Self::Mixed if turn % 10 == 9 => Self::Set.put(turn, keys, batch),
            Self::Get | Self::Mixed => {
                batch.extend(format!("get {}\r\n", key(keys())).bytes());
                value_bytes + "END\r\n".len()
            }
            Self::Set => {
                put_set(keys(), "", batch);
                STORED.len()
            }
            Self::MetaGet => {
                batch.extend(format!("mg {} v\r\n", key(keys())).bytes());
                "VA 100\r\n".len() + VALUE_BYTES + "\r\n".len()
            }
            Self::Multiget => {
                batch.extend(b"get");
                (0..MULTIGET_KEYS).for_each(|_| batch.extend(format!(" {}", key(keys())).bytes()));
                batch.extend(b"\r\n");
                MULTIGET_KEYS * value_bytes + "END\r\n".len()
            }
        }
    }
}

pub(super) fn key(number: u64) -> String {
    format!("key:{number:028}")
}

/// Appends a set of the key of this number; `options` is empty or ` noreply`.
pub(super) fn put_set(number: u64, options: &str, batch: &mut Vec<u8>) {
    batch.extend(format!("set {} 0 0 {VALUE_BYTES}{options}\r\n", key(number)).bytes());
    batch.extend([b'v'; VALUE_BYTES]);
    batch.extend(b"\r\n");
}

/// Sets the items of these numbers, and sees that each is stored.
pub(super) async fn fill(address: SocketAddr, numbers: std::ops::Range<u64>) -> Outcome<()> {
    let mut stream = TcpStream::connect(address).await?;
    let end = numbers.end;
    for first in numbers.step_by(FILL_BATCH as usize) {
        let mut batch = Vec::new();
        let last = (first + FILL_BATCH).min(end);
        (first..last).for_each(|number| put_set(number, "", &mut batch));
        stream.write_all(&batch).await?;
        let mut answers = vec![0; (last - first) as usize * STORED.len()];
        stream.read_exact(&mut answers).await?;
        if answers.chunks(STORED.len()).any(|answer| answer != STORED.as_bytes()) {
            return Err("not every item was stored".into());
        }
    }
    Ok(())
}

/// A batch of requests and the length of its answers.
#[derive(Debug)]
struct Batch {
    requests: Vec<u8>,
    answer_bytes: usize,
}

/// One connection.
pub(super) struct Client {
    stream: TcpStream,
    batches: Arc<Vec<Batch>>,
    next: usize,
    keys_per_batch: u64,
    answer: Vec<u8>,
}

impl Client {
    /// Connections that send `pipeline` requests at a time over keys of `item_count`.
    pub(super) async fn open(
        address: SocketAddr,
        traffic: Traffic,
        pipeline: usize,
        connections: usize,
        item_count: u64,
    ) -> Outcome<Vec<Self>> {
        let mut random = SmallRng::seed_from_u64(1);
        let mut turn = 0;
        let batches = (0..BATCH_COUNT).map(|_| {
            let (mut requests, mut answer_bytes) = (Vec::new(), 0);
            for _ in 0..pipeline {
                let mut keys = || random.random_range(0..item_count);
                answer_bytes += traffic.put(turn, &mut keys, &mut requests);
                turn += 1;
            }
            Batch { requests, answer_bytes }
        });
        let batches: Arc<Vec<Batch>> = Arc::new(batches.collect());
        let mut clients = Vec::new();
        for number in 0..connections {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            clients.push(Self {
                stream,
                batches: Arc::clone(&batches),
                next: number * BATCH_COUNT / connections,
                keys_per_batch: traffic.key_count() * pipeline as u64,
                answer: Vec::new(),
            });
        }
        Ok(clients)
    }
}

impl Worker for Client {
    async fn step(&mut self) -> Outcome<u64> {
        let batch = &self.batches[self.next];
        self.next = (self.next + 1) % self.batches.len();
        self.stream.write_all(&batch.requests).await?;
        self.answer.resize(batch.answer_bytes, 0);
        self.stream.read_exact(&mut self.answer).await?;
        if !self.answer.ends_with(b"\r\n") {
            return Err("an answer does not end where it should".into());
        }
        Ok(self.keys_per_batch)
    }
}
