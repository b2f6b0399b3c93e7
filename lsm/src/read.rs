//! Reading one tree as it is at one moment: a key's value, or a cursor.
//!
//! A point read looks into memtables, then level 0, then one table a level, and
//! ends at the first that has a write of the key. Only where that write is a
//! merge operand it goes on, and gathers operands down to what they stand on.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::internal_key::{Kind, LookupKey};
use crate::iter::source::{Source, SourceTombstones};
use crate::memtable::Memtable;
use crate::memtable::folded_values::FoldedValue;
use crate::merge_operator::{Operands, TreeOperator};
use crate::sstable::{Blocking, FilterHash, Found, ReadMode};
use crate::tables::table_ref::TableRef;
use crate::tree::TreeState;
use crate::version::containing;
use crate::{Iter, KeyRange, Result};

impl TreeState {
    /// The newest visible value of `key`.
    pub(crate) fn get(
        &self,
        operator: &TreeOperator,
        key: &LookupKey,
        blocking: Blocking,
    ) -> Result<Option<Bytes>> {
        for memtable in self.memtables() {
            match settled(memtable.get(key), memtable_cover(memtable, key)) {
                Settled::Value(value) => return Ok(value),
                Settled::Operand => return self.get_merged(operator, key, blocking),
                Settled::Nothing => {}
            }
        }
        for table in self.tables_of(key.user_key()) {
            match settled(table.get(key, blocking)?, table_cover(table, key)) {
                Settled::Value(value) => return Ok(value),
                Settled::Operand => return self.get_merged(operator, key, blocking),
                Settled::Nothing => {}
            }
        }
        Ok(None)
    }

    /// The value of `key`, whose newest visible write is a merge operand.
    #[cold]
    #[inline(never)]
    fn get_merged(
        &self,
        operator: &TreeOperator,
        key: &LookupKey,
        blocking: Blocking,
    ) -> Result<Option<Bytes>> {
        let operator = operator.required()?;
        let user_key = key.user_key();
        let mut history = History::default();
        let newest = self.gather(key, blocking, &mut history)?;
        let operand_count = history.operands.len();
        let value = history.value(|operands, base| operands.fold(operator, user_key, base));
        if let (Some((memtable, sequence)), Some(value)) = (newest, &value) {
            let folded = FoldedValue { sequence, value: value.clone() };
            memtable.folded().keep(user_key, folded, operand_count);
        }
        Ok(value)
    }

    /// Shows `history` the visible writes of `key`, newest first, until it has
    /// enough. Returns the newest one's place and sequence number if that is a memtable.
    fn gather(
        &self,
        key: &LookupKey,
        blocking: Blocking,
        history: &mut History,
    ) -> Result<Option<(&Memtable, u64)>> {
        let mut newest = None;
        for memtable in self.memtables() {
            let cover = memtable_cover(memtable, key);
            let folded = memtable.folded().get(key.user_key());
            let gathered = memtable.visit(key, &mut |found| {
                newest.get_or_insert((&**memtable, found.sequence));
                match &folded {
                    Some(folded) if folded.sequence == found.sequence => history.take_value(folded, cover),
                    _ => history.take(found, cover),
                }
            });
            if gathered.is_break() || cover.is_some() {
                return Ok(newest);
            }
        }
        for table in self.tables_of(key.user_key()) {
            let cover = table_cover(table, key);
            let gathered = table.visit(key, blocking, &mut |found| history.take(found, cover))?;
            if gathered.is_break() || cover.is_some() {
                break;
            }
        }
        Ok(newest)
    }

    /// The tables that may hold writes of `user_key`, those with newer ones first.
    fn tables_of(&self, user_key: &[u8]) -> impl Iterator<Item = &Arc<TableRef>> {
        let l0 = self.version.level(0).iter().filter(move |table| table.key_range().contains(user_key));
        let deeper = self.version.deeper_levels().iter().filter_map(move |level| containing(level, user_key));
        l0.chain(deeper)
    }

    /// A cursor over `range`; with a filter key, only tables that may hold it are read.
    pub(crate) fn iter(
        &self,
        operator: &TreeOperator,
        sequence: u64,
        range: KeyRange,
        filter: Option<(&[u8], FilterHash)>,
    ) -> Iter {
        let may_hold = |table: &TableRef| filter.is_none_or(|(key, hash)| table.may_contain(key, hash));
        // Who reads everything would put out what others read often.
        let is_everything = range.start.is_empty() && range.end.is_empty();
        let mode = if is_everything { ReadMode::Scan } else { ReadMode::Hot };
        // Most reads of one row need no more: the memtable, and a table.
        let mut sources = Vec::with_capacity(2);
        let mut tombstones = Vec::new();
        for memtable in self.memtables() {
            tombstones.extend(SourceTombstones::memtable(memtable, sequence).map(|of| (sources.len(), of)));
            sources.push(Source::memtable(memtable));
        }
        for table in self.version.level(0).iter().filter(|table| table.key_range().overlaps(&range)) {
            tombstones.extend(SourceTombstones::table(table, sequence).map(|of| (sources.len(), of)));
            if may_hold(table) {
                sources.push(Source::table(table, mode));
            }
        }
        for level in 1..=self.version.deeper_levels().len() {
            let overlapping = self.version.overlapping(level, &range);
            tombstones.extend(SourceTombstones::level(overlapping, sequence).map(|of| (sources.len(), of)));
            let tables: SmallVec<_> = overlapping.iter().filter(|table| may_hold(table)).cloned().collect();
            if !tables.is_empty() {
                sources.push(Source::level(tables, mode));
            }
        }
        Iter::new(sources, tombstones, range, sequence, operator.clone())
    }
}

/// The newest visible range delete of the key in a memtable.
fn memtable_cover(memtable: &Memtable, key: &LookupKey) -> Option<u64> {
    let tombstones = memtable.tombstones();
    if tombstones.is_empty() { None } else { tombstones.covering_sequence(key.user_key(), key.sequence()) }
}

/// The newest visible range delete of the key in a table.
fn table_cover(table: &TableRef, key: &LookupKey) -> Option<u64> {
    let tombstones = table.range_tombstones();
    if tombstones.is_empty() { None } else { tombstones.covering_sequence(key.user_key(), key.sequence()) }
}

/// What a source says about a key.
enum Settled {
    /// Its value, or that it has none.
    Value(Option<Bytes>),
    /// How its value differs from what older sources say.
    Operand,
    Nothing,
}

fn settled(found: Option<Found>, cover: Option<u64>) -> Settled {
    match found {
        Some(found) if cover.is_none_or(|cover| cover <= found.sequence) => match found.kind {
            Kind::Put => Settled::Value(Some(found.value)),
            Kind::Merge => Settled::Operand,
            Kind::Delete | Kind::RangeDelete => Settled::Value(None),
        },
        _ if cover.is_some() => Settled::Value(None),
        _ => Settled::Nothing,
    }
}

/// The writes that a key's value is made of.
#[derive(Debug, Default)]
struct History {
    operands: Operands,
    base: Option<Bytes>,
}

impl History {
    /// Takes the next older write of the key, from a source whose newest visible
    /// range delete of it is `cover`; breaks once no older one matters.
    fn take(&mut self, found: Found, cover: Option<u64>) -> ControlFlow<()> {
        if cover.is_some_and(|cover| cover > found.sequence) {
            return ControlFlow::Break(());
        }
        match found.kind {
            Kind::Merge => {
                self.operands.push_older(found.value);
                ControlFlow::Continue(())
            }
            Kind::Put => {
                self.base = Some(found.value);
                ControlFlow::Break(())
            }
            Kind::Delete | Kind::RangeDelete => ControlFlow::Break(()),
        }
    }

    /// Takes what the key's value was as of one of its operands.
    fn take_value(&mut self, folded: &FoldedValue, cover: Option<u64>) -> ControlFlow<()> {
        if cover.is_none_or(|cover| cover <= folded.sequence) {
            self.base = Some(folded.value.clone());
        }
        ControlFlow::Break(())
    }

    fn value(self, fold: impl FnOnce(Operands, Option<&[u8]>) -> Bytes) -> Option<Bytes> {
        if self.operands.is_empty() { self.base } else { Some(fold(self.operands, self.base.as_deref())) }
    }
}
