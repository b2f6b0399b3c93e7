//! HyperLogLog++ sketches: about how many different values there were.
//!
//! Heule, Nunkesser and Hall, "HyperLogLog in Practice", 2013. A value's hash
//! names a register and gives a rank, a register keeps the greatest rank. A dense
//! sketch has a byte for each of its 2^15 registers; a sparse one lists what it
//! has seen at a finer 2^20, and becomes dense once that would take three
//! quarters of the dense form's bytes. `state` has the bytes, `fingerprint` the hash.
//!
//! # Invariants
//!
//! Merging is commutative and associative to the byte, and adding again what is
//! in a sketch leaves its registers. So the size that decides on the form is that
//! of the list with all ranks left out, which only grows as values are added;
//! zetasketch takes the size with ranks, which differs by a byte or two. The count
//! of values added, which no estimate needs, is a sum.

mod fingerprint;
mod state;

use std::fmt;

use bytes::{Bytes, BytesMut};
use prost::Message;

use fingerprint::fingerprint;
use state::{AggregatorState, Contents};

/// Bits of a hash that name a dense register.
const PRECISION: u32 = 15;
/// Bits of a hash that name a value in a sparse sketch.
const SPARSE_PRECISION: u32 = 20;
/// Registers of a dense sketch, a byte each.
const DENSE_BYTES: usize = 1 << PRECISION;
/// The greatest rank: as if all bits behind the register's were zero.
const REGISTER_MAX: u8 = 50;
const _: () = assert!(REGISTER_MAX as u32 == u64::BITS - PRECISION + 1);
/// A sparse list of more bytes, its ranks left out, becomes dense.
const SPARSE_BYTES_MAX: usize = DENSE_BYTES / 4 * 3;
/// Values beyond which a list is put in order while others are still merged into it.
const UNSORTED_MAX: usize = 1 << 16;

/// What a sketch counts. Sketches of different inputs cannot be merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CountedInput {
    /// Byte strings, and strings as their UTF-8.
    Bytes,
    /// 64-bit integers.
    Int64,
}

impl CountedInput {
    /// The number that the format has for it. Integers with and without sign hash alike, and are one.
    fn value_type(self) -> i32 {
        match self {
            Self::Bytes => 11,
            Self::Int64 => 8,
        }
    }

    /// Whether sketches of the format's number can be merged into those of this input.
    fn takes(self, value_type: i32) -> bool {
        match self {
            Self::Bytes => value_type == 11,
            Self::Int64 => matches!(value_type, 4 | 8),
        }
    }
}

/// A value in a sparse sketch:
///
/// ```text
/// 0 | sparse index, 20 bits                 where its last 5 bits are not all zero: they give the rank
/// 1 | register, 15 bits | rank', 6 bits     otherwise, the rank of what follows the sparse index
/// ```
///
/// the first bit being bit 21.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct SparseValue(u32);

impl SparseValue {
    const RANKED: u32 = 1 << 21;
    const RANK_BITS: u32 = 6;
    const RANK_MASK: u32 = (1 << Self::RANK_BITS) - 1;
    /// Bits by which a sparse index is longer than a register's.
    const FINER_BITS: u32 = SPARSE_PRECISION - PRECISION;

    fn of_hash(hash: u64) -> Self {
        let index = (hash >> (u64::BITS - SPARSE_PRECISION)) as u32;
        if index & ((1 << Self::FINER_BITS) - 1) != 0 {
            return Self(index);
        }
        let behind = hash << SPARSE_PRECISION;
        let rank = behind.leading_zeros().min(u64::BITS - SPARSE_PRECISION) + 1;
        Self(Self::RANKED | (index >> Self::FINER_BITS) << Self::RANK_BITS | rank)
    }

    fn is_valid(self) -> bool {
        if self.0 & Self::RANKED == 0 {
            return self.0 >> SPARSE_PRECISION == 0 && self.0 & ((1 << Self::FINER_BITS) - 1) != 0;
        }
        let rank = self.0 & Self::RANK_MASK;
        self.0 >> 22 == 0 && (1..=u64::BITS - SPARSE_PRECISION + 1).contains(&rank)
    }

    /// The value without its rank: one a sparse index.
    fn index(self) -> u32 {
        if self.0 & Self::RANKED == 0 { self.0 } else { self.0 & !Self::RANK_MASK }
    }

    /// The dense register, and the rank in it.
    #[expect(clippy::cast_possible_truncation, reason = "a rank is at most REGISTER_MAX")]
    fn register(self) -> (usize, u8) {
        if self.0 & Self::RANKED == 0 {
            let finer = self.0 << (u32::BITS - Self::FINER_BITS);
            ((self.0 >> Self::FINER_BITS) as usize, finer.leading_zeros() as u8 + 1)
        } else {
            let rank = (self.0 & Self::RANK_MASK) + Self::FINER_BITS;
            (((self.0 ^ Self::RANKED) >> Self::RANK_BITS) as usize, rank as u8)
        }
    }
}

enum Form {
    /// In any order, some more than once.
    Sparse(Vec<SparseValue>),
    Dense(BytesMut),
}

/// A sketch while others are merged into it.
pub(crate) struct Sketch {
    value_type: i32,
    value_count: i64,
    form: Form,
}

impl Sketch {
    /// A sketch of nothing yet; whatever is merged into it first says what it counts.
    pub(crate) fn new() -> Self {
        Self { value_type: 0, value_count: 0, form: Form::Sparse(Vec::new()) }
    }

    /// The sketch of the one value `bytes`; an integer's are little-endian.
    pub(crate) fn of(input: CountedInput, bytes: &[u8]) -> Self {
        let value = SparseValue::of_hash(fingerprint(bytes));
        Self { value_type: input.value_type(), value_count: 1, form: Form::Sparse(vec![value]) }
    }

    /// Reads a sketch of `input` that a client sends.
    ///
    /// # Errors
    ///
    /// What is wrong with it, to stand behind its name.
    pub(crate) fn check(input: CountedInput, bytes: Bytes) -> Result<Self, String> {
        let mut sketch = Self::new();
        let (state, contents) = AggregatorState::read(bytes)?;
        if !input.takes(state.value_type) {
            let (found, expected) = (state.value_type, input.value_type());
            return Err(format!("counts values of type {found}, must be {expected}"));
        }
        sketch.add_contents(&contents)?;
        sketch.value_type = input.value_type();
        sketch.value_count = state.value_count;
        Ok(sketch)
    }

    /// Adds what the sketch `bytes` holds; nothing where it is none.
    pub(crate) fn merge(&mut self, bytes: Bytes) {
        let Ok((state, contents)) = AggregatorState::read(bytes) else { return };
        if self.add_contents(&contents).is_ok() {
            self.value_type = self.value_type.max(state.value_type);
            self.value_count = self.value_count.saturating_add(state.value_count);
        }
    }

    /// The sketch in the one form that what it holds has, as the format has it.
    pub(crate) fn encode(mut self) -> Vec<u8> {
        self.settle();
        let state = match self.form {
            Form::Sparse(values) => AggregatorState::sparse(self.value_type, self.value_count, &values),
            Form::Dense(registers) => {
                AggregatorState::dense(self.value_type, self.value_count, registers.freeze())
            }
        };
        state.encode_to_vec()
    }

    fn add_contents(&mut self, contents: &Contents) -> Result<(), String> {
        match (contents, &mut self.form) {
            (Contents::Sparse(data), Form::Sparse(values)) => {
                for value in state::sparse_values(data) {
                    values.push(value?);
                }
                if values.len() > UNSORTED_MAX {
                    self.settle();
                }
            }
            (Contents::Sparse(data), Form::Dense(registers)) => {
                for value in state::sparse_values(data) {
                    raise(registers, value?);
                }
            }
            (Contents::Dense(data), Form::Sparse(values)) => {
                let mut registers = BytesMut::from(&data[..]);
                values.iter().for_each(|value| raise(&mut registers, *value));
                self.form = Form::Dense(registers);
            }
            (Contents::Dense(data), Form::Dense(registers)) => {
                registers.iter_mut().zip(data).for_each(|(register, other)| *register = *other.max(register));
            }
        }
        Ok(())
    }

    /// Puts a list in order, each index once with its greatest rank, and makes
    /// it dense where it is long.
    fn settle(&mut self) {
        let Form::Sparse(values) = &mut self.form else { return };
        values.sort_unstable_by_key(|value| std::cmp::Reverse(*value));
        values.dedup_by_key(|value| value.index());
        values.reverse();
        let mut last = 0;
        let mut bytes = 0;
        for value in values.iter() {
            bytes += state::varint_bytes(value.index() - last);
            last = value.index();
        }
        if bytes > SPARSE_BYTES_MAX {
            let mut registers = BytesMut::zeroed(DENSE_BYTES);
            values.iter().for_each(|value| raise(&mut registers, *value));
            self.form = Form::Dense(registers);
        }
    }
}

impl fmt::Debug for Sketch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sketch").field("value_count", &self.value_count).finish_non_exhaustive()
    }
}

fn raise(registers: &mut [u8], value: SparseValue) {
    let (register, rank) = value.register();
    let register = &mut registers[register];
    *register = rank.max(*register);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sketch(values: impl IntoIterator<Item = String>) -> Vec<u8> {
        merged(values.into_iter().map(|value| Sketch::of(CountedInput::Bytes, value.as_bytes()).encode()))
    }

    fn merged(sketches: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
        let mut merged = Sketch::new();
        sketches.into_iter().for_each(|sketch| merged.merge(sketch.into()));
        merged.encode()
    }

    fn strings(range: std::ops::Range<usize>) -> Vec<u8> {
        sketch(range.map(|number| format!("value {number}")))
    }

    fn is_dense(sketch: &[u8]) -> bool {
        matches!(AggregatorState::read(Bytes::copy_from_slice(sketch)), Ok((_, Contents::Dense(_))))
    }

    /// The golden file was written with zetasketch-py 0.1.3, a translation of zetasketch.
    /// BigQuery's own bytes are in `state`.
    #[test]
    fn bytes_are_those_of_the_golden_file() {
        let golden = include_str!("../tests/golden/unique_counts.txt");
        let mut lines = golden.lines();
        while let (Some(made), Some(hex)) = (lines.next(), lines.next()) {
            let words: Vec<&str> = made.split(' ').collect();
            let number = |at: usize| words[at].parse::<usize>().unwrap();
            let sketch = match words[0] {
                "strings" => strings(number(1)..number(2)),
                "integers" => merged((number(1)..number(2)).map(|number| {
                    let number = i64::try_from(number).unwrap();
                    let value = if number % 2 == 0 { number.pow(5) } else { -number.pow(5) };
                    Sketch::of(CountedInput::Int64, &value.to_le_bytes()).encode()
                })),
                _ => merged([strings(number(1)..number(2)), strings(number(3)..number(4))]),
            };
            let bytes: String = sketch.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(bytes, hex.trim(), "{made}");
        }
    }

    #[test]
    fn a_long_list_becomes_dense_whichever_way_it_grows() {
        let whole = strings(0..26_000);
        assert!(is_dense(&whole) && whole.len() < DENSE_BYTES + 40);
        let (one, two) = (strings(0..15_000), strings(15_000..26_000));
        assert!(!is_dense(&one) && !is_dense(&two));
        assert_eq!(merged([two.clone(), one.clone()]), whole);
        assert_eq!(merged([one, two]), whole);
        assert!(is_dense(&merged([strings(0..1), whole])));
    }

    #[test]
    fn an_estimate_from_the_registers_is_near() {
        let Ok((_, Contents::Dense(registers))) = AggregatorState::read(strings(0..40_000).into()) else {
            panic!("a dense sketch");
        };
        // Linear counting, as the paper has it for counts of this size.
        let zeros = registers.iter().filter(|register| **register == 0).count();
        let registers = DENSE_BYTES as f64;
        let estimate = registers * (registers / zeros as f64).ln();
        assert!((estimate / 40_000.0 - 1.0).abs() < 0.02, "{estimate}");
    }

    #[test]
    fn sketches_that_could_not_be_merged_are_refused() {
        let good = || AggregatorState::read(strings(0..3).into()).unwrap().0;
        let refused = |bytes: Vec<u8>| Sketch::check(CountedInput::Bytes, bytes.into()).unwrap_err();
        assert!(Sketch::check(CountedInput::Bytes, strings(0..3).into()).is_ok());
        assert!(refused(b"\xff".to_vec()).starts_with("is no serialized sketch"));
        assert_eq!(
            Sketch::check(CountedInput::Int64, strings(0..3).into()).unwrap_err(),
            "counts values of type 11, must be 8"
        );
        assert!(refused(Vec::new()).starts_with("is an aggregator of type 0 in version 1"));
        let mut negative = good();
        negative.value_count = -1;
        assert_eq!(refused(negative.encode_to_vec()), "has counted -1 values, at least 0");
        // Google's own, at precision 10.
        let coarse = b"\x08\x70\x10\x00\x18\x02\x20\x0b\x82\x07\x06\x18\x0a\x20\x0f\x32\x00";
        assert_eq!(refused(coarse.to_vec()), "has precision 10, must be 15");
        let registers = |bytes: Vec<u8>| AggregatorState::dense(11, 1, bytes.into()).encode_to_vec();
        assert_eq!(refused(registers(vec![0; 5])), "has 5 registers, must have 32768");
        assert_eq!(refused(registers(vec![51; DENSE_BYTES])), "has a register of 51, at most 50");
        assert!(Sketch::check(CountedInput::Bytes, registers(vec![50; DENSE_BYTES]).into()).is_ok());
        for damaged in [&[SparseValue(32)][..], &[SparseValue(SparseValue::RANKED)], &[SparseValue(1 << 20)]]
        {
            let bytes = AggregatorState::sparse(11, 1, damaged).encode_to_vec();
            assert_eq!(refused(bytes), "holds sparse data that is damaged");
        }
    }

    /// Sketches of few and many values; a small space of hashes, so that indexes meet.
    fn any_sketch() -> impl Strategy<Value = Vec<u8>> {
        let hash = (0..40u64, prop_oneof![Just(0), any::<u64>()], 0..50u32)
            .prop_map(|(high, low, shift)| high << 40 | low >> 24 >> (shift % 40));
        let sparse = prop::collection::vec(hash, 1..20).prop_map(|hashes| {
            let values = hashes.iter().map(|hash| SparseValue::of_hash(*hash)).collect();
            Sketch { value_type: 11, value_count: 1, form: Form::Sparse(values) }.encode()
        });
        let many = (0..3usize).prop_map(|part| strings(part * 6_000..part * 6_000 + 12_000));
        prop_oneof![9 => sparse, 1 => many]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn merging_is_the_same_in_any_order_and_grouping(a in any_sketch(), b in any_sketch(), c in any_sketch()) {
            let all = merged([a.clone(), b.clone(), c.clone()]);
            prop_assert_eq!(&merged([c.clone(), a.clone(), b.clone()]), &all);
            prop_assert_eq!(&merged([merged([a.clone(), b.clone()]), c.clone()]), &all);
            prop_assert_eq!(&merged([a.clone(), merged([b, c])]), &all);
            let (again, counted) = (merged([all.clone(), a]), AggregatorState::read(all.into()).unwrap().0);
            let mut again = AggregatorState::read(again.into()).unwrap().0;
            again.value_count = counted.value_count;
            prop_assert_eq!(again, counted);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..60), at in any::<prop::sample::Index>(), byte: u8) {
            drop(Sketch::check(CountedInput::Bytes, bytes.into()));
            let mut damaged = strings(0..30);
            let at = at.index(damaged.len());
            damaged[at] = byte;
            if let Ok(sketch) = Sketch::check(CountedInput::Bytes, damaged.into()) {
                let encoded = sketch.encode();
                prop_assert!(Sketch::check(CountedInput::Bytes, encoded.into()).is_ok());
            }
        }
    }
}
