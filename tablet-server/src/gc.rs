//! Garbage collection rules: which versions of a column are garbage.
//!
//! Each rule marks a column's oldest versions (all but the newest n, those
//! older than an age), and both union and intersection keep that shape: once a
//! version is garbage, all older ones are. So reads skip to the next column at
//! the first garbage version, and it does not matter whether a compaction has
//! already removed some (the paper, section 2; `GcRule` in the admin proto).
//! Cells of aggregates are versions like all others; one that was garbage may
//! start from nothing, should newer versions be deleted and more be added to it.

use std::fmt;
use std::sync::Arc;

use lsm::{Candidate, Decision, KeepDecision};
use prost::Message;
use row_api::admin;
use row_api::admin::gc_rule::Rule;
use tonic::Status;

use crate::schema::{FamilyId, TableSchema};
use crate::{cell_key, limits};

/// The wall clock, µs since 1970.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

const NANOS_PER_SECOND: i32 = 1_000_000_000;

/// Checks `rule`, which stands at `field`.
///
/// # Errors
///
/// INVALID_ARGUMENT: no versions at all, an age under a millisecond, a group
/// without rules, too many bytes.
pub fn check_rule(field: &str, rule: &admin::GcRule) -> Result<(), Status> {
    limits::check_at_most(field, rule.encoded_len(), limits::GC_RULE_BYTES_MAX, "bytes")?;
    // Unset at the top it is "keep everything"; within a group it means nothing.
    if rule.rule.is_none() { Ok(()) } else { check_nested(&field, rule) }
}

fn check_nested(field: &dyn fmt::Display, rule: &admin::GcRule) -> Result<(), Status> {
    match &rule.rule {
        None => Err(limits::refuse(field, "is empty, a rule within a group must say something")),
        Some(Rule::MaxNumVersions(count)) if *count < 1 => {
            Err(limits::refuse(format_args!("{field}.max_num_versions"), format_args!("{count}, at least 1")))
        }
        Some(Rule::MaxNumVersions(_)) => Ok(()),
        Some(Rule::MaxAge(age)) => check_age(field, age),
        Some(Rule::Intersection(group)) => check_group(&format_args!("{field}.intersection"), &group.rules),
        Some(Rule::Union(group)) => check_group(&format_args!("{field}.union"), &group.rules),
    }
}

fn check_group(field: &dyn fmt::Display, rules: &[admin::GcRule]) -> Result<(), Status> {
    if rules.is_empty() {
        return Err(limits::refuse(format_args!("{field}.rules"), "is empty, at least 1 is needed"));
    }
    let mut numbered = rules.iter().enumerate();
    numbered.try_for_each(|(index, rule)| check_nested(&format_args!("{field}.rules[{index}]"), rule))
}

fn check_age(field: &dyn fmt::Display, age: &prost_types::Duration) -> Result<(), Status> {
    if !(0..NANOS_PER_SECOND).contains(&age.nanos) || age.seconds < 0 {
        let why = format_args!("{} s and {} ns is no age", age.seconds, age.nanos);
        return Err(limits::refuse(format_args!("{field}.max_age"), why));
    }
    if age.seconds == 0 && age.nanos < 1_000_000 {
        let why = format_args!("{} ns, at least 1 millisecond", age.nanos);
        return Err(limits::refuse(format_args!("{field}.max_age"), why));
    }
    Ok(())
}

/// Whether a version is garbage by `rule`: `newer_count` versions of its column
/// are newer than it.
pub fn is_garbage(rule: &admin::GcRule, newer_count: usize, timestamp_us: i64, now_us: i64) -> bool {
    let garbage = |rule| is_garbage(rule, newer_count, timestamp_us, now_us);
    match &rule.rule {
        None => false,
        Some(Rule::MaxNumVersions(count)) => {
            usize::try_from(*count).is_ok_and(|count| count > 0 && newer_count >= count)
        }
        Some(Rule::MaxAge(age)) => timestamp_us < now_us.saturating_sub(age_us(age)),
        Some(Rule::Intersection(group)) => !group.rules.is_empty() && group.rules.iter().all(garbage),
        Some(Rule::Union(group)) => group.rules.iter().any(garbage),
    }
}

/// The age, cut to µs.
fn age_us(age: &prost_types::Duration) -> i64 {
    age.seconds.saturating_mul(1_000_000).saturating_add(i64::from(age.nanos) / 1_000)
}

/// What compactions of a table's trees drop: garbage by the families' rules,
/// and cells of families that are no more. To be set anew whenever the schema
/// changes; an instance made before that never drops cells of a newer family.
pub fn keep_decisions(
    schema: Arc<TableSchema>,
    clock: Clock,
) -> Arc<dyn Fn() -> Box<dyn KeepDecision> + Send + Sync> {
    Arc::new(move || {
        Box::new(Collector {
            schema: schema.clone(),
            now_us: clock(),
            column_prefix: Vec::new(),
            seen_count: 0,
            rule: FamilyRule::Keep,
        })
    })
}

/// Judges the cells of one compaction, column by column.
struct Collector {
    schema: Arc<TableSchema>,
    now_us: i64,
    /// Of the column whose cells are being judged.
    column_prefix: Vec<u8>,
    /// Its versions so far. A merging compaction may not see all newer ones: it
    /// then keeps more than it needs to.
    seen_count: usize,
    rule: FamilyRule,
}

enum FamilyRule {
    /// No rule, or not a family this schema knows of.
    Keep,
    /// The family was dropped.
    Drop,
    Judge(admin::GcRule),
}

impl Collector {
    /// Takes note of the column that `key` is in; none where `key` is no cell's.
    fn enter_column(&mut self, key: &[u8]) -> Option<()> {
        let column_bytes = key.len().checked_sub(cell_key::TIMESTAMP_BYTES)?;
        if !self.column_prefix.is_empty() && key[..column_bytes] == self.column_prefix {
            return Some(());
        }
        let family_at = cell_key::skip_escaped(key, 0).ok()?;
        let family = cell_key::family_at_offset(key, family_at)?;
        let column_end = cell_key::skip_escaped(key, family_at + cell_key::FAMILY_BYTES).ok()?;
        if column_end != column_bytes {
            return None;
        }
        self.rule = self.family_rule(family);
        self.column_prefix.clear();
        self.column_prefix.extend_from_slice(&key[..column_bytes]);
        self.seen_count = 0;
        Some(())
    }

    fn family_rule(&self, id: FamilyId) -> FamilyRule {
        match self.schema.families.values().find(|family| family.id == id) {
            Some(family) => family.gc_rule.clone().map_or(FamilyRule::Keep, FamilyRule::Judge),
            None if id < self.schema.next_family_id => FamilyRule::Drop,
            None => FamilyRule::Keep,
        }
    }
}

impl KeepDecision for Collector {
    fn decide(&mut self, candidate: &Candidate<'_>) -> Decision {
        let key = candidate.key;
        // What cannot be read is kept, for whoever repairs it.
        let Some(()) = self.enter_column(key) else { return Decision::Keep };
        let Some(timestamp_us) = cell_key::timestamp_of(key) else { return Decision::Keep };
        let newer_count = self.seen_count;
        self.seen_count += 1;
        let garbage = match &self.rule {
            FamilyRule::Keep => false,
            FamilyRule::Drop => true,
            FamilyRule::Judge(rule) => is_garbage(rule, newer_count, timestamp_us, self.now_us),
        };
        if garbage { Decision::Drop } else { Decision::Keep }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cell_key::CellKey;

    fn rule(rule: Rule) -> admin::GcRule {
        admin::GcRule { rule: Some(rule) }
    }

    fn versions(count: i32) -> admin::GcRule {
        rule(Rule::MaxNumVersions(count))
    }

    fn age(seconds: i64, nanos: i32) -> admin::GcRule {
        rule(Rule::MaxAge(prost_types::Duration { seconds, nanos }))
    }

    fn all(rules: Vec<admin::GcRule>) -> admin::GcRule {
        rule(Rule::Intersection(admin::gc_rule::Intersection { rules }))
    }

    fn any(rules: Vec<admin::GcRule>) -> admin::GcRule {
        rule(Rule::Union(admin::gc_rule::Union { rules }))
    }

    #[test]
    fn rules_say_which_versions_are_garbage() {
        // Versions at 9, 5 and 1 s, read at 10 s.
        let cases = [
            ("newest two", versions(2), "kkd"),
            ("under five seconds", age(5, 0), "kkd"),
            ("five seconds exactly is kept", age(5, 1), "kkd"),
            ("a fraction of a second", age(0, 500_000_000), "ddd"),
            ("either", any(vec![versions(2), age(3, 0)]), "kdd"),
            ("both", all(vec![versions(1), age(6, 0)]), "kkd"),
            ("nested", any(vec![age(9, 500_000_000), all(vec![versions(1), age(2, 0)])]), "kdd"),
            ("none", admin::GcRule::default(), "kkk"),
            ("an empty group deletes nothing", all(vec![]), "kkk"),
        ];
        for (name, rule, expect) in cases {
            let judged: String = [9_000_000, 5_000_000, 1_000_000]
                .iter()
                .enumerate()
                .map(|(newer, at)| if is_garbage(&rule, newer, *at, 10_000_000) { 'd' } else { 'k' })
                .collect();
            assert_eq!(judged, expect, "{name}");
        }
    }

    #[test]
    fn bad_rules_are_refused_by_path() {
        let refused = |rule: &admin::GcRule| check_rule("gc_rule", rule).unwrap_err().message().to_owned();
        assert_eq!(refused(&versions(0)), "gc_rule.max_num_versions: 0, at least 1");
        assert_eq!(refused(&age(0, 999_999)), "gc_rule.max_age: 999999 ns, at least 1 millisecond");
        assert_eq!(refused(&age(-1, 0)), "gc_rule.max_age: -1 s and 0 ns is no age");
        assert_eq!(
            refused(&any(vec![versions(1), all(vec![])])),
            "gc_rule.union.rules[1].intersection.rules: is empty, at least 1 is needed"
        );
        assert_eq!(
            refused(&any(vec![admin::GcRule::default()])),
            "gc_rule.union.rules[0]: is empty, a rule within a group must say something"
        );
        assert!(refused(&any(vec![versions(1); 130])).ends_with("bytes, at most 500"));
        check_rule("gc_rule", &admin::GcRule::default()).unwrap();
        check_rule("gc_rule", &any(vec![versions(3), all(vec![age(1, 0), versions(1)])])).unwrap();
    }

    fn candidate(key: &[u8]) -> Candidate<'_> {
        Candidate { key, value: b"", sequence: 1, is_newest: true }
    }

    #[test]
    fn compactions_drop_garbage_and_dropped_families_only() {
        let mut schema = TableSchema::with_families(&["kept", "two", "gone"]);
        schema.families.get_mut("two").unwrap().gc_rule = Some(versions(2));
        schema.families.remove("gone");
        let factory = keep_decisions(Arc::new(schema), Arc::new(|| 10_000_000));
        let mut decisions = factory();
        let mut decide = |row: &str, family, timestamp_us| {
            let key =
                CellKey { row: row.into(), family: FamilyId(family), qualifier: "q".into(), timestamp_us };
            decisions.decide(&candidate(&key.encode())) == Decision::Keep
        };
        let kept: Vec<bool> = [3, 2, 1].map(|timestamp| decide("a", 1, timestamp)).into();
        assert_eq!(kept, [true, true, true], "no rule");
        let kept: Vec<bool> = [3, 2, 1].map(|timestamp| decide("a", 2, timestamp)).into();
        assert_eq!(kept, [true, true, false], "two versions");
        assert!(!decide("a", 3, 1), "a dropped family");
        assert!(decide("a", 4, 1), "a family that is newer than this schema");
        assert!(decide("b", 2, 1), "counts start again in the next row");
        assert_eq!(factory().decide(&candidate(b"\xff")), Decision::Keep, "not a cell");
    }

    fn any_rule() -> impl Strategy<Value = admin::GcRule> {
        let leaf = prop_oneof![(1..5i32).prop_map(versions), (0..8i64).prop_map(|s| age(s, 1_000_000))];
        leaf.prop_recursive(3, 12, 3, |inner| {
            let group = prop::collection::vec(inner, 1..4);
            prop_oneof![group.clone().prop_map(all), group.prop_map(any)]
        })
    }

    proptest! {
        /// What reads and compactions rely on: garbage is a column's tail.
        #[test]
        fn all_versions_older_than_garbage_are_garbage(rule in any_rule(), mut ages in prop::collection::vec(0..10i64, 1..12)) {
            ages.sort_unstable();
            ages.dedup();
            let judged: Vec<bool> = ages
                .iter()
                .enumerate()
                .map(|(newer, age)| is_garbage(&rule, newer, (20 - age) * 1_000_000, 20_000_000))
                .collect();
            prop_assert!(judged.is_sorted());
        }
    }
}
