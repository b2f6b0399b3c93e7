//! What a row holds and how each operation changes it, done one after the other.

use std::fmt;

use crate::search::Sequential;

/// What the columns of a row hold, each with its newest cell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RowState {
    /// The token of the last put, which several columns of two families hold, some of them derived.
    pub token: Option<u64>,
    /// The counter.
    pub count: Option<i64>,
    /// What was appended.
    pub text: String,
}

impl RowState {
    /// Whether the row has no cell.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What a client asks of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// The whole row; a scan asks it of each of its rows.
    Read,
    /// The column of the token alone.
    ReadToken,
    /// Several columns at once.
    Put(u64),
    /// ReadModifyWriteRow, an increment.
    Add(i64),
    /// ReadModifyWriteRow, an append.
    Append(String),
    /// CheckAndMutateRow: put the second if the token is the first.
    Swap(u64, u64),
    /// CheckAndMutateRow without a predicate: put if the row has no cell.
    PutIfEmpty(u64),
    /// All cells of the row.
    Delete,
}

/// What the client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The row.
    Row(RowState),
    /// A row that no state of it explains: columns that are written at once differ.
    Torn(String),
    /// The token.
    Token(Option<u64>),
    /// That it is done.
    Done,
    /// The sum.
    Sum(i64),
    /// The text with what was appended.
    Text(String),
    /// Whether the predicate matched.
    Matched(bool),
}

/// An operation with its answer, if there was one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowOperation {
    /// What was asked.
    pub call: Call,
    /// What was answered.
    pub answer: Option<Answer>,
}

impl fmt::Display for RowOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.answer {
            Some(answer) => write!(f, "{:?} -> {answer:?}", self.call),
            None => write!(f, "{:?} -> nobody knows", self.call),
        }
    }
}

/// A row, as [`Sequential`] has it.
#[derive(Clone, Copy, Debug)]
pub struct RowModel;

impl Sequential for RowModel {
    type State = RowState;
    type Operation = RowOperation;

    fn step(state: &RowState, operation: &RowOperation) -> Option<RowState> {
        let mut after = state.clone();
        let answer = apply(&mut after, &operation.call);
        operation.answer.as_ref().is_none_or(|seen| *seen == answer).then_some(after)
    }
}

fn apply(row: &mut RowState, call: &Call) -> Answer {
    match call {
        Call::Read => Answer::Row(row.clone()),
        Call::ReadToken => Answer::Token(row.token),
        Call::Put(token) => {
            row.token = Some(*token);
            Answer::Done
        }
        Call::Add(amount) => {
            let sum = row.count.unwrap_or(0) + amount;
            row.count = Some(sum);
            Answer::Sum(sum)
        }
        Call::Append(more) => {
            row.text.push_str(more);
            Answer::Text(row.text.clone())
        }
        Call::Swap(from, to) => {
            let matched = row.token == Some(*from);
            if matched {
                row.token = Some(*to);
            }
            Answer::Matched(matched)
        }
        Call::PutIfEmpty(token) => {
            let matched = !row.is_empty();
            if !matched {
                row.token = Some(*token);
            }
            Answer::Matched(matched)
        }
        Call::Delete => {
            *row = RowState::default();
            Answer::Done
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(state: &RowState, call: Call, answer: Option<Answer>) -> Option<RowState> {
        RowModel::step(state, &RowOperation { call, answer })
    }

    #[test]
    fn a_row_is_what_was_done_to_it() {
        let empty = RowState::default();
        let put = step(&empty, Call::PutIfEmpty(7), Some(Answer::Matched(false))).unwrap();
        assert_eq!(step(&put, Call::PutIfEmpty(8), Some(Answer::Matched(true))), Some(put.clone()));
        let swapped = step(&put, Call::Swap(7, 9), Some(Answer::Matched(true))).unwrap();
        assert_eq!(swapped.token, Some(9));
        let counted = step(&swapped, Call::Add(2), Some(Answer::Sum(2))).unwrap();
        let text = step(&counted, Call::Append("a;".into()), Some(Answer::Text("a;".into()))).unwrap();
        assert_eq!(text, RowState { token: Some(9), count: Some(2), text: "a;".into() });
        assert!(step(&text, Call::Read, Some(Answer::Row(text.clone()))).is_some());
        assert_eq!(step(&text, Call::Delete, Some(Answer::Done)), Some(empty));
    }

    #[test]
    fn what_was_seen_otherwise_cannot_have_been_then() {
        let row = RowState { token: Some(1), count: Some(4), ..RowState::default() };
        assert_eq!(step(&row, Call::Add(1), Some(Answer::Sum(6))), None);
        assert_eq!(step(&row, Call::Add(1), None).unwrap().count, Some(5));
        assert_eq!(step(&row, Call::ReadToken, Some(Answer::Token(None))), None);
        assert_eq!(step(&row, Call::Read, Some(Answer::Torn(String::new()))), None);
    }
}
