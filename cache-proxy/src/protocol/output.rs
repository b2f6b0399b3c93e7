//! Answers on their way to the socket.
//!
//! Small ones are copied one after the other into one buffer, which is one write
//! for a whole pipeline. A large value is not copied: its allocation is held
//! and stands between two stretches of the buffer.

use std::io::IoSlice;
use std::ops::Range;
use std::sync::Arc;

use crate::item_table::{Item, SharedBytes};
use crate::protocol::number::Decimal;

/// Capacity kept from one batch to the next.
const KEPT_BYTES: usize = 32 << 10;

/// Slices of one vectored write.
const SLICE_COUNT_MAX: usize = 16;

#[derive(Debug)]
struct Insertion {
    /// The length of the buffer when this came.
    at: usize,
    bytes: SharedBytes,
    range: Range<usize>,
}

/// Answers in order.
#[derive(Debug, Default)]
pub(crate) struct Output {
    buffer: Vec<u8>,
    insertions: Vec<Insertion>,
    byte_count: usize,
    sent_count: usize,
}

impl Output {
    /// Appends `bytes`.
    #[inline]
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        self.byte_count += bytes.len();
    }

    /// Appends the digits of `value`.
    pub(crate) fn put_number(&mut self, value: u64) {
        self.put(Decimal::new(value).as_bytes());
    }

    /// Appends a value and its end.
    pub(crate) fn put_value(&mut self, item: &Item) {
        let (value, shared) = item.wire_value();
        let Some(shared) = shared else { return self.put(value) };
        let range = shared.len() - value.len()..shared.len();
        self.byte_count += range.len();
        self.insertions.push(Insertion { at: self.buffer.len(), bytes: Arc::clone(shared), range });
    }

    /// Appends `VALUE key flags length [cas]`, the value and its end.
    pub(crate) fn put_item(&mut self, item: &Item, with_cas: bool) {
        self.put(b"VALUE ");
        self.put(item.key());
        self.put(b" ");
        self.put_number(u64::from(item.client_flags()));
        self.put(b" ");
        self.put_number(item.value().len() as u64);
        if with_cas {
            self.put(b" ");
            self.put_number(item.cas());
        }
        self.put(b"\r\n");
        self.put_value(item);
    }

    /// Appends `LVALUE key token flags length`, the stale value if there is one,
    /// and its end.
    pub(crate) fn put_leased(&mut self, key: &[u8], token: u64, stale: Option<&Item>) {
        self.put(b"LVALUE ");
        self.put(key);
        for number in [
            token,
            stale.map_or(0, |item| u64::from(item.client_flags())),
            stale.map_or(0, |item| item.value().len() as u64),
        ] {
            self.put(b" ");
            self.put_number(number);
        }
        self.put(b"\r\n");
        match stale {
            Some(item) => self.put_value(item),
            None => self.put(b"\r\n"),
        }
    }

    /// Bytes that are not sent yet.
    pub(crate) fn len(&self) -> usize {
        self.byte_count - self.sent_count
    }

    /// The first bytes that are not sent yet.
    pub(crate) fn slices(&self) -> ([IoSlice<'_>; SLICE_COUNT_MAX], usize) {
        let mut slices = [IoSlice::new(&[]); SLICE_COUNT_MAX];
        let mut count = 0;
        let mut skip = self.sent_count;
        let mut push = |bytes| {
            let bytes: &[u8] = bytes;
            let skipped = skip.min(bytes.len());
            skip -= skipped;
            if count < SLICE_COUNT_MAX && skipped < bytes.len() {
                slices[count] = IoSlice::new(&bytes[skipped..]);
                count += 1;
            }
        };
        let mut start = 0;
        for insertion in &self.insertions {
            push(&self.buffer[start..insertion.at]);
            push(&insertion.bytes[insertion.range.clone()]);
            start = insertion.at;
        }
        push(&self.buffer[start..]);
        (slices, count)
    }

    /// Notes that the first `count` of [`Output::slices`] were sent; when all
    /// were, the buffer is ready for the next batch.
    pub(crate) fn advance(&mut self, count: usize) {
        self.sent_count += count;
        debug_assert!(self.sent_count <= self.byte_count);
        if self.sent_count < self.byte_count {
            return;
        }
        (self.byte_count, self.sent_count) = (0, 0);
        self.buffer.clear();
        self.insertions.clear();
        if self.buffer.capacity() > KEPT_BYTES {
            self.buffer.shrink_to(KEPT_BYTES);
        }
    }
}
