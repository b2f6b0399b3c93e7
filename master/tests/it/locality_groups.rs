//! Locality groups: families that are stored apart and move between groups,
//! while every request is answered as without them.

use std::path::Path;
use std::sync::Arc;

use cluster::ServerId;
use master::MasterOptions;
use master::locality_group_rules::{GroupChange, has_moves};
use row_api::data::ReadRowsRequest;
use row_api::names::TableName;
use row_api::row::Row;
use tablet_server::schema::{FamilyPlace, GroupId};
use tonic::Code;
use vfs::SimulatedFileSystem;
use vfs::simulated::FaultPlan;

use crate::replacements::{open, user_tablets};
use crate::requests::{FAMILIES, Random, create, filter, mutations, rows_request};
use crate::splits::{DIR, ROWS};
use crate::stack::{Stack, name, set};

pub fn group(name: &str, families: &[&str]) -> GroupChange {
    let families = families.iter().map(|name| (*name).to_owned()).collect();
    GroupChange { name: name.to_owned(), families, ..GroupChange::default() }
}

/// Changes a group, and goes on until its families are there.
async fn set_group(stack: &Stack, table: &TableName, change: GroupChange) {
    stack.master.set_locality_group(table.clone(), change).await.unwrap();
    while has_moves(&stack.master.table(table).await.unwrap()) {
        stack.master.place_families().await.unwrap();
    }
}

async fn place(stack: &Stack, table: &TableName, family: &str) -> FamilyPlace {
    stack.master.table(table).await.unwrap().place(family)
}

/// The table's family `family` is in no other group than that of this number.
async fn assert_in(stack: &Stack, table: &TableName, family: &str, number: u32) {
    let expected = FamilyPlace { group: GroupId(number), moving_to: None };
    assert_eq!(place(stack, table, family).await, expected);
}

/// Bytes of the memtables and SSTables of the trees of locality group `number`.
fn group_bytes(stack: &Stack, number: u64) -> u64 {
    let servers = stack.fleet.servers();
    let trees = servers.iter().flat_map(|server| server.engine().trees());
    let of_group = trees.filter(|tree| tree.id().0 >> 48 == if number == 0 { 0 } else { number + 1 });
    of_group.map(|tree| tree.stats().memtable_bytes + tree.stats().sstable_bytes).sum()
}

async fn all_rows(stack: &Stack, table: &TableName) -> Vec<Row> {
    let request = ReadRowsRequest { table_name: table.to_string(), ..ReadRowsRequest::default() };
    stack.rows(request).await.unwrap()
}

fn both(row: &str, value: &str) -> (Vec<u8>, Vec<row_api::data::Mutation>) {
    (row.as_bytes().to_vec(), vec![set("f", "q", value), set("g", "q", value)])
}

async fn fill(stack: &Stack, table: &TableName) {
    // Some blocks full of them.
    let rows = ROWS.map(|row| both(row, &row.repeat(4_000))).to_vec();
    assert!(stack.client.mutate_rows(table, rows).await.unwrap().iter().all(Result::is_ok));
}

#[tokio::test]
async fn a_family_with_cells_moves_and_its_group_goes_once_it_is_empty() {
    let fs = SimulatedFileSystem::new();
    let stack = open(&fs, 1, MasterOptions::default()).await.unwrap();
    let table = stack.create("t", &["c"]).await;
    fill(&stack, &table).await;
    let before = all_rows(&stack, &table).await;
    assert_eq!((before.len(), group_bytes(&stack, 1)), (ROWS.len(), 0));
    set_group(&stack, &table, group("meta", &["g"])).await;
    assert_in(&stack, &table, "g", 1).await;
    assert!(group_bytes(&stack, 1) > 0);
    assert_eq!(all_rows(&stack, &table).await, before);

    let refused = stack.master.delete_locality_group(table.clone(), "meta".to_owned()).await.unwrap_err();
    assert_eq!(tonic::Status::from(refused).code(), Code::FailedPrecondition);
    set_group(&stack, &table, group("default", &["g"])).await;
    assert_in(&stack, &table, "g", 0).await;
    assert_eq!(all_rows(&stack, &table).await, before);
    stack.master.delete_locality_group(table.clone(), "meta".to_owned()).await.unwrap();
    assert_eq!(group_bytes(&stack, 1), 0);
    stack.close().await;

    let stack = open(&fs.power_cut(0), 1, MasterOptions::default()).await.unwrap();
    assert_eq!(all_rows(&stack, &table).await, before);
    stack.close().await;
}

#[tokio::test]
async fn what_families_leave_behind_is_hidden_and_then_dropped() {
    let fs = SimulatedFileSystem::new();
    let stack = open(&fs, 1, MasterOptions::default()).await.unwrap();
    let table = stack.create("t", &[]).await;
    fill(&stack, &table).await;
    for target in ["meta", "default", "meta"] {
        set_group(&stack, &table, group(target, &["g"])).await;
        // One row goes; it must not come back from where the family was before.
        let row = if target == "default" { "a" } else { "b" };
        let deletion = row_api::data::mutation::Mutation::DeleteFromRow(Default::default());
        stack.client.mutate_row(&table, row.as_bytes(), vec![deletion.into()]).await.unwrap();
    }
    assert_eq!(stack.keys(&table).await, ROWS[2..]);
    for tree in stack.server.engine().trees() {
        tree.compact().unwrap();
    }
    assert_eq!(stack.keys(&table).await, ROWS[2..]);
    set_group(&stack, &table, group("meta", &["f"])).await;
    assert_in(&stack, &table, "f", 1).await;
    for tree in stack.server.engine().trees() {
        tree.compact().unwrap();
    }
    assert_eq!(group_bytes(&stack, 0), group_bytes_of_metadata(&stack));
    assert_eq!(all_rows(&stack, &table).await.iter().map(|row| row.cells.len()).collect::<Vec<_>>(), [2; 6]);
    stack.close().await;
}

fn group_bytes_of_metadata(stack: &Stack) -> u64 {
    let user: Vec<_> = user_tablets(stack).into_iter().map(|(_, tablet)| tablet.tablet.0).collect();
    let trees = stack.server.engine().trees();
    let of_metadata = trees.iter().filter(|tree| tree.id().0 >> 48 == 0 && !user.contains(&tree.id().0));
    of_metadata.map(|tree| tree.stats().memtable_bytes + tree.stats().sstable_bytes).sum()
}

#[tokio::test]
async fn families_created_later_and_tablets_without_a_groups_tree_are_no_exception() {
    let fs = SimulatedFileSystem::new();
    let stack = open(&fs, 2, MasterOptions::default()).await.unwrap();
    let table = stack.create("t", &["c"]).await;
    set_group(&stack, &table, group("meta", &["g"])).await;
    fill(&stack, &table).await;
    let before = all_rows(&stack, &table).await;
    // All tablets to one server, one of them into halves, and all together again.
    let to = ServerId("tablet-server-2".to_owned());
    for (server, tablet) in user_tablets(&stack) {
        if server != to {
            stack.master.move_tablet(tablet.tablet, to.clone()).await.unwrap();
        }
    }
    assert_eq!(all_rows(&stack, &table).await, before);
    stack.master.split_tablet(user_tablets(&stack)[1].1.tablet).await.unwrap();
    assert_eq!(user_tablets(&stack).len(), 3);
    assert_eq!(all_rows(&stack, &table).await, before);
    while let [(_, left), (_, right), ..] = &user_tablets(&stack)[..] {
        stack.master.merge_tablets(left.tablet, right.tablet).await.unwrap();
    }
    assert_eq!(user_tablets(&stack).len(), 1);
    assert_eq!(all_rows(&stack, &table).await, before);
    stack.close().await;
}

#[tokio::test]
async fn blocks_of_a_group_in_memory_are_there_after_a_start() {
    let fs = SimulatedFileSystem::new();
    let stack = open(&fs, 1, MasterOptions::default()).await.unwrap();
    let table = stack.create("t", &[]).await;
    let change = GroupChange { in_memory: Some(true), ..group("hot", &["g"]) };
    set_group(&stack, &table, change).await;
    fill(&stack, &table).await;
    assert_eq!(stack.server.engine().stats().kept_block_bytes, 0, "it is in a memtable");
    for tree in stack.server.engine().trees() {
        tree.flush().unwrap();
    }
    let kept = stack.server.engine().stats().kept_block_bytes;
    assert!(kept > 0);
    stack.close().await;
    let stack = open(&fs.power_cut(0), 1, MasterOptions::default()).await.unwrap();
    assert_eq!(all_rows(&stack, &table).await.len(), ROWS.len());
    // Read or loaded, whichever came first.
    assert_eq!(stack.server.engine().stats().kept_block_bytes, kept);
    stack.close().await;
}

/// Has both tables asked the same, and compares the answers.
async fn compare(stack: &Stack, random: &mut Random, tables: &[TableName; 2], case: &str) {
    let asked = rows_request(random);
    let mut answers = Vec::new();
    for table in tables {
        let request = ReadRowsRequest { table_name: table.to_string(), ..asked.clone() };
        answers.push(stack.rows(request).await.map_err(|status| status.code()));
    }
    assert_eq!(answers[0], answers[1], "{case}: {asked:?}");
}

/// Changes both tables alike.
async fn change(stack: &Stack, random: &mut Random, tables: &[TableName; 2], case: &str) {
    let row = ROWS[random.below(ROWS.len())].as_bytes().to_vec();
    if random.below(4) > 0 {
        let rows: Vec<_> = (0..=random.below(3))
            .map(|_| (ROWS[random.below(ROWS.len())].as_bytes().to_vec(), mutations(random)))
            .collect();
        for table in tables {
            let outcomes = stack.client.mutate_rows(table, rows.clone()).await.unwrap();
            assert!(outcomes.iter().all(Result::is_ok), "{case}: {outcomes:?}");
        }
        return;
    }
    let (predicate, on_match, otherwise) = (filter(random, 3), mutations(random), mutations(random));
    let mut matched = Vec::new();
    for table in tables {
        let request = row_api::data::CheckAndMutateRowRequest {
            table_name: table.to_string(),
            row_key: row.clone().into(),
            predicate_filter: Some(predicate.clone()),
            true_mutations: on_match.clone(),
            false_mutations: otherwise.clone(),
            ..row_api::data::CheckAndMutateRowRequest::default()
        };
        let answer = stack.client.data().check_and_mutate_row(request).await;
        matched
            .push(answer.map(|answer| answer.into_inner().predicate_matched).map_err(|status| status.code()));
    }
    assert_eq!(matched[0], matched[1], "{case}: {predicate:?}");
}

/// Changes groups or tablets of the first table, or starts the servers anew.
async fn stir(stack: Stack, random: &mut Random, fs: &mut SimulatedFileSystem, table: &TableName) -> Stack {
    let tablets = user_tablets(&stack);
    let (server, tablet) = &tablets[random.below(tablets.len())];
    match random.below(12) {
        0..=4 => {
            let target = ["default", "one", "two"][random.below(3)];
            let family = FAMILIES[random.below(FAMILIES.len())];
            let change = GroupChange {
                is_raw: Some(random.below(2) == 0),
                block_bytes: Some([0, 256, 4096][random.below(3)]),
                in_memory: Some(random.below(2) == 0),
                ..group(target, &[family])
            };
            stack.master.set_locality_group(table.clone(), change).await.unwrap();
        }
        5 => drop(stack.master.split_tablet(tablet.tablet).await),
        6 => {
            let numbers = [1, 2].map(|number| ServerId(format!("tablet-server-{number}")));
            let other = numbers.into_iter().find(|other| other != server).unwrap();
            stack.master.move_tablet(tablet.tablet, other).await.unwrap();
        }
        7 => {
            for pair in tablets.windows(2) {
                stack.master.merge_tablets(pair[0].1.tablet, pair[1].1.tablet).await.unwrap();
            }
        }
        8 => {
            for tree in stack.fleet.servers().iter().flat_map(|server| server.engine().trees()) {
                // Some tree may have been dropped meanwhile.
                drop(if random.below(2) == 0 { tree.flush() } else { tree.compact() });
            }
        }
        9 => {
            drop(stack);
            *fs = fs.power_cut(random.next());
            return open(fs, 2, MasterOptions::default()).await.unwrap();
        }
        _ => stack.master.place_families().await.unwrap(),
    }
    stack
}

#[tokio::test]
async fn a_table_with_groups_answers_every_request_as_one_without() {
    for seed in 1..=12 {
        let mut random = Random::new(seed);
        let mut fs = SimulatedFileSystem::new();
        let mut stack = open(&fs, 2, MasterOptions::default()).await.unwrap();
        let tables = [create(&stack, "grouped", &["c", "f"]).await, create(&stack, "plain", &[]).await];
        for step in 0..150 {
            let case = format!("seed {seed}, step {step}");
            match random.below(10) {
                0..=3 => change(&stack, &mut random, &tables, &case).await,
                4 => stack = stir(stack, &mut random, &mut fs, &tables[0]).await,
                _ => compare(&stack, &mut random, &tables, &case).await,
            }
        }
        assert_eq!(all_rows(&stack, &tables[0]).await, all_rows(&stack, &tables[1]).await, "seed {seed}");
        stack.close().await;
    }
}

#[tokio::test]
async fn a_crash_anywhere_in_a_move_leaves_the_family_whole() {
    let disk = SimulatedFileSystem::new();
    let stack = open(&disk, 1, MasterOptions::default()).await.unwrap();
    let table = stack.create("t", &["c"]).await;
    fill(&stack, &table).await;
    let before = all_rows(&stack, &table).await;
    stack.close().await;
    for cut in 0.. {
        let fs = disk.power_cut(0);
        let stack = open(&fs, 1, MasterOptions::default()).await.unwrap();
        let begun = fs.operation_count();
        fs.set_faults(FaultPlan { cut_at: Some(begun + cut), ..FaultPlan::default() });
        let moved = stack.master.set_locality_group(table.clone(), group("meta", &["g"])).await.is_ok();
        // What is written meanwhile goes to both.
        let written = stack.client.mutate_row(&table, b"z", both("z", "z").1).await.is_ok();
        let is_past = fs.operation_count() <= begun + cut;
        drop(stack);

        let fs = fs.power_cut(cut);
        let stack = Stack::open_on(Arc::new(fs.clone()), Path::new(DIR), |_| {}).await.unwrap();
        let case = format!("cut at {cut}");
        let mut rows = all_rows(&stack, &table).await;
        assert!(rows.len() == ROWS.len() || rows.len() == ROWS.len() + 1, "{case}");
        assert!(!written || rows.len() == ROWS.len() + 1, "{case}");
        assert!(rows.iter().all(|row| row.cells.len() == 2), "{case}: half a row");
        while has_moves(&stack.master.table(&table).await.unwrap()) {
            stack.master.place_families().await.unwrap();
        }
        let after = all_rows(&stack, &table).await;
        assert_eq!(after, rows, "{case}: once it is moved");
        rows.truncate(ROWS.len());
        assert_eq!(rows, before, "{case}");
        assert_eq!(place(&stack, &table, "g").await.moving_to, None, "{case}");
        if moved {
            assert_in(&stack, &table, "g", 1).await;
        }
        stack.close().await;
        if is_past {
            assert!(moved && written && cut > 10, "{case}");
            return;
        }
    }
}

#[tokio::test]
async fn groups_come_back_with_a_deleted_table() {
    let fs = SimulatedFileSystem::new();
    let stack = open(&fs, 1, MasterOptions::default()).await.unwrap();
    let table = stack.create("t", &["c"]).await;
    set_group(&stack, &table, group("meta", &["g"])).await;
    fill(&stack, &table).await;
    let before = all_rows(&stack, &table).await;
    let trees = stack.server.engine().trees().len();
    stack.master.delete_table(table.clone()).await.unwrap();
    let operation = stack.master.undelete_table(table.clone()).await.unwrap();
    while !stack.operation(&operation.name).await.unwrap().done {
        tokio::task::yield_now().await;
    }
    assert_in(&stack, &name("t"), "g", 1).await;
    assert_eq!(all_rows(&stack, &table).await, before);
    assert_eq!(stack.server.engine().trees().len(), trees);
    stack.put(&table, "new", "v").await;
    assert_eq!(all_rows(&stack, &table).await.len(), ROWS.len() + 1);
    stack.close().await;
}
