//! `RowFilter`, whole: with the value bitmask, and with a memory of fields that
//! this version does not know.
//!
//! A filter that is not understood must be refused: dropped, it would pass what it
//! was sent to keep out. prost forgets unknown fields, so [`RowFilter`] decodes by
//! hand and keeps the number of the last one; encoded again it still has such a field.

use bytes::{Buf, BufMut};
use prost::DecodeError;
use prost::encoding::{DecodeContext, WireType, encode_key, encode_varint, key_len, skip_field};

use super::{ColumnRange, TimestampRange, ValueRange};

/// Gives an alternate view of a row: some of its cells, or changed ones.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowFilter {
    /// Which filter; none passes all cells.
    pub filter: Option<row_filter::Filter>,
    /// The number of a field in the message that this version does not know.
    /// Such a filter cannot be applied.
    pub unknown_field: Option<u32>,
}

/// The highest number of a known field; all from 1 on are.
const FIELD_MAX: u32 = 20;

impl From<row_filter::Filter> for RowFilter {
    fn from(filter: row_filter::Filter) -> Self {
        Self { filter: Some(filter), unknown_field: None }
    }
}

impl prost::Message for RowFilter {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        if let Some(filter) = &self.filter {
            filter.encode(buffer);
        }
        if let Some(field) = self.unknown_field {
            encode_key(field, WireType::LengthDelimited, buffer);
            encode_varint(0, buffer);
        }
    }

    fn merge_field(
        &mut self,
        field: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        if field <= FIELD_MAX {
            row_filter::Filter::merge(&mut self.filter, field, wire_type, buffer, context)
        } else {
            self.unknown_field = Some(field);
            skip_field(wire_type, field, buffer, context)
        }
    }

    fn encoded_len(&self) -> usize {
        let filter = self.filter.as_ref().map_or(0, row_filter::Filter::encoded_len);
        filter + self.unknown_field.map_or(0, |field| key_len(field) + 1)
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Matches values by their bits.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct ValueBitmask {
    /// A value matches where it is as long as the mask and
    /// `(value & mask) == mask`.
    #[prost(bytes = "bytes", tag = "1")]
    pub mask: bytes::Bytes,
}

/// What a [`RowFilter`] is made of.
pub mod row_filter {
    use bytes::Bytes;

    /// Filters in sequence.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Chain {
        /// Each takes what the one before passes.
        #[prost(message, repeated, tag = "1")]
        pub filters: Vec<super::RowFilter>,
    }

    /// Filters side by side.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Interleave {
        /// Each takes all cells; what they pass is pooled and sorted, copies and all.
        #[prost(message, repeated, tag = "1")]
        pub filters: Vec<super::RowFilter>,
    }

    /// One of two filters.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Condition {
        /// Chooses, by whether it passes any cell.
        #[prost(message, optional, boxed, tag = "1")]
        pub predicate_filter: Option<Box<super::RowFilter>>,
        /// Applied where it does; none passes nothing.
        #[prost(message, optional, boxed, tag = "2")]
        pub true_filter: Option<Box<super::RowFilter>>,
        /// Applied where it does not; none passes nothing.
        #[prost(message, optional, boxed, tag = "3")]
        pub false_filter: Option<Box<super::RowFilter>>,
    }

    /// Which filter.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Filter {
        /// Several in sequence.
        #[prost(message, tag = "1")]
        Chain(Chain),
        /// Several side by side.
        #[prost(message, tag = "2")]
        Interleave(Interleave),
        /// One of two.
        #[prost(message, tag = "3")]
        Condition(Box<Condition>),
        /// Takes all cells out of the filter and straight to the end of it. Not
        /// within a condition.
        #[prost(bool, tag = "16")]
        Sink(bool),
        /// Passes all cells.
        #[prost(bool, tag = "17")]
        PassAllFilter(bool),
        /// Passes no cell.
        #[prost(bool, tag = "18")]
        BlockAllFilter(bool),
        /// Rows whose key matches an RE2 pattern.
        #[prost(bytes, tag = "4")]
        RowKeyRegexFilter(Bytes),
        /// A row with this probability.
        #[prost(double, tag = "14")]
        RowSampleFilter(f64),
        /// Families whose name matches an RE2 pattern.
        #[prost(string, tag = "5")]
        FamilyNameRegexFilter(String),
        /// Columns whose qualifier matches an RE2 pattern.
        #[prost(bytes, tag = "6")]
        ColumnQualifierRegexFilter(Bytes),
        /// A range of one family's columns.
        #[prost(message, tag = "7")]
        ColumnRangeFilter(super::ColumnRange),
        /// A range of time.
        #[prost(message, tag = "8")]
        TimestampRangeFilter(super::TimestampRange),
        /// Values that match an RE2 pattern.
        #[prost(bytes, tag = "9")]
        ValueRegexFilter(Bytes),
        /// A range of values.
        #[prost(message, tag = "15")]
        ValueRangeFilter(super::ValueRange),
        /// All but a row's first cells.
        #[prost(int32, tag = "10")]
        CellsPerRowOffsetFilter(i32),
        /// A row's first cells.
        #[prost(int32, tag = "11")]
        CellsPerRowLimitFilter(i32),
        /// Each column's newest cells.
        #[prost(int32, tag = "12")]
        CellsPerColumnLimitFilter(i32),
        /// Empties all values.
        #[prost(bool, tag = "13")]
        StripValueTransformer(bool),
        /// Labels all cells.
        #[prost(string, tag = "19")]
        ApplyLabelTransformer(String),
        /// Values that have all bits of a mask.
        #[prost(message, tag = "20")]
        ValueBitmaskFilter(super::ValueBitmask),
    }
}

#[cfg(test)]
mod tests {
    use googleapis_tonic_google_bigtable_v2::google::bigtable::v2 as published;
    use prost::Message;

    use super::*;
    use crate::data as ours;

    /// One filter of each kind that both have, made of the messages in `$data`.
    macro_rules! filters {
        ($data:ident, $make:expr) => {{
            use $data::column_range::{EndQualifier, StartQualifier};
            use $data::row_filter::{Chain, Condition, Filter, Interleave};
            use $data::value_range::{EndValue, StartValue};
            use $data::{ColumnRange, RowFilter, TimestampRange, ValueRange};

            let make: fn(Filter) -> RowFilter = $make;
            let pass = || make(Filter::PassAllFilter(true));
            let block = || make(Filter::BlockAllFilter(true));
            vec![
                RowFilter::default(),
                make(Filter::Chain(Chain { filters: vec![pass(), block(), RowFilter::default()] })),
                make(Filter::Interleave(Interleave { filters: vec![block(), pass()] })),
                make(Filter::Condition(Box::new(Condition {
                    predicate_filter: Some(Box::new(pass())),
                    true_filter: Some(Box::new(block())),
                    false_filter: Some(Box::default()),
                }))),
                make(Filter::Condition(Box::default())),
                make(Filter::Sink(true)),
                make(Filter::Sink(false)),
                pass(),
                block(),
                make(Filter::RowKeyRegexFilter(r"row\C".into())),
                make(Filter::RowSampleFilter(0.25)),
                make(Filter::FamilyNameRegexFilter("family".to_owned())),
                make(Filter::ColumnQualifierRegexFilter("qualifier".into())),
                make(Filter::ColumnRangeFilter(ColumnRange {
                    family_name: "f".to_owned(),
                    start_qualifier: Some(StartQualifier::StartQualifierOpen("a".into())),
                    end_qualifier: Some(EndQualifier::EndQualifierClosed("b".into())),
                })),
                make(Filter::TimestampRangeFilter(TimestampRange {
                    start_timestamp_micros: -1,
                    end_timestamp_micros: 2_000,
                })),
                make(Filter::ValueRegexFilter("value".into())),
                make(Filter::ValueRangeFilter(ValueRange {
                    start_value: Some(StartValue::StartValueClosed("".into())),
                    end_value: Some(EndValue::EndValueOpen("z".into())),
                })),
                make(Filter::CellsPerRowOffsetFilter(0)),
                make(Filter::CellsPerRowLimitFilter(300)),
                make(Filter::CellsPerColumnLimitFilter(-1)),
                make(Filter::StripValueTransformer(true)),
                make(Filter::ApplyLabelTransformer("label".to_owned())),
            ]
        }};
    }

    #[test]
    fn filters_have_the_published_bytes() {
        let published = filters!(published, |filter| RowFilter { filter: Some(filter) });
        let ours = filters!(ours, RowFilter::from);
        assert_eq!(published.len(), ours.len());
        for (published, ours) in published.into_iter().zip(ours) {
            let bytes = published.encode_to_vec();
            assert_eq!(ours.encode_to_vec(), bytes, "{ours:?}");
            assert_eq!(ours.encoded_len(), bytes.len(), "{ours:?}");
            assert_eq!(RowFilter::decode(&bytes[..]), Ok(ours));
            assert_eq!(published::RowFilter::decode(&bytes[..]), Ok(published));
        }
    }

    #[test]
    fn the_value_bitmask_is_field_20() {
        let mask = ValueBitmask { mask: "\x0f".into() };
        let filter = RowFilter::from(row_filter::Filter::ValueBitmaskFilter(mask));
        let bytes = [0xa2, 0x01, 3, 0x0a, 1, 0x0f];
        assert_eq!(filter.encode_to_vec(), bytes);
        assert_eq!(RowFilter::decode(&bytes[..]), Ok(filter));
    }

    #[test]
    fn unknown_fields_are_remembered_and_sent_on() {
        // Field 21 as bytes, field 22 as a number, and either beside a known field.
        let cases: [(&[u8], u32); 3] =
            [(&[0xaa, 0x01, 1, 7], 21), (&[0xb0, 0x01, 9], 22), (&[0x88, 0x01, 1, 0xaa, 0x01, 0], 21)];
        for (bytes, field) in cases {
            let filter = RowFilter::decode(bytes).unwrap();
            assert_eq!(filter.unknown_field, Some(field));
            let again = filter.encode_to_vec();
            assert_eq!(again.len(), filter.encoded_len());
            assert_eq!(RowFilter::decode(&again[..]), Ok(filter));
        }
    }
}
