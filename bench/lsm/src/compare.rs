//! Rounds of each workload on each side in turn.
//!
//! Fills begin with an empty store each round; what the last round of
//! fillrandom left, compacted, is what the others read. Those that write come
//! last, and go on from what the ones before them left, on each side alike.

use clap::ValueEnum;

use crate::data_set::DataSet;
use crate::measure::Figures;
use crate::report::Report;
use crate::side::{Order, Side};
use crate::store::StoreKind;
use crate::workload::Workload;
use crate::{Outcome, Plan};

/// Runs the plan and prints what came of it.
pub(crate) fn compare(plan: &Plan) -> Outcome<()> {
    println!(
        "{} threads, median of {} rounds, {} cores, stores in {}",
        plan.threads,
        plan.rounds,
        std::thread::available_parallelism()?,
        plan.dir().display(),
    );
    let mut report = Report::default();
    for set in plan.data_sets() {
        compare_over(plan, &set, &mut report)?;
    }
    report.print_ratios();
    Ok(())
}

fn compare_over(plan: &Plan, set: &DataSet, report: &mut Report) -> Outcome<()> {
    report.begin(set);
    let (fills, others): (Vec<_>, Vec<_>) = Workload::value_variants()
        .iter()
        .filter(|workload| plan.runs(**workload) && (set.is_main() || !workload.writes()))
        .partition(|workload| workload.needs_empty_store());
    for workload in fills.iter().filter(|workload| **workload != Workload::FillRandom) {
        let rounds =
            rounds(plan, |kind, round| Side::start(plan, set, kind)?.ask(Order::Run(*workload, round)))?;
        report.add(set, *workload, &rounds);
    }
    // The others need its store, and what it took is known for nothing.
    let count = if fills.contains(&Workload::FillRandom) { plan.rounds } else { 1 };
    if others.is_empty() && !fills.contains(&Workload::FillRandom) {
        return Ok(());
    }
    let (rounds, mut sides) = fill(plan, set, count)?;
    if plan.runs(Workload::FillRandom) {
        report.add(set, Workload::FillRandom, &rounds);
    }
    if others.is_empty() {
        return Ok(());
    }
    for side in &mut sides {
        side.ask(Order::Compact)?;
    }
    for workload in others {
        let rounds = self::rounds(plan, |kind, round| {
            let side = sides.iter_mut().find(|side| side.kind == kind).expect("each kind has a side");
            side.ask(Order::Run(workload, round))
        })?;
        report.add(set, workload, &rounds);
    }
    Ok(())
}

/// What each side reached in its rounds, in the order of the plan's sides.
pub(crate) type Rounds = Vec<(StoreKind, Vec<Figures>)>;

fn rounds(plan: &Plan, mut round: impl FnMut(StoreKind, u8) -> Outcome<Figures>) -> Outcome<Rounds> {
    let mut rounds: Rounds = plan.sides().into_iter().map(|kind| (kind, Vec::new())).collect();
    for number in 0..plan.rounds {
        for (kind, figures) in &mut rounds {
            figures.push(round(*kind, number)?);
        }
    }
    Ok(rounds)
}

/// Fills stores in random order `count` times; the sides of the last time stay.
fn fill(plan: &Plan, set: &DataSet, count: u8) -> Outcome<(Rounds, Vec<Side>)> {
    let mut rounds: Rounds = plan.sides().into_iter().map(|kind| (kind, Vec::new())).collect();
    let mut sides = Vec::new();
    for number in 0..count {
        for (kind, figures) in &mut rounds {
            let mut side = Side::start(plan, set, *kind)?;
            figures.push(side.ask(Order::Run(Workload::FillRandom, number))?);
            if number + 1 == count {
                sides.push(side);
            }
        }
    }
    Ok((rounds, sides))
}
