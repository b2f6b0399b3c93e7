//! What others hear of a session's commands: watchers, counts by prefix, and
//! the sample of what is asked for.
//!
//! Each of these costs a look at a byte while nobody listens, and the sample a
//! counter of the session's own.

use std::sync::atomic::Ordering;

use super::Session;
use super::store::StoreOutcome;
use crate::activity::SAMPLE_EVERY;
use crate::protocol::admin::stream;
use crate::protocol::command::StoreVerb;
use crate::watch::ShownKey;

impl Session {
    #[inline]
    pub(super) fn saw_get(&self, key: &[u8], found_bytes: Option<usize>) {
        let get_count = self.get_count.load(Ordering::Relaxed).wrapping_add(1);
        self.get_count.store(get_count, Ordering::Relaxed);
        if get_count.is_multiple_of(SAMPLE_EVERY) {
            self.shared.sampled.see(key, found_bytes.is_some());
        }
        if self.shared.prefixes.is_on() {
            self.shared.prefixes.count(key, |counts| {
                counts.get += 1;
                counts.hit += u64::from(found_bytes.is_some());
            });
        }
        if self.shared.watchers.want(stream::FETCHERS) {
            let status = if found_bytes.is_some() { "found" } else { "not_found" };
            let class = u8::from(found_bytes.is_some());
            self.tell(
                stream::FETCHERS,
                format_args!(
                    "type=item_get key={} status={status} clsid={class} cfd={} size={}",
                    ShownKey(key),
                    self.number,
                    found_bytes.unwrap_or(0)
                ),
            );
        }
    }

    #[inline]
    pub(super) fn saw_store(
        &self,
        key: &[u8],
        verb: StoreVerb,
        outcome: StoreOutcome,
        ttl: u32,
        value_bytes: usize,
    ) {
        if self.shared.prefixes.is_on() {
            self.shared.prefixes.count(key, |counts| counts.set += 1);
        }
        if self.shared.watchers.want(stream::MUTATIONS) {
            let status = match outcome {
                StoreOutcome::Stored { .. } => "stored",
                StoreOutcome::NotStored => "not_stored",
                StoreOutcome::Exists => "exists",
                StoreOutcome::NotFound => "not_found",
                StoreOutcome::TooLarge => "too_large",
            };
            self.tell(
                stream::MUTATIONS,
                format_args!(
                    "type=item_store key={} status={status} cmd={} ttl={ttl} clsid=1 cfd={} size={value_bytes}",
                    ShownKey(key),
                    verb.name(),
                    self.number
                ),
            );
        }
    }

    #[inline]
    pub(super) fn saw_delete(&self, key: &[u8], command: &str, found_bytes: Option<usize>) {
        if self.shared.prefixes.is_on() {
            self.shared.prefixes.count(key, |counts| counts.delete += 1);
        }
        if let Some(value_bytes) = found_bytes.filter(|_| self.shared.watchers.want(stream::DELETIONS)) {
            let key = ShownKey(key);
            self.tell(
                stream::DELETIONS,
                format_args!("type=deleted key={key} cmd={command} clsid=1 size={value_bytes}"),
            );
        }
    }

    /// A line came in that asks for something.
    #[inline]
    pub(super) fn saw_line(&self, line: &[u8]) {
        if self.shared.watchers.want(stream::RAW_COMMANDS) {
            let shown = line.escape_ascii();
            self.tell(stream::RAW_COMMANDS, format_args!("<{} {shown}", self.number));
        }
    }

    #[cold]
    fn tell(&self, stream: u8, event: std::fmt::Arguments<'_>) {
        self.shared.watchers.tell(stream, event);
    }
}
