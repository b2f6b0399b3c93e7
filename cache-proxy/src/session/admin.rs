//! shutdown, watch, dumps of the keys, and the answer to `set` by which a client
//! says who it is.

use std::sync::atomic::Ordering;

use super::{Session, State, Step, split_line};
use crate::item_table::{DumpCursor, Item};
use crate::protocol::admin::DumpFormat;
use crate::protocol::answer;
use crate::protocol::meta::encode_base64;
use crate::protocol::number::parse_u32;
use crate::protocol::output::Output;
use crate::protocol::tokens::Tokens;
use crate::watch::ShownKey;

/// memcached's bounds on what a client says who it is.
const AUTH_LINE_BYTES_MIN: usize = 6;
const AUTH_LINE_BYTES_MAX: usize = 2048;
const AUTH_VALUE_BYTES_MAX: usize = 16_384;

/// Items shown before a dump lets go of a shard's lock.
const DUMP_ITEMS: usize = 64;

/// A dump under way.
#[derive(Debug)]
pub(super) struct Dump {
    format: DumpFormat,
    cursor: DumpCursor,
    /// Items that are still to be shown; 0 for all.
    item_count_left: usize,
}

impl Session {
    /// Runs a line of a client that did not say who it is: only a `set` whose
    /// value is its user and password will do.
    pub(super) fn step_stranger(&mut self, input: &[u8], output: &mut Output) -> Step {
        let Some((line, end)) = split_line(input) else {
            return if input.len() > AUTH_LINE_BYTES_MAX { Step::Close } else { Step::NeedInput };
        };
        if line.len() + 1 < AUTH_LINE_BYTES_MIN {
            return Step::Close;
        }
        let tokens = Tokens::split(line);
        let words = tokens.as_slice();
        let value_bytes = match words.get(4).and_then(|word| parse_u32(word)) {
            Some(bytes) if words[0] == b"set" => bytes as usize,
            _ => {
                output.put(b"CLIENT_ERROR unauthenticated\r\n");
                return Step::Done(end);
            }
        };
        if value_bytes > AUTH_VALUE_BYTES_MAX {
            output.put(b"CLIENT_ERROR auth token too long\r\n");
            return Step::Done(end);
        }
        let Some(value) = input.get(end..end + value_bytes + 2) else { return Step::NeedInput };
        output.put(self.authenticate(value).as_bytes());
        Step::Done(end + value_bytes + 2)
    }

    fn authenticate(&mut self, value: &[u8]) -> &'static str {
        let Some(value) = value.strip_suffix(b"\r\n") else {
            return "CLIENT_ERROR bad command line termination\r\n";
        };
        let Some(space) = memchr::memchr(b' ', value) else {
            return "CLIENT_ERROR bad authentication token format\r\n";
        };
        self.shared.auth_count.fetch_add(1, Ordering::Relaxed);
        let (user, password) = (&value[..space], &value[space + 1..]);
        self.is_known = self.shared.credentials.read().iter().fold(false, |known, credential| {
            // Each is looked at, whichever matches.
            known | credential.matches(user, password)
        });
        if self.is_known {
            return answer::STORED;
        }
        self.shared.auth_error_count.fetch_add(1, Ordering::Relaxed);
        "CLIENT_ERROR authentication failure\r\n"
    }

    /// Asks for the process's end, if clients may; whether they may.
    pub(super) fn shutdown(&self, is_valid: bool, output: &mut Output) -> bool {
        if !self.shared.options.shutdown_command {
            output.put(b"SERVER_ERROR: shutdown not enabled\r\n");
            return false;
        }
        if !is_valid {
            output.put(b"CLIENT_ERROR invalid shutdown mode\r\n");
            return false;
        }
        tracing::info!(connection = self.number, "a client asked for the shutdown");
        self.shared.shutdown_asked.notify_one();
        true
    }

    pub(super) fn watch(&mut self, streams: u8, output: &mut Output) {
        match self.shared.watchers.add(streams) {
            None => output.put(b"WATCHER_TOO_MANY log watcher limit reached\r\n"),
            Some(watch) => {
                output.put(answer::OK.as_bytes());
                self.state = State::Watch(watch);
            }
        }
    }

    pub(super) fn begin_dump(&mut self, format: DumpFormat, item_count_max: usize, output: &mut Output) {
        if !self.shared.options.dump_enabled {
            return output.put(match format {
                DumpFormat::Meta => b"ERROR metadump not allowed\r\n".as_slice(),
                DumpFormat::MetaGet => b"ERROR key dump not allowed\r\n",
                DumpFormat::Cache => b"CLIENT_ERROR stats cachedump not allowed\r\n",
            });
        }
        if format != DumpFormat::Cache {
            output.put(answer::OK.as_bytes());
        }
        let dump = Dump { format, cursor: DumpCursor::default(), item_count_left: item_count_max };
        self.state = State::Dump(dump);
    }

    /// Shows some more items; the dump goes on when those are sent.
    pub(super) fn step_dump(&mut self, output: &mut Output, now: u32) {
        let State::Dump(dump) = &mut self.state else { return };
        let (format, mut is_full) = (dump.format, false);
        let more = self.shared.table.dump(&mut dump.cursor, now, DUMP_ITEMS, |item| {
            if is_full {
                return;
            }
            put_dumped(format, item, output, now);
            if dump.item_count_left > 0 {
                dump.item_count_left -= 1;
                is_full = dump.item_count_left == 0;
            }
        });
        if !more || is_full {
            output.put(format.end().as_bytes());
            self.state = State::Line;
        }
    }
}

fn put_dumped(format: DumpFormat, item: &Item, output: &mut Output, now: u32) {
    let expires_at = item.expires_at();
    match format {
        DumpFormat::Meta => {
            let expiry = if expires_at == 0 { -1 } else { i64::from(expires_at) };
            let line = format!(
                "key={} exp={expiry} la={} cas={} fetch={} cls=1 size={} flags={} \n",
                ShownKey(item.key()),
                item.accessed_at(),
                item.cas(),
                if item.is_fetched() { "yes" } else { "no" },
                item.memory_bytes(),
                item.client_flags(),
            );
            output.put(line.as_bytes());
        }
        DumpFormat::MetaGet => {
            output.put(b"mg ");
            if item.has_binary_key() {
                encode_base64(item.key(), |part| output.put(part));
                output.put(b" b");
            } else {
                output.put(item.key());
            }
            output.put(b"\r\n");
        }
        DumpFormat::Cache => {
            output.put(b"ITEM ");
            output.put(item.key());
            let expiry = if expires_at == 0 { 0 } else { expires_at.max(now) };
            output.put(format!(" [{} b; {expiry} s]\r\n", item.value().len()).as_bytes());
        }
    }
}
