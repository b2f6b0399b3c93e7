//! The fields of a backup that lists are filtered and ordered by.

use std::cmp::Ordering;

use row_api::admin;
use row_api::admin::backup::State;
use tablet_server::limits;
use tonic::Status;

/// Fields in one order.
const ORDER_COUNT_MAX: usize = 16;

/// A field of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// `name`
    Name,
    /// `source_table`
    SourceTable,
    /// `state`
    State,
    /// `start_time`
    StartTime,
    /// `end_time`
    EndTime,
    /// `expire_time`
    ExpireTime,
    /// `size_bytes`
    SizeBytes,
}

/// What a field holds; two of one field are of one kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// Of names and states: lower-case, since lists do not tell the cases apart.
    Text(String),
    /// Seconds since 1970, and nanoseconds.
    Time(i64, i32),
    /// Of sizes.
    Number(i64),
}

impl Field {
    /// The field called `name`.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "name" => Self::Name,
            "source_table" => Self::SourceTable,
            "state" => Self::State,
            "start_time" => Self::StartTime,
            "end_time" => Self::EndTime,
            "expire_time" => Self::ExpireTime,
            "size_bytes" => Self::SizeBytes,
            _ => return None,
        })
    }

    /// The names of all of them, for who misspelt one.
    pub const NAMES: &str = "name, source_table, state, start_time, end_time, expire_time or size_bytes";

    /// What the field holds in `backup`; nothing where it is not set yet.
    pub fn of(self, backup: &admin::Backup) -> Option<Value> {
        let time =
            |time: Option<prost_types::Timestamp>| time.map(|time| Value::Time(time.seconds, time.nanos));
        match self {
            Self::Name => Some(Value::Text(backup.name.to_lowercase())),
            Self::SourceTable => Some(Value::Text(backup.source_table.to_lowercase())),
            Self::State => Some(Value::Text(state_name(backup.state()).to_lowercase())),
            Self::StartTime => time(backup.start_time),
            Self::EndTime => time(backup.end_time),
            Self::ExpireTime => time(backup.expire_time),
            Self::SizeBytes => Some(Value::Number(backup.size_bytes)),
        }
    }
}

fn state_name(state: State) -> &'static str {
    match state {
        State::Unspecified => "STATE_UNSPECIFIED",
        State::Creating => "CREATING",
        State::Ready => "READY",
    }
}

/// An order of backups, such as `size_bytes desc, name`; the newest first unless told otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupOrder {
    fields: Vec<(Field, bool)>,
}

impl BackupOrder {
    /// Reads `text`, the content of the request's `field`.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT.
    pub fn parse(field: &str, text: &str) -> Result<Self, Status> {
        if text.trim().is_empty() {
            return Ok(Self { fields: vec![(Field::StartTime, true)] });
        }
        let parts: Vec<&str> = text.split(',').collect();
        limits::check_at_most(field, parts.len(), ORDER_COUNT_MAX, "fields")?;
        let mut fields = Vec::with_capacity(parts.len());
        for part in parts {
            let words: Vec<&str> = part.split_whitespace().collect();
            let (name, is_descending) = match words.as_slice() {
                [name] => (name, false),
                [name, way] if way.eq_ignore_ascii_case("desc") => (name, true),
                [name, way] if way.eq_ignore_ascii_case("asc") => (name, false),
                _ => {
                    let why = format_args!("{:?} must be a field, or a field and desc", cut(part));
                    return Err(limits::refuse(field, why));
                }
            };
            let known = Field::named(name).ok_or_else(|| {
                limits::refuse(field, format_args!("{:?}, must be {}", cut(name), Field::NAMES))
            })?;
            fields.push((known, is_descending));
        }
        Ok(Self { fields })
    }

    /// Which comes first; never neither of two that have different names.
    pub fn compare(&self, left: &admin::Backup, right: &admin::Backup) -> Ordering {
        let by_fields = self.fields.iter().map(|(field, is_descending)| {
            let ordering = field.of(left).cmp(&field.of(right));
            if *is_descending { ordering.reverse() } else { ordering }
        });
        by_fields
            .chain([left.name.cmp(&right.name)])
            .find(|ordering| ordering.is_ne())
            .unwrap_or(Ordering::Equal)
    }
}

fn cut(text: &str) -> String {
    text.trim().chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backup(name: &str, start: i64, size_bytes: i64) -> admin::Backup {
        admin::Backup {
            name: name.to_owned(),
            start_time: Some(prost_types::Timestamp { seconds: start, nanos: 0 }),
            size_bytes,
            ..admin::Backup::default()
        }
    }

    #[test]
    fn backups_come_in_the_order_that_is_asked_for() {
        let backups = [backup("b", 1, 7), backup("a", 2, 7), backup("c", 3, 5)];
        for (order, expected) in [
            ("", ["c", "a", "b"]),
            ("start_time", ["b", "a", "c"]),
            ("size_bytes", ["c", "a", "b"]),
            (" SIZE_BYTES  desc ,start_time desc", ["a", "b", "c"]),
            ("name asc", ["a", "b", "c"]),
            ("state", ["a", "b", "c"]),
        ] {
            let order = BackupOrder::parse("order_by", order).unwrap();
            let mut sorted = backups.to_vec();
            sorted.sort_unstable_by(|left, right| order.compare(left, right));
            let names: Vec<&str> = sorted.iter().map(|backup| backup.name.as_str()).collect();
            assert_eq!(names, expected, "{order:?}");
        }
    }

    #[test]
    fn what_is_no_order_is_refused() {
        for order in ["age", "name,", ",", "name up", "name desc desc", &"name,".repeat(20)] {
            let error = BackupOrder::parse("order_by", order).unwrap_err();
            assert!(error.message().starts_with("order_by: "), "{error}");
        }
    }
}
