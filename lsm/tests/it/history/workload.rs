//! A history for faults: short, and dense in whatever writes files.

use super::choices::Choices;
use super::step::{Acknowledge, Drawn, Ending, Step, View};

/// So many rounds of small batches to all trees, each round ended by one of
/// everything else that an engine does to its files.
pub fn workload(seed: u64, rounds: usize) -> Vec<Step> {
    let mut choices = Choices::seeded(seed);
    let mut drawn = Drawn::new(30, &mut choices);
    let mut steps = vec![drawn.create(0), drawn.create(1), drawn.create(2)];
    for round in 0..rounds {
        for number in 0..7 {
            // Some share a sync with those before them, and some are not synced when something else comes.
            let acknowledge = [
                Acknowledge::Hold,
                Acknowledge::Wait,
                Acknowledge::Hold,
                Acknowledge::Callback,
                Acknowledge::Never,
            ][(number * 2 + round) % 5];
            steps.push(drawn.small_write(acknowledge));
        }
        let tree = round / 15 % 3;
        match round % 15 {
            0 => steps.push(Step::Flush(tree)),
            1 => steps.extend([Step::Keep { at: 0, view: View::Durable }, Step::Flush(1)]),
            2 => steps.extend([Step::Flush(tree), Step::Compact(tree)]),
            3 => {
                // What is written last is not the parent's, which then has nothing to flush.
                let elsewhere = drawn.small_write_to((tree + 1) % 3, Acknowledge::Hold);
                steps.extend([Step::Flush(tree), elsewhere, drawn.fork_of(tree, 3), Step::Flush(3)]);
            }
            4 => steps.extend([Step::Release(0), Step::Compact(3)]),
            5 => steps.push(Step::Reopen(Ending::Drop)),
            6 => steps.extend([Step::DropTree(tree), drawn.create(tree)]),
            7 => steps.extend([Step::Compact(1), Step::Compact(4)]),
            8 => steps.push(Step::Reopen(Ending::PowerCut(round as u64))),
            9 => steps.extend([Step::Compact(3), Step::Compact(tree)]),
            10 => steps.extend([Step::DropTree(3), Step::DropTree(4), drawn.ingest_into(tree)]),
            11 => steps.push(drawn.restore_of(tree, 3)),
            12 => steps.extend([drawn.ingest_into(3), Step::Flush(3)]),
            13 => steps.extend([Step::Compact(3), Step::DropTree(3)]),
            _ => steps.push(Step::Reopen(Ending::Close)),
        }
    }
    steps
}
