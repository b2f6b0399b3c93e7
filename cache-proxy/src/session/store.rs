//! set, add, replace, append, prepend, cas, and ms: one operation for both dialects.

use std::sync::atomic::Ordering;

use super::{Session, SharedState, expiry, put_answer};
use crate::item_table::{Item, ItemBytes, NewItem, Slot};
use crate::protocol::answer;
use crate::protocol::command::{StoreLine, StoreVerb};
use crate::protocol::meta::MetaLine;
use crate::protocol::output::Output;

/// Bytes that memcached counts for an item beside key and value: its header,
/// the cas, the key's end.
const ITEM_HEADER_BYTES: u64 = 48 + 8 + 1;

/// A line that a value follows.
#[derive(Clone, Copy, Debug)]
pub(super) enum StoreCommand<'c> {
    Classic(&'c StoreLine<'c>),
    Meta(&'c MetaLine<'c>),
}

impl<'c> StoreCommand<'c> {
    pub(super) fn key(&self) -> &'c [u8] {
        match self {
            Self::Classic(line) => line.key,
            Self::Meta(line) => line.key.as_slice(),
        }
    }

    /// Length of the value, without its `\r\n`.
    pub(super) fn value_bytes(&self) -> usize {
        match self {
            Self::Classic(line) => line.value_bytes,
            Self::Meta(line) => line.value_bytes,
        }
    }

    /// Whether an error is not to be answered: meta's quiet lines answer errors.
    pub(super) fn is_no_reply(&self) -> bool {
        match self {
            Self::Classic(line) => line.no_reply,
            Self::Meta(_) => false,
        }
    }

    fn client_flags(&self) -> u32 {
        match self {
            Self::Classic(line) => line.client_flags,
            Self::Meta(line) => line.flags.client_flags,
        }
    }
}

/// A value and its `\r\n`, as they came.
#[derive(Debug)]
pub(super) enum Value<'a> {
    /// In the read buffer.
    Borrowed(&'a [u8]),
    /// Behind its key, in an allocation that the item can have.
    Arrived(Vec<u8>),
}

impl Value<'_> {
    fn wire_bytes(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Arrived(bytes) => bytes,
        }
    }

    /// The value alone, behind a key of `key_bytes`.
    fn without_end(&self, key_bytes: usize) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => &bytes[..bytes.len() - 2],
            Self::Arrived(bytes) => &bytes[key_bytes..bytes.len() - 2],
        }
    }

    pub(super) fn into_item_bytes(self, key: &[u8]) -> ItemBytes {
        match self {
            Self::Borrowed(bytes) => ItemBytes::copy(key, &[&bytes[..bytes.len() - 2]]),
            Self::Arrived(bytes) => ItemBytes::from_vec(bytes),
        }
    }
}

/// How and when to store, in both dialects' terms.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoreRequest {
    pub(super) verb: StoreVerb,
    pub(super) client_flags: u32,
    pub(super) expires_at: u32,
    /// The cas that the item must have.
    pub(super) compare: Option<u64>,
    /// The cas to give.
    pub(super) new_cas: Option<u64>,
    /// Store over a newer item, as stale.
    pub(super) allow_stale: bool,
    /// Append or prepend to nothing, too.
    pub(super) vivify: bool,
    pub(super) binary_key: bool,
}

/// What became of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StoreOutcome {
    Stored {
        cas: u64,
        value_bytes: usize,
    },
    NotStored,
    Exists,
    NotFound,
    /// What append or prepend would have made is over the limit.
    TooLarge,
}

impl SharedState {
    /// Whether an item would be over the limit, as memcached counts.
    pub(crate) fn exceeds_item_limit(&self, key_bytes: usize, value_bytes: usize, client_flags: u32) -> bool {
        let flags_bytes = if client_flags == 0 { 0 } else { 4 };
        let item_bytes = ITEM_HEADER_BYTES + flags_bytes + key_bytes as u64 + value_bytes as u64 + 2;
        item_bytes > self.options.item_bytes_max
    }
}

impl Session {
    /// Stores a complete value and answers.
    pub(super) fn store(&mut self, store: StoreCommand<'_>, value: Value<'_>, output: &mut Output, now: u32) {
        if !value.wire_bytes().ends_with(b"\r\n") {
            return put_answer(output, answer::BAD_CHUNK, store.is_no_reply());
        }
        if self.shared.origins.is_some()
            && self.store_routed(store, value.without_end(store.key().len()), output, now)
        {
            return;
        }
        match store {
            StoreCommand::Classic(line) if line.verb == StoreVerb::LeaseSet => {
                self.lease_set(line, value, output, now);
            }
            StoreCommand::Classic(line) => {
                let request = StoreRequest {
                    verb: line.verb,
                    client_flags: line.client_flags,
                    expires_at: expiry(line.exptime, now),
                    compare: (line.verb == StoreVerb::Cas).then_some(line.unique),
                    new_cas: None,
                    allow_stale: false,
                    vivify: false,
                    binary_key: false,
                };
                let answer = match self.store_value(line.key, &request, value, now) {
                    StoreOutcome::Stored { .. } => answer::STORED,
                    StoreOutcome::NotStored => answer::NOT_STORED,
                    StoreOutcome::Exists => answer::EXISTS,
                    StoreOutcome::NotFound => answer::NOT_FOUND,
                    StoreOutcome::TooLarge => answer::TOO_LARGE,
                };
                put_answer(output, answer, line.no_reply);
            }
            StoreCommand::Meta(line) => self.store_meta(line, value, output, now),
        }
    }

    pub(super) fn store_value(
        &self,
        key: &[u8],
        request: &StoreRequest,
        value: Value<'_>,
        now: u32,
    ) -> StoreOutcome {
        let value_bytes = value.without_end(key.len()).len();
        let outcome = self.put_value(key, request, value, now);
        let ttl = if request.expires_at == 0 { 0 } else { request.expires_at.saturating_sub(now) };
        self.saw_store(key, request.verb, outcome, ttl, value_bytes);
        outcome
    }

    fn put_value(&self, key: &[u8], request: &StoreRequest, value: Value<'_>, now: u32) -> StoreOutcome {
        let key_bytes = u8::try_from(key.len()).expect("keys are checked");
        let joins = matches!(request.verb, StoreVerb::Append | StoreVerb::Prepend);
        let (bytes, value) =
            if joins { (None, Some(value)) } else { (Some(value.into_item_bytes(key)), None) };
        let mut slot = self.shared.table.slot(key, now);
        slot.counts().cmd_set += 1;
        let mut new = NewItem {
            bytes: ItemBytes::copy(b"", &[]),
            key_bytes,
            client_flags: request.client_flags,
            expires_at: request.expires_at,
            binary_key: request.binary_key,
        };
        let mut stale = None;
        match decide(&mut slot, request) {
            Decision::Refuse(refusal) => return refusal,
            Decision::Store => {}
            Decision::StoreStale { expires_at, token_sent } => {
                new.expires_at = expires_at;
                stale = Some(token_sent);
            }
        }
        new.bytes = match (bytes, value, slot.item()) {
            (Some(bytes), _, _) => bytes,
            (None, Some(value), Some(old)) => {
                let added = value.without_end(key.len());
                let value_bytes = old.value().len() + added.len();
                if self.shared.exceeds_item_limit(key.len(), value_bytes, old.client_flags()) {
                    return StoreOutcome::TooLarge;
                }
                new.client_flags = old.client_flags();
                new.expires_at = old.expires_at();
                let parts = [old.value(), added];
                let parts = if request.verb == StoreVerb::Append { parts } else { [parts[1], parts[0]] };
                ItemBytes::copy(key, &parts)
            }
            (None, value, _) => match value {
                Some(value) => value.into_item_bytes(key),
                None => return StoreOutcome::NotStored,
            },
        };
        let value_bytes = new.bytes.as_slice().len() - key.len() - 2;
        let cas = slot.put(new, request.new_cas);
        if let Some(token_sent) = stale {
            slot.mark_stale(true);
            slot.mark_token_sent(token_sent);
        }
        drop(slot);
        self.shared.table.relieve(now);
        StoreOutcome::Stored { cas, value_bytes }
    }

    /// Whether the item would be over the limit, as memcached counts.
    pub(super) fn is_too_large(&self, store: StoreCommand<'_>) -> bool {
        self.shared.exceeds_item_limit(store.key().len(), store.value_bytes(), store.client_flags())
    }

    /// Refuses a value that is over the limit. What a set would have replaced
    /// goes too: its client believes it gone.
    pub(super) fn refuse_too_large(&self, store: StoreCommand<'_>, output: &mut Output, now: u32) {
        self.shared.too_large_count.fetch_add(1, Ordering::Relaxed);
        let replaces = match store {
            StoreCommand::Classic(line) => matches!(line.verb, StoreVerb::Set | StoreVerb::LeaseSet),
            StoreCommand::Meta(_) => true,
        };
        if replaces {
            self.shared.table.slot(store.key(), now).remove();
        }
        put_answer(output, answer::TOO_LARGE, store.is_no_reply());
    }
}

enum Decision {
    Store,
    /// Store, to expire when the old item did, marked stale.
    StoreStale {
        expires_at: u32,
        token_sent: bool,
    },
    Refuse(StoreOutcome),
}

/// Whether `request` may store over what is in `slot`, and counts it.
fn decide(slot: &mut Slot<'_>, request: &StoreRequest) -> Decision {
    let old = slot.item().map(|item: &Item| (item.cas(), item.expires_at(), item.is_token_sent()));
    match (request.verb, old) {
        (StoreVerb::Add, None) if slot.is_held_off() => Decision::Refuse(StoreOutcome::NotStored),
        (StoreVerb::Set, _) | (StoreVerb::Add, None) | (StoreVerb::Replace, Some(_)) => Decision::Store,
        (StoreVerb::LeaseSet, _) => unreachable!("stored under a token"),
        (StoreVerb::Add, Some(_)) => {
            slot.bump();
            Decision::Refuse(StoreOutcome::NotStored)
        }
        (StoreVerb::Replace, None) => Decision::Refuse(StoreOutcome::NotStored),
        (StoreVerb::Append | StoreVerb::Prepend, None) if request.vivify => Decision::Store,
        (StoreVerb::Append | StoreVerb::Prepend, None) => Decision::Refuse(StoreOutcome::NotStored),
        (StoreVerb::Append | StoreVerb::Prepend, Some((cas, ..))) => match request.compare {
            Some(compare) if compare != cas => Decision::Refuse(StoreOutcome::Exists),
            _ => Decision::Store,
        },
        (StoreVerb::Cas, None) => {
            slot.counts().cas_misses += 1;
            Decision::Refuse(StoreOutcome::NotFound)
        }
        (StoreVerb::Cas, Some((cas, expires_at, token_sent))) => {
            let compare = request.compare.unwrap_or(0);
            if compare == cas {
                slot.counts().cas_hits += 1;
                Decision::Store
            } else if request.allow_stale && compare < cas {
                slot.counts().cas_hits += 1;
                Decision::StoreStale { expires_at, token_sent }
            } else {
                slot.counts().cas_badval += 1;
                Decision::Refuse(StoreOutcome::Exists)
            }
        }
    }
}
