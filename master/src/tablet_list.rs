//! All tablets, as operators see them, and what they ask for by hand.

use std::sync::Arc;

use cluster::ServerId;
use tablet_server::control::TabletStats;
use tablet_server::schema::TabletId;
use tonic::Status;

use crate::error::Result;
use crate::master::Master;

/// A tablet that is served.
#[derive(Clone, Debug)]
pub struct TabletStatus {
    /// Its server.
    pub server: ServerId,
    /// Its table's name.
    pub table: String,
    /// Its figures.
    pub stats: TabletStats,
}

impl Master {
    /// The tablets that are served, each table's in the order of their rows.
    ///
    /// # Errors
    ///
    /// [`Error`](crate::Error): a server does not answer.
    pub async fn tablet_list(&self) -> Result<Vec<TabletStatus>> {
        let mut tablets = Vec::new();
        for server in self.servers.controls() {
            for stats in server.tablets().await? {
                let table = self.catalog().by_id(stats.assignment.table);
                let table = table.map(|table| table.name.to_string()).unwrap_or_default();
                tablets.push(TabletStatus { server: server.id().clone(), table, stats });
            }
        }
        let place = |tablet: &TabletStatus| {
            (tablet.stats.assignment.table, tablet.stats.assignment.range.start.clone())
        };
        tablets.sort_by_key(place);
        Ok(tablets)
    }

    /// Splits a tablet into halves, whatever its size.
    ///
    /// # Errors
    ///
    /// NOT_FOUND, FAILED_PRECONDITION where it holds too little to be parted, or [`Error`](crate::Error).
    pub async fn split_tablet(self: &Arc<Self>, tablet: TabletId) -> Result<()> {
        for server in self.servers.controls() {
            let is_there = server.tablets().await?.iter().any(|stats| stats.assignment.tablet == tablet);
            if is_there {
                let Some(proposal) = server.split_by_size(tablet).await? else {
                    let why = format!("tablet {} holds too little to be parted", tablet.0);
                    return Err(Status::failed_precondition(why).into());
                };
                return self.split(proposal).await;
            }
        }
        Err(absent(tablet).into())
    }
}

/// The refusal of a tablet's number that there is not.
pub(crate) fn absent(tablet: TabletId) -> Status {
    Status::not_found(format!("there is no tablet {}; it may have another number by now", tablet.0))
}
