//! The types that a family's values may have (`google/bigtable/admin/v2/types.proto`).
//!
//! An aggregate type decides what writes do, see [`crate::aggregate`]. Every
//! other one only describes the family's cells to those who read its schema:
//! rows hold bytes, and nobody checks them. A type must say how its values are
//! encoded, so types without an encoding cannot stand in a family.

use std::fmt::Display;

use row_api::admin;
use row_api::admin::r#type::aggregate::Aggregator;
use row_api::admin::r#type::{self as types, Kind};
use tonic::Status;

use crate::aggregate::Aggregate;
use crate::limits::refuse;
use crate::unique_count::CountedInput;

/// Checks a family's `value_type`, which stands at `field`, and fills in what it implies.
///
/// # Errors
///
/// - INVALID_ARGUMENT: a type that no cells can have.
/// - UNIMPLEMENTED: one that these cells cannot have yet.
pub fn check(field: &str, value_type: admin::Type) -> Result<admin::Type, Status> {
    let kind = match value_type.kind {
        Some(Kind::AggregateType(aggregate)) => {
            let aggregate = check_aggregate(&format!("{field}.aggregate_type"), *aggregate)?;
            Kind::AggregateType(Box::new(aggregate))
        }
        kind => check_plain(&field, kind.as_ref())?,
    };
    Ok(admin::Type { kind: Some(kind) })
}

/// What cells of a family with a checked type gather; none of plain values.
pub fn aggregate(value_type: &admin::Type) -> Option<Aggregate> {
    let Some(Kind::AggregateType(aggregate)) = &value_type.kind else { return None };
    let input = aggregate.input_type.as_ref().and_then(|input| input.kind.as_ref());
    Some(match aggregate.aggregator.as_ref()? {
        Aggregator::Sum(_) => Aggregate::Sum,
        Aggregator::Min(_) => Aggregate::Min,
        Aggregator::Max(_) => Aggregate::Max,
        Aggregator::HllppUniqueCount(_) => Aggregate::UniqueCount(match input {
            Some(Kind::Int64Type(_)) => CountedInput::Int64,
            _ => CountedInput::Bytes,
        }),
    })
}

fn check_aggregate(field: &str, aggregate: types::Aggregate) -> Result<types::Aggregate, Status> {
    let Some(aggregator) = aggregate.aggregator else {
        return Err(refuse(field, "must be sum, min, max or hllpp_unique_count"));
    };
    let field = format_args!("{field}.input_type");
    let input = aggregate.input_type.map(|input| check_plain(&field, input.kind.as_ref())).transpose()?;
    let (input, state) = match (&aggregator, input) {
        (Aggregator::HllppUniqueCount(_), None) => (None, raw_bytes()),
        (Aggregator::HllppUniqueCount(_), Some(input)) => (Some(check_counted(&field, input)?), raw_bytes()),
        (_, Some(input)) if is_big_endian(&input) => (Some(input.clone()), input),
        (_, Some(Kind::Int64Type(_))) => {
            let why = "sums, minima and maxima are only built for big_endian_bytes";
            return Err(Status::unimplemented(format!("{field}.int64_type.encoding: {why}.")));
        }
        (_, None) => return Err(refuse(field, "is missing, int64_type is needed")),
        (_, Some(_)) => return Err(refuse(field, "must be int64_type")),
    };
    let boxed = |kind| Box::new(admin::Type { kind: Some(kind) });
    Ok(types::Aggregate {
        input_type: input.map(boxed),
        state_type: Some(boxed(state)),
        aggregator: Some(aggregator),
    })
}

/// Refuses inputs of a unique count that sketches have no hash for.
fn check_counted(field: &impl Display, input: Kind) -> Result<Kind, Status> {
    match input {
        Kind::BytesType(_) | Kind::StringType(_) => Ok(input),
        Kind::Int64Type(_) if is_big_endian(&input) => Ok(input),
        _ => Err(Status::unimplemented(format!(
            "{field}: unique counts are only built for bytes_type, string_type and an int64_type of big_endian_bytes."
        ))),
    }
}

/// Checks a type that is no aggregate.
fn check_plain(field: &impl Display, kind: Option<&Kind>) -> Result<Kind, Status> {
    let needs_encoding = |name: &str, encodings: &str| {
        Err(refuse(format_args!("{field}.{name}.encoding"), format_args!("must be {encodings}")))
    };
    let has_none = |name: &str| {
        let why = "has no encoding, so the cells of a column family cannot hold it";
        Err(refuse(format_args!("{field}.{name}"), why))
    };
    let is_absent = |name: &str| {
        Err(Status::unimplemented(format!("{field}.{name}: not built in this version of Hayloft.")))
    };
    match kind {
        Some(Kind::BytesType(bytes)) => match bytes.encoding.and_then(|encoding| encoding.encoding) {
            Some(types::bytes::encoding::Encoding::Raw(_)) => Ok(Kind::BytesType(*bytes)),
            None => needs_encoding("bytes_type", "raw"),
        },
        Some(Kind::StringType(string)) => match string.encoding.and_then(|encoding| encoding.encoding) {
            // The older name is taken for the newer one, as the proto says.
            Some(_) => Ok(utf8()),
            None => needs_encoding("string_type", "utf8_bytes"),
        },
        Some(Kind::Int64Type(int64)) => match int64.encoding.and_then(|encoding| encoding.encoding) {
            Some(encoding) => Ok(int64_type(encoding)),
            None => needs_encoding("int64_type", "big_endian_bytes or ordered_code_bytes"),
        },
        Some(Kind::TimestampType(timestamp)) => {
            match timestamp.encoding.and_then(|encoding| encoding.encoding) {
                Some(types::timestamp::encoding::Encoding::UnixMicrosInt64(types::int64::Encoding {
                    encoding: Some(_),
                })) => Ok(Kind::TimestampType(*timestamp)),
                _ => needs_encoding("timestamp_type", "unix_micros_int64, with an encoding of its own"),
            }
        }
        Some(Kind::Float32Type(_)) => has_none("float32_type"),
        Some(Kind::Float64Type(_)) => has_none("float64_type"),
        Some(Kind::BoolType(_)) => has_none("bool_type"),
        Some(Kind::DateType(_)) => has_none("date_type"),
        Some(Kind::ArrayType(_)) => has_none("array_type"),
        Some(Kind::MapType(_)) => has_none("map_type"),
        Some(Kind::AggregateType(_)) => {
            Err(refuse(format_args!("{field}.aggregate_type"), "cannot be nested"))
        }
        Some(Kind::StructType(_)) => is_absent("struct_type"),
        Some(Kind::ProtoType(_)) => is_absent("proto_type"),
        Some(Kind::EnumType(_)) => is_absent("enum_type"),
        None => Err(refuse(field, "is empty, or a type that this version of Hayloft does not know")),
    }
}

fn raw_bytes() -> Kind {
    let raw = types::bytes::encoding::Encoding::Raw(types::bytes::encoding::Raw {});
    Kind::BytesType(types::Bytes { encoding: Some(types::bytes::Encoding { encoding: Some(raw) }) })
}

fn utf8() -> Kind {
    let utf8 = types::string::encoding::Encoding::Utf8Bytes(types::string::encoding::Utf8Bytes {});
    Kind::StringType(types::String { encoding: Some(types::string::Encoding { encoding: Some(utf8) }) })
}

fn int64_type(encoding: types::int64::encoding::Encoding) -> Kind {
    use types::int64::encoding::{BigEndianBytes, Encoding};
    let encoding = match encoding {
        // Its deprecated part is ignored, as the proto says.
        Encoding::BigEndianBytes(_) => Encoding::BigEndianBytes(BigEndianBytes::default()),
        ordered => ordered,
    };
    Kind::Int64Type(types::Int64 { encoding: Some(types::int64::Encoding { encoding: Some(encoding) }) })
}

fn is_big_endian(kind: &Kind) -> bool {
    use types::int64::encoding::Encoding;
    let Kind::Int64Type(int64) = kind else { return false };
    matches!(int64.encoding.and_then(|encoding| encoding.encoding), Some(Encoding::BigEndianBytes(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    fn of(kind: Kind) -> admin::Type {
        admin::Type { kind: Some(kind) }
    }

    fn int64() -> Kind {
        use types::int64::encoding::{BigEndianBytes, Encoding};
        int64_type(Encoding::BigEndianBytes(BigEndianBytes::default()))
    }

    fn aggregate_type(input: Option<Kind>, aggregator: Option<Aggregator>) -> Kind {
        let input_type = input.map(|kind| Box::new(of(kind)));
        Kind::AggregateType(Box::new(types::Aggregate { input_type, state_type: None, aggregator }))
    }

    fn sum() -> Option<Aggregator> {
        Some(Aggregator::Sum(types::aggregate::Sum {}))
    }

    fn unique() -> Option<Aggregator> {
        Some(Aggregator::HllppUniqueCount(types::aggregate::HyperLogLogPlusPlusUniqueCount {}))
    }

    #[test]
    fn an_aggregate_gets_its_state_type() {
        let checked = check("value_type", of(aggregate_type(Some(int64()), sum()))).unwrap();
        assert_eq!(aggregate(&checked), Some(Aggregate::Sum));
        let Some(Kind::AggregateType(checked)) = checked.kind else { panic!("an aggregate") };
        assert_eq!(checked.state_type.unwrap().kind, Some(int64()));
        for (input, counted) in [
            (None, CountedInput::Bytes),
            (Some(raw_bytes()), CountedInput::Bytes),
            (Some(utf8()), CountedInput::Bytes),
            (Some(int64()), CountedInput::Int64),
        ] {
            let checked = check("value_type", of(aggregate_type(input, unique()))).unwrap();
            assert_eq!(aggregate(&checked), Some(Aggregate::UniqueCount(counted)));
        }
    }

    #[test]
    fn plain_types_describe_and_no_more() {
        for kind in [raw_bytes(), utf8(), int64()] {
            let checked = check("value_type", of(kind.clone())).unwrap();
            assert_eq!(checked.kind, Some(kind));
            assert_eq!(aggregate(&checked), None);
        }
    }

    #[test]
    fn types_that_cells_cannot_have_are_refused() {
        let int64_without = Kind::Int64Type(types::Int64 { encoding: None });
        let nested = aggregate_type(Some(aggregate_type(Some(int64()), sum())), sum());
        for (kind, code, message) in [
            (
                int64_without.clone(),
                Code::InvalidArgument,
                "value_type.int64_type.encoding: must be big_endian_bytes or ordered_code_bytes",
            ),
            (
                aggregate_type(Some(int64_without), sum()),
                Code::InvalidArgument,
                "value_type.aggregate_type.input_type.int64_type.encoding: must be big_endian_bytes or ordered_code_bytes",
            ),
            (
                aggregate_type(Some(int64()), None),
                Code::InvalidArgument,
                "value_type.aggregate_type: must be sum, min, max or hllpp_unique_count",
            ),
            (
                aggregate_type(None, sum()),
                Code::InvalidArgument,
                "value_type.aggregate_type.input_type: is missing, int64_type is needed",
            ),
            (
                aggregate_type(Some(raw_bytes()), sum()),
                Code::InvalidArgument,
                "value_type.aggregate_type.input_type: must be int64_type",
            ),
            (
                nested,
                Code::InvalidArgument,
                "value_type.aggregate_type.input_type.aggregate_type: cannot be nested",
            ),
            (
                Kind::BoolType(types::Bool {}),
                Code::InvalidArgument,
                "value_type.bool_type: has no encoding, so the cells of a column family cannot hold it",
            ),
            (
                Kind::StructType(types::Struct::default()),
                Code::Unimplemented,
                "value_type.struct_type: not built in this version of Hayloft.",
            ),
        ] {
            let refused = check("value_type", of(kind)).unwrap_err();
            assert_eq!((refused.code(), refused.message()), (code, message));
        }
        let empty = check("value_type", admin::Type::default()).unwrap_err();
        assert_eq!(
            empty.message(),
            "value_type: is empty, or a type that this version of Hayloft does not know"
        );
    }
}
