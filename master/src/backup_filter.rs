//! The filter of a ListBackups, such as
//! `(source_table:prod) AND (NOT state:CREATING OR size_bytes > 1000)`.
//!
//! ```text
//! filter      = { factor [ "AND" ] }         what stands side by side is joined by AND
//! factor      = term { "OR" term }           OR binds closer (AIP-160)
//! term        = [ "NOT" | "-" ] ( comparison | "(" filter ")" )
//! comparison  = field operator value         operator: < > <= >= != = :
//! ```
//!
//! A quoted text is compared as a whole; `:` with a bare one finds a part. A
//! backup's and a table's last part are compared, too. Cases are not told apart.

use std::iter::Peekable;

use prost_types::Timestamp;
use row_api::admin;
use tablet_server::limits;
use tonic::Status;

use crate::backup_fields::{Field, Value};

/// Bytes of a filter.
const FILTER_BYTES_MAX: usize = 4_096;

/// Parentheses within each other.
const DEPTH_MAX: usize = 16;

/// A filter of backups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupFilter {
    root: Node,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
    Compare { field: Field, operator: Operator, value: Value },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Less,
    Greater,
    AtMost,
    AtLeast,
    Unequal,
    Equal,
    /// A part of a text.
    Has,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Open,
    Close,
    Minus,
    Operator(Operator),
    Word(String),
    Quoted(String),
}

impl BackupFilter {
    /// Reads `text`, the content of the request's `field`; an empty one matches everything.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT.
    pub fn parse(field: &str, text: &str) -> Result<Self, Status> {
        limits::check_at_most(field, text.len(), FILTER_BYTES_MAX, "bytes")?;
        let refuse = |why: String| limits::refuse(field, why);
        let tokens = tokens(text).map_err(refuse)?;
        let mut parser = Parser { tokens: tokens.into_iter().peekable(), depth: 0 };
        let root = parser.filter().map_err(refuse)?;
        match parser.tokens.next() {
            None => Ok(Self { root }),
            Some(_) => Err(refuse("a parenthesis is closed that was not opened".to_owned())),
        }
    }

    /// Whether `backup` is one of those that were asked for.
    pub fn matches(&self, backup: &admin::Backup) -> bool {
        self.root.matches(backup)
    }
}

impl Node {
    fn matches(&self, backup: &admin::Backup) -> bool {
        match self {
            Self::All(nodes) => nodes.iter().all(|node| node.matches(backup)),
            Self::Any(nodes) => nodes.iter().any(|node| node.matches(backup)),
            Self::Not(node) => !node.matches(backup),
            Self::Compare { field, operator, value } => {
                field.of(backup).is_some_and(|found| operator.holds(&found, value))
            }
        }
    }
}

impl Operator {
    fn holds(self, found: &Value, wanted: &Value) -> bool {
        let is_equal = || found == wanted || last_part(found).is_some_and(|part| Some(part) == text(wanted));
        match self {
            Self::Less => found < wanted,
            Self::Greater => found > wanted,
            Self::AtMost => found <= wanted,
            Self::AtLeast => found >= wanted,
            Self::Unequal => !is_equal(),
            Self::Equal => is_equal(),
            Self::Has => match (found, wanted) {
                (Value::Text(found), Value::Text(wanted)) => found.contains(wanted.as_str()),
                _ => is_equal(),
            },
        }
    }
}

fn text(value: &Value) -> Option<&str> {
    if let Value::Text(text) = value { Some(text) } else { None }
}

fn last_part(value: &Value) -> Option<&str> {
    text(value)?.rsplit('/').next()
}

struct Parser {
    tokens: Peekable<std::vec::IntoIter<Token>>,
    depth: usize,
}

impl Parser {
    fn filter(&mut self) -> Result<Node, String> {
        let mut factors = Vec::new();
        loop {
            match self.tokens.peek() {
                None | Some(Token::Close) => return Ok(Node::All(factors)),
                Some(token) if is_word(token, "AND") && !factors.is_empty() => {
                    self.tokens.next();
                }
                Some(_) => {}
            }
            factors.push(self.factor()?);
        }
    }

    fn factor(&mut self) -> Result<Node, String> {
        let mut terms = vec![self.term()?];
        while self.tokens.next_if(|token| is_word(token, "OR")).is_some() {
            terms.push(self.term()?);
        }
        Ok(if terms.len() == 1 { terms.remove(0) } else { Node::Any(terms) })
    }

    fn term(&mut self) -> Result<Node, String> {
        let is_negation = |token: &Token| *token == Token::Minus || is_word(token, "NOT");
        let is_negated = self.tokens.next_if(is_negation).is_some();
        let node = match self.tokens.next() {
            Some(Token::Open) => self.parenthesis()?,
            Some(Token::Word(name)) => self.comparison(&name)?,
            Some(Token::Quoted(_) | Token::Operator(_) | Token::Minus | Token::Close) | None => {
                return Err("a comparison is missing: it must be <field> <operator> <value>".to_owned());
            }
        };
        Ok(if is_negated { Node::Not(Box::new(node)) } else { node })
    }

    fn parenthesis(&mut self) -> Result<Node, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(format!("{} parentheses within each other, at most {DEPTH_MAX}", self.depth));
        }
        let inner = self.filter()?;
        self.depth -= 1;
        match self.tokens.next() {
            Some(Token::Close) => Ok(inner),
            _ => Err("a parenthesis is not closed".to_owned()),
        }
    }

    fn comparison(&mut self, name: &str) -> Result<Node, String> {
        let field = Field::named(name)
            .ok_or_else(|| format!("{:?}: the field must be {}", cut(name), Field::NAMES))?;
        let Some(Token::Operator(operator)) = self.tokens.next() else {
            return Err(format!("{name}: must be followed by <, >, <=, >=, !=, = or :"));
        };
        let (text, is_quoted) = match self.tokens.next() {
            Some(Token::Word(text)) => (text, false),
            Some(Token::Quoted(text)) => (text, true),
            _ => return Err(format!("{name}: has no value to compare with")),
        };
        let value = value_of(field, &text).map_err(|why| format!("{name}: {:?} {why}", cut(&text)))?;
        let operator = if operator == Operator::Has && is_quoted { Operator::Equal } else { operator };
        Ok(Node::Compare { field, operator, value })
    }
}

fn value_of(field: Field, text: &str) -> Result<Value, &'static str> {
    match field {
        Field::Name | Field::SourceTable => Ok(Value::Text(text.to_lowercase())),
        Field::State => match text.to_lowercase() {
            state if matches!(state.as_str(), "creating" | "ready") => Ok(Value::Text(state)),
            _ => Err("must be CREATING or READY"),
        },
        Field::StartTime | Field::EndTime | Field::ExpireTime => {
            let time: Timestamp =
                text.to_uppercase().parse().map_err(|_| "must be a time such as 2018-03-28T14:50:00Z")?;
            Ok(Value::Time(time.seconds, time.nanos))
        }
        Field::SizeBytes => text.parse().map(Value::Number).map_err(|_| "must be a number"),
    }
}

fn is_word(token: &Token, word: &str) -> bool {
    matches!(token, Token::Word(found) if found.eq_ignore_ascii_case(word))
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(first) = chars.next() {
        let mut with_equals = |with: Operator, without: Operator| {
            Token::Operator(if chars.next_if_eq(&'=').is_some() { with } else { without })
        };
        let token = match first {
            c if c.is_whitespace() => continue,
            '(' => Token::Open,
            ')' => Token::Close,
            ':' => Token::Operator(Operator::Has),
            '=' => Token::Operator(Operator::Equal),
            '<' => with_equals(Operator::AtMost, Operator::Less),
            '>' => with_equals(Operator::AtLeast, Operator::Greater),
            '!' if chars.next_if_eq(&'=').is_some() => Token::Operator(Operator::Unequal),
            '!' => return Err("! must be followed by =".to_owned()),
            '-' => Token::Minus,
            '"' => Token::Quoted(quoted(&mut chars)?),
            first => {
                // A value goes on over colons, as times do; a field's name ends at one.
                let is_value = matches!(tokens.last(), Some(Token::Operator(_)));
                let mut word = String::from(first);
                let ends =
                    |c: &char| c.is_whitespace() || "()\"<>=!".contains(*c) || (*c == ':' && !is_value);
                while let Some(next) = chars.next_if(|c| !ends(c)) {
                    word.push(next);
                }
                Token::Word(word)
            }
        };
        tokens.push(token);
    }
    Ok(tokens)
}

fn quoted(chars: &mut impl Iterator<Item = char>) -> Result<String, String> {
    let mut text = String::new();
    while let Some(c) = chars.next() {
        match c {
            '"' => return Ok(text),
            '\\' => text.extend(chars.next()),
            c => text.push(c),
        }
    }
    Err("a quoted text is not closed".to_owned())
}

fn cut(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use row_api::admin::backup::State;

    fn backup() -> admin::Backup {
        let time = |text: &str| Some(text.parse().unwrap());
        admin::Backup {
            name: "projects/p/instances/i/clusters/c/backups/Howling-1".to_owned(),
            source_table: "projects/p/instances/i/tables/prod".to_owned(),
            start_time: time("2026-03-28T14:50:00Z"),
            expire_time: time("2026-04-28T14:50:00Z"),
            size_bytes: 1_000,
            state: State::Ready.into(),
            ..admin::Backup::default()
        }
    }

    #[test]
    fn a_filter_matches_as_it_is_written() {
        for (filter, expected) in [
            ("", true),
            ("name:howl", true),
            ("name:\"howl\"", false),
            ("name:\"howling-1\"", true),
            ("name = \"projects/p/instances/i/clusters/c/backups/Howling-1\"", true),
            ("NAME != howling-1", false),
            ("source_table:prod", true),
            ("source_table = pro", false),
            ("state:READY", true),
            ("state != ready", false),
            ("size_bytes > 999 size_bytes<=1000", true),
            ("size_bytes >= 1001", false),
            ("start_time < \"2027-03-28T14:50:00Z\"", true),
            ("start_time=2026-03-28T14:50:00Z", true),
            ("(name:howl) AND (start_time < \"2018-03-28T14:50:00Z\")", false),
            ("(name:wolf) OR (name:howl)", true),
            ("name:wolf OR name:howl AND state:CREATING", false),
            ("name:wolf OR (name:howl AND state:READY)", true),
            ("NOT name:wolf", true),
            ("-name:howl", false),
            ("NOT (name:wolf OR state:READY)", false),
            // Not set yet: no comparison holds.
            ("end_time < 2030-01-01T00:00:00Z", false),
            ("NOT end_time < 2030-01-01T00:00:00Z", true),
        ] {
            let parsed =
                BackupFilter::parse("filter", filter).unwrap_or_else(|error| panic!("{filter}: {error}"));
            assert_eq!(parsed.matches(&backup()), expected, "{filter}");
        }
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        let deep = format!("{}name:a{}", "(".repeat(17), ")".repeat(17));
        let long = format!("name:{}", "a".repeat(FILTER_BYTES_MAX));
        for filter in [
            "name",
            "name:",
            "age:7",
            "AND name:a",
            "name:a OR",
            "name:a AND AND name:b",
            "(name:a",
            "name:a)",
            "name ! a",
            "\"name\":a",
            "name:\"a",
            "state:GONE",
            "size_bytes:much",
            "start_time > yesterday",
            "NOT",
            &deep,
            &long,
        ] {
            let error = BackupFilter::parse("filter", filter).unwrap_err();
            assert!(error.message().starts_with("filter: "), "{filter}: {error}");
        }
    }
}
