//! MutateRows: entries grouped by tablet, applied at once, answered by their places.

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use tonic::Status;

use super::locator::{Location, Place};
use super::router::{Attempts, Router};
use crate::catalog::Table;
use crate::error::{Error, Result};
use crate::mutation::RowMutations;
use crate::row_server::RowsOutcome;

/// Tablets that one request writes to at a time.
const TABLETS_AT_ONCE: usize = 16;

/// A row of a request, with its place there.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its place in the request.
    pub place: usize,
    /// What to apply.
    pub row: RowMutations,
}

/// Rows that one tablet takes.
struct Group {
    location: Arc<Location>,
    places: Vec<usize>,
    rows: Vec<RowMutations>,
}

/// Applies `entries`, each atomically and durably, and tells `answer` each one's
/// place and outcome.
pub async fn apply(
    router: &Router,
    table: &Table,
    mut entries: Vec<Entry>,
    answer: &mut (impl FnMut(usize, &std::result::Result<(), Status>) + Send),
) {
    let mut attempts = Attempts::new();
    while !entries.is_empty() {
        let mut refused = Refused::default();
        let groups = group(router, table, entries, &mut refused, answer).await;
        let mut applying = stream::iter(groups.into_iter().map(send)).buffer_unordered(TABLETS_AT_ONCE);
        while let Some((group, outcomes)) = applying.next().await {
            settle(router, group, outcomes, &mut refused, answer);
        }
        let Some(error) = refused.error else { return };
        entries = refused.entries;
        entries.sort_unstable_by_key(|entry| entry.place);
        if let Err(error) = attempts.pause(router, table, error).await {
            let outcome = Err(error.into());
            entries.iter().for_each(|entry| answer(entry.place, &outcome));
            return;
        }
    }
}

/// Entries that were refused before the log, and why the last of them was.
#[derive(Default)]
struct Refused {
    entries: Vec<Entry>,
    error: Option<Error>,
}

async fn send(group: Group) -> (Group, Result<Vec<RowsOutcome>>) {
    let outcomes = group.location.server.mutate_rows(group.location.tablet, &group.rows).await;
    (group, outcomes)
}

/// Sorts `entries` by their tablets, as far as those are known.
async fn group(
    router: &Router,
    table: &Table,
    entries: Vec<Entry>,
    refused: &mut Refused,
    answer: &mut (impl FnMut(usize, &std::result::Result<(), Status>) + Send),
) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut last = 0;
    for entry in entries {
        let key = entry.row.row_key();
        // Requests tend to be sorted, or to be of few tablets.
        let known = match groups.get(last) {
            Some(group) if group.location.range.contains(key) => Some(last),
            _ => groups.iter().position(|group| group.location.range.contains(key)),
        };
        last = match known {
            Some(known) => known,
            None => match router.locator().locate(table.id, Place::At(key)).await {
                Ok(location) => {
                    groups.push(Group { location, places: Vec::new(), rows: Vec::new() });
                    groups.len() - 1
                }
                Err(error @ (Error::NotServed { .. } | Error::NoTablet)) => {
                    refused.entries.push(entry);
                    refused.error = Some(error);
                    continue;
                }
                Err(error) => {
                    answer(entry.place, &Err(error.into()));
                    continue;
                }
            },
        };
        groups[last].places.push(entry.place);
        groups[last].rows.push(entry.row);
    }
    groups
}

/// Answers for a group's rows, or puts them with the refused.
fn settle(
    router: &Router,
    group: Group,
    outcomes: Result<Vec<RowsOutcome>>,
    refused: &mut Refused,
    answer: &mut impl FnMut(usize, &std::result::Result<(), Status>),
) {
    let Group { location, places, rows } = group;
    let outcomes =
        outcomes.unwrap_or_else(|error| vec![RowsOutcome { rows: 0..rows.len(), result: Err(error) }]);
    let mut entries = places.into_iter().zip(rows).map(|(place, row)| Entry { place, row });
    for RowsOutcome { rows, result } in outcomes {
        let of_outcome = entries.by_ref().take(rows.len());
        match result {
            Err(error @ Error::NotServed { .. }) => {
                router.locator().forget(&location);
                refused.entries.extend(of_outcome);
                refused.error = Some(error);
            }
            result => {
                let outcome = result.map_err(Status::from);
                of_outcome.for_each(|entry| answer(entry.place, &outcome));
            }
        }
    }
}
