//! What the picker picks, case by case.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use vfs::SimulatedFileSystem;

use super::picker::{Moment, Pick, debt_bytes, due, pick, pick_all};
use crate::file_id::FileId;
use crate::internal_key::Kind;
use crate::manifest::TableRecord;
use crate::range_tombstone::RangeTombstone;
use crate::sstable::TableOptions;
use crate::sstable::testing::{key, open_table, write_table};
use crate::tables::sweeper::Sweeper;
use crate::tables::table_ref::TableRef;
use crate::version::Version;
use crate::{KeyRange, Options};

/// A version of the tables that each line describes: `name level start-end MiB`,
/// and, as they apply, `deletes=COUNT` and `range=start-end` of what it deletes.
/// Later lines are newer.
fn version(lines: &str) -> (Version, Vec<String>) {
    let fs = SimulatedFileSystem::new();
    let sweeper = Arc::new(Sweeper::new(Arc::new(fs.clone()), Path::new("/")));
    let mut names = Vec::new();
    let mut tables = Vec::new();
    for (line, sequence) in lines.lines().map(str::trim).filter(|line| !line.is_empty()).zip(1..) {
        let mut words = line.split_whitespace();
        let mut word = || words.next().expect("a word");
        names.push(word().to_owned());
        let level = word()[1..].parse().expect("a level");
        let key_range = range(word());
        let mib: u64 = word().parse().expect("a number");
        let (mut deletes, mut tombstones) = (0, Vec::new());
        for option in words {
            match option.split_once('=').expect("an option") {
                ("deletes", count) => deletes = count.parse().expect("a number"),
                (_, deleted) => {
                    let KeyRange { start, end } = range(deleted);
                    tombstones.push(RangeTombstone { start, end, sequence });
                }
            }
        }
        let put = (key(&key_range.start, sequence, Kind::Put), Vec::new());
        let deletes = (0..deletes).map(|i: u32| {
            let user_key = [&key_range.start[..], &i.to_be_bytes()].concat();
            (key(&user_key, sequence, Kind::Delete), Vec::new())
        });
        let entries: Vec<_> = std::iter::once(put).chain(deletes).collect();
        let id = FileId { epoch: 1, number: sequence };
        let path = id.path(Path::new("/"), "sst");
        write_table(&fs, &path, &TableOptions::default(), &entries, &tombstones);
        let table = open_table(&fs, &path).expect("opens");
        let record = TableRecord {
            id,
            level,
            file_bytes: mib << 20,
            sequence_min: sequence,
            sequence_max: sequence,
            assigned_sequence: None,
            key_range,
        };
        tables.push(TableRef::new(record, table, &sweeper));
    }
    (Version::new(tables), names)
}

fn range(text: &str) -> KeyRange {
    let (start, end) = text.split_once('-').expect("a range");
    KeyRange { start: Bytes::copy_from_slice(start.as_bytes()), end: Bytes::copy_from_slice(end.as_bytes()) }
}

/// The pick as text: the inputs of each level, and where they go.
fn shown(pick: Option<&Pick>, names: &[String]) -> String {
    let Some(pick) = pick else { return "nothing".to_owned() };
    let name = |table: &Arc<TableRef>| names[usize::try_from(table.id().number).expect("small") - 1].as_str();
    let inputs = pick.inputs.iter().filter(|tables| !tables.is_empty());
    let inputs: Vec<_> = inputs.map(|tables| tables.iter().map(name).collect::<Vec<_>>().join(" ")).collect();
    let verb = if pick.is_move { "moves to" } else { "into" };
    format!("{} {verb} L{}", inputs.join(" + "), pick.output_level)
}

fn check_at(moment: Moment, lines: &str, expected: &str) {
    let (version, names) = version(lines);
    let due = due(&version, &Options::default(), moment);
    let picked = due.and_then(|due| pick(&version, due));
    assert_eq!(shown(picked.as_ref(), &names), expected, "{lines}");
}

fn check(lines: &str, expected: &str) {
    check_at(Moment::default(), lines, expected);
}

#[test]
fn level_0_is_due_by_its_count_and_goes_to_the_base() {
    check("", "nothing");
    check("a L0 a-z 16\n b L0 a-z 16\n c L0 a-z 16", "nothing");
    check("a L0 a-z 16\n b L0 a-z 16\n c L0 a-z 16\n d L0 a-z 16", "d c b a into L6");
    check("a L0 a-c 9\n b L0 d-f 9\n c L0 g-h 9\n d L0 k-m 9", "d c b a moves to L6");
    check(
        "o L6 a-f 60\n p L6 x-z 4\n a L0 a-c 9\n b L0 d-f 9\n c L0 g-h 9\n d L0 k-m 9",
        "d c b a + o into L6",
    );
    // More than one level's worth below: a level above it takes what level 0 gives.
    check("o L6 a-z 600\n a L0 a-z 9\n b L0 a-z 9\n c L0 a-z 9\n d L0 a-z 9", "d c b a into L5");
    check(
        "o L6 a-z 6000\n a L0 a-z 9\n b L0 a-z 9\n c L0 a-z 9\n d L0 a-z 9",
        "d c b a into L5".replace('5', "4").as_str(),
    );
}

#[test]
fn nothing_overtakes_what_is_older_and_higher() {
    // From before levels were sized from the lowest up.
    check("o L2 a-z 30\n a L0 a-z 9\n b L0 a-z 9\n c L0 a-z 9\n d L0 a-z 9", "o moves to L6");
    let many: String = (0..8).map(|i| format!("t{i} L0 a-z 9\n")).collect();
    check(&format!("o L2 a-z 30\n{many}"), "t7 t6 t5 t4 t3 t2 t1 t0 + o into L2");
}

#[test]
fn a_level_over_its_bound_gives_the_table_that_costs_least() {
    check("o L6 a-k 300\n p L6 k-z 300\n a L5 a-k 32\n b L5 k-l 40", "b + p into L6");
    check("o L6 a-k 300\n p L6 k-z 300\n a L5 a-k 32\n b L5 k-l 20", "nothing");
    check("o L6 a-k 600\n a L5 a-k 32\n b L5 m-n 40", "b moves to L6");
}

#[test]
fn tables_of_deletes_go_down_until_they_are_nothing() {
    check("o L6 a-k 60\n a L0 a-k 1 deletes=5000", "a + o into L6");
    check("o L6 a-k 60\n a L0 a-k 1 deletes=500", "nothing");
    check("o L6 a-k 600\n a L5 a-k 1 deletes=5000", "a + o into L6");
    check("o L6 a-k 60 deletes=5000", "o into L6");
    // Deletes are not dropped by a move to where nothing is below.
    check("o L6 a-k 600\n a L5 m-n 1 deletes=5000", "a into L5");
    let held = |oldest_snapshot| Moment { oldest_snapshot: Some(oldest_snapshot), is_idle: false };
    check_at(held(1), "o L6 a-k 60 deletes=5000", "o into L6");
    check_at(held(0), "o L6 a-k 60 deletes=5000", "nothing");
    check_at(held(1), "o L6 a-k 60\n a L0 a-k 1 deletes=5000", "nothing");
}

#[test]
fn range_deletes_are_due_by_what_they_cover() {
    check("o L6 b-k 60\n a L0 a-z 1 range=a-z", "a + o into L6");
    check("o L6 b-k 600\n a L5 a-z 1 range=a-z", "a + o into L6");
    check("o L6 b-k 600\n a L5 a-z 1 range=l-z", "nothing");
}

#[test]
fn space_is_given_back_when_there_is_nothing_else_to_do() {
    let lines = "o L6 a-z 300\n a L5 a-z 29\n b L0 a-z 20\n c L0 a-z 20";
    check(lines, "nothing");
    check_at(Moment { is_idle: true, ..Moment::default() }, lines, "a + o into L6");
    let lines = "o L6 a-z 300\n a L5 a-z 10\n b L0 a-z 20\n c L0 a-z 20";
    check_at(Moment { is_idle: true, ..Moment::default() }, lines, "nothing");
}

#[test]
fn all_go_to_the_lowest_level() {
    let (version, names) = version("o L6 a-z 300\n a L5 a-z 29\n b L0 a-z 20");
    assert_eq!(shown(pick_all(&version).as_ref(), &names), "b + a + o into L6");
    assert!(pick_all(&Version::default()).is_none());
}

#[test]
fn debt_is_what_has_to_be_rewritten_and_grows_with_level_0() {
    let debt = |lines: &str| debt_bytes(&version(lines).0, &Options::default()) >> 20;
    let below = "o L6 a-z 600\n p L5 a-z 60\n".to_owned();
    assert_eq!(debt(&below), 0);
    let mut before = 0;
    for count in 1..12 {
        let l0: String = (0..count).map(|i| format!("t{i} L0 a-z 16\n")).collect();
        let debt = debt(&format!("{below}{l0}"));
        assert!(if count < 4 { debt == 0 } else { debt > before }, "{count}: {debt}");
        before = debt;
    }
}
