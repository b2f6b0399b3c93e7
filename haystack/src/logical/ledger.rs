//! What the coordinator of logical volumes must not forget, behind a trait: in
//! tables of the system instance (`tables`), or in memory for tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::photo_id::{Cookie, PhotoKey, VolumeId};
use crate::stores::identity::StoreId;

/// A logical volume, as it is written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRecord {
    /// Replicas that it is to have.
    pub replica_count: usize,
    /// Stores whose replica is complete. Others that announce one are not believed.
    pub members: BTreeSet<StoreId>,
    /// Whether it has its size.
    pub sealed: bool,
    /// Whether an operator keeps photos from it.
    pub read_only: bool,
}

/// The tombstone of one photo, which some stores have not taken yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Debt {
    /// The photo's cookie.
    pub cookie: Cookie,
    /// The stores that still have to take it.
    pub stores: BTreeSet<StoreId>,
}

/// Debts by volume and key.
pub type Debts = BTreeMap<(VolumeId, PhotoKey), Debt>;

/// Everything that is written down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pages {
    /// The logical volumes.
    pub volumes: BTreeMap<VolumeId, VolumeRecord>,
    /// Tombstones that stores lack.
    pub debts: Debts,
    /// Stores that an operator keeps photos from.
    pub read_only_stores: BTreeSet<StoreId>,
}

/// The coordinator's memory. What it takes is durable when it returns.
#[async_trait]
pub trait Ledger: Send + Sync + fmt::Debug {
    /// Whether it answers.
    fn is_ready(&self) -> bool;

    /// All there is; resolves once the ledger answers.
    async fn load(&self) -> Result<Pages>;

    /// Writes down a logical volume.
    async fn put_volume(&self, volume: VolumeId, record: &VolumeRecord) -> Result<()>;

    /// Writes down debts; one that no store has any more is struck out.
    async fn put_debts(&self, debts: &Debts) -> Result<()>;

    /// Writes down whether an operator keeps photos from a store.
    async fn put_store(&self, store: StoreId, read_only: bool) -> Result<()>;
}
