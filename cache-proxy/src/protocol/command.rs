//! A line into a classic command, or into the answer that refuses it.

use crate::item_table::KEY_BYTES_MAX;
use crate::protocol::admin::{self, DumpFormat};
use crate::protocol::answer;
use crate::protocol::meta::{self, MetaLine};
use crate::protocol::number::{parse_i32, parse_u32, parse_u64};
use crate::protocol::tokens::{Tokens, next_token};

/// The longest hold-off of a delete: an hour, far more than a warm-up's races take.
const HOLD_OFF_SECONDS_MAX: u32 = 3600;

/// How a value is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreVerb {
    Set,
    Add,
    Replace,
    Append,
    Prepend,
    Cas,
    LeaseSet,
}

impl StoreVerb {
    /// The command's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::Add => "add",
            Self::Replace => "replace",
            Self::Append => "append",
            Self::Prepend => "prepend",
            Self::Cas => "cas",
            Self::LeaseSet => "lease-set",
        }
    }
}

/// A line that a value follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoreLine<'a> {
    pub(crate) verb: StoreVerb,
    pub(crate) key: &'a [u8],
    pub(crate) client_flags: u32,
    pub(crate) exptime: i32,
    /// Length of the value, without its `\r\n`.
    pub(crate) value_bytes: usize,
    /// What `cas` compares with; the token of `lease-set`.
    pub(crate) unique: u64,
    pub(crate) no_reply: bool,
}

/// What a line asks for.
#[derive(Debug)]
pub(crate) enum Command<'a> {
    /// get, gets, gat, gats, lease-get. No key is too long, and there is one at least,
    /// unless there was an exptime before them.
    Get {
        keys: &'a [u8],
        with_cas: bool,
        leases: bool,
        exptime: Option<i32>,
    },
    /// set, add, replace, append, prepend, cas, lease-set.
    Store(StoreLine<'a>),
    Touch {
        key: &'a [u8],
        exptime: i32,
        no_reply: bool,
    },
    Delete {
        key: &'a [u8],
        /// Seconds in which nothing is to be added under the key.
        hold_off_s: u32,
        no_reply: bool,
    },
    /// incr, decr.
    Arithmetic {
        key: &'a [u8],
        delta: u64,
        increment: bool,
        no_reply: bool,
    },
    FlushAll {
        delay: i32,
        no_reply: bool,
    },
    Verbosity {
        level: u32,
        no_reply: bool,
    },
    MemoryLimit {
        mebibytes: u64,
        no_reply: bool,
    },
    /// stats; its subcommand, if it has one, and whether detail goes on, off, or out.
    Stats {
        subcommand: Option<&'a [u8]>,
        mode: Option<&'a [u8]>,
    },
    /// shutdown; always graceful.
    Shutdown {
        is_valid: bool,
    },
    /// watch, for the streams of these bits.
    Watch {
        streams: u8,
    },
    /// lru_crawler metadump and mgdump, stats cachedump; 0 items for all.
    Dump {
        format: DumpFormat,
        item_count_max: usize,
    },
    /// lru_crawler crawl: what has expired goes now.
    Crawl,
    /// refresh_certs.
    RefreshCertificates,
    /// Of no consequence here, and answered OK.
    Acknowledge,
    Version,
    Quit,
    /// mg, md, ma, me.
    Meta(MetaLine<'a>),
    /// ms.
    MetaSet(MetaLine<'a>),
    MetaNoOp,
    /// The line is wrong, or asks for what there is not.
    Refuse {
        answer: &'static str,
        no_reply: bool,
    },
    /// The same, of a line that a value follows: so many bytes, its `\r\n` included.
    RefuseValue {
        answer: &'static str,
        no_reply: bool,
        value_bytes: usize,
    },
    /// Not a client of ours.
    Close,
}

impl Command<'_> {
    pub(crate) fn refuse(answer: &'static str) -> Self {
        Self::Refuse { answer, no_reply: false }
    }
}

/// What `line`, without its end, asks for.
pub(crate) fn parse(line: &[u8]) -> Command<'_> {
    let Some((verb, rest)) = next_token(line) else { return Command::refuse(answer::ERROR) };
    match verb {
        b"get" | b"bget" => parse_get(rest, false),
        b"gets" => parse_get(rest, true),
        b"gat" => parse_gat(rest, false),
        b"gats" => parse_gat(rest, true),
        b"set" => parse_store(line, StoreVerb::Set),
        b"add" => parse_store(line, StoreVerb::Add),
        b"replace" => parse_store(line, StoreVerb::Replace),
        b"append" => parse_store(line, StoreVerb::Append),
        b"prepend" => parse_store(line, StoreVerb::Prepend),
        b"cas" => parse_store(line, StoreVerb::Cas),
        b"lease-get" => parse_lease_get(rest),
        b"lease-set" => parse_store(line, StoreVerb::LeaseSet),
        [b'm', b'g' | b's' | b'd' | b'a' | b'e'] => meta::parse(verb[1], line),
        b"mn" => Command::MetaNoOp,
        _ => parse_other(verb, Tokens::split(line).as_slice()),
    }
}

fn parse_other<'a>(verb: &[u8], words: &[&'a [u8]]) -> Command<'a> {
    match verb {
        b"delete" => parse_delete(words),
        b"incr" => parse_arithmetic(words, true),
        b"decr" => parse_arithmetic(words, false),
        b"touch" => parse_touch(words),
        b"stats" => admin::parse_stats(words),
        b"flush_all" => parse_flush_all(words),
        b"version" => Command::Version,
        b"verbosity" => parse_verbosity(words),
        b"cache_memlimit" => parse_memory_limit(words),
        b"quit" => Command::Quit,
        b"shutdown" => admin::parse_shutdown(words),
        b"watch" => admin::parse_watch(words),
        b"lru_crawler" => admin::parse_crawler(words),
        b"slabs" => admin::parse_slabs(words),
        b"refresh_certs" => Command::RefreshCertificates,
        // A browser or a health check: memcached closes, so that a page of
        // another origin cannot make it speak memcached.
        _ if words.last().is_some_and(|last| last.starts_with(b"HTTP/")) => Command::Close,
        b"GET" if words.get(1).is_some_and(|path| path.starts_with(b"/")) => Command::Close,
        _ => Command::refuse(answer::ERROR),
    }
}

fn parse_get(keys: &[u8], with_cas: bool) -> Command<'_> {
    match check_keys(keys) {
        Ok(0) => Command::refuse(answer::ERROR),
        Ok(_) => Command::Get { keys, with_cas, leases: false, exptime: None },
        Err(KeyTooLong) => Command::refuse(answer::BAD_LINE),
    }
}

fn parse_lease_get(keys: &[u8]) -> Command<'_> {
    match parse_get(keys, false) {
        Command::Get { keys, with_cas, exptime, .. } => {
            Command::Get { keys, with_cas, leases: true, exptime }
        }
        refusal => refusal,
    }
}

fn parse_gat(rest: &[u8], with_cas: bool) -> Command<'_> {
    let Some((exptime, keys)) = next_token(rest) else { return Command::refuse(answer::ERROR) };
    let Some(exptime) = parse_i32(exptime) else { return Command::refuse(answer::BAD_EXPTIME) };
    match check_keys(keys) {
        Ok(_) => Command::Get { keys, with_cas, leases: false, exptime: Some(exptime) },
        Err(KeyTooLong) => Command::refuse(answer::BAD_LINE),
    }
}

struct KeyTooLong;

/// How many keys there are, or 1 if that is quicker to know.
fn check_keys(keys: &[u8]) -> Result<usize, KeyTooLong> {
    let mut count = 0;
    let mut rest = keys;
    while let Some((key, after)) = next_token(rest) {
        if key.len() > KEY_BYTES_MAX {
            return Err(KeyTooLong);
        }
        count += 1;
        if after.len() <= KEY_BYTES_MAX {
            break;
        }
        rest = after;
    }
    Ok(count)
}

fn parse_store(line: &[u8], verb: StoreVerb) -> Command<'_> {
    let tokens = Tokens::split(line);
    let words = tokens.as_slice();
    let word_count = if matches!(verb, StoreVerb::Cas | StoreVerb::LeaseSet) { 6 } else { 5 };
    if words.len() != word_count && words.len() != word_count + 1 {
        return Command::refuse(answer::ERROR);
    }
    let no_reply = is_no_reply(words);
    // lease-set has its token before the flags, cas its number at the end.
    let (unique, words) = match verb {
        StoreVerb::Cas => (parse_u64(words[5]), words),
        StoreVerb::LeaseSet => (parse_u64(words[2]), &[&words[1..2], &words[1..2], &words[3..]].concat()[..]),
        _ => (Some(0), words),
    };
    let value_bytes = parse_i32(words[4]).and_then(|bytes| usize::try_from(bytes).ok());
    let value_bytes = value_bytes.filter(|bytes| *bytes <= i32::MAX as usize - 2);
    let parsed = (|| {
        Some(StoreLine {
            verb,
            key: Some(words[1]).filter(|key| key.len() <= KEY_BYTES_MAX)?,
            client_flags: parse_u32(words[2])?,
            exptime: parse_i32(words[3])?,
            value_bytes: value_bytes?,
            unique: unique?,
            no_reply,
        })
    })();
    match (parsed, value_bytes) {
        (Some(store), _) => Command::Store(store),
        // memcached takes the value for the next command. Its client sees the
        // answers shift only if it had not waited for one: that must not be.
        (None, Some(value_bytes)) if no_reply => {
            Command::RefuseValue { answer: answer::BAD_LINE, no_reply, value_bytes: value_bytes + 2 }
        }
        (None, _) => Command::Refuse { answer: answer::BAD_LINE, no_reply },
    }
}

fn parse_delete<'a>(words: &[&'a [u8]]) -> Command<'a> {
    if !(2..=4).contains(&words.len()) {
        return Command::refuse(answer::ERROR);
    }
    // memcached gave the hold-off up and takes 0 only; the leases need it.
    let no_reply = words.len() > 2 && is_no_reply(words);
    let hold_off_s = match words.len() {
        2 => Some(0),
        3 if no_reply => Some(0),
        4 if !no_reply => None,
        _ => parse_u32(words[2]).filter(|seconds| *seconds <= HOLD_OFF_SECONDS_MAX),
    };
    match (words[1], hold_off_s) {
        (_, None) => Command::Refuse { answer: answer::BAD_DELETE, no_reply },
        (key, _) if key.len() > KEY_BYTES_MAX => Command::Refuse { answer: answer::BAD_LINE, no_reply },
        (key, Some(hold_off_s)) => Command::Delete { key, hold_off_s, no_reply },
    }
}

fn parse_arithmetic<'a>(words: &[&'a [u8]], increment: bool) -> Command<'a> {
    if !(3..=4).contains(&words.len()) {
        return Command::refuse(answer::ERROR);
    }
    let (key, no_reply) = (words[1], is_no_reply(words));
    if key.len() > KEY_BYTES_MAX {
        return Command::Refuse { answer: answer::BAD_LINE, no_reply };
    }
    match parse_u64(words[2]) {
        Some(delta) => Command::Arithmetic { key, delta, increment, no_reply },
        None => Command::Refuse { answer: answer::BAD_DELTA, no_reply },
    }
}

fn parse_touch<'a>(words: &[&'a [u8]]) -> Command<'a> {
    if !(3..=4).contains(&words.len()) {
        return Command::refuse(answer::ERROR);
    }
    let (key, no_reply) = (words[1], is_no_reply(words));
    if key.len() > KEY_BYTES_MAX {
        return Command::Refuse { answer: answer::BAD_LINE, no_reply };
    }
    match parse_i32(words[2]) {
        Some(exptime) => Command::Touch { key, exptime, no_reply },
        None => Command::Refuse { answer: answer::BAD_EXPTIME, no_reply },
    }
}

fn parse_flush_all<'a>(words: &[&'a [u8]]) -> Command<'a> {
    if words.len() > 3 {
        return Command::refuse(answer::ERROR);
    }
    let no_reply = is_no_reply(words);
    if words.len() == if no_reply { 2 } else { 1 } {
        return Command::FlushAll { delay: 0, no_reply };
    }
    match parse_i32(words[1]) {
        Some(delay) => Command::FlushAll { delay, no_reply },
        None => Command::Refuse { answer: answer::BAD_EXPTIME, no_reply },
    }
}

fn parse_verbosity<'a>(words: &[&'a [u8]]) -> Command<'a> {
    if !(2..=3).contains(&words.len()) {
        return Command::refuse(answer::ERROR);
    }
    let no_reply = is_no_reply(words);
    match parse_u32(words[1]) {
        Some(level) => Command::Verbosity { level, no_reply },
        None => Command::Refuse { answer: answer::BAD_LINE, no_reply },
    }
}

fn parse_memory_limit<'a>(words: &[&'a [u8]]) -> Command<'a> {
    if !(2..=3).contains(&words.len()) {
        return Command::refuse(answer::ERROR);
    }
    let no_reply = is_no_reply(words);
    let answer = match parse_u32(words[1]) {
        Some(mebibytes @ 8..=1_000_000_000) => {
            return Command::MemoryLimit { mebibytes: u64::from(mebibytes), no_reply };
        }
        Some(0..8) => "MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m\r\n",
        Some(_) => "MEMLIMIT_ADJUST_FAILED input value is megabytes not bytes\r\n",
        None => answer::ERROR,
    };
    Command::Refuse { answer, no_reply }
}

fn is_no_reply(words: &[&[u8]]) -> bool {
    words.last() == Some(&b"noreply".as_slice())
}
