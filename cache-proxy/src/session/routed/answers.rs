//! Answers about keys with a route, in both dialects.

use super::put_refusal;
use crate::item_table::Item;
use crate::origins::Fetched;
use crate::origins::cell::CellValue;
use crate::origins::write::WriteOutcome;
use crate::protocol::answer;
use crate::protocol::command::{self, Command};
use crate::protocol::meta::{MetaLine, MetaVerb};
use crate::protocol::output::Output;
use crate::session::meta::{put_number, put_opaque, put_ttl, put_written};

/// The classic commands that an errand answers.
#[derive(Clone, Copy, Debug)]
pub(in crate::session) enum ClassicReply {
    Store { no_reply: bool },
    Delete { no_reply: bool },
    Touch { no_reply: bool },
    Arithmetic { no_reply: bool },
}

impl ClassicReply {
    pub(super) fn is_no_reply(self) -> bool {
        match self {
            Self::Store { no_reply }
            | Self::Delete { no_reply }
            | Self::Touch { no_reply }
            | Self::Arithmetic { no_reply } => no_reply,
        }
    }

    /// Answers that the write came to `outcome`.
    pub(super) fn put(self, output: &mut Output, outcome: &WriteOutcome) {
        if self.is_no_reply() {
            return;
        }
        let text = match (outcome, self) {
            (WriteOutcome::Done(value, _), Self::Arithmetic { .. }) => {
                output.put(&value.value);
                "\r\n"
            }
            (WriteOutcome::Failed(failure), _) => return put_refusal(output, failure, false),
            (WriteOutcome::Done(..) | WriteOutcome::Deleted, Self::Store { .. }) => answer::STORED,
            (WriteOutcome::Done(..) | WriteOutcome::Deleted, Self::Touch { .. }) => answer::TOUCHED,
            (WriteOutcome::Done(..) | WriteOutcome::Deleted, _) => answer::DELETED,
            (WriteOutcome::NotStored, _) => answer::NOT_STORED,
            (WriteOutcome::Exists, _) => answer::EXISTS,
            (WriteOutcome::NotFound, _) => answer::NOT_FOUND,
            (WriteOutcome::NotNumeric, _) => answer::NOT_NUMERIC,
            (WriteOutcome::TooLarge, _) => answer::TOO_LARGE,
        };
        output.put(text.as_bytes());
    }
}

/// A value with what an answer may show of it.
pub(super) struct Shown<'v> {
    value: &'v [u8],
    /// Where the value need not be copied.
    item: Option<&'v Item>,
    client_flags: u32,
    expires_at: u32,
    cas: u64,
}

impl<'v> Shown<'v> {
    pub(super) fn item(item: &'v Item) -> Self {
        Self {
            value: item.value(),
            item: Some(item),
            client_flags: item.client_flags(),
            expires_at: item.expires_at(),
            cas: item.cas(),
        }
    }

    pub(super) fn value(value: &'v CellValue, cas: u64) -> Self {
        let CellValue { value, client_flags, expires_at, .. } = value;
        Self { value, item: None, client_flags: *client_flags, expires_at: *expires_at, cas }
    }

    fn put_value(&self, output: &mut Output) {
        match self.item {
            Some(item) => output.put_value(item),
            None => {
                output.put(self.value);
                output.put(b"\r\n");
            }
        }
    }
}

/// Appends `VALUE key flags length [cas]`, the value and its end.
pub(super) fn put_value(output: &mut Output, written_key: &[u8], shown: &Shown<'_>, with_cas: bool) {
    output.put(b"VALUE ");
    output.put(written_key);
    output.put(b" ");
    output.put_number(u64::from(shown.client_flags));
    output.put(b" ");
    output.put_number(shown.value.len() as u64);
    if with_cas {
        output.put(b" ");
        output.put_number(shown.cas);
    }
    output.put(b"\r\n");
    shown.put_value(output);
}

/// Answers an mg, or an ma, that has a value.
pub(super) fn put_meta_value(output: &mut Output, line: &MetaLine<'_>, shown: &Shown<'_>, now: u32) {
    if line.flags.value {
        output.put(b"VA ");
        output.put_number(shown.value.len() as u64);
    } else {
        output.put(b"HD");
    }
    for word in line.words() {
        match word[0] {
            b'l' => put_number(
                output,
                b'l',
                shown.item.map_or(0, |item| u64::from(now.saturating_sub(item.accessed_at()))),
            ),
            b'h' => put_number(output, b'h', u64::from(shown.item.is_some_and(Item::is_fetched))),
            b's' => put_number(output, b's', shown.value.len() as u64),
            b't' => put_ttl(output, shown.expires_at, now),
            b'c' => put_number(output, b'c', shown.cas),
            b'f' => put_number(output, b'f', u64::from(shown.client_flags)),
            b'O' => put_opaque(output, word),
            b'k' => put_written_key(output, line),
            _ => {}
        }
    }
    output.put(b"\r\n");
    if line.flags.value {
        shown.put_value(output);
    }
}

/// Answers an mg that has none.
pub(super) fn put_meta_absent(output: &mut Output, line: &MetaLine<'_>) {
    if !line.flags.quiet {
        output.put(b"EN");
        put_written(line, output);
    }
}

/// Answers the mg `line` that its origin was read for.
pub(super) fn put_meta_fetched(output: &mut Output, line: &[u8], fetched: &Fetched, now: u32) {
    let Command::Meta(line) = command::parse(line) else { unreachable!("it was parsed before") };
    match fetched {
        Fetched::Value(value, cas) => put_meta_value(output, &line, &Shown::value(value, *cas), now),
        Fetched::Absent => put_meta_absent(output, &line),
        Fetched::Failed(failure) => put_refusal(output, failure, false),
        Fetched::Later => put_refusal(output, "SERVER_ERROR out of memory reading the origin", false),
    }
}

/// Answers the meta command `line` that wrote.
pub(super) fn put_meta_written(output: &mut Output, line: &[u8], outcome: &WriteOutcome, now: u32) {
    let command = command::parse(line);
    let (Command::Meta(line) | Command::MetaSet(line)) = &command else {
        unreachable!("it was parsed before")
    };
    let is_quiet = line.flags.quiet;
    let code = match (outcome, line.verb) {
        (WriteOutcome::Failed(failure), _) => return put_refusal(output, failure, false),
        (WriteOutcome::TooLarge, _) => return output.put(answer::TOO_LARGE.as_bytes()),
        (WriteOutcome::NotNumeric, _) => return output.put(answer::NOT_NUMERIC.as_bytes()),
        (WriteOutcome::NotFound | WriteOutcome::Deleted, MetaVerb::Get) => {
            return put_meta_absent(output, line);
        }
        (WriteOutcome::Done(value, cas), MetaVerb::Get) => {
            return put_meta_value(output, line, &Shown::value(value, *cas), now);
        }
        (WriteOutcome::Done(..) | WriteOutcome::Deleted, _) if is_quiet => return,
        (WriteOutcome::Done(value, cas), MetaVerb::Arithmetic) => {
            return put_meta_value(output, line, &Shown::value(value, *cas), now);
        }
        (WriteOutcome::Done(value, cas), _) => {
            output.put(b"HD");
            return put_stored(output, line, value.value.len(), *cas);
        }
        (WriteOutcome::Deleted, _) => b"HD",
        (WriteOutcome::NotStored, _) => b"NS",
        (WriteOutcome::Exists, _) => b"EX",
        (WriteOutcome::NotFound, _) => b"NF",
    };
    output.put(code);
    put_written(line, output);
}

fn put_stored(output: &mut Output, line: &MetaLine<'_>, value_bytes: usize, cas: u64) {
    for word in line.words() {
        match word[0] {
            b'O' => put_opaque(output, word),
            b'k' => put_written_key(output, line),
            b'c' => put_number(output, b'c', cas),
            b's' => put_number(output, b's', value_bytes as u64),
            _ => {}
        }
    }
    output.put(b"\r\n");
}

fn put_written_key(output: &mut Output, line: &MetaLine<'_>) {
    output.put(b" k");
    output.put(line.written_key());
    if line.key.is_binary() {
        output.put(b" b");
    }
}
