//! Concurrent clients that do operations on a history's rows, chosen by a seed.
//!
//! A client does one operation after the other. What is refused with a hint
//! to try again has not been done (`row_api::retry`), which the check holds the server
//! to; after any other failure nobody knows, and the client goes on once a read
//! succeeds, so that few such operations stand beside each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use row_api::client::RowClient;
use row_api::names::TableName;
use row_api::retry;
use tokio::task::JoinSet;
use tonic::{Code, Status};

use crate::history::{History, Pending};
use crate::requests;
use crate::row::{Answer, Call};

const PAUSE: Duration = Duration::from_millis(2);
/// A call that takes so long is given up, and nobody knows whether it was done.
const PATIENCE: Duration = Duration::from_secs(20);

/// What clients are to do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Chooses all operations.
    pub seed: u64,
    /// Clients at once.
    pub client_count: u64,
    /// Between two operations of a client.
    pub pause: Duration,
}

/// What became of operations, beside what stands in the history.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Refused, and so not done.
    pub refused_count: usize,
    /// Statuses after which nobody knows, reads' too; the first of them.
    pub failures: Vec<Status>,
    /// The longest that was waited for an answer.
    pub longest: Duration,
}

impl Tally {
    async fn timed<T>(&mut self, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        let began = Instant::now();
        let late = |_| Err(Status::deadline_exceeded("no answer came"));
        let answer = tokio::time::timeout(PATIENCE, call).await.unwrap_or_else(late);
        self.longest = self.longest.max(began.elapsed());
        answer
    }
}

/// Clients at work.
#[derive(Debug)]
pub struct Clients {
    done: Arc<AtomicBool>,
    tasks: JoinSet<Tally>,
}

impl Clients {
    /// Starts the clients of `plan` over `client`, on the rows of `history` in `table`.
    pub fn begin(client: &RowClient, table: &TableName, history: &Arc<History>, plan: Plan) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for number in 0..plan.client_count {
            let mut one = Client {
                client: client.clone(),
                table: table.clone(),
                history: Arc::clone(history),
                random: StdRng::seed_from_u64(plan.seed.wrapping_mul(1_000_003).wrapping_add(number)),
                tokens: vec![0; history.keys().len()],
                tally: Tally::default(),
            };
            let done = Arc::clone(&done);
            tasks.spawn(async move {
                while !done.load(Ordering::Relaxed) {
                    one.step().await;
                    if plan.pause.is_zero() {
                        tokio::task::yield_now().await;
                    } else {
                        tokio::time::sleep(plan.pause).await;
                    }
                }
                one.tally
            });
        }
        Self { done, tasks }
    }

    /// Waits for what is under way and ends.
    ///
    /// # Panics
    ///
    /// When a client was answered with what no trouble of a server explains.
    pub async fn end(self) -> Tally {
        self.done.store(true, Ordering::Relaxed);
        let mut sum = Tally::default();
        for tally in self.tasks.join_all().await {
            sum.refused_count += tally.refused_count;
            sum.failures.extend(tally.failures);
            sum.longest = sum.longest.max(tally.longest);
        }
        sum
    }

    /// Ends at once: nobody knows of what is under way.
    pub async fn abandon(mut self) {
        self.tasks.shutdown().await;
    }
}

struct Client {
    client: RowClient,
    table: TableName,
    history: Arc<History>,
    random: StdRng,
    /// The last token seen in each row.
    tokens: Vec<u64>,
    tally: Tally,
}

impl Client {
    async fn step(&mut self) {
        let history = Arc::clone(&self.history);
        let row = self.random.random_range(0..history.keys().len());
        match self.random.random_range(0..100) {
            0..4 => return self.scan().await,
            4..8 => return self.put_many().await,
            _ => {}
        }
        // Unlike any other number in the history.
        let fresh = self.random.random::<u64>() >> 16;
        let call = match self.random.random_range(0..92) {
            0..25 => Call::Read,
            25..35 => Call::ReadToken,
            35..50 => Call::Put(fresh),
            50..65 => Call::Add(self.random.random_range(1..10)),
            65..75 => Call::Append(format!("{:x};", fresh & 0xf_ffff)),
            75..85 => Call::Swap(self.tokens[row], fresh),
            85..90 => Call::PutIfEmpty(fresh),
            _ => Call::Delete,
        };
        let pending = history.begin(row, call);
        let sent = requests::send(&self.client, &self.table, &history.keys()[row], pending.call());
        let answer = self.tally.timed(sent).await;
        if !self.settle(pending, answer) {
            self.recover().await;
        }
    }

    /// Reads a random part of the rows at once.
    async fn scan(&mut self) {
        let history = Arc::clone(&self.history);
        let (from, to) = (self.random_row(), self.random_row());
        let (from, to) = (from.min(to), from.max(to));
        let pending: Vec<_> = (from..=to).map(|row| history.begin(row, Call::Read)).collect();
        let reversed = self.random.random();
        let sent = requests::scan(&self.client, &self.table, &history.keys()[from..=to], reversed);
        let answers = self.tally.timed(sent).await;
        match answers {
            Ok(answers) => {
                for (pending, answer) in pending.into_iter().zip(answers) {
                    pending.answered(answer);
                }
            }
            Err(status) => {
                self.count(status);
                drop(pending);
                self.recover().await;
            }
        }
    }

    /// Puts some rows by one request.
    async fn put_many(&mut self) {
        let history = Arc::clone(&self.history);
        let rows: Vec<usize> = (0..history.keys().len()).collect();
        let rows: Vec<usize> = rows.sample(&mut self.random, 4).copied().collect();
        let mut pending = Vec::new();
        let mut entries = Vec::new();
        for row in rows {
            let token = self.random.random::<u64>() >> 16;
            let key = &history.keys()[row];
            pending.push(history.begin(row, Call::Put(token)));
            entries.push((key.clone().into_bytes(), requests::put(key, token)));
        }
        let answers = self.tally.timed(self.client.mutate_rows(&self.table, entries)).await;
        let answers = answers.unwrap_or_else(|status| pending.iter().map(|_| Err(status.clone())).collect());
        let mut all_answered = true;
        for (pending, answer) in pending.into_iter().zip(answers) {
            all_answered &= self.settle(pending, answer.map(|()| Answer::Done));
        }
        if !all_answered {
            self.recover().await;
        }
    }

    fn random_row(&mut self) -> usize {
        self.random.random_range(0..self.tokens.len())
    }

    /// Notes what is known of an operation; whether it was answered.
    fn settle(&mut self, pending: Pending<'_>, answer: Result<Answer, Status>) -> bool {
        match answer {
            Ok(answer) => {
                if let (Answer::Token(Some(token)), row) = (&answer, pending.row()) {
                    self.tokens[row] = *token;
                }
                pending.answered(answer);
                true
            }
            Err(status) => {
                if retry::delay_of(&status).is_some() {
                    pending.refused();
                }
                self.count(status);
                false
            }
        }
    }

    fn count(&mut self, status: Status) {
        match status.code() {
            Code::Unavailable if retry::delay_of(&status).is_some() => self.tally.refused_count += 1,
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown | Code::Internal => {
                self.tally.failures.push(status);
            }
            _ => panic!("no trouble of a server explains {status}"),
        }
    }

    /// Waits until a read succeeds, or for a while.
    async fn recover(&mut self) {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            tokio::time::sleep(PAUSE).await;
            let row = self.random_row();
            let key = self.history.keys()[row].as_bytes().to_vec();
            if self.client.read_row(&self.table, &key).await.is_ok() {
                return;
            }
        }
    }
}
