//! Aggregate cells: what AddToCell and MergeToCell make of them.
//!
//! A cell of an aggregate family is never read to be changed: the change is
//! logged as a merge operand of the cell's key, and whoever reads the cell, or a
//! compaction, folds the operands ([`CellAggregates`]). The folded value is the
//! state that clients read: eight big-endian bytes of a sum, minimum or maximum,
//! a zetasketch of a unique count. Sums wrap, as increments do; what else they
//! could do at the ends would depend on how operands are grouped.
//!
//! ```text
//! OFFSET  SIZE  FIELD
//! 0       1     tag: 1 sum, 2 minimum, 3 maximum, 4 unique count
//! 1       8     of 1, 2 and 3: the input, big-endian
//! 1       any   of 4: a sketch (`unique_count`)
//! ```
//!
//! is an operand; the golden test pins its bytes.

use std::fmt::Display;

use bytes::{BufMut, Bytes};
use lsm::MergeOperator;
use row_api::data;
use row_api::data::r#type::Kind as TypeKind;
use row_api::data::value::Kind;
use tonic::Status;

use crate::limits;
use crate::limits::refuse;
use crate::unique_count::{CountedInput, Sketch};

/// What becomes of a cell as values are added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregate {
    /// The sum of 64-bit integers; it wraps.
    Sum,
    /// The least of 64-bit integers.
    Min,
    /// The greatest of 64-bit integers.
    Max,
    /// About how many different inputs there were, by HyperLogLog++.
    UniqueCount(CountedInput),
}

const SUM: u8 = 1;
const MIN: u8 = 2;
const MAX: u8 = 3;
const UNIQUE_COUNT: u8 = 4;

impl Aggregate {
    fn tag(self) -> u8 {
        match self {
            Self::Sum => SUM,
            Self::Min => MIN,
            Self::Max => MAX,
            Self::UniqueCount(_) => UNIQUE_COUNT,
        }
    }

    /// The operand that adds `input`, which stands at `field`.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT where it is not of the family's input type.
    pub(crate) fn add(self, field: impl Display, input: data::Value) -> Result<Bytes, Status> {
        match self {
            Self::Sum | Self::Min | Self::Max => Ok(self.operand(&integer(&field, input)?.to_be_bytes())),
            Self::UniqueCount(counted) => {
                let sketch = match counted {
                    CountedInput::Int64 => Sketch::of(counted, &integer(&field, input)?.to_le_bytes()),
                    CountedInput::Bytes => Sketch::of(counted, &string(&field, input)?),
                };
                Ok(self.operand(&sketch.encode()))
            }
        }
    }

    /// The operand that merges `state`, which stands at `field`; none where it is NULL.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT where it is not of the family's state type.
    pub(crate) fn merge(self, field: impl Display, state: data::Value) -> Result<Option<Bytes>, Status> {
        if state.kind.is_none() {
            return Ok(None);
        }
        let Self::UniqueCount(counted) = self else { return self.add(field, state).map(Some) };
        let sketch = Sketch::check(counted, bytes(&field, state)?).map_err(|why| refuse(&field, why))?;
        Ok(Some(self.operand(&sketch.encode())))
    }

    fn operand(self, data: &[u8]) -> Bytes {
        let mut operand = Vec::with_capacity(1 + data.len());
        operand.put_u8(self.tag());
        operand.put_slice(data);
        operand.into()
    }
}

/// The state that `operand` merges, as a raw value.
pub(crate) fn input(operand: &Bytes) -> Bytes {
    operand.slice(operand.len().min(1)..)
}

/// A 64-bit integer, as itself or as the eight big-endian bytes that cells have.
fn integer(field: &impl Display, value: data::Value) -> Result<i64, Status> {
    check_type(field, &value, |kind| matches!(kind, TypeKind::Int64Type(_)))?;
    match value.kind {
        Some(Kind::IntValue(value)) => Ok(value),
        Some(Kind::RawValue(raw)) => match <[u8; 8]>::try_from(&raw[..]) {
            Ok(bytes) => Ok(i64::from_be_bytes(bytes)),
            Err(_) => {
                let found = raw.len();
                let why = format_args!("{found} bytes, an integer has 8 (big-endian)");
                Err(refuse(format_args!("{field}.raw_value"), why))
            }
        },
        kind => Err(wrong_kind(field, kind.as_ref(), "int_value or raw_value")),
    }
}

/// A byte string or the UTF-8 of a string.
fn string(field: &impl Display, value: data::Value) -> Result<Bytes, Status> {
    check_type(field, &value, |kind| matches!(kind, TypeKind::BytesType(_) | TypeKind::StringType(_)))?;
    let bytes = match value.kind {
        Some(Kind::RawValue(bytes) | Kind::BytesValue(bytes)) => bytes,
        Some(Kind::StringValue(text)) => text.into(),
        kind => return Err(wrong_kind(field, kind.as_ref(), "raw_value, bytes_value or string_value")),
    };
    limits::check_value(field, &bytes)?;
    Ok(bytes)
}

/// A byte string.
fn bytes(field: &impl Display, value: data::Value) -> Result<Bytes, Status> {
    check_type(field, &value, |kind| matches!(kind, TypeKind::BytesType(_)))?;
    match value.kind {
        Some(Kind::RawValue(bytes) | Kind::BytesValue(bytes)) => Ok(bytes),
        kind => Err(wrong_kind(field, kind.as_ref(), "raw_value or bytes_value")),
    }
}

/// Refuses a value that names a type of its own which is not the family's; a raw one has none.
fn check_type(
    field: &impl Display,
    value: &data::Value,
    is_expected: impl Fn(&TypeKind) -> bool,
) -> Result<(), Status> {
    let Some(named) = &value.r#type else { return Ok(()) };
    let field = format_args!("{field}.type");
    if matches!(value.kind, Some(Kind::RawValue(_))) {
        return Err(refuse(field, "must be omitted, a raw value has no type"));
    }
    if named.kind.as_ref().is_some_and(is_expected) {
        return Ok(());
    }
    Err(refuse(field, "is not the type that the column family has, which may be omitted"))
}

fn wrong_kind(field: &impl Display, found: Option<&Kind>, expected: &str) -> Status {
    let found = match found {
        None => return refuse(field, format_args!("is missing, {expected} is needed")),
        Some(Kind::RawValue(_)) => "raw_value",
        Some(Kind::RawTimestampMicros(_)) => "raw_timestamp_micros",
        Some(Kind::BytesValue(_)) => "bytes_value",
        Some(Kind::StringValue(_)) => "string_value",
        Some(Kind::IntValue(_)) => "int_value",
        Some(Kind::BoolValue(_)) => "bool_value",
        Some(Kind::FloatValue(_)) => "float_value",
        Some(Kind::TimestampValue(_)) => "timestamp_value",
        Some(Kind::DateValue(_)) => "date_value",
        Some(Kind::ArrayValue(_)) => "array_value",
    };
    refuse(field, format_args!("{found}, must be {expected}"))
}

/// The qualifier at `field`: it must be raw.
pub(crate) fn check_qualifier(field: impl Display, value: Option<data::Value>) -> Result<Bytes, Status> {
    let value = value.unwrap_or_default();
    check_type(&field, &value, |_| false)?;
    match value.kind {
        Some(Kind::RawValue(qualifier)) => {
            limits::check_qualifier(format_args!("{field}.raw_value"), &qualifier)?;
            Ok(qualifier)
        }
        kind => Err(wrong_kind(&field, kind.as_ref(), "raw_value")),
    }
}

/// The timestamp at `field`, µs: it must be raw, there is no server's clock for aggregates.
pub(crate) fn check_timestamp(field: impl Display, value: Option<data::Value>) -> Result<i64, Status> {
    let value = value.unwrap_or_default();
    check_type(&field, &value, |_| false)?;
    match value.kind {
        Some(Kind::RawTimestampMicros(timestamp_us)) => {
            limits::check_timestamp(format_args!("{field}.raw_timestamp_micros"), timestamp_us)?;
            Ok(timestamp_us)
        }
        kind => Err(wrong_kind(&field, kind.as_ref(), "raw_timestamp_micros")),
    }
}

/// Folds the operands of aggregate cells; every tree of a tablet has it.
#[derive(Clone, Copy, Debug)]
pub struct CellAggregates;

impl CellAggregates {
    /// The name that trees know it by.
    pub const NAME: &str = "hayloft.aggregates.1";
}

impl MergeOperator for CellAggregates {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    /// Each operand by its own tag, so that what a family's type says is not
    /// needed. Bytes that are no state count as none, those that are no operand are
    /// passed over; the value is empty where nothing else is left.
    fn merge(&self, _key: &[u8], base: Option<&[u8]>, operands: &[Bytes]) -> Bytes {
        let mut state = base.map(Bytes::copy_from_slice);
        for operands in operands.chunk_by(|a, b| a.first() == b.first()) {
            match operands[0].first() {
                Some(&UNIQUE_COUNT) => state = Some(merge_sketches(state, operands)),
                Some(&tag @ (SUM | MIN | MAX)) => {
                    state = fold_integers(tag, state.as_deref(), operands);
                }
                _ => {}
            }
        }
        state.unwrap_or_default()
    }

    fn combine(&self, key: &[u8], operands: &[Bytes]) -> Option<Bytes> {
        let tag = *operands.first()?.first()?;
        if !operands.iter().all(|operand| operand.first() == Some(&tag)) {
            return None;
        }
        let state = self.merge(key, None, operands);
        Some([&[tag][..], &state].concat().into())
    }
}

fn fold_integers(tag: u8, state: Option<&[u8]>, operands: &[Bytes]) -> Option<Bytes> {
    let number = |bytes: &[u8]| bytes.try_into().ok().map(i64::from_be_bytes);
    let inputs = operands.iter().filter_map(|operand| number(&operand[1..]));
    let all = state.and_then(number).into_iter().chain(inputs);
    let folded = match tag {
        SUM => all.reduce(i64::wrapping_add),
        MIN => all.min(),
        _ => all.max(),
    };
    folded.map(|folded| Bytes::copy_from_slice(&folded.to_be_bytes()))
}

fn merge_sketches(state: Option<Bytes>, operands: &[Bytes]) -> Bytes {
    let mut sketch = Sketch::new();
    state.into_iter().for_each(|state| sketch.merge(state));
    operands.iter().for_each(|operand| sketch.merge(operand.slice(1..)));
    sketch.encode().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(kind: Kind) -> data::Value {
        data::Value { r#type: None, kind: Some(kind) }
    }

    fn int(number: i64) -> data::Value {
        value(Kind::IntValue(number))
    }

    fn fold(base: Option<&[u8]>, operands: &[Bytes]) -> Bytes {
        CellAggregates.merge(b"key", base, operands)
    }

    fn operands(aggregate: Aggregate, inputs: &[i64]) -> Vec<Bytes> {
        inputs.iter().map(|input| aggregate.add("input", int(*input)).unwrap()).collect()
    }

    #[test]
    fn integers_are_summed_or_compared() {
        for (aggregate, inputs, expected) in [
            (Aggregate::Sum, &[3, -5, 4][..], 2),
            (Aggregate::Sum, &[i64::MAX, 1], i64::MIN),
            (Aggregate::Min, &[3, -5, 4], -5),
            (Aggregate::Max, &[3, -5, 4], 4),
            (Aggregate::Max, &[-5], -5),
        ] {
            let operands = operands(aggregate, inputs);
            assert_eq!(fold(None, &operands), &expected.to_be_bytes()[..], "{aggregate:?} {inputs:?}");
        }
    }

    #[test]
    fn operands_are_those_of_the_golden_bytes() {
        let hex = |operand: &[u8]| operand.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(&operands(Aggregate::Sum, &[1])[0]), "010000000000000001");
        assert_eq!(hex(&operands(Aggregate::Min, &[-2])[0]), "02fffffffffffffffe");
        assert_eq!(hex(&operands(Aggregate::Max, &[i64::MAX])[0]), "037fffffffffffffff");
        assert_eq!(
            hex(&operands(Aggregate::UniqueCount(CountedInput::Int64), &[0])[0]),
            "04087010011802200882070b1001180f20143203a2a721"
        );
    }

    #[test]
    fn inputs_of_another_kind_are_refused() {
        let refused = |aggregate: Aggregate, kind: Kind| {
            aggregate.add("input", value(kind)).unwrap_err().message().to_owned()
        };
        let short = refused(Aggregate::Sum, Kind::RawValue("1234567".into()));
        assert_eq!(short, "input.raw_value: 7 bytes, an integer has 8 (big-endian)");
        assert_eq!(
            refused(Aggregate::Min, Kind::BytesValue("12345678".into())),
            "input: bytes_value, must be int_value or raw_value"
        );
        let strings = Aggregate::UniqueCount(CountedInput::Bytes);
        assert_eq!(
            refused(strings, Kind::IntValue(1)),
            "input: int_value, must be raw_value, bytes_value or string_value"
        );
        let nothing = Aggregate::Max.add("input", data::Value::default()).unwrap_err();
        assert_eq!(nothing.message(), "input: is missing, int_value or raw_value is needed");
        let string = data::Type { kind: Some(TypeKind::StringType(data::r#type::String::default())) };
        let typed = data::Value { r#type: Some(string), ..int(1) };
        assert!(Aggregate::Sum.add("input", typed).unwrap_err().message().starts_with("input.type: "));
        let sketch = strings.merge("input", value(Kind::RawValue("no sketch".into())));
        assert!(sketch.unwrap_err().message().starts_with("input: is no serialized sketch"));
    }

    #[test]
    fn null_merges_nothing_and_a_state_merges_as_what_made_it() {
        assert_eq!(Aggregate::Sum.merge("input", data::Value::default()).unwrap(), None);
        let counts = Aggregate::UniqueCount(CountedInput::Int64);
        for aggregate in [Aggregate::Sum, Aggregate::Min, Aggregate::Max, counts] {
            let (one, two) = (operands(aggregate, &[5, -7, 9]), operands(aggregate, &[-7, 6]));
            let state = Kind::RawValue(fold(None, &two));
            let merged = aggregate.merge("input", value(state)).unwrap().unwrap();
            let expected = fold(None, &[one.clone(), two].concat());
            assert_eq!(fold(Some(&fold(None, &one)), &[merged]), expected, "{aggregate:?}");
        }
    }

    fn bytes(bytes: &[&[u8]]) -> Bytes {
        bytes.concat().into()
    }

    fn any_operand() -> impl Strategy<Value = Bytes> {
        let number = prop_oneof![-3..3_i64, any::<i64>()];
        let sketch = (0..40_i64)
            .prop_map(|value| operands(Aggregate::UniqueCount(CountedInput::Int64), &[value]).remove(0));
        // Cut short, or with a byte that is another.
        let damaged = (sketch.clone(), any::<prop::sample::Index>(), any::<u8>(), any::<bool>()).prop_map(
            |(sketch, at, byte, is_cut)| {
                let (before, rest) = sketch.split_at(1 + at.index(sketch.len() - 1));
                if is_cut { bytes(&[before]) } else { bytes(&[before, &[byte], &rest[1..]]) }
            },
        );
        prop_oneof![
            4 => (1..=3_u8, number).prop_map(|(tag, value)| bytes(&[&[tag], &value.to_be_bytes()])),
            2 => sketch,
            1 => damaged,
            1 => (0..6_u8, 0..10_usize).prop_map(|(tag, length)| bytes(&[&[tag], &[1; 10][..length]])),
            1 => Just(Bytes::new()),
        ]
    }

    fn any_base() -> impl Strategy<Value = Option<Bytes>> {
        prop_oneof![
            Just(None),
            any::<i64>().prop_map(|base| Some(bytes(&[&base.to_be_bytes()]))),
            any_operand().prop_map(|operand| Some(operand.slice(operand.len().min(1)..))),
        ]
    }

    proptest! {
        /// What the engine relies on, whatever the bytes.
        #[test]
        fn how_many_operands_are_folded_at_once_does_not_matter(all in prop::collection::vec(any_operand(), 2..8), at in any::<prop::sample::Index>(), base in any_base()) {
            let base = base.as_deref();
            let whole = fold(base, &all);
            let (older, newer) = all.split_at(1 + at.index(all.len() - 1));
            let half = fold(base, older);
            prop_assert_eq!(&fold(Some(&half), newer), &whole);
        }

        #[test]
        fn a_combined_operand_stands_for_all(all in prop::collection::vec(any_operand(), 2..12), newer in any_operand(), base in any_base()) {
            let base = base.as_deref();
            for alike in all.chunk_by(|a, b| a.first() == b.first()).filter(|alike| alike.len() > 1) {
                let Some(combined) = CellAggregates.combine(b"key", alike) else {
                    prop_assert!(alike[0].is_empty());
                    continue;
                };
                let expected = fold(base, &[alike, std::slice::from_ref(&newer)].concat());
                prop_assert_eq!(fold(base, &[combined, newer.clone()]), expected);
            }
        }
    }
}
