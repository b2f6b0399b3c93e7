//! Resource names: `projects/P/instances/I/tables/T` and its relatives.
//!
//! Used by every role that takes a name off the wire. Project and instance
//! parts are any non-empty text without `/`: official clients' own system
//! tests send the project as the literal `{{projectId}}`.

use std::fmt;

/// An instance, `projects/{project}/instances/{instance}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceName {
    /// The project's id, unvalidated.
    pub project: String,
    /// The instance's id, unvalidated.
    pub instance: String,
}

/// A table, `projects/{project}/instances/{instance}/tables/{table}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName {
    /// The instance that holds the table.
    pub instance: InstanceName,
    /// The table's id within its instance.
    pub table: String,
}

/// A name that does not have the shape its field asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {found:?} is not of the form {expected:?}")]
pub struct BadName {
    /// The request's field.
    pub field: &'static str,
    /// What the field held, cut to 256 characters.
    pub found: String,
    /// The form it should have had.
    pub expected: &'static str,
}

impl From<BadName> for tonic::Status {
    fn from(bad: BadName) -> Self {
        Self::invalid_argument(bad.to_string())
    }
}

impl InstanceName {
    const FORM: &str = "projects/<project>/instances/<instance>";

    /// Takes `text`, the content of the request's `field`, apart.
    ///
    /// # Errors
    ///
    /// [`BadName`] when it has another form.
    pub fn parse(field: &'static str, text: &str) -> Result<Self, BadName> {
        match parts(text).as_slice() {
            ["projects", project, "instances", instance] => {
                Ok(Self { project: (*project).to_owned(), instance: (*instance).to_owned() })
            }
            _ => Err(bad(field, text, Self::FORM)),
        }
    }
}

impl TableName {
    const FORM: &str = "projects/<project>/instances/<instance>/tables/<table>";

    /// Takes `text`, the content of the request's `field`, apart.
    ///
    /// # Errors
    ///
    /// [`BadName`] when it has another form.
    pub fn parse(field: &'static str, text: &str) -> Result<Self, BadName> {
        match parts(text).as_slice() {
            ["projects", project, "instances", instance, "tables", table] => Ok(Self {
                instance: InstanceName { project: (*project).to_owned(), instance: (*instance).to_owned() },
                table: (*table).to_owned(),
            }),
            _ => Err(bad(field, text, Self::FORM)),
        }
    }
}

impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "projects/{}/instances/{}", self.project, self.instance)
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/tables/{}", self.instance, self.table)
    }
}

/// The name's parts, or none at all where one of them is empty.
fn parts(text: &str) -> Vec<&str> {
    let parts: Vec<&str> = text.split('/').collect();
    if parts.iter().any(|part| part.is_empty()) { Vec::new() } else { parts }
}

fn bad(field: &'static str, found: &str, expected: &'static str) -> BadName {
    BadName { field, found: found.chars().take(256).collect(), expected }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_name_survives_the_round_trip() {
        let text = "projects/{{projectId}}/instances/i/tables/t-1";
        let name = TableName::parse("table_name", text).unwrap();
        assert_eq!(name.table, "t-1");
        assert_eq!(name.to_string(), text);
    }

    #[test]
    fn other_forms_are_refused_by_field() {
        for text in [
            "",
            "t",
            "projects/p/instances/i",
            "projects//instances/i/tables/t",
            "projects/p/instances/i/tables/",
        ] {
            let error = TableName::parse("table_name", text).unwrap_err();
            assert_eq!(error.field, "table_name", "{text}");
        }
    }
}
