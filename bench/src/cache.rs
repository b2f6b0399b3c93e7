//! The memcached door: items of 100 bytes, one at a time and pipelined, beside
//! memcached with the same number of threads. [`suite`] is the long version.

mod suite;
mod traffic;

use std::net::SocketAddr;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::measure::{self, Side, Worker};
use crate::server::{Hayloft, Peer};
use crate::{Outcome, Plan};

pub(crate) use suite::{Plan as SuitePlan, suite};

const ITEM_COUNT: u32 = 20_000;
const VALUE_BYTES: usize = 100;
const PIPELINE: usize = 16;

/// `VALUE <key> 0 100`, the value, `END`: the keys have one length.
const HIT_BYTES: usize = "VALUE item00000000 0 100\r\n".len() + VALUE_BYTES + "\r\nEND\r\n".len();
const STORED: &[u8] = b"STORED\r\n";

pub(crate) async fn compare(hayloft: &Hayloft, plan: &Plan) -> Outcome<()> {
    let peer = Peer::memcached()?;
    let mut sides =
        vec![Side { name: "hayloft", target: hayloft.memcached, process: Some(&hayloft.process) }];
    if let Some(peer) = &peer {
        sides.push(Side { name: "memcached", target: peer.address, process: Some(&peer.process) });
    }
    for side in &sides {
        fill(side.target).await?;
    }
    for (workload, depth) in [("cache/get", 1), ("cache/get-pipelined", PIPELINE)] {
        let workers = async |address: &SocketAddr| workers(*address, plan, depth, Command::Get).await;
        measure::compare(workload, &sides, plan.schedule(), workers).await?.print_ratios();
    }
    let workers = async |address: &SocketAddr| workers(*address, plan, 1, Command::Set).await;
    measure::compare("cache/set", &sides, plan.schedule(), workers).await?.print_ratios();
    Ok(())
}

/// Sets every item once.
async fn fill(address: SocketAddr) -> Outcome<()> {
    let mut stream = TcpStream::connect(address).await?;
    for item in 0..ITEM_COUNT {
        let mut request = Vec::new();
        Command::Set.write(item, &mut request);
        stream.write_all(&request).await?;
        let mut answer = [0; STORED.len()];
        stream.read_exact(&mut answer).await?;
        if answer != STORED {
            return Err(format!("a set was answered {:?}", String::from_utf8_lossy(&answer)).into());
        }
    }
    Ok(())
}

async fn workers(address: SocketAddr, plan: &Plan, depth: usize, command: Command) -> Outcome<Vec<Client>> {
    let mut workers = Vec::new();
    for seed in 0..u64::from(plan.connections) {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let random = SmallRng::seed_from_u64(seed);
        workers.push(Client { stream, random, depth, command, request: Vec::new(), answer: Vec::new() });
    }
    Ok(workers)
}

#[derive(Clone, Copy)]
enum Command {
    Get,
    Set,
}

impl Command {
    fn write(self, item: u32, request: &mut Vec<u8>) {
        match self {
            Self::Get => request.extend_from_slice(format!("get item{item:08}\r\n").as_bytes()),
            Self::Set => {
                request.extend_from_slice(format!("set item{item:08} 0 0 {VALUE_BYTES}\r\n").as_bytes());
                request.extend_from_slice(&[b'x'; VALUE_BYTES]);
                request.extend_from_slice(b"\r\n");
            }
        }
    }

    fn answer_bytes(self) -> usize {
        match self {
            Self::Get => HIT_BYTES,
            Self::Set => STORED.len(),
        }
    }

    fn is_right(self, answer: &[u8]) -> bool {
        match self {
            Self::Get => answer.starts_with(b"VALUE item") && answer.ends_with(b"\r\nEND\r\n"),
            Self::Set => answer == STORED,
        }
    }
}

struct Client {
    stream: TcpStream,
    random: SmallRng,
    depth: usize,
    command: Command,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Worker for Client {
    async fn step(&mut self) -> Outcome<u64> {
        self.request.clear();
        for _ in 0..self.depth {
            self.command.write(self.random.random_range(0..ITEM_COUNT), &mut self.request);
        }
        self.stream.write_all(&self.request).await?;
        self.answer.resize(self.command.answer_bytes() * self.depth, 0);
        self.stream.read_exact(&mut self.answer).await?;
        for answer in self.answer.chunks_exact(self.command.answer_bytes()) {
            if !self.command.is_right(answer) {
                return Err(format!("a command was answered {:?}", String::from_utf8_lossy(answer)).into());
            }
        }
        Ok(self.depth as u64)
    }
}
