//! A sketch's bytes, and what of them this server takes.
//!
//! Google's zetasketch format (google/zetasketch, `proto/aggregator.proto` and
//! `hllplus-unique.proto`), which BigQuery's `HLL_COUNT` functions read and write:
//!
//! ```text
//! AggregatorStateProto                HyperLogLogPlusUniqueStateProto
//! 1    type: 112, HLL++               2  sparse_size: values in sparse_data
//! 2    num_values: values added       3  precision: 15 here
//! 3    encoding_version: 2            4  sparse precision: 20 here
//! 4    value_type                     5  data: a register a byte
//! 112  the state on the right         6  sparse_data: varints, each the step to the next value
//! ```
//!
//! The precisions are the defaults of zetasketch and of `HLL_COUNT.INIT`. A sketch
//! of another precision is refused rather than cut down: what is cut down depends
//! on what it is merged with first, and a cell must not.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use super::{DENSE_BYTES, PRECISION, SPARSE_PRECISION, SparseValue};

const HYPERLOGLOG_PLUS_UNIQUE: i32 = 112;
const ENCODING_VERSION: i32 = 2;

/// An aggregator, as it is serialized.
#[derive(Clone, PartialEq, Message)]
pub(super) struct AggregatorState {
    #[prost(int32, required, tag = "1")]
    kind: i32,
    #[prost(int64, required, tag = "2")]
    pub(super) value_count: i64,
    #[prost(int32, optional, tag = "3")]
    encoding_version: Option<i32>,
    #[prost(int32, tag = "4")]
    pub(super) value_type: i32,
    #[prost(message, optional, tag = "112")]
    state: Option<UniqueState>,
}

#[derive(Clone, PartialEq, Message)]
struct UniqueState {
    #[prost(int32, tag = "2")]
    sparse_size: i32,
    #[prost(int32, tag = "3")]
    precision: i32,
    #[prost(int32, tag = "4")]
    sparse_precision: i32,
    #[prost(bytes = "bytes", optional, tag = "5")]
    data: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "6")]
    sparse_data: Option<Bytes>,
}

/// What a sketch holds, in either form.
pub(super) enum Contents {
    Dense(Bytes),
    Sparse(Bytes),
}

impl AggregatorState {
    pub(super) fn sparse(value_type: i32, value_count: i64, values: &[SparseValue]) -> Self {
        let mut data = BytesMut::with_capacity(2 * values.len());
        let mut last = 0;
        for value in values {
            put_varint(&mut data, value.0 - last);
            last = value.0;
        }
        let sparse_size = i32::try_from(values.len()).expect("a sparse sketch has few values");
        Self::new(value_type, value_count, sparse_size, None, Some(data.freeze()))
    }

    pub(super) fn dense(value_type: i32, value_count: i64, registers: Bytes) -> Self {
        Self::new(value_type, value_count, 0, Some(registers), None)
    }

    fn new(
        value_type: i32,
        value_count: i64,
        sparse_size: i32,
        data: Option<Bytes>,
        sparse_data: Option<Bytes>,
    ) -> Self {
        let (precision, sparse_precision) = (PRECISION.cast_signed(), SPARSE_PRECISION.cast_signed());
        let state = UniqueState { sparse_size, precision, sparse_precision, data, sparse_data };
        Self {
            kind: HYPERLOGLOG_PLUS_UNIQUE,
            value_count,
            encoding_version: Some(ENCODING_VERSION),
            value_type,
            state: Some(state),
        }
    }

    /// Reads a sketch and says what is in it, or what is wrong with it.
    pub(super) fn read(bytes: Bytes) -> Result<(Self, Contents), String> {
        let mut read = Self::decode(bytes).map_err(|error| format!("is no serialized sketch: {error}"))?;
        let found = (read.kind, read.encoding_version.unwrap_or(1));
        if found != (HYPERLOGLOG_PLUS_UNIQUE, ENCODING_VERSION) {
            let (kind, version) = found;
            return Err(format!(
                "is an aggregator of type {kind} in version {version}, \
                 must be of type 112 (HLL++) in version 2"
            ));
        }
        if read.value_count < 0 {
            return Err(format!("has counted {} values, at least 0", read.value_count));
        }
        let state = read.state.take().unwrap_or_default();
        if state.precision != PRECISION.cast_signed() {
            return Err(format!("has precision {}, must be {PRECISION}", state.precision));
        }
        let is_filled = |data: &Bytes| !data.is_empty();
        let contents = match (state.data.filter(is_filled), state.sparse_data.filter(is_filled)) {
            (Some(_), Some(_)) => return Err("is both dense and sparse".to_owned()),
            (Some(data), None) => Contents::Dense(check_registers(data)?),
            (None, sparse) => Contents::Sparse(sparse.unwrap_or_default()),
        };
        let is_sparse = matches!(contents, Contents::Sparse(_));
        if is_sparse && state.sparse_precision != SPARSE_PRECISION.cast_signed() {
            let found = state.sparse_precision;
            return Err(format!("has sparse precision {found}, must be {SPARSE_PRECISION}"));
        }
        Ok((read, contents))
    }
}

fn check_registers(data: Bytes) -> Result<Bytes, String> {
    if data.len() != DENSE_BYTES {
        return Err(format!("has {} registers, must have {DENSE_BYTES}", data.len()));
    }
    let max = super::REGISTER_MAX;
    match data.iter().find(|register| **register > max) {
        Some(register) => Err(format!("has a register of {register}, at most {max}")),
        None => Ok(data),
    }
}

/// Bytes of `value` as a varint.
pub(super) fn varint_bytes(value: u32) -> usize {
    let bits = u32::BITS - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

fn put_varint(bytes: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        bytes.put_u8(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    bytes.put_u8(value.to_le_bytes()[0]);
}

/// The ascending values in `sparse_data`; ends with an error where it makes no sense.
pub(super) fn sparse_values(sparse_data: &[u8]) -> impl Iterator<Item = Result<SparseValue, String>> {
    let mut rest = sparse_data;
    let mut last: Option<SparseValue> = None;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let next = take_varint(&mut rest)
            .and_then(|step| last.map_or(0, |last| last.0).checked_add(step))
            .map(SparseValue)
            .filter(|value| value.is_valid() && last.is_none_or(|last| last.index() != value.index()))
            .filter(|value| last.is_none_or(|last| last < *value));
        if next.is_none() {
            rest = &[];
        }
        last = next;
        Some(next.ok_or_else(|| "holds sparse data that is damaged".to_owned()))
    })
}

fn take_varint(bytes: &mut &[u8]) -> Option<u32> {
    let mut value = 0;
    for shift in (0..u32::BITS).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u32::from(*byte & 0x7f);
        if bits << shift >> shift != bits {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unique_count::fingerprint::fingerprint;

    /// Sketches that BigQuery made: `HLL_COUNT.INIT(value, 10)` over an array of
    /// integers, in base64 in the tests of the R package ROMOPAPI. A precision of 10
    /// comes with a sparse one of 15, and none of these values needs a rank.
    #[test]
    fn bytes_are_those_of_bigquery() {
        for (integers, expected) in [
            (1..=5_i64, "08701005180220088207121005180a200f320adf1f9264d31cec14dc03"),
            (6..=8, "087010031802200882070f1003180a200f32079915be0edbb801"),
        ] {
            let count = integers.clone().count();
            let index = |integer: i64| fingerprint(&integer.to_le_bytes()) >> (u64::BITS - 15);
            let mut values: Vec<_> =
                integers.map(|integer| SparseValue(u32::try_from(index(integer)).unwrap())).collect();
            values.sort_unstable();
            let mut sketch = AggregatorState::sparse(8, i64::try_from(count).unwrap(), &values);
            let state = sketch.state.as_mut().unwrap();
            (state.precision, state.sparse_precision) = (10, 15);
            let bytes: String = sketch.encode_to_vec().iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(bytes, expected);
            let sparse_data = sketch.state.unwrap().sparse_data.unwrap();
            let read: Result<Vec<_>, _> = sparse_values(&sparse_data).collect();
            assert_eq!(read.unwrap(), values);
        }
    }
}
