//! One connection's commands, run against the table; no socket, no clock.
//!
//! Bytes go in as they arrive, in pieces of any size, and answers come out in
//! order. What a session holds is bounded: one value that is still arriving, and
//! the answers of [`CacheOptions::output_bytes_max`]; when those are full it
//! stops, in the middle of a long get if need be, until they are sent.
//!
//! - this file: lines, values, and what to do with bytes that belong to neither;
//! - [`classic`]: get, touch, delete, incr, flush_all and their kin;
//! - [`store`]: set and its kin, for both dialects;
//! - [`lease`]: lease-get and lease-set;
//! - [`meta`]: mg, ms, md, ma, me;
//! - [`admin`]: who a client is, shutdown, watch, dumps;
//! - [`observe`]: what watchers and counts by prefix hear of it all;
//! - [`routed`]: all of them, for keys with a route to an origin;
//! - [`stats`]: what `stats` answers.
//!
//! Invariant: the answers do not depend on how the bytes were cut into pieces.

mod admin;
mod classic;
mod lease;
mod meta;
mod observe;
mod routed;
mod stats;
mod store;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use crate::activity::Sampled;
use crate::connections::Connections;
use crate::item_table::ItemTable;
use crate::options::{CacheOptions, Credential};
use crate::origins::Origins;
use crate::prefixes::Prefixes;
use crate::protocol::answer;
use crate::protocol::command::{self, Command};
use crate::protocol::output::Output;
use crate::server::Certificates;
use crate::watch::{Watch, Watchers};

use admin::Dump;
use classic::GetManner;
use routed::{Reply, Routed};
use store::{StoreCommand, Value};

/// A line longer than this closes the connection, unless it is a get.
const LINE_BYTES_MAX: usize = 2048;

/// And this closes it then: some four thousand of the longest keys.
const GET_LINE_BYTES_MAX: usize = 1 << 20;

/// A value up to this size is waited for in the read buffer, which takes it and
/// what follows it with one read. A larger one is read where it will stay.
const SMALL_VALUE_BYTES: usize = 4 << 10;

/// Seconds that an exptime can be relative: thirty days.
const RELATIVE_SECONDS_MAX: i32 = 60 * 60 * 24 * 30;

/// What the sessions of a cache share.
#[derive(Debug)]
pub(crate) struct SharedState {
    pub(crate) table: Arc<ItemTable>,
    /// Where keys with a route lead; none where no key has one.
    pub(crate) origins: Option<Arc<Origins>>,
    pub(crate) options: CacheOptions,
    pub(crate) connections: Connections,
    pub(crate) started_at: u32,
    pub(crate) verbosity: AtomicU32,
    pub(crate) flush_count: AtomicU64,
    pub(crate) meta_count: AtomicU64,
    pub(crate) too_large_count: AtomicU64,
    pub(crate) no_memory_count: AtomicU64,
    pub(crate) auth_count: AtomicU64,
    pub(crate) auth_error_count: AtomicU64,
    /// Who may use the cache; everybody if it is empty and was so from the start.
    pub(crate) credentials: RwLock<Vec<Credential>>,
    pub(crate) certificates: Mutex<Option<Arc<Certificates>>>,
    pub(crate) watchers: Arc<Watchers>,
    pub(crate) prefixes: Prefixes,
    pub(crate) sampled: Sampled,
    /// Told when a client asks for the shutdown.
    pub(crate) shutdown_asked: Notify,
}

impl SharedState {
    pub(crate) fn new(options: CacheOptions, seed: u64, now: u32) -> Self {
        let watchers = Arc::new(Watchers::default());
        Self {
            table: Arc::new(ItemTable::new(options.memory_bytes_max, seed, Arc::clone(&watchers))),
            origins: None,
            credentials: RwLock::new(options.credentials.clone()),
            options,
            connections: Connections::default(),
            started_at: now,
            verbosity: AtomicU32::new(0),
            flush_count: AtomicU64::new(0),
            meta_count: AtomicU64::new(0),
            too_large_count: AtomicU64::new(0),
            no_memory_count: AtomicU64::new(0),
            auth_count: AtomicU64::new(0),
            auth_error_count: AtomicU64::new(0),
            certificates: Mutex::new(None),
            watchers,
            prefixes: Prefixes::default(),
            sampled: Sampled::default(),
            shutdown_asked: Notify::new(),
        }
    }
}

impl SharedState {
    /// Reads the certificates again; false if there are none, or they are wrong.
    pub(crate) fn refresh_certificates(&self) -> bool {
        let certificates = self.certificates.lock().clone();
        let Some(certificates) = certificates else { return false };
        certificates
            .refresh()
            .inspect_err(|error| tracing::warn!(%error, "certificates stay as they were"))
            .is_ok()
    }
}

/// Why [`Session::advance`] stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// It needs more bytes than it was given.
    NeedInput,
    /// The answers must be sent first.
    OutputFull,
    /// It has nothing to say until [`Session::news`] come.
    Watching,
    /// An errand must be done first.
    Errand,
    /// The connection ends, once the answers are sent.
    Close,
}

enum Step {
    /// So many bytes are done with.
    Done(usize),
    NeedInput,
    Watching,
    Close,
}

/// A value that is larger than the read buffer.
#[derive(Debug)]
struct ArrivingValue {
    /// Its line, parsed again when the value is complete.
    line: Vec<u8>,
    /// Key, value and `\r\n`, in the allocation that the item will have.
    bytes: Vec<u8>,
    filled: usize,
}

#[derive(Debug)]
enum State {
    /// Between commands.
    Line,
    /// In the middle of a get whose answers did not fit.
    Keys(GetManner),
    /// In the middle of a get with routed keys.
    RoutedKeys(GetManner),
    /// An errand is done for a command; this is its answer.
    Waiting(Reply),
    Value(ArrivingValue),
    /// So many bytes belong to a value that was refused.
    Skip(usize),
    Dump(Dump),
    /// For the rest of the connection's life.
    Watch(Watch),
}

/// One connection's side of the protocol.
#[derive(Debug)]
pub(crate) struct Session {
    shared: Arc<SharedState>,
    /// The connection's.
    number: u64,
    /// The client said who it is, or need not.
    is_known: bool,
    /// The connection ends because of what the client sent.
    is_protocol_error: bool,
    /// Keys asked for since one of them was sampled. Nobody else changes it; it
    /// is atomic only because others may look at a session.
    get_count: AtomicU32,
    state: State,
    routed: Routed,
}

impl Session {
    pub(crate) fn new(shared: Arc<SharedState>, number: u64) -> Self {
        let is_known = shared.options.credentials.is_empty();
        Self {
            shared,
            number,
            is_known,
            is_protocol_error: false,
            get_count: AtomicU32::new(0),
            state: State::Line,
            routed: Routed::default(),
        }
    }

    /// Whether the connection ends because of what the client sent.
    pub(crate) fn is_protocol_error(&self) -> bool {
        self.is_protocol_error
    }

    /// Whether a value is arriving.
    pub(crate) fn is_in_value(&self) -> bool {
        matches!(self.state, State::Value(_) | State::Skip(_))
    }

    /// Waits until there is something to say to a client that watches.
    pub(crate) async fn news(&self) {
        match &self.state {
            State::Watch(watch) => watch.watcher.news().await,
            _ => std::future::pending().await,
        }
    }

    /// Runs the commands in `input` and appends their answers to `output`.
    /// Returns how many bytes are done with; the rest is to be given again,
    /// with what came in after it.
    pub(crate) fn advance(&mut self, input: &[u8], output: &mut Output, now: u32) -> (usize, Status) {
        self.shared.table.flush_if_due(now);
        let mut done = 0;
        loop {
            if output.len() >= self.shared.options.output_bytes_max {
                return (done, Status::OutputFull);
            }
            match self.step(&input[done..], output, now) {
                Step::Done(count) => {
                    done += count;
                    if self.has_errand() {
                        return (done, Status::Errand);
                    }
                }
                Step::NeedInput => return (done, Status::NeedInput),
                Step::Watching => return (input.len(), Status::Watching),
                Step::Close => return (done, Status::Close),
            }
        }
    }

    /// Where the next bytes of a large value go, if one is arriving: they need
    /// not pass through the read buffer.
    pub(crate) fn value_buffer(&mut self) -> Option<&mut [u8]> {
        match &mut self.state {
            State::Value(value) => Some(&mut value.bytes[value.filled..]),
            _ => None,
        }
    }

    /// Notes that `count` bytes were read into [`Session::value_buffer`].
    pub(crate) fn value_arrived(&mut self, count: usize) {
        if let State::Value(value) = &mut self.state {
            value.filled += count;
        }
    }

    fn step(&mut self, input: &[u8], output: &mut Output, now: u32) -> Step {
        match &mut self.state {
            State::Line => self.step_line(input, output, now),
            State::Keys(get) => {
                let get = *get;
                let Some((line, end)) = split_line(input) else { return Step::NeedInput };
                Step::Done(self.get_keys(get, line, (line.len(), end), output, now))
            }
            State::Dump(_) => {
                self.step_dump(output, now);
                Step::Done(0)
            }
            State::Watch(watch) => {
                output.put(&watch.watcher.take());
                Step::Watching
            }
            State::RoutedKeys(get) => {
                let get = *get;
                let Some((line, end)) = split_line(input) else { return Step::NeedInput };
                self.step_routed_keys(get, line, (line.len(), end), output, now)
            }
            State::Waiting(_) => {
                if let State::Waiting(reply) = std::mem::replace(&mut self.state, State::Line) {
                    self.answer_waiting(&reply, output, now);
                }
                Step::Done(0)
            }
            State::Value(value) => {
                let missing = value.bytes.len() - value.filled;
                let count = missing.min(input.len());
                value.bytes[value.filled..value.filled + count].copy_from_slice(&input[..count]);
                value.filled += count;
                if count < missing {
                    return if count == 0 { Step::NeedInput } else { Step::Done(count) };
                }
                self.finish_value(output, now);
                Step::Done(count)
            }
            State::Skip(missing) => {
                let count = (*missing).min(input.len());
                *missing -= count;
                if *missing == 0 {
                    self.state = State::Line;
                } else if count == 0 {
                    return Step::NeedInput;
                }
                Step::Done(count)
            }
        }
    }

    fn step_line(&mut self, input: &[u8], output: &mut Output, now: u32) -> Step {
        if !self.is_known {
            return self.step_stranger(input, output);
        }
        let Some((line, end)) = split_line(input) else {
            self.is_protocol_error = is_hopeless(input);
            return if self.is_protocol_error { Step::Close } else { Step::NeedInput };
        };
        if line.len() > LINE_BYTES_MAX && is_hopeless(line) {
            self.is_protocol_error = true;
            return Step::Close;
        }
        self.saw_line(line);
        let command = command::parse(line);
        if self.shared.origins.is_some()
            && let Some(step) = self.step_routed(&command, (line.len(), end), output, now)
        {
            return step;
        }
        match command {
            Command::Get { keys, with_cas, leases, exptime } => {
                let get =
                    GetManner { with_cas, leases, expires_at: exptime.map(|exptime| expiry(exptime, now)) };
                Step::Done(self.get_keys(get, keys, (line.len(), end), output, now))
            }
            Command::Store(store) => {
                self.step_store(StoreCommand::Classic(&store), line, input, end, output, now)
            }
            Command::MetaSet(set) => self.step_store(StoreCommand::Meta(&set), line, input, end, output, now),
            Command::RefuseValue { answer, no_reply, value_bytes } => {
                put_answer(output, answer, no_reply);
                self.state = State::Skip(value_bytes);
                Step::Done(end)
            }
            Command::Close => {
                self.is_protocol_error = true;
                Step::Close
            }
            Command::Quit => Step::Close,
            Command::Shutdown { is_valid } if self.shutdown(is_valid, output) => Step::Close,
            Command::Shutdown { .. } => Step::Done(end),
            Command::Watch { streams } => {
                self.watch(streams, output);
                Step::Done(end)
            }
            Command::Dump { format, item_count_max } => {
                self.begin_dump(format, item_count_max, output);
                Step::Done(end)
            }
            command => {
                self.run(&command, output, now);
                Step::Done(end)
            }
        }
    }

    /// Stores the value behind a line, if all of it is there; else waits for it
    /// in the read buffer, or in an allocation of its own.
    fn step_store(
        &mut self,
        store: StoreCommand<'_>,
        line: &[u8],
        input: &[u8],
        end: usize,
        output: &mut Output,
        now: u32,
    ) -> Step {
        let value_bytes = store.value_bytes() + 2;
        if self.is_too_large(store) {
            self.refuse_too_large(store, output, now);
            self.state = State::Skip(value_bytes);
            return Step::Done(end);
        }
        let rest = &input[end..];
        if let Some(value) = rest.get(..value_bytes) {
            self.store(store, Value::Borrowed(value), output, now);
            return Step::Done(end + value_bytes);
        }
        if value_bytes <= SMALL_VALUE_BYTES {
            return Step::NeedInput;
        }
        let key = store.key();
        let mut bytes = Vec::new();
        if bytes.try_reserve_exact(key.len() + value_bytes).is_err() {
            self.shared.no_memory_count.fetch_add(1, Ordering::Relaxed);
            put_answer(output, answer::NO_MEMORY, store.is_no_reply());
            self.state = State::Skip(value_bytes);
            return Step::Done(end);
        }
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(rest);
        let filled = bytes.len();
        bytes.resize(key.len() + value_bytes, 0);
        self.state = State::Value(ArrivingValue { line: line.to_vec(), bytes, filled });
        Step::Done(input.len())
    }

    /// Stores a value that arrived in an allocation of its own.
    fn finish_value(&mut self, output: &mut Output, now: u32) {
        let State::Value(value) = std::mem::replace(&mut self.state, State::Line) else { return };
        let command = command::parse(&value.line);
        let store = match &command {
            Command::Store(store) => StoreCommand::Classic(store),
            Command::MetaSet(set) => StoreCommand::Meta(set),
            _ => unreachable!("the line was parsed as a store before"),
        };
        self.store(store, Value::Arrived(value.bytes), output, now);
    }
}

/// The first line of `input` without its end, and where the next one begins.
fn split_line(input: &[u8]) -> Option<(&[u8], usize)> {
    let newline = memchr::memchr(b'\n', input)?;
    let line = &input[..newline];
    Some((line.strip_suffix(b"\r").unwrap_or(line), newline + 1))
}

/// Whether a line that has not ended yet is too long for anything but a get, or
/// even for that.
fn is_hopeless(line: &[u8]) -> bool {
    let start = line.iter().position(|byte| *byte != b' ').unwrap_or(line.len());
    let gets = [b"get ".as_slice(), b"gets ", b"lease-get "];
    let is_get = start <= 100 && gets.iter().any(|verb| line[start..].starts_with(verb));
    line.len() > if is_get { GET_LINE_BYTES_MAX } else { LINE_BYTES_MAX }
}

/// The second that `exptime` means, as memcached reads it: 0 is never, up to
/// thirty days are from now, more is a second of the Unix epoch, and what is
/// negative is over.
fn expiry(exptime: i32, now: u32) -> u32 {
    match u32::try_from(exptime) {
        Ok(0) => 0,
        Ok(seconds) if exptime <= RELATIVE_SECONDS_MAX => now.saturating_add(seconds),
        Ok(second) => second,
        Err(_) => 1,
    }
}

fn put_answer(output: &mut Output, answer: &str, no_reply: bool) {
    if !no_reply {
        output.put(answer.as_bytes());
    }
}
