//! The search for an order of operations that explains what was seen.
//!
//! Wing and Gong's search ("Testing and verifying concurrent objects", 1993)
//! with Lowe's memory of what has been tried ("Testing for linearizability", 2017):
//! from what is done and the state it left, each operation is tried next that
//! was called before the first answer among those that are not done. An operation
//! without an answer may stand anywhere behind its call, so also behind all
//! that anybody saw, which is the same as never.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;

/// What operations mean when they are done one after the other.
pub trait Sequential {
    /// What there is between two operations; the default is what there is at first.
    type State: Clone + Debug + Default + Eq + Hash;
    /// An operation with what its client saw.
    type Operation: Debug;

    /// The state after `operation`, if from `state` its client sees what it saw.
    fn step(state: &Self::State, operation: &Self::Operation) -> Option<Self::State>;
}

/// An operation with the places of its call and its answer in the order of all
/// calls and answers.
#[derive(Clone, Debug)]
pub struct Timed<O> {
    /// The place of its call.
    pub called: u64,
    /// The place of its answer; none if nobody knows whether it was done.
    pub answered: Option<u64>,
    /// What was done and seen.
    pub operation: O,
}

impl<O> Timed<O> {
    fn end(&self) -> u64 {
        self.answered.unwrap_or(u64::MAX)
    }
}

/// What a search finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<S> {
    /// There is an order.
    Linearizable,
    /// There is none.
    Violation {
        /// The most operations, by their places in the history, that some order explains.
        explained: Vec<usize>,
        /// What those leave.
        state: S,
        /// One of these would have to come next, and none can.
        stuck: Vec<usize>,
    },
    /// So many states were met that the search was given up.
    GivenUp,
}

/// Searches an order for `operations`, which stand by the places of their calls; gives
/// up after `state_count_max` states.
///
/// # Panics
///
/// When the operations are in another order.
pub fn search<M: Sequential>(
    operations: &[Timed<M::Operation>],
    state_count_max: usize,
) -> Verdict<M::State> {
    assert!(operations.is_sorted_by_key(|operation| operation.called), "sorted by their calls");
    let mut met = HashSet::new();
    let mut done = Done::new(operations.len());
    let mut path: Vec<Choice<M::State>> = Vec::new();
    let mut state = M::State::default();
    let mut candidates = candidates(operations, &done);
    let mut best = (Vec::new(), state.clone(), candidates.clone());
    loop {
        if candidates.is_empty() && done.is_all() {
            return Verdict::Linearizable;
        }
        let next = candidates.pop();
        let Some(index) = next else {
            let Some(choice) = path.pop() else {
                let (explained, state, stuck) = best;
                return Verdict::Violation { explained, state, stuck };
            };
            done.remove(choice.index);
            (state, candidates) = (choice.before, choice.others);
            continue;
        };
        let Some(after) = M::step(&state, &operations[index].operation) else { continue };
        done.insert(index);
        if !met.insert((done.bits.clone(), after.clone())) {
            done.remove(index);
            continue;
        }
        if met.len() > state_count_max {
            return Verdict::GivenUp;
        }
        path.push(Choice { index, before: std::mem::replace(&mut state, after), others: candidates });
        candidates = self::candidates(operations, &done);
        if path.len() > best.0.len() {
            let explained = path.iter().map(|choice| choice.index).collect();
            best = (explained, state.clone(), candidates.clone());
        }
    }
}

/// What was done at some point of the search, and what else could have been.
struct Choice<S> {
    index: usize,
    before: S,
    others: Vec<usize>,
}

/// Operations that may come next; the likeliest last.
fn candidates<O>(operations: &[Timed<O>], done: &Done) -> Vec<usize> {
    let mut first_answer = u64::MAX;
    let mut open: Vec<usize> = Vec::new();
    for (index, operation) in operations.iter().enumerate().skip(done.first) {
        if operation.called > first_answer {
            break;
        }
        if !done.holds(index) {
            first_answer = first_answer.min(operation.end());
            open.push(index);
        }
    }
    // Those of unknown outcome are tried last: most of what is seen is explained without them.
    open.sort_by_key(|index| std::cmp::Reverse(operations[*index].end()));
    open
}

/// Which operations are done.
struct Done {
    bits: Box<[u64]>,
    count: usize,
    len: usize,
    /// The first that is not.
    first: usize,
}

impl Done {
    fn new(len: usize) -> Self {
        Self { bits: vec![0; len.div_ceil(64)].into(), count: 0, len, first: 0 }
    }

    fn is_all(&self) -> bool {
        self.count == self.len
    }

    fn holds(&self, index: usize) -> bool {
        self.bits[index / 64] >> (index % 64) & 1 == 1
    }

    fn insert(&mut self, index: usize) {
        self.bits[index / 64] |= 1 << (index % 64);
        self.count += 1;
        while self.first < self.len && self.holds(self.first) {
            self.first += 1;
        }
    }

    fn remove(&mut self, index: usize) {
        self.bits[index / 64] &= !(1 << (index % 64));
        self.count -= 1;
        self.first = self.first.min(index);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A register of a number.
    struct Register;

    #[derive(Clone, Debug)]
    enum Access {
        Write(u8),
        Read(u8),
    }
    use Access::{Read, Write};

    impl Sequential for Register {
        type State = u8;
        type Operation = Access;

        fn step(state: &u8, operation: &Access) -> Option<u8> {
            match operation {
                Write(value) => Some(*value),
                Read(value) => (value == state).then_some(*state),
            }
        }
    }

    fn check(history: &[(u64, Option<u64>, Access)], is_linearizable: bool) {
        let mut timed: Vec<_> = history
            .iter()
            .map(|(called, answered, access)| Timed {
                called: *called,
                answered: *answered,
                operation: access.clone(),
            })
            .collect();
        timed.sort_by_key(|operation| operation.called);
        let verdict = search::<Register>(&timed, 1 << 20);
        assert_eq!(verdict == Verdict::Linearizable, is_linearizable, "{history:?}: {verdict:?}");
    }

    #[test]
    fn what_is_seen_must_be_explained_by_some_order() {
        check(&[], true);
        check(&[(0, Some(1), Write(1)), (2, Some(3), Read(1))], true);
        check(&[(0, Some(1), Write(1)), (2, Some(3), Read(0))], false);
        // While the write is under way, either is right, but never the old after the new.
        check(&[(0, Some(9), Write(1)), (1, Some(2), Read(0)), (3, Some(4), Read(1))], true);
        check(&[(0, Some(9), Write(1)), (1, Some(2), Read(1)), (3, Some(4), Read(0))], false);
        // Two readers at once.
        check(&[(0, Some(9), Write(1)), (1, Some(5), Read(1)), (3, Some(6), Read(0))], true);
    }

    #[test]
    fn what_has_no_answer_may_be_done_late_or_never_but_not_before_its_call() {
        check(&[(0, None, Write(1)), (2, Some(3), Read(0))], true);
        check(&[(0, None, Write(1)), (2, Some(3), Read(0)), (4, Some(5), Read(1))], true);
        check(&[(0, None, Write(1)), (2, Some(3), Read(1)), (4, Some(5), Read(0))], false);
        check(&[(0, Some(1), Read(1)), (2, None, Write(1))], false);
    }

    #[test]
    fn a_violation_tells_how_far_an_order_goes() {
        let history = [(0, 1, Write(1)), (2, 3, Read(1)), (4, 5, Read(2)), (6, 7, Read(1))];
        let history = history.map(|(called, answered, operation)| Timed {
            called,
            answered: Some(answered),
            operation,
        });
        let expected = Verdict::Violation { explained: vec![0, 1], state: 1, stuck: vec![2] };
        assert_eq!(search::<Register>(&history, 100), expected);
        assert_eq!(search::<Register>(&history, 1), Verdict::GivenUp);
    }

    /// Every order of `left`, tried one after the other.
    fn some_order(history: &[Timed<Access>], left: &[usize], state: u8) -> bool {
        left.is_empty()
            || left.iter().any(|next| {
                let others: Vec<usize> = left.iter().copied().filter(|other| other != next).collect();
                let may = others.iter().all(|other| history[*other].end() > history[*next].called);
                let after = Register::step(&state, &history[*next].operation);
                may && after.is_some_and(|after| some_order(history, &others, after))
            })
    }

    proptest! {
        #[test]
        fn the_search_finds_what_trying_every_order_finds(
            accesses in prop::collection::vec((0..3u8, any::<bool>(), 0..12u64, 1..8u64, 0..6u8), 0..7),
        ) {
            let mut history: Vec<_> = accesses
                .into_iter()
                .enumerate()
                .map(|(index, (value, is_read, start, length, fate))| {
                    // No two calls or answers at the same place.
                    let called = start * 32 + index as u64 * 2;
                    let answered = Some(called + length * 32 + 1).filter(|_| is_read || fate > 0);
                    Timed { called, answered, operation: if is_read { Read(value) } else { Write(value) } }
                })
                .collect();
            history.sort_by_key(|operation| operation.called);
            let all: Vec<usize> = (0..history.len()).collect();
            let found = search::<Register>(&history, 1 << 20) == Verdict::Linearizable;
            prop_assert_eq!(found, some_order(&history, &all, 0));
        }
    }
}
