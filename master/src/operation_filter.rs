//! The filter of a ListOperations, such as
//! `done:true AND metadata.@type:type.googleapis.com/google.bigtable.admin.v2.CreateBackupMetadata`.
//!
//! Comparisons of `done`, `name`, `metadata.@type` and `response.@type`, joined by
//! AND. `:` finds a part of the text, `=` compares all of it.

use row_api::longrunning::Operation;
use row_api::longrunning::operation::Result as Outcome;
use tablet_server::limits;
use tonic::Status;

/// Comparisons in one filter.
const TERM_COUNT_MAX: usize = 16;

/// A filter; an empty one matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperationFilter {
    terms: Vec<Term>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    field: Field,
    is_part: bool,
    value: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Done,
    Name,
    MetadataType,
    ResponseType,
}

impl OperationFilter {
    /// Reads `text`, the content of the request's `field`.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT.
    pub fn parse(field: &str, text: &str) -> Result<Self, Status> {
        let mut terms = Vec::new();
        let mut expects_term = true;
        for word in text.split_whitespace() {
            match (expects_term, word) {
                (false, "AND") => expects_term = true,
                (false, _) => {
                    return Err(limits::refuse(field, format_args!("{word:?} where AND is expected")));
                }
                (true, _) => {
                    terms.push(Term::parse(field, word)?);
                    expects_term = false;
                }
            }
        }
        if expects_term && !terms.is_empty() {
            return Err(limits::refuse(field, "ends with AND"));
        }
        limits::check_at_most(field, terms.len(), TERM_COUNT_MAX, "comparisons")?;
        Ok(Self { terms })
    }

    /// Whether `operation` is one of those that were asked for.
    pub fn matches(&self, operation: &Operation) -> bool {
        self.terms.iter().all(|term| term.matches(operation))
    }
}

impl Term {
    fn parse(field: &str, word: &str) -> Result<Self, Status> {
        let refuse = |why: &str| limits::refuse(field, format_args!("{word:?}: {why}"));
        let place =
            word.find([':', '=']).ok_or_else(|| refuse("must be <field>:<value> or <field>=<value>"))?;
        let (name, rest) = word.split_at(place);
        let (operator, value) = rest.split_at(1);
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        let field = match name {
            "done" => Field::Done,
            "name" => Field::Name,
            "metadata.@type" => Field::MetadataType,
            "response.@type" => Field::ResponseType,
            _ => return Err(refuse("the field must be done, name, metadata.@type or response.@type")),
        };
        if field == Field::Done && !matches!(value, "true" | "false") {
            return Err(refuse("must be true or false"));
        }
        Ok(Self { field, is_part: operator == ":" && field != Field::Done, value: value.to_owned() })
    }

    fn matches(&self, operation: &Operation) -> bool {
        let found = match self.field {
            Field::Done if operation.done => "true",
            Field::Done => "false",
            Field::Name => &operation.name,
            Field::MetadataType => operation.metadata.as_ref().map_or("", |metadata| &metadata.type_url),
            Field::ResponseType => match &operation.result {
                Some(Outcome::Response(response)) => &response.type_url,
                Some(Outcome::Error(_)) | None => "",
            },
        };
        if self.is_part { found.contains(&self.value) } else { found == self.value }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    #[test]
    fn a_filter_matches_where_all_of_it_does() {
        let type_url = "type.googleapis.com/google.bigtable.admin.v2.CreateInstanceMetadata".to_owned();
        let operation = Operation {
            name: "operations/projects/p/instances/i/operations/7".to_owned(),
            metadata: Some(prost_types::Any { type_url, value: Vec::new() }),
            done: true,
            result: None,
        };
        for (filter, expected) in [
            ("", true),
            ("done:true", true),
            ("done=false", false),
            ("metadata.@type:CreateInstance AND done:true", true),
            ("metadata.@type:\"CreateCluster\"", false),
            ("metadata.@type=CreateInstanceMetadata", false),
            ("name:instances/i/ AND done=false", false),
            ("response.@type:Instance", false),
        ] {
            assert_eq!(
                OperationFilter::parse("filter", filter).unwrap().matches(&operation),
                expected,
                "{filter}"
            );
        }
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for filter in
            ["done", "AND", "done:maybe", "done:true OR name:x", "done:true AND", "age:7", "(done:true)"]
        {
            let error = OperationFilter::parse("filter", filter).unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "{filter}");
            assert!(error.message().starts_with("filter: "), "{error}");
        }
    }
}
