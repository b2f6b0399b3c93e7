//! The commands of those who look after a cache: a line into a command, or into
//! the answer that memcached gives where there are no slabs and no LRU to tune.

use crate::protocol::answer;
use crate::protocol::command::Command;
use crate::protocol::number::parse_u32;

/// What a watcher wants to hear of, as bits.
pub(crate) mod stream {
    pub(crate) const RAW_COMMANDS: u8 = 1;
    pub(crate) const EVICTIONS: u8 = 1 << 1;
    pub(crate) const FETCHERS: u8 = 1 << 2;
    pub(crate) const MUTATIONS: u8 = 1 << 3;
    pub(crate) const CONNECTIONS: u8 = 1 << 4;
    pub(crate) const DELETIONS: u8 = 1 << 5;
    /// Asked for, but nothing is ever said: there is no such part.
    pub(crate) const SILENT: u8 = 1 << 6;
}

/// How a dump shows an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DumpFormat {
    /// `lru_crawler metadump`: everything but the value.
    Meta,
    /// `lru_crawler mgdump`: a command that would get it.
    MetaGet,
    /// `stats cachedump`: as long ago.
    Cache,
}

impl DumpFormat {
    /// What follows the last item.
    pub(crate) fn end(self) -> &'static str {
        match self {
            Self::Meta | Self::Cache => answer::END,
            Self::MetaGet => "EN\r\n",
        }
    }
}

pub(super) fn parse_shutdown<'a>(words: &[&'a [u8]]) -> Command<'a> {
    let is_valid = matches!(words, [_] | [_, b"graceful"]);
    Command::Shutdown { is_valid }
}

pub(super) fn parse_watch<'a>(words: &[&'a [u8]]) -> Command<'a> {
    let mut streams = if words.len() == 1 { stream::FETCHERS } else { 0 };
    for word in &words[1..] {
        streams |= match *word {
            b"rawcmds" => stream::RAW_COMMANDS,
            b"evictions" => stream::EVICTIONS,
            b"fetchers" => stream::FETCHERS,
            b"mutations" => stream::MUTATIONS,
            b"connevents" => stream::CONNECTIONS,
            b"deletions" => stream::DELETIONS,
            b"sysevents" | b"proxyreqs" | b"proxyevents" | b"proxyuser" => stream::SILENT,
            _ => return Command::refuse(answer::ERROR),
        };
    }
    Command::Watch { streams }
}

pub(super) fn parse_crawler<'a>(words: &[&'a [u8]]) -> Command<'a> {
    match words {
        [_, b"enable" | b"disable"] => Command::Acknowledge,
        [_, b"crawl", _] => Command::Crawl,
        [_, b"metadump", classes] => parse_dump(classes, DumpFormat::Meta),
        [_, b"mgdump", classes] => parse_dump(classes, DumpFormat::MetaGet),
        [_, b"tocrawl", count] => match parse_u32(count) {
            Some(_) => Command::Acknowledge,
            None => Command::refuse(answer::BAD_LINE),
        },
        [_, b"sleep", microseconds] => match parse_u32(microseconds) {
            Some(0..=1_000_000) => Command::Acknowledge,
            Some(_) => Command::refuse("CLIENT_ERROR sleep must be one second or less\r\n"),
            None => Command::refuse(answer::BAD_LINE),
        },
        _ => Command::refuse(answer::ERROR),
    }
}

/// All items are of class 1.
fn parse_dump<'a>(classes: &[u8], format: DumpFormat) -> Command<'a> {
    let is_class = |text: &[u8]| parse_u32(text).is_some_and(|class| (1..64).contains(&class));
    match classes {
        b"all" | b"hash" => Command::Dump { format, item_count_max: 0 },
        _ if classes.split(|byte| *byte == b',').all(is_class) => {
            let has_items = classes.split(|byte| *byte == b',').any(|class| parse_u32(class) == Some(1));
            if has_items {
                Command::Dump { format, item_count_max: 0 }
            } else {
                Command::refuse("NOTSTARTED no items to crawl\r\n")
            }
        }
        _ => Command::refuse("BADCLASS invalid class id\r\n"),
    }
}

pub(super) fn parse_slabs<'a>(words: &[&'a [u8]]) -> Command<'a> {
    match words {
        [_, b"reassign", _, _] => Command::refuse("CLIENT_ERROR slab reassignment disabled\r\n"),
        [_, b"automove", level] if parse_u32(level).is_some_and(|level| level <= 2) => Command::Acknowledge,
        [_, b"automove", ..] => Command::refuse(answer::BAD_LINE),
        _ => Command::refuse(answer::ERROR),
    }
}

pub(super) fn parse_stats<'a>(words: &[&'a [u8]]) -> Command<'a> {
    match words {
        [_, b"cachedump", class, count] => match (parse_u32(class), parse_u32(count)) {
            (Some(1), Some(item_count_max)) => {
                Command::Dump { format: DumpFormat::Cache, item_count_max: item_count_max as usize }
            }
            (Some(0..64), Some(_)) => Command::refuse(answer::END),
            (Some(_), Some(_)) => Command::refuse("CLIENT_ERROR Illegal slab id\r\n"),
            _ => Command::refuse(answer::BAD_LINE),
        },
        [_, b"cachedump", ..] => Command::refuse("CLIENT_ERROR bad command line\r\n"),
        [_, b"detail", mode] if [b"on".as_slice(), b"off", b"dump"].contains(mode) => {
            Command::Stats { subcommand: Some(b"detail"), mode: Some(mode) }
        }
        [_, b"detail", ..] => Command::refuse("CLIENT_ERROR usage: stats detail on|off|dump\r\n"),
        _ => Command::Stats { subcommand: words.get(1).copied(), mode: None },
    }
}
