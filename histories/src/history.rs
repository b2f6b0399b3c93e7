//! The operations of a run, row by row, as they are called and answered.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::row::{Answer, Call, RowModel, RowOperation, RowState};
use crate::search::{Timed, Verdict, search};

/// States that the check of one row may meet; some thousand operations meet few more than that.
const STATE_COUNT_MAX: usize = 1 << 20;

/// Operations on a fixed set of rows.
#[derive(Debug)]
pub struct History {
    keys: Vec<String>,
    /// The place of the next call or answer.
    next: AtomicU64,
    rows: Vec<Mutex<Vec<Timed<RowOperation>>>>,
}

/// A row whose operations no order explains, or that was not checked to the end.
#[derive(Clone, Debug)]
pub struct Violation {
    /// The row's key.
    pub key: String,
    /// What was done, what of it some order explains and where that order ends.
    pub report: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "row {}: {}", self.key, self.report)
    }
}

impl History {
    /// Nothing yet, on rows of these keys, ascending.
    ///
    /// # Panics
    ///
    /// When the keys do not ascend.
    pub fn new(keys: Vec<String>) -> Self {
        assert!(keys.is_sorted_by(|a, b| a < b), "keys must ascend");
        let rows = keys.iter().map(|_| Mutex::default()).collect();
        Self { keys, next: AtomicU64::new(0), rows }
    }

    /// The rows' keys, ascending.
    pub fn keys(&self) -> &[String] {
        &self.keys
    }

    /// How many operations there are.
    pub fn len(&self) -> usize {
        self.rows.iter().map(|row| row.lock().len()).sum()
    }

    /// Whether there is no operation.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Operations of which nobody knows whether they were done.
    pub fn unknown_count(&self) -> usize {
        let unknown = |row: &Mutex<Vec<Timed<RowOperation>>>| {
            row.lock().iter().filter(|operation| operation.answered.is_none()).count()
        };
        self.rows.iter().map(unknown).sum()
    }

    /// Notes that `call` goes out for the row at this place among the keys.
    pub fn begin(&self, row: usize, call: Call) -> Pending<'_> {
        Pending { history: self, row, called: self.now(), call: Some(call) }
    }

    fn now(&self) -> u64 {
        self.next.fetch_add(1, Ordering::SeqCst)
    }

    /// Checks every row.
    ///
    /// # Errors
    ///
    /// The first row that no order explains.
    pub fn check(&self) -> Result<(), Violation> {
        for (key, row) in self.keys.iter().zip(&self.rows) {
            let mut operations = row.lock().clone();
            operations.sort_by_key(|operation| operation.called);
            let report = match search::<RowModel>(&operations, STATE_COUNT_MAX) {
                Verdict::Linearizable => continue,
                Verdict::GivenUp => format!("{} operations are too many to check", operations.len()),
                Verdict::Violation { explained, state, stuck } => {
                    report(&operations, &explained, &state, &stuck)
                }
            };
            return Err(Violation { key: key.clone(), report });
        }
        Ok(())
    }
}

/// The last operations that an order explains, and those that cannot follow.
fn report(
    operations: &[Timed<RowOperation>],
    explained: &[usize],
    state: &RowState,
    stuck: &[usize],
) -> String {
    let shown = |index: &usize| {
        let Timed { called, answered, operation } = &operations[*index];
        let answered = answered.map_or_else(String::new, |answered| answered.to_string());
        format!("  {called:>8} .. {answered:<8} {operation}\n")
    };
    let last = &explained[explained.len().saturating_sub(12)..];
    format!(
        "of {} operations an order explains {}, the last of them\n{}that leaves {state:?}, and none of these can be next:\n{}",
        operations.len(),
        explained.len(),
        last.iter().map(shown).collect::<String>(),
        stuck.iter().map(shown).collect::<String>(),
    )
}

/// An operation under way; dropped without an answer, nobody knows whether it was done.
#[derive(Debug)]
#[must_use]
pub struct Pending<'a> {
    history: &'a History,
    row: usize,
    called: u64,
    call: Option<Call>,
}

impl Pending<'_> {
    /// What was asked.
    ///
    /// # Panics
    ///
    /// Never: it is there until the operation is over.
    pub fn call(&self) -> &Call {
        self.call.as_ref().expect("the operation is under way")
    }

    /// The place of its row among the keys.
    pub fn row(&self) -> usize {
        self.row
    }

    /// Notes its answer.
    pub fn answered(mut self, answer: Answer) {
        let at = self.history.now();
        self.put(Some((at, answer)));
    }

    /// Notes that nothing was done.
    pub fn refused(mut self) {
        self.call = None;
    }

    fn put(&mut self, answered: Option<(u64, Answer)>) {
        let Some(call) = self.call.take() else { return };
        let is_read = matches!(call, Call::Read | Call::ReadToken);
        let (at, answer) = answered.unzip();
        if answer.is_none() && is_read {
            return;
        }
        let operation = RowOperation { call, answer };
        let timed = Timed { called: self.called, answered: at, operation };
        self.history.rows[self.row].lock().push(timed);
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.put(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_write_that_somebody_saw_is_told_with_what_led_to_it() {
        let history = History::new(vec!["a".into(), "b".into()]);
        history.begin(0, Call::Put(1)).answered(Answer::Done);
        drop(history.begin(0, Call::Put(2)));
        let saw = |row, token| {
            let state = RowState { token, ..RowState::default() };
            history.begin(row, Call::Read).answered(Answer::Row(state));
        };
        saw(0, Some(1));
        saw(0, Some(2));
        saw(1, None);
        history.begin(1, Call::Put(9)).refused();
        saw(1, None);
        history.check().unwrap();
        assert_eq!((history.len(), history.unknown_count()), (6, 1));
        saw(0, Some(1));
        let violation = history.check().unwrap_err();
        assert_eq!(violation.key, "a");
        assert!(violation.report.contains("none of these can be next"), "{violation}");
    }
}
