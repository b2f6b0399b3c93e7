//! Opening an engine's directory.
//!
//! In this order: the log is sealed, so that nobody adds to it any more;
//! manifests are read and made durable; tables that none of them names are
//! deleted; the log is read, and each write that is beyond its tree's redo
//! point applied to the tree's memtable, which is flushed whenever memtables
//! outgrow their budget; a new segment is begun.
//! A crash at any point leaves what was there, to be recovered again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use parking_lot::{Mutex, RwLock};

use crate::background::Signals;
use crate::batch::Operations;
use crate::commit_log::CommitLog;
use crate::commit_log::files::LogFiles;
use crate::commit_log::replay::{Place, Replayed, replay};
use crate::commit_log::segment::{EXTENSION, Record};
use crate::compaction::threads::CompactionThreads;
use crate::core::{Admin, Core, Lag, apply_part};
use crate::error::Damage;
use crate::file_id::{FileId, FileIds};
use crate::flush::{self, FlushPace};
use crate::gate::WriteGate;
use crate::layout::Layout;
use crate::log_store::LogStore;
use crate::manifest::{self, Manifest};
use crate::memtable::retired::RetiredMemtables;
use crate::rate_limit::RateLimit;
use crate::snapshot::SnapshotList;
use crate::stats::Counters;
use crate::tables::Tables;
use crate::tables::sweeper::TABLE_EXTENSION;
use crate::tables::table_ref::TableRef;
use crate::tree::TreeCore;
use crate::version::Version;
use crate::{Error, Options, Result, TreeId};

/// Refuses an epoch that is not greater than those of all files.
fn check_epoch(layout: &Layout, fs: &dyn vfs::FileSystem, log: &dyn LogStore, epoch: u64) -> Result<()> {
    let mut ids = log.list()?;
    ids.extend(manifest::list(fs, &layout.manifests)?);
    let tables = fs.list(&layout.tables)?;
    ids.extend(tables.iter().filter_map(|name| FileId::parse(name, TABLE_EXTENSION)));
    match ids.iter().map(|id| id.epoch).max() {
        Some(found) if found >= epoch => Err(Error::StaleEpoch { given: epoch, found }),
        _ => Ok(()),
    }
}

/// Opens the engine in `dir`, whose log is in `store`, or in files if that is none.
pub(crate) fn open(
    fs: Arc<dyn vfs::FileSystem>,
    dir: &Path,
    epoch: u64,
    options: Options,
    store: Option<Arc<dyn LogStore>>,
) -> Result<Core> {
    options.check()?;
    let layout = Layout::create(&*fs, dir)?;
    let lock = fs.lock(&layout.lock).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => Error::Locked { dir: dir.to_owned() },
        _ => error.into(),
    })?;
    let store = store
        .unwrap_or_else(|| Arc::new(LogFiles::new(Arc::clone(&fs), &layout.log, options.log_segment_bytes)));
    check_epoch(&layout, &*fs, &*store, epoch)?;
    // From here on nobody else adds to what is read.
    store.seal_before(epoch)?;

    let ids = Arc::new(FileIds::new(epoch));
    let tables = Tables::new(Arc::clone(&fs), &layout.tables, Arc::clone(&ids), &options);
    let manifests = manifest::recover(&fs, &layout.manifests, &ids)?;
    let (dropped, live): (Vec<_>, Vec<_>) =
        manifests.into_iter().partition(|manifest| manifest.record().dropped_at.is_some());
    let named = live.iter().flat_map(|manifest| manifest.record().tables.keys().copied());
    tables.sweeper().sweep_orphans(&named.collect::<HashSet<_>>())?;

    let known = live.iter().chain(&dropped).map(|manifest| manifest.record().sequence_max());
    let known_sequence = known.max().unwrap_or(0);
    let redo_point = live.iter().map(|manifest| manifest.record().redo_point).max().unwrap_or(0);
    let mut recovered = Recovery {
        budget: options.memtable_bytes_max / 2,
        dropped: dropped.iter().map(|manifest| manifest.record().tree).collect(),
        trees: open_trees(live, &tables, &options)?,
        tables: &tables,
        memtable_bytes: 0,
    };
    let replayed = recovered.replay_log(&*store)?;
    check_log_end(&replayed, redo_point, &layout.log)?;
    let (trees, memtable_bytes) = (recovered.trees, recovered.memtable_bytes);
    tables.sweeper().sweep();

    let next_sequence = known_sequence.max(replayed.last_sequence) + 1;
    let log = CommitLog::start(store, Arc::clone(&ids), &options, replayed, next_sequence)?;
    Ok(Core {
        fs,
        manifests_dir: layout.manifests,
        ids,
        compaction_threads: CompactionThreads::new(options.compaction_thread_count()),
        rate_limit: RateLimit::new(options.background_bytes_per_s),
        options,
        tables,
        log,
        snapshots: SnapshotList::default(),
        gate: WriteGate::default(),
        signals: Signals::default(),
        counters: Counters::default(),
        trees: RwLock::new(trees),
        admin: Mutex::new(Admin { dropped, lock: Some(lock) }),
        active_bytes: AtomicUsize::new(memtable_bytes),
        frozen_bytes: AtomicUsize::new(0),
        checkpointing: Mutex::new(()),
        ingests_in_wait: AtomicUsize::new(0),
        retired: RetiredMemtables::default(),
        flush_pace: FlushPace::default(),
        lag: Lag::default(),
        running_inline: Mutex::new(()),
    })
}

/// Verifies that the log reaches as far as the greatest of the trees' redo
/// points, up to which it was durable before tables were. Where it does not, its
/// last frame was not torn by a power cut: to go on would leave batches half there.
fn check_log_end(replayed: &Replayed, redo_point: u64, log_dir: &Path) -> Result<()> {
    match replayed.segments.back() {
        Some(last) if replayed.last_sequence < redo_point => {
            let file = last.id.path(log_dir, EXTENSION);
            Err(Damage("the log ends before what is in tables").at(&file, last.bytes))
        }
        _ => Ok(()),
    }
}

fn open_trees(
    manifests: Vec<Manifest>,
    tables: &Tables,
    options: &Options,
) -> Result<BTreeMap<TreeId, Arc<TreeCore>>> {
    let mut trees = BTreeMap::new();
    // A file that several trees share is opened once.
    let mut by_file: HashMap<FileId, Arc<TableRef>> = HashMap::new();
    for manifest in manifests {
        let mut opened = Vec::with_capacity(manifest.record().tables.len());
        for (id, record) in &manifest.record().tables {
            let table = match by_file.get(id) {
                Some(table) => table.shared(record.clone()),
                None => tables.open(record.clone())?,
            };
            by_file.entry(*id).or_insert_with(|| Arc::clone(&table));
            opened.push(table);
        }
        let (id, format) = (manifest.record().tree, &manifest.record().format);
        let operator = options.merge_operator(id, format)?;
        let tree = TreeCore::new(manifest, Version::new(opened), operator);
        trees.insert(tree.id, Arc::new(tree));
    }
    Ok(trees)
}

/// Trees that the log is applied to.
struct Recovery<'a> {
    trees: BTreeMap<TreeId, Arc<TreeCore>>,
    dropped: HashSet<TreeId>,
    tables: &'a Tables,
    budget: usize,
    memtable_bytes: usize,
}

impl Recovery<'_> {
    fn replay_log(&mut self, store: &dyn LogStore) -> Result<Replayed> {
        replay(store, |record, place| self.apply(record, place))
    }

    fn apply(&mut self, record: Record<'_>, place: Place<'_>) -> Result<()> {
        let mut seen = Vec::new();
        for operation in Operations::new(record.batch) {
            let operation = operation.map_err(|damage| place.damage(damage.0))?;
            if !operation.is_marker() && !seen.contains(&operation.tree) {
                seen.push(operation.tree);
            }
        }
        for id in seen {
            match self.trees.get(&id) {
                // A batch lies on one side of a redo point whole.
                Some(tree) if record.first_sequence > tree.redo_point() => {
                    let active = Arc::clone(&tree.state().active);
                    self.memtable_bytes += apply_part(&active, id, record.batch, record.first_sequence);
                }
                Some(_) => {}
                None if self.dropped.contains(&id) => {}
                None => return Err(place.damage("a batch writes to a tree that has no manifest")),
            }
        }
        if self.memtable_bytes >= self.budget {
            self.flush_largest(record.last_sequence())?;
        }
        Ok(())
    }

    /// Flushes the largest memtable; all of the log up to `redo_point` is applied.
    fn flush_largest(&mut self, redo_point: u64) -> Result<()> {
        let largest = self.trees.values().max_by_key(|tree| tree.state().active.bytes());
        let Some(tree) = largest.filter(|tree| !tree.state().active.is_empty()) else { return Ok(()) };
        tree.freeze(redo_point);
        let frozen = tree.state().frozen.first().cloned().expect("one was just frozen");
        // Nobody reads yet: there are no snapshots.
        let tables = flush::write_out(self.tables, tree, &frozen, Vec::new(), &|_| Ok(()))?;
        flush::install(tree, &frozen, &tables)?;
        self.memtable_bytes -= frozen.memtable.bytes();
        Ok(())
    }
}
