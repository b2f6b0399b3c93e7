//! lease-get and lease-set, as mcrouter spells them.
//!
//! ```text
//! lease-get k...                                         VALUE k flags len | LVALUE k token flags len, ..., END
//! lease-set k token flags exptime len [noreply]          STORED | STALE_STORED | NOT_STORED
//! ```
//!
//! `LVALUE` is a miss, with a stale value if there is one, which may be empty.
//! Its token is the right to fill the key; 1 says that somebody else has it, and
//! that the client should ask again soon (mcrouter: after 2 ms, doubling to
//! 500 ms, ten times).
//!
//! Where it departs: a fill whose token is void does not replace a newer live
//! value. It is answered STORED, as mcrouter expects, and the newer value stays.

use super::store::Value;
use super::{Session, expiry, put_answer};
use crate::item_table::{Fill, Holder, NewItem, Offer};
use crate::protocol::answer;
use crate::protocol::command::StoreLine;
use crate::protocol::output::Output;

/// The token that says that somebody else fills the key.
const HOT_MISS: u64 = 1;

impl Session {
    pub(super) fn lease_get(&self, key: &[u8], output: &mut Output, now: u32) {
        let mut slot = self.shared.table.slot(key, now);
        if let Some(item) = slot.get().filter(|item| !item.is_stale()) {
            let found_bytes = item.value().len();
            output.put_item(item, false);
            drop(slot);
            return self.saw_get(key, Some(found_bytes));
        }
        let token = match slot.offer(Holder::Client) {
            Offer::Token(token) => token,
            Offer::Wait => HOT_MISS,
        };
        output.put_leased(key, token, slot.stale_item());
        drop(slot);
        self.saw_get(key, None);
    }

    pub(super) fn lease_set(&self, line: &StoreLine<'_>, value: Value<'_>, output: &mut Output, now: u32) {
        let new = NewItem {
            bytes: value.into_item_bytes(line.key),
            key_bytes: u8::try_from(line.key.len()).expect("keys are checked"),
            client_flags: line.client_flags,
            expires_at: expiry(line.exptime, now),
            binary_key: false,
        };
        let mut slot = self.shared.table.slot(line.key, now);
        slot.counts().cmd_set += 1;
        let fill = slot.fill(line.unique, new);
        drop(slot);
        self.shared.table.relieve(now);
        let answer = match fill {
            Fill::Stored | Fill::Superseded => answer::STORED,
            Fill::StoredStale => answer::STALE_STORED,
            Fill::Refused => answer::NOT_STORED,
        };
        put_answer(output, answer, line.no_reply);
    }
}
