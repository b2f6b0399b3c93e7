//! The commands of the classic dialect that no value follows.

use std::sync::atomic::Ordering;

use super::{Session, State, expiry, put_answer};
use crate::item_table::{ItemBytes, KEY_BYTES_MAX, NewItem};
use crate::protocol::answer;
use crate::protocol::command::Command;
use crate::protocol::number::{Decimal, parse_u64};
use crate::protocol::output::Output;
use crate::protocol::tokens::next_token;

/// What memcached calls itself, and we after it: clients look for features by it.
pub(super) const VERSION: &str = concat!("1.6.45-hayloft-", env!("CARGO_PKG_VERSION"));

const VERBOSITY_MAX: u32 = 10;

/// Which of get, gets, gat, gats and lease-get.
#[derive(Clone, Copy, Debug)]
pub(super) struct GetManner {
    pub(super) with_cas: bool,
    /// lease-get: a key without a value is offered to be filled.
    pub(super) leases: bool,
    /// When each item is to expire, if that is to change.
    pub(super) expires_at: Option<u32>,
}

/// What became of an incr or decr.
#[derive(Clone, Copy, Debug)]
pub(super) enum Arithmetic {
    Done {
        value: u64,
        cas: u64,
    },
    Missing,
    NotNumeric,
    /// Its cas was not the one to compare with.
    Changed,
}

impl Session {
    /// Runs a command that is one line.
    pub(super) fn run(&mut self, command: &Command<'_>, output: &mut Output, now: u32) {
        match *command {
            Command::Touch { key, exptime, no_reply } => {
                let touched = self.touch(key, expiry(exptime, now), now);
                put_answer(output, if touched { answer::TOUCHED } else { answer::NOT_FOUND }, no_reply);
            }
            Command::Delete { key, hold_off_s, no_reply } => {
                let deleted = self.delete(key, hold_off_s, now);
                put_answer(output, if deleted { answer::DELETED } else { answer::NOT_FOUND }, no_reply);
            }
            Command::Arithmetic { key, delta, increment, no_reply } => {
                match self.arithmetic(key, delta, increment, None, None, now) {
                    Arithmetic::Done { value, .. } if !no_reply => {
                        output.put_number(value);
                        output.put(b"\r\n");
                    }
                    Arithmetic::Done { .. } => {}
                    Arithmetic::Missing | Arithmetic::Changed => {
                        put_answer(output, answer::NOT_FOUND, no_reply);
                    }
                    Arithmetic::NotNumeric => put_answer(output, answer::NOT_NUMERIC, no_reply),
                }
            }
            Command::FlushAll { no_reply, .. } if !self.shared.options.flush_enabled => {
                put_answer(output, "CLIENT_ERROR flush_all not allowed\r\n", no_reply);
            }
            Command::FlushAll { delay, no_reply } => {
                self.shared.flush_count.fetch_add(1, Ordering::Relaxed);
                self.shared.table.flush(if delay > 0 { expiry(delay, now) } else { now }, now);
                put_answer(output, answer::OK, no_reply);
            }
            Command::Verbosity { level, no_reply } => {
                self.shared.verbosity.store(level.min(VERBOSITY_MAX), Ordering::Relaxed);
                put_answer(output, answer::OK, no_reply);
            }
            Command::MemoryLimit { mebibytes, no_reply } => {
                // A client may take less than the server was given, never more.
                let granted = mebibytes << 20 <= self.shared.options.memory_bytes_max;
                if granted {
                    self.shared.table.set_memory_bytes_max(mebibytes << 20, now);
                }
                put_answer(output, if granted { answer::OK } else { answer::LIMIT_OUT_OF_BOUNDS }, no_reply);
            }
            Command::Stats { subcommand, mode } => self.stats(subcommand, mode, output, now),
            Command::Crawl => {
                self.shared.table.reap_all(now);
                output.put(answer::OK.as_bytes());
            }
            Command::RefreshCertificates => {
                let refreshed = self.shared.refresh_certificates();
                output.put(if refreshed { answer::OK } else { answer::ERROR }.as_bytes());
            }
            Command::Acknowledge => output.put(answer::OK.as_bytes()),
            Command::Version => {
                output.put(b"VERSION ");
                output.put(VERSION.as_bytes());
                output.put(b"\r\n");
            }
            Command::Meta(ref meta) => self.run_meta(meta, output, now),
            Command::MetaNoOp => output.put(b"MN\r\n"),
            Command::Refuse { answer, no_reply } => put_answer(output, answer, no_reply),
            Command::Get { .. }
            | Command::Store(_)
            | Command::MetaSet(_)
            | Command::RefuseValue { .. }
            | Command::Shutdown { .. }
            | Command::Watch { .. }
            | Command::Dump { .. }
            | Command::Quit
            | Command::Close => unreachable!("the session's own"),
        }
    }

    /// Answers `keys`, the end of a line of `line_bytes` whose successor begins
    /// at `end`; how many bytes are done with. Stops between two keys when the
    /// output is full.
    pub(super) fn get_keys(
        &mut self,
        get: GetManner,
        mut keys: &[u8],
        (line_bytes, end): (usize, usize),
        output: &mut Output,
        now: u32,
    ) -> usize {
        while let Some((key, rest)) = next_token(keys) {
            if output.len() >= self.shared.options.output_bytes_max {
                self.state = State::Keys(get);
                return line_bytes - keys.len();
            }
            debug_assert!(key.len() <= KEY_BYTES_MAX);
            self.get(get, key, output, now);
            keys = rest;
        }
        output.put(answer::END.as_bytes());
        self.state = State::Line;
        end
    }

    pub(super) fn get(&self, get: GetManner, key: &[u8], output: &mut Output, now: u32) {
        let GetManner { with_cas, leases, expires_at } = get;
        if leases {
            return self.lease_get(key, output, now);
        }
        let mut slot = self.shared.table.slot(key, now);
        let Some(expires_at) = expires_at else {
            let found = slot.get();
            let found_bytes = found.map(|item| item.value().len());
            if let Some(item) = found {
                output.put_item(item, with_cas);
            }
            drop(slot);
            return self.saw_get(key, found_bytes);
        };
        slot.set_expiry(expires_at);
        slot.access();
        let found = slot.item().is_some();
        let found_bytes = slot.item().map(|item| item.value().len());
        if let Some(item) = slot.item() {
            output.put_item(item, with_cas);
        }
        let counts = slot.counts();
        counts.cmd_touch += 1;
        counts.touch_hits += u64::from(found);
        counts.touch_misses += u64::from(!found);
        drop(slot);
        self.saw_get(key, found_bytes);
    }

    fn touch(&self, key: &[u8], expires_at: u32, now: u32) -> bool {
        let mut slot = self.shared.table.slot(key, now);
        let found = slot.item().is_some();
        slot.set_expiry(expires_at);
        slot.access();
        let counts = slot.counts();
        counts.cmd_touch += 1;
        counts.touch_hits += u64::from(found);
        counts.touch_misses += u64::from(!found);
        found
    }

    fn delete(&self, key: &[u8], hold_off_s: u32, now: u32) -> bool {
        let mut slot = self.shared.table.slot(key, now);
        let found_bytes = slot.item().map(|item| item.value().len());
        let found = slot.delete(self.shared.options.stale_seconds());
        if hold_off_s > 0 {
            slot.hold_off(now.saturating_add(hold_off_s));
        }
        let counts = slot.counts();
        counts.delete_hits += u64::from(found);
        counts.delete_misses += u64::from(!found);
        drop(slot);
        self.saw_delete(key, "delete", found_bytes);
        found
    }

    /// Adds to or takes from the decimal number at `key`. Adding wraps at 2^64,
    /// taking stops at 0, as memcached's does; the new text has no padding,
    /// unlike memcached's.
    pub(super) fn arithmetic(
        &self,
        key: &[u8],
        delta: u64,
        increment: bool,
        compare: Option<u64>,
        new_cas: Option<u64>,
        now: u32,
    ) -> Arithmetic {
        let mut slot = self.shared.table.slot(key, now);
        let Some(item) = slot.item() else {
            let counts = slot.counts();
            counts.incr_misses += u64::from(increment);
            counts.decr_misses += u64::from(!increment);
            return Arithmetic::Missing;
        };
        if compare.is_some_and(|compare| compare != item.cas()) {
            return Arithmetic::Changed;
        }
        let Some(value) = parse_u64(item.value()) else { return Arithmetic::NotNumeric };
        let value = if increment { value.wrapping_add(delta) } else { value.saturating_sub(delta) };
        let text = Decimal::new(value);
        let bytes = ItemBytes::copy(key, &[text.as_bytes()]);
        let cas = if text.as_bytes().len() <= item.value().len() {
            slot.rewrite(bytes, new_cas)
        } else {
            let new = NewItem {
                bytes,
                key_bytes: u8::try_from(key.len()).expect("keys are checked"),
                client_flags: item.client_flags(),
                expires_at: item.expires_at(),
                binary_key: item.has_binary_key(),
            };
            slot.put(new, new_cas)
        };
        let counts = slot.counts();
        counts.incr_hits += u64::from(increment);
        counts.decr_hits += u64::from(!increment);
        drop(slot);
        self.shared.table.relieve(now);
        Arithmetic::Done { value, cas }
    }
}
