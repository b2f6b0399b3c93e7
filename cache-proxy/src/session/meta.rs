//! mg, ms, md, ma and me.

use std::sync::atomic::Ordering;

use super::classic::Arithmetic;
use super::store::{StoreOutcome, StoreRequest, Value};
use super::{Session, expiry};
use crate::item_table::{Item, NewItem, Slot};
use crate::protocol::answer;
use crate::protocol::command::StoreVerb;
use crate::protocol::meta::{MetaFlags, MetaLine, MetaVerb, encode_base64};
use crate::protocol::number::Decimal;
use crate::protocol::output::Output;

impl Session {
    pub(super) fn run_meta(&mut self, line: &MetaLine<'_>, output: &mut Output, now: u32) {
        match line.verb {
            MetaVerb::Get => self.meta_get(line, output, now),
            MetaVerb::Delete => self.meta_delete(line, output, now),
            MetaVerb::Arithmetic => self.meta_arithmetic(line, output, now),
            MetaVerb::Debug => self.meta_debug(line, output, now),
            MetaVerb::Set => unreachable!("a value follows it"),
        }
    }

    fn meta_get(&self, line: &MetaLine<'_>, output: &mut Output, now: u32) {
        let flags = &line.flags;
        let mut slot = self.shared.table.slot(line.key.as_slice(), now);
        let mut created = false;
        if let (None, Some(exptime)) = (slot.item(), flags.vivify) {
            slot.put(empty_item(line, 0, expiry(exptime, now)), flags.new_cas);
            created = true;
        }
        count_get(&mut slot, flags);
        let Some(item) = slot.item() else {
            drop(slot);
            if !flags.quiet {
                output.put(b"EN");
                put_written(line, output);
            }
            return self.saw_get(line.key.as_slice(), None);
        };
        let found_bytes = item.value().len();
        let wins = put_found(line, item, created, output, now);
        if let Some(exptime) = flags.exptime {
            slot.set_expiry(expiry(exptime, now));
        }
        if wins {
            slot.mark_token_sent(true);
        }
        if !flags.no_access {
            slot.access();
        }
        drop(slot);
        if created {
            self.shared.table.relieve(now);
        }
        self.saw_get(line.key.as_slice(), (!created).then_some(found_bytes));
    }

    pub(super) fn store_meta(&self, line: &MetaLine<'_>, value: Value<'_>, output: &mut Output, now: u32) {
        let flags = &line.flags;
        let verb = match flags.mode {
            b'E' => StoreVerb::Add,
            b'A' => StoreVerb::Append,
            b'P' => StoreVerb::Prepend,
            b'R' if flags.compare.is_none() => StoreVerb::Replace,
            _ if flags.compare.is_none() => StoreVerb::Set,
            _ => StoreVerb::Cas,
        };
        let joins = matches!(verb, StoreVerb::Append | StoreVerb::Prepend);
        let exptime = if joins { flags.vivify } else { None }.or(flags.exptime).unwrap_or(0);
        let request = StoreRequest {
            verb,
            client_flags: flags.client_flags,
            expires_at: expiry(exptime, now),
            compare: flags.compare,
            new_cas: flags.new_cas,
            allow_stale: flags.invalidate && verb == StoreVerb::Cas,
            vivify: flags.vivify.is_some(),
            binary_key: line.key.is_binary(),
        };
        let stored = self.store_value(line.key.as_slice(), &request, value, now);
        let (code, cas, value_bytes) = match stored {
            StoreOutcome::Stored { .. } if flags.quiet => return,
            StoreOutcome::Stored { cas, value_bytes } => ("HD", cas, value_bytes),
            StoreOutcome::NotStored => ("NS", 0, line.value_bytes),
            StoreOutcome::Exists => ("EX", 0, line.value_bytes),
            StoreOutcome::NotFound => ("NF", 0, line.value_bytes),
            StoreOutcome::TooLarge => return output.put(answer::TOO_LARGE.as_bytes()),
        };
        output.put(code.as_bytes());
        for word in line.words() {
            match word[0] {
                b'O' => put_opaque(output, word),
                b'k' => put_key(output, line.key.as_slice(), line.key.is_binary()),
                b'c' => put_number(output, b'c', cas),
                b's' => put_number(output, b's', value_bytes as u64),
                _ => {}
            }
        }
        output.put(b"\r\n");
    }

    fn meta_delete(&self, line: &MetaLine<'_>, output: &mut Output, now: u32) {
        let flags = &line.flags;
        let mut slot = self.shared.table.slot(line.key.as_slice(), now);
        let Some(item) = slot.item() else {
            // A delete of nothing voids a lease, too.
            slot.delete(self.shared.options.stale_seconds());
            slot.counts().delete_misses += 1;
            drop(slot);
            output.put(b"NF");
            return put_written(line, output);
        };
        let (cas, found_bytes) = (item.cas(), item.value().len());
        if flags.compare.is_some_and(|compare| compare != cas) {
            slot.counts().delete_misses += 1;
            drop(slot);
            output.put(b"EX");
            return put_written(line, output);
        }
        if flags.remove_value {
            let expires_at = expiry(flags.exptime.unwrap_or(0), now);
            slot.put(empty_item(line, flags.client_flags, expires_at), Some(flags.new_cas.unwrap_or(cas)));
        }
        if flags.invalidate {
            if let Some(exptime) = flags.exptime {
                slot.set_expiry(expiry(exptime, now));
            }
            slot.mark_stale(true);
            slot.mark_token_sent(false);
            slot.renew_cas(flags.new_cas);
        } else {
            slot.counts().delete_hits += 1;
            if !flags.remove_value {
                slot.delete(self.shared.options.stale_seconds());
            }
        }
        drop(slot);
        self.shared.table.relieve(now);
        self.saw_delete(line.key.as_slice(), "md", Some(found_bytes));
        if !flags.quiet {
            output.put(b"HD");
            put_written(line, output);
        }
    }

    fn meta_arithmetic(&self, line: &MetaLine<'_>, output: &mut Output, now: u32) {
        let flags = &line.flags;
        let key = line.key.as_slice();
        let increment = !matches!(flags.mode, b'D' | b'd' | b'-');
        let delta = flags.delta.unwrap_or(1);
        let refusal = match self.arithmetic(key, delta, increment, flags.compare, flags.new_cas, now) {
            Arithmetic::Done { .. } if flags.quiet => {
                self.meta_arithmetic_expiry(line, now);
                return;
            }
            Arithmetic::Done { value, cas } => {
                let expires_at = self.meta_arithmetic_expiry(line, now);
                return put_counter(line, value, cas, expires_at, output, now);
            }
            Arithmetic::NotNumeric => return output.put(answer::NOT_NUMERIC.as_bytes()),
            Arithmetic::Changed => b"EX",
            Arithmetic::Missing => match (flags.vivify, self.create_counter(line, now)) {
                (Some(_), Some(cas)) => {
                    let expires_at = self.meta_arithmetic_expiry(line, now);
                    return put_counter(line, flags.initial, cas, expires_at, output, now);
                }
                // Somebody else created it in between.
                (Some(_), None) => b"NS",
                (None, _) => b"NF",
            },
        };
        output.put(refusal);
        put_written(line, output);
    }

    /// Stores the initial value of a counter that is not there, if the line asks
    /// for it; returns its cas.
    fn create_counter(&self, line: &MetaLine<'_>, now: u32) -> Option<u64> {
        let flags = &line.flags;
        let request = StoreRequest {
            verb: StoreVerb::Add,
            client_flags: 0,
            expires_at: expiry(flags.vivify?, now),
            compare: None,
            new_cas: flags.new_cas,
            allow_stale: false,
            vivify: false,
            binary_key: line.key.is_binary(),
        };
        let text = [Decimal::new(flags.initial).as_bytes(), b"\r\n"].concat();
        match self.store_value(line.key.as_slice(), &request, Value::Borrowed(&text), now) {
            StoreOutcome::Stored { cas, .. } => Some(cas),
            _ => None,
        }
    }

    /// Gives the counter its new time to expire, if the line has one; returns
    /// the time it has.
    fn meta_arithmetic_expiry(&self, line: &MetaLine<'_>, now: u32) -> u32 {
        let mut slot = self.shared.table.slot(line.key.as_slice(), now);
        if let Some(exptime) = line.flags.exptime {
            slot.set_expiry(expiry(exptime, now));
        }
        slot.item().map_or(0, Item::expires_at)
    }

    fn meta_debug(&self, line: &MetaLine<'_>, output: &mut Output, now: u32) {
        self.shared.meta_count.fetch_add(1, Ordering::Relaxed);
        let slot = self.shared.table.slot(line.key.as_slice(), now);
        let Some(item) = slot.item() else { return output.put(b"EN\r\n") };
        output.put(b"ME ");
        if item.has_binary_key() {
            encode_base64(item.key(), |part| output.put(part));
        } else {
            output.put(item.key());
        }
        let expires_in = match item.expires_at() {
            0 => -1,
            expires_at => i64::from(now) - i64::from(expires_at),
        };
        let text = format!(
            " exp={expires_in} la={} cas={} fetch={} cls=1 size={}\r\n",
            now.saturating_sub(item.accessed_at()),
            item.cas(),
            if item.is_fetched() { "yes" } else { "no" },
            item.memory_bytes(),
        );
        output.put(text.as_bytes());
    }
}

/// Answers an mg that found `item`, or `created` it; whether its client is told
/// to refill it.
fn put_found(line: &MetaLine<'_>, item: &Item, created: bool, output: &mut Output, now: u32) -> bool {
    let flags = &line.flags;
    if flags.value {
        output.put(b"VA ");
        output.put_number(item.value().len() as u64);
    } else {
        output.put(b"HD");
    }
    // Flags answer in their order, and what they show is how it was before
    // this access; a new time to expire shows from its place on.
    let mut expires_at = item.expires_at();
    for word in line.words() {
        match word[0] {
            b'T' => expires_at = expiry(flags.exptime.unwrap_or(0), now),
            b'l' => put_number(output, b'l', u64::from(now.saturating_sub(item.accessed_at()))),
            b'h' => put_number(output, b'h', u64::from(item.is_fetched())),
            b'k' => put_key(output, item.key(), item.has_binary_key()),
            b's' => put_number(output, b's', item.value().len() as u64),
            b't' => put_ttl(output, expires_at, now),
            b'c' => put_number(output, b'c', item.cas()),
            b'f' => put_number(output, b'f', u64::from(item.client_flags())),
            b'O' => put_opaque(output, word),
            _ => {}
        }
    }
    let (is_stale, had_token) = (item.is_stale(), item.is_token_sent());
    let expires_soon =
        flags.recache.is_some_and(|recache| expires_at != 0 && expires_at < expiry(recache, now));
    let wins = created || !had_token && (is_stale || expires_soon);
    for (letter, shown) in [(b" Z", had_token), (b" X", is_stale), (b" W", wins)] {
        if shown {
            output.put(letter);
        }
    }
    output.put(b"\r\n");
    if flags.value {
        output.put_value(item);
    }
    wins
}

/// Answers an ma that worked.
fn put_counter(line: &MetaLine<'_>, value: u64, cas: u64, expires_at: u32, output: &mut Output, now: u32) {
    let text = Decimal::new(value);
    if line.flags.value {
        output.put(b"VA ");
        output.put_number(text.as_bytes().len() as u64);
    } else {
        output.put(b"HD");
    }
    for word in line.words() {
        match word[0] {
            b'c' => put_number(output, b'c', cas),
            b't' => put_ttl(output, expires_at, now),
            b'O' => put_opaque(output, word),
            b'k' => put_key(output, line.key.as_slice(), line.key.is_binary()),
            _ => {}
        }
    }
    output.put(b"\r\n");
    if line.flags.value {
        output.put(text.as_bytes());
        output.put(b"\r\n");
    }
}

fn empty_item(line: &MetaLine<'_>, client_flags: u32, expires_at: u32) -> NewItem {
    let empty = NewItem::empty(line.key.as_slice(), expires_at);
    NewItem { client_flags, binary_key: line.key.is_binary(), ..empty }
}

/// mg with a new time to expire counts as a touch, else as a get.
fn count_get(slot: &mut Slot<'_>, flags: &MetaFlags) {
    let found = slot.item().is_some();
    let counts = slot.counts();
    if flags.exptime.is_some() {
        counts.cmd_touch += 1;
        counts.touch_hits += u64::from(found);
        counts.touch_misses += u64::from(!found);
    } else {
        counts.cmd_get += 1;
        counts.get_hits += u64::from(found);
        counts.get_misses += u64::from(!found);
    }
}

/// Repeats the opaque and the key of a line that has no item to show, and ends the answer.
pub(super) fn put_written(line: &MetaLine<'_>, output: &mut Output) {
    for word in line.words() {
        match word[0] {
            b'O' => put_opaque(output, word),
            b'k' => {
                output.put(b" k");
                output.put(line.written_key());
                if line.key.is_binary() {
                    output.put(b" b");
                }
            }
            _ => {}
        }
    }
    output.put(b"\r\n");
}

pub(super) fn put_number(output: &mut Output, letter: u8, value: u64) {
    output.put(&[b' ', letter]);
    output.put_number(value);
}

pub(super) fn put_ttl(output: &mut Output, expires_at: u32, now: u32) {
    match expires_at {
        0 => output.put(b" t-1"),
        expires_at => put_number(output, b't', u64::from(expires_at.saturating_sub(now))),
    }
}

pub(super) fn put_opaque(output: &mut Output, word: &[u8]) {
    output.put(b" ");
    output.put(word);
}

fn put_key(output: &mut Output, key: &[u8], binary: bool) {
    output.put(b" k");
    if binary {
        encode_base64(key, |part| output.put(part));
        output.put(b" b");
    } else {
        output.put(key);
    }
}
