//! Others serve the tablets of a server that is gone.
//!
//! A server is gone when it has lost its lock. One whose log takes no more writes
//! still reads, so it is treated as gone only while another is well. The
//! lock is taken under a new epoch, so that it cannot act any more, and what
//! it held recovered: all that it acknowledged. Then each of its tablets moves to
//! another server, METADATA's before all others, by [`crate::replacement`]; nobody
//! has to be held, as nobody is served. The recovered server, which has no
//! tablets any more, is as good as a new one. Where there is no other server, it
//! serves its tablets itself.

use std::collections::BTreeSet;
use std::sync::Arc;

use cluster::ServerId;
use tablet_server::control::Health;
use tablet_server::metadata::TabletRecord;
use tablet_server::schema::TabletId;

use crate::assignment::{Cluster, Event};
use crate::error::Result;
use crate::master::Master;
use crate::replacement::Level;
use crate::tables::to_its_end;

impl Master {
    /// Has others serve the tablets of servers that are gone; to be called each second or so.
    ///
    /// # Errors
    ///
    /// [`Error`](crate::Error): tablets of a server are still out of reach, and the next call goes on.
    pub async fn fail_over(self: &Arc<Self>) -> Result<()> {
        let master = Arc::clone(self);
        to_its_end(async move {
            let mut cluster = master.cluster.lock().await;
            for server in master.lost_servers(&cluster) {
                tracing::error!(%server, "a tablet server is gone: others take its tablets over");
                master.replace_server(&mut cluster, server).await?;
            }
            Ok(())
        })
        .await
    }

    /// Servers that are known or own tablets, and do not serve as they should.
    fn lost_servers(&self, cluster: &Cluster) -> BTreeSet<ServerId> {
        let owners = cluster.tablets().filter_map(|tablet| tablet.server.clone());
        let all: BTreeSet<ServerId> = owners.chain(cluster.servers().cloned()).collect();
        let health = |server: &ServerId| match self.servers.rows(server) {
            Some(_) if cluster.is_live(server) => {
                self.servers.control(server).map_or(Health::Gone, |control| control.health())
            }
            _ => Health::Gone,
        };
        let some_are_well =
            all.iter().any(|server| health(server) == Health::Well && !self.servers.is_leaving(server));
        let is_lost = |server: &ServerId| match health(server) {
            Health::Well => false,
            Health::ReadOnly => some_are_well,
            Health::Gone => true,
        };
        all.into_iter().filter(is_lost).collect()
    }

    async fn replace_server(&self, cluster: &mut Cluster, server: ServerId) -> Result<()> {
        cluster.learn(Event::ServerLost { server: server.clone() }, self.new_epoch().await?);
        self.recovery.recover(&server).await?;
        for level in [Level::Root, Level::Metadata, Level::Tables] {
            self.settle_replacements_of(cluster, level).await?;
            let is_there = |tablet: &&TabletRecord| {
                tablet.server.as_ref() == Some(&server) && Level::of(tablet) == level
            };
            let tablets: Vec<TabletId> =
                cluster.tablets().filter(is_there).map(|tablet| tablet.tablet).collect();
            for tablet in tablets {
                let Some(to) = cluster.place(1).pop() else { break };
                self.relocate(cluster, tablet, to).await?;
            }
        }
        self.recovery.welcome(&server);
        let is_leaving = self.servers.is_leaving(&server);
        let found = Event::ServerFound { server, is_leaving, serving: Default::default() };
        let actions = cluster.learn(found, self.new_epoch().await?);
        self.carry_out(cluster, actions).await
    }
}
