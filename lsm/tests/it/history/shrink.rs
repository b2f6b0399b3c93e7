//! A failing history made small: steps, then writes within a step, are taken
//! away as long as what is left still fails (Zeller and Hildebrandt,
//! "Simplifying and Isolating Failure-Inducing Input", TSE 2002, without its
//! second half: complements alone find nearly as small ones).

use super::step::Step;

/// Runs that a shrinking may take.
const ATTEMPTS_MAX: usize = 3000;

/// The least of `steps` that `fails` was found to fail on.
pub fn shrink(steps: Vec<Step>, mut fails: impl FnMut(&[Step]) -> bool) -> Vec<Step> {
    let mut attempts = 0;
    let mut is_worse = |steps: &[Step]| {
        attempts += 1;
        attempts <= ATTEMPTS_MAX && fails(steps)
    };
    let mut steps = without_chunks(steps, &mut is_worse);
    for at in 0..steps.len() {
        let Step::Write { writes, acknowledge } = &steps[at] else { continue };
        let (writes, acknowledge) = (writes.clone(), *acknowledge);
        let with = |writes: &[_]| Step::Write { writes: writes.to_vec(), acknowledge };
        let fewer = without_chunks(writes, &mut |writes| {
            let mut steps = steps.clone();
            steps[at] = with(writes);
            is_worse(&steps)
        });
        steps[at] = with(&fewer);
    }
    steps
}

/// `items` without what need not be there for `fails`: halves, quarters, down to single ones.
fn without_chunks<T: Clone>(mut items: Vec<T>, fails: &mut impl FnMut(&[T]) -> bool) -> Vec<T> {
    let mut chunk = items.len().div_ceil(2);
    while chunk > 0 {
        let before = items.len();
        let mut at = 0;
        while at < items.len() {
            let rest = [&items[..at], &items[(at + chunk).min(items.len())..]].concat();
            if fails(&rest) {
                items = rest;
            } else {
                at += chunk;
            }
        }
        if chunk > 1 || items.len() == before {
            chunk /= 2;
        }
    }
    items
}

#[test]
fn what_a_failure_does_not_need_is_taken_away() {
    use super::choices::Choices;
    let steps = super::step::history(&mut Choices::seeded(3), 200);
    let deletes = |steps: &[Step]| {
        let writes = steps.iter().filter_map(|step| match step {
            Step::Write { writes, .. } => Some(writes),
            _ => None,
        });
        let is_delete = |write: &super::step::Write| matches!(write.change, super::step::Change::Delete);
        writes.flatten().filter(|write| is_delete(write)).count()
    };
    let shrunk = shrink(steps, |steps| deletes(steps) >= 3);
    assert_eq!(deletes(&shrunk), 3);
    let of_writes = |step: &Step| match step {
        Step::Write { writes, .. } => writes.len(),
        _ => usize::MAX,
    };
    assert_eq!(shrunk.iter().map(of_writes).sum::<usize>(), 3, "{shrunk:?}");
}
