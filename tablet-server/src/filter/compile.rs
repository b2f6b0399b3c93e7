//! A request's filter, checked and compiled.

use std::fmt;
use std::ops::Bound;

use bytes::Bytes;
use prost::Message;
use row_api::data;
use row_api::data::column_range::{EndQualifier, StartQualifier};
use row_api::data::row_filter::{Condition, Filter};
use row_api::data::value_range::{EndValue, StartValue};
use tonic::Status;

use super::leaf::Leaf;
use super::node::Node;
use super::pattern::Pattern;
use crate::limits;
use crate::schema::TableSchema;

/// What all patterns of a filter may take compiled; they share it evenly.
const PATTERNS_BYTES_MAX: usize = 8 << 20;
/// What one of them may take.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// Checks `filter`, which stands at `field`, and gives it as a chain.
pub(super) fn compile(
    field: &str,
    filter: &data::RowFilter,
    schema: &TableSchema,
) -> Result<Vec<Node>, Status> {
    limits::check_at_most(field, filter.encoded_len(), limits::FILTER_BYTES_MAX, "bytes")?;
    let pattern_count = count_patterns(field, filter, 1)?;
    let pattern_bytes_max = (PATTERNS_BYTES_MAX / pattern_count.max(1)).min(PATTERN_BYTES_MAX);
    let mut compiler = Compiler { schema, pattern_bytes_max, samples: 0, in_condition: false };
    Ok(vec![compiler.node(&field, filter)?])
}

/// Counts patterns, and refuses what is nested too deep before anything recurses.
fn count_patterns(field: &str, filter: &data::RowFilter, depth: usize) -> Result<usize, Status> {
    if depth > limits::FILTER_DEPTH_MAX {
        let why = format_args!("filters nested within each other, at most {} deep", limits::FILTER_DEPTH_MAX);
        return Err(limits::refuse(field, why));
    }
    let parts: Vec<&data::RowFilter> = match &filter.filter {
        Some(Filter::Chain(chain)) => chain.filters.iter().collect(),
        Some(Filter::Interleave(interleave)) => interleave.filters.iter().collect(),
        Some(Filter::Condition(condition)) => {
            [&condition.predicate_filter, &condition.true_filter, &condition.false_filter]
                .into_iter()
                .flatten()
                .map(AsRef::as_ref)
                .collect()
        }
        Some(
            Filter::RowKeyRegexFilter(_)
            | Filter::FamilyNameRegexFilter(_)
            | Filter::ColumnQualifierRegexFilter(_)
            | Filter::ValueRegexFilter(_),
        ) => return Ok(1),
        _ => return Ok(0),
    };
    parts.into_iter().try_fold(0, |count, part| Ok(count + count_patterns(field, part, depth + 1)?))
}

struct Compiler<'a> {
    schema: &'a TableSchema,
    pattern_bytes_max: usize,
    /// Sample filters so far; each draws for itself.
    samples: u64,
    /// Whether what is compiled stands in a condition.
    in_condition: bool,
}

impl Compiler<'_> {
    fn node(&mut self, field: &dyn fmt::Display, filter: &data::RowFilter) -> Result<Node, Status> {
        if let Some(unknown) = filter.unknown_field {
            let why = format_args!("has field {unknown}, which this version does not know");
            return Err(limits::refuse(field, why));
        }
        let leaf =
            match filter.filter.as_ref() {
                None => return Ok(Node::Leaves(Vec::new())),
                Some(Filter::Chain(chain)) => return self.chain(&format!("{field}.chain"), &chain.filters),
                Some(Filter::Interleave(interleave)) => {
                    let parts = self.group(&format!("{field}.interleave"), &interleave.filters)?;
                    return Ok(Node::Interleave(parts));
                }
                Some(Filter::Condition(condition)) => {
                    return self.condition(&format!("{field}.condition"), condition);
                }
                Some(Filter::Sink(set)) => {
                    let field = format_args!("{field}.sink");
                    check_set(&field, *set)?;
                    if self.in_condition {
                        return Err(limits::refuse(field, "stands in a condition, where no sink may"));
                    }
                    return Ok(Node::Sink);
                }
                Some(Filter::PassAllFilter(set)) => {
                    check_set(&format_args!("{field}.pass_all_filter"), *set)?;
                    return Ok(Node::Leaves(Vec::new()));
                }
                Some(Filter::BlockAllFilter(set)) => {
                    check_set(&format_args!("{field}.block_all_filter"), *set)?;
                    Leaf::BlockAll
                }
                Some(Filter::StripValueTransformer(set)) => {
                    check_set(&format_args!("{field}.strip_value_transformer"), *set)?;
                    Leaf::StripValue
                }
                Some(Filter::RowKeyRegexFilter(pattern)) if pattern.is_empty() => {
                    let why = "is empty, as no row key is";
                    return Err(limits::refuse(format_args!("{field}.row_key_regex_filter"), why));
                }
                Some(Filter::RowKeyRegexFilter(pattern)) => {
                    Leaf::RowKey(self.pattern(&format_args!("{field}.row_key_regex_filter"), pattern)?)
                }
                Some(Filter::FamilyNameRegexFilter(pattern)) => {
                    self.families(&format_args!("{field}.family_name_regex_filter"), pattern)?
                }
                Some(Filter::ColumnQualifierRegexFilter(pattern)) => Leaf::Qualifier(
                    self.pattern(&format_args!("{field}.column_qualifier_regex_filter"), pattern)?,
                ),
                Some(Filter::ValueRegexFilter(pattern)) => {
                    Leaf::Value(self.pattern(&format_args!("{field}.value_regex_filter"), pattern)?)
                }
                Some(Filter::RowSampleFilter(probability)) => self.sample(field, *probability)?,
                Some(Filter::ColumnRangeFilter(range)) => self.column_range(field, range)?,
                Some(Filter::TimestampRangeFilter(range)) => timestamp_range(field, *range)?,
                Some(Filter::ValueRangeFilter(range)) => value_range(range),
                Some(Filter::ValueBitmaskFilter(bitmask)) => Leaf::ValueBitmask(bitmask.mask.clone()),
                Some(Filter::CellsPerRowOffsetFilter(count)) => Leaf::CellsPerRowOffset(count_of_at_least(
                    0,
                    &format_args!("{field}.cells_per_row_offset_filter"),
                    *count,
                )?),
                Some(Filter::CellsPerRowLimitFilter(count)) => Leaf::CellsPerRowLimit(count_of_at_least(
                    1,
                    &format_args!("{field}.cells_per_row_limit_filter"),
                    *count,
                )?),
                Some(Filter::CellsPerColumnLimitFilter(count)) => Leaf::CellsPerColumnLimit(
                    count_of_at_least(1, &format_args!("{field}.cells_per_column_limit_filter"), *count)?,
                ),
                Some(Filter::ApplyLabelTransformer(label)) => apply_label(field, label)?,
            };
        Ok(Node::Leaves(vec![leaf]))
    }

    fn chain(&mut self, field: &str, filters: &[data::RowFilter]) -> Result<Node, Status> {
        if filters.iter().filter(|part| labels(part)).count() > 1 {
            let why = "has more than one filter with an apply_label_transformer";
            return Err(limits::refuse(field, why));
        }
        Ok(Node::chain(self.group(field, filters)?))
    }

    fn group(&mut self, field: &str, filters: &[data::RowFilter]) -> Result<Vec<Node>, Status> {
        if filters.len() < 2 {
            let why = format_args!("{} filters, at least 2", filters.len());
            return Err(limits::refuse(format_args!("{field}.filters"), why));
        }
        let mut nodes = Vec::with_capacity(filters.len());
        for (index, filter) in filters.iter().enumerate() {
            nodes.push(self.node(&format_args!("{field}.filters[{index}]"), filter)?);
        }
        Ok(nodes)
    }

    fn condition(&mut self, field: &str, condition: &Condition) -> Result<Node, Status> {
        let predicate = condition.predicate_filter.as_deref().ok_or_else(|| {
            limits::refuse(format_args!("{field}.predicate_filter"), "is missing, a condition needs one")
        })?;
        let within = std::mem::replace(&mut self.in_condition, true);
        let mut part = |name: &str, filter: &data::RowFilter| {
            self.node(&format_args!("{field}.{name}"), filter).map(Box::new)
        };
        let predicate = part("predicate_filter", predicate)?;
        let on_match =
            condition.true_filter.as_ref().map(|filter| part("true_filter", filter)).transpose()?;
        let otherwise =
            condition.false_filter.as_ref().map(|filter| part("false_filter", filter)).transpose()?;
        self.in_condition = within;
        Ok(Node::Condition { predicate, on_match, otherwise })
    }

    fn pattern(&self, field: &dyn fmt::Display, pattern: &[u8]) -> Result<Pattern, Status> {
        Pattern::compile(pattern, self.pattern_bytes_max)
            .map_err(|why| limits::refuse(field, format_args!("not an RE2 pattern: {why}")))
    }

    fn families(&self, field: &dyn fmt::Display, pattern: &str) -> Result<Leaf, Status> {
        if pattern.contains(':') {
            return Err(limits::refuse(field, "holds ':', which a family's pattern must not"));
        }
        let pattern = self.pattern(field, pattern.as_bytes())?;
        let families = self.schema.families.iter();
        let mut ids: Vec<_> = families
            .filter(|(name, _)| pattern.matches(name.as_bytes()))
            .map(|(_, family)| family.id)
            .collect();
        ids.sort_unstable();
        Ok(Leaf::Families(ids))
    }

    fn sample(&mut self, field: &dyn fmt::Display, probability: f64) -> Result<Leaf, Status> {
        // Written so that NaN fails too.
        if !(probability > 0.0 && probability < 1.0) {
            let why = format_args!("{probability}, must be between 0 and 1, both exclusive");
            return Err(limits::refuse(format_args!("{field}.row_sample_filter"), why));
        }
        self.samples += 1;
        Ok(Leaf::RowSample { probability, salt: self.samples })
    }

    fn column_range(&self, field: &dyn fmt::Display, range: &data::ColumnRange) -> Result<Leaf, Status> {
        let name = format_args!("{field}.column_range_filter.family_name");
        limits::check_family_name(name, &range.family_name)?;
        Ok(Leaf::ColumnRange {
            family: self.schema.family(&range.family_name).map(|family| family.id),
            start: match &range.start_qualifier {
                None => Bound::Unbounded,
                Some(StartQualifier::StartQualifierClosed(start)) => Bound::Included(start.clone()),
                Some(StartQualifier::StartQualifierOpen(start)) => Bound::Excluded(start.clone()),
            },
            end: match &range.end_qualifier {
                None => Bound::Unbounded,
                Some(EndQualifier::EndQualifierClosed(end)) => Bound::Included(end.clone()),
                Some(EndQualifier::EndQualifierOpen(end)) => Bound::Excluded(end.clone()),
            },
        })
    }
}

fn value_range(range: &data::ValueRange) -> Leaf {
    let start: Bound<Bytes> = match &range.start_value {
        None => Bound::Unbounded,
        Some(StartValue::StartValueClosed(start)) => Bound::Included(start.clone()),
        Some(StartValue::StartValueOpen(start)) => Bound::Excluded(start.clone()),
    };
    let end = match &range.end_value {
        None => Bound::Unbounded,
        Some(EndValue::EndValueClosed(end)) => Bound::Included(end.clone()),
        Some(EndValue::EndValueOpen(end)) => Bound::Excluded(end.clone()),
    };
    Leaf::ValueRange { start, end }
}

fn timestamp_range(field: &dyn fmt::Display, range: data::TimestampRange) -> Result<Leaf, Status> {
    let field = format!("{field}.timestamp_range_filter");
    let (start_us, end_us) = (range.start_timestamp_micros, range.end_timestamp_micros);
    limits::check_timestamp(format_args!("{field}.start_timestamp_micros"), start_us)?;
    limits::check_timestamp(format_args!("{field}.end_timestamp_micros"), end_us)?;
    Ok(Leaf::TimestampRange { start_us, end_us: (end_us != 0).then_some(end_us) })
}

fn apply_label(field: &dyn fmt::Display, label: &str) -> Result<Leaf, Status> {
    let field = format!("{field}.apply_label_transformer");
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if label.is_empty() || !label.bytes().all(allowed) {
        return Err(limits::refuse(field, format_args!("{label:?} is not of the form [a-z0-9-]+")));
    }
    limits::check_at_most(field, label.len(), limits::LABEL_CHARS_MAX, "characters")?;
    Ok(Leaf::Label(label.into()))
}

/// Whether `filter` or any filter within it applies a label.
fn labels(filter: &data::RowFilter) -> bool {
    match &filter.filter {
        Some(Filter::ApplyLabelTransformer(_)) => true,
        Some(Filter::Chain(chain)) => chain.filters.iter().any(labels),
        Some(Filter::Interleave(interleave)) => interleave.filters.iter().any(labels),
        Some(Filter::Condition(condition)) => {
            [&condition.predicate_filter, &condition.true_filter, &condition.false_filter]
                .into_iter()
                .flatten()
                .any(|part| labels(part))
        }
        _ => false,
    }
}

fn check_set(field: &dyn fmt::Display, set: bool) -> Result<(), Status> {
    if set { Ok(()) } else { Err(limits::refuse(field, "false, must be true where it is set")) }
}

fn count_of_at_least(min: i32, field: &dyn fmt::Display, count: i32) -> Result<u64, Status> {
    match u64::try_from(count) {
        Ok(checked) if count >= min => Ok(checked),
        _ => Err(limits::refuse(field, format_args!("{count}, at least {min}"))),
    }
}
