//! What the ids of new resources may look like.

use tablet_server::limits;
use tonic::Status;

/// The form of an id.
struct Form {
    is_first: fn(char) -> bool,
    is_later: fn(char) -> bool,
    is_last: fn(char) -> bool,
    pattern: &'static str,
    chars_min: usize,
    chars_max: usize,
}

const INSTANCE: Form = Form {
    is_first: |c| c.is_ascii_lowercase(),
    is_later: |c| is_lower_or_digit(c) || c == '-',
    is_last: is_lower_or_digit,
    pattern: "[a-z][-a-z0-9]*[a-z0-9]",
    chars_min: 6,
    chars_max: 33,
};

const CLUSTER: Form = Form { pattern: "[a-z][-a-z0-9]*", chars_max: 30, is_last: |_| true, ..INSTANCE };

const TABLE: Form = Form {
    is_first: |c| c.is_ascii_alphanumeric() || c == '_',
    is_later: |c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'),
    is_last: |_| true,
    pattern: "[_a-zA-Z0-9][-_.a-zA-Z0-9]*",
    chars_min: 1,
    chars_max: 50,
};

fn is_lower_or_digit(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

/// Checks the id of an instance that is to be created.
///
/// # Errors
///
/// INVALID_ARGUMENT.
pub fn check_instance_id(field: &str, id: &str) -> Result<(), Status> {
    INSTANCE.check(field, id)
}

/// Checks the id of a cluster that is to be created.
///
/// # Errors
///
/// INVALID_ARGUMENT.
pub fn check_cluster_id(field: &str, id: &str) -> Result<(), Status> {
    CLUSTER.check(field, id)
}

/// Checks the id of a table, or of an app profile, that is to be created.
///
/// # Errors
///
/// INVALID_ARGUMENT.
pub fn check_table_id(field: &str, id: &str) -> Result<(), Status> {
    TABLE.check(field, id)
}

impl Form {
    fn check(&self, field: &str, id: &str) -> Result<(), Status> {
        let has_form =
            id.starts_with(self.is_first) && id.chars().all(self.is_later) && id.ends_with(self.is_last);
        if !has_form {
            let found: String = id.chars().take(self.chars_max).collect();
            return Err(limits::refuse(field, format_args!("{found:?} must match {}", self.pattern)));
        }
        if id.len() < self.chars_min {
            let why = format_args!("{} characters, at least {}", id.len(), self.chars_min);
            return Err(limits::refuse(field, why));
        }
        limits::check_at_most(field, id.len(), self.chars_max, "characters")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_their_form_and_length() {
        for (check, good, bad) in [
            (
                check_instance_id as fn(&str, &str) -> Result<(), Status>,
                &["abcdef", "a-1-b2", &"a".repeat(33)][..],
                &["", "abcde", "Abcdef", "1abcdef", "abcdef-", "abc_def", &"a".repeat(34)][..],
            ),
            (
                check_cluster_id,
                &["abcdef", "abcde-", &"a".repeat(30)],
                &["", "abcde", "-abcdef", "abcdef/", &"a".repeat(31)],
            ),
            (
                check_table_id,
                &["t", "_t", "T.1-x", &"t".repeat(50)],
                &["", "-t", ".t", "a/b", "\u{e4}", &"t".repeat(51)],
            ),
        ] {
            for id in good {
                check("id", id).unwrap();
            }
            for id in bad {
                assert!(check("id", id).unwrap_err().message().starts_with("id: "), "{id}");
            }
        }
    }
}
