use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use master::MasterOptions;
use row_api::admin;
use row_api::data::mutation::{DeleteFromRow, Mutation as Kind};
use row_api::data::read_change_stream_request::StartFrom;
use row_api::data::read_change_stream_response::{CloseStream, DataChange, StreamRecord};
use row_api::data::row_range::{EndKey, StartKey};
use row_api::data::{
    self, CheckAndMutateRowRequest, Mutation, ReadChangeStreamRequest, RowRange, StreamContinuationTokens,
    StreamPartition,
};
use row_api::names::TableName;
use tablet_server::TabletServerOptions;
use tablet_server::control::{TabletControl, TabletStats};
use tablet_server::metadata::METADATA_TABLE;
use tonic::{Code, Status};
use vfs::SimulatedFileSystem;
use vfs::simulated::FaultPlan;

use crate::rows::increment;
use crate::splits::DIR;
use crate::stack::{INSTANCE, Stack, set};

const DAY: i64 = 24 * 60 * 60;
const ROWS: [&str; 6] = ["a", "d", "h", "m", "r", "x"];

/// What was done to each row, in order, in a few words a change.
type History = BTreeMap<String, Vec<String>>;

async fn open(
    fs: &SimulatedFileSystem,
    tablet_bytes_max: u64,
) -> Result<Stack, Box<dyn std::error::Error + Send + Sync>> {
    let adjust = |options: &mut TabletServerOptions| options.tablet_bytes_max = tablet_bytes_max;
    Stack::open_on(Arc::new(fs.clone()), Path::new(DIR), adjust).await
}

fn kept(days: i64) -> Option<admin::ChangeStreamConfig> {
    let retention_period = Some(prost_types::Duration { seconds: days * DAY, nanos: 0 });
    Some(admin::ChangeStreamConfig { retention_period })
}

/// Creates the table `t`, with a change stream.
async fn create(stack: &Stack) -> TableName {
    let families = [("f".to_owned(), admin::ColumnFamily::default())].into();
    let table =
        admin::Table { column_families: families, change_stream_config: kept(1), ..admin::Table::default() };
    let request = admin::CreateTableRequest {
        parent: INSTANCE.to_owned(),
        table_id: "t".to_owned(),
        table: Some(table),
        ..admin::CreateTableRequest::default()
    };
    let created = stack.client.table_admin().create_table(request).await.unwrap().into_inner();
    assert_eq!(created.change_stream_config, kept(1));
    TableName::parse("name", &created.name).unwrap()
}

async fn update(stack: &Stack, table: &TableName, config: Option<admin::ChangeStreamConfig>) {
    let request = admin::UpdateTableRequest {
        table: Some(admin::Table {
            name: table.to_string(),
            change_stream_config: config,
            ..admin::Table::default()
        }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["change_stream_config".to_owned()] }),
        ..admin::UpdateTableRequest::default()
    };
    stack.client.table_admin().update_table(request).await.unwrap();
}

fn all_rows() -> StreamPartition {
    let range = RowRange {
        start_key: Some(StartKey::StartKeyClosed("".into())),
        end_key: Some(EndKey::EndKeyOpen("".into())),
    };
    StreamPartition { row_range: Some(range) }
}

/// All of `table` from `start` on and up to now.
fn request(table: &TableName, start: SystemTime) -> ReadChangeStreamRequest {
    ReadChangeStreamRequest {
        table_name: table.to_string(),
        partition: Some(all_rows()),
        start_from: Some(StartFrom::StartTime(start.into())),
        end_time: Some(SystemTime::now().into()),
        ..ReadChangeStreamRequest::default()
    }
}

fn words(mutation: &Kind) -> String {
    match mutation {
        Kind::SetCell(cell) if cell.column_qualifier == "n" => {
            format!("n={}", i64::from_be_bytes(cell.value.as_ref().try_into().unwrap()))
        }
        Kind::SetCell(cell) => format!("{}", String::from_utf8_lossy(&cell.value)),
        Kind::DeleteFromRow(_) => "deleted".to_owned(),
        other => format!("{other:?}"),
    }
}

fn note(history: &mut History, change: &DataChange) {
    assert!(change.done && !change.token.is_empty());
    let words: Vec<_> = change
        .chunks
        .iter()
        .map(|chunk| words(chunk.mutation.as_ref().unwrap().mutation.as_ref().unwrap()))
        .collect();
    let row = String::from_utf8(change.row_key.to_vec()).unwrap();
    history.entry(row).or_default().push(words.join(","));
}

/// Reads one stream to its end.
async fn read(
    stack: &Stack,
    request: ReadChangeStreamRequest,
    history: &mut History,
) -> Result<CloseStream, Status> {
    let mut stream = stack.client.data().read_change_stream(request).await?.into_inner();
    let mut last = None;
    while let Some(message) = stream.message().await? {
        match message.stream_record.unwrap() {
            StreamRecord::DataChange(change) => {
                let committed = change.commit_timestamp.map(|time| (time.seconds, time.nanos));
                assert!(committed >= last, "commit timestamps go backwards");
                last = committed;
                note(history, &change);
            }
            StreamRecord::Heartbeat(heartbeat) => assert!(heartbeat.continuation_token.is_some()),
            StreamRecord::CloseStream(close) => {
                assert!(stream.message().await?.is_none(), "something follows the end");
                return Ok(close);
            }
        }
    }
    Err(Status::internal("the stream has no end"))
}

/// Reads on over splits until all streams have come to their end.
async fn read_all(stack: &Stack, first: ReadChangeStreamRequest) -> Result<History, Status> {
    let mut history = History::new();
    let mut open = vec![first];
    while let Some(request) = open.pop() {
        let close = read(stack, request.clone(), &mut history).await?;
        let status = close.status.unwrap();
        assert_eq!(status.code == 0, close.new_partitions.is_empty(), "{status:?}");
        assert_eq!(close.new_partitions.len(), close.continuation_tokens.len());
        for (partition, token) in close.new_partitions.into_iter().zip(close.continuation_tokens) {
            let tokens = StreamContinuationTokens { tokens: vec![token] };
            open.push(ReadChangeStreamRequest {
                partition: Some(partition),
                start_from: Some(StartFrom::ContinuationTokens(tokens)),
                ..request.clone()
            });
        }
    }
    Ok(history)
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % end
    }
}

fn delete() -> Mutation {
    Kind::DeleteFromRow(DeleteFromRow {}).into()
}

/// Does something at random, and notes what was acknowledged.
async fn act(stack: &Stack, table: &TableName, random: &mut Random, number: usize, history: &mut History) {
    let row = ROWS[random.below(ROWS.len())];
    let value = format!("v{number}");
    let mut note = |row: &str, words: String| history.entry(row.to_owned()).or_default().push(words);
    match random.below(8) {
        0 => {
            stack
                .client
                .mutate_row(table, row.as_bytes(), vec![delete(), set("f", "q", &value)])
                .await
                .unwrap();
            note(row, format!("deleted,{value}"));
        }
        1 => {
            let there = stack.client.read_row(table, row.as_bytes()).await.unwrap().is_some();
            let request = CheckAndMutateRowRequest {
                table_name: table.to_string(),
                row_key: row.into(),
                true_mutations: vec![delete()],
                false_mutations: vec![set("f", "q", &value)],
                ..CheckAndMutateRowRequest::default()
            };
            stack.client.data().check_and_mutate_row(request).await.unwrap();
            note(row, if there { "deleted".to_owned() } else { value });
        }
        2 => {
            let before = stack.client.read_row(table, row.as_bytes()).await.unwrap();
            let before = before.and_then(|row| {
                let cell = row.cell("f", b"n")?;
                Some(i64::from_be_bytes(cell.value.as_ref().try_into().unwrap()))
            });
            increment(&stack.client, &table.to_string(), row).await;
            note(row, format!("n={}", before.unwrap_or(0) + 1));
        }
        3 if number.is_multiple_of(5) => {
            let there = stack.keys(table).await;
            let range = tablet_server::row_set::RowRange { start: "d".into(), end: "n".into() };
            stack.master.drop_row_range(table.clone(), range).await.unwrap();
            let gone = there.iter().filter(|row| ("d".."n").contains(&row.as_str()));
            gone.for_each(|row| note(row, "deleted".to_owned()));
        }
        4 => {
            let entries = ROWS[..3].iter().map(|row| data::mutate_rows_request::Entry {
                row_key: (*row).into(),
                mutations: vec![set("f", "q", &value)],
                ..data::mutate_rows_request::Entry::default()
            });
            let request = data::MutateRowsRequest {
                table_name: table.to_string(),
                entries: entries.collect(),
                ..data::MutateRowsRequest::default()
            };
            let mut answer = stack.client.data().mutate_rows(request).await.unwrap().into_inner();
            while let Some(message) = answer.message().await.unwrap() {
                assert!(message.entries.iter().all(|entry| entry.status.as_ref().unwrap().code == 0));
            }
            ROWS[..3].iter().for_each(|row| note(row, value.clone()));
        }
        _ => {
            stack.client.mutate_row(table, row.as_bytes(), vec![set("f", "q", &value)]).await.unwrap();
            note(row, value);
        }
    }
}

#[tokio::test]
async fn joined_streams_tell_every_acknowledged_change_in_order() {
    for seed in 0..4 {
        let mut fs = SimulatedFileSystem::new();
        let mut random = Random(seed);
        let mut history = History::new();
        let mut stack = open(&fs, 1).await.unwrap();
        let table = create(&stack).await;
        let start = SystemTime::now();
        let mut tablet_count = 1;
        for number in 0..120 {
            act(&stack, &table, &mut random, number, &mut history).await;
            match random.below(25) {
                0 => stack.master.split_large_tablets().await.unwrap(),
                1 => {
                    stack.close().await;
                    fs = fs.power_cut(seed);
                    stack = open(&fs, 1).await.unwrap();
                }
                2 => assert_eq!(read_all(&stack, request(&table, start)).await.unwrap(), history, "{seed}"),
                _ => {}
            }
            tablet_count = tablet_count.max(stack.boundaries(&table).await.len());
        }
        assert!(tablet_count > 1, "{seed}");
        assert_eq!(read_all(&stack, request(&table, start)).await.unwrap(), history, "{seed}");
        stack.close().await;
    }
}

#[tokio::test]
async fn a_power_cut_leaves_rows_and_their_changes_alike() {
    for cut in (0..).step_by(3) {
        let fs = SimulatedFileSystem::new();
        let stack = open(&fs, 1).await.unwrap();
        let table = create(&stack).await;
        let start = SystemTime::now();
        stack.put(&table, "a", "first").await;
        let begun = fs.operation_count();
        fs.set_faults(FaultPlan { cut_at: Some(begun + cut), ..FaultPlan::default() });
        let mut acknowledged = History::from([("a".to_owned(), vec!["first".to_owned()])]);
        for number in 0..12 {
            let (row, value) = (ROWS[number % 3], format!("v{number}"));
            let written = stack.client.mutate_row(&table, row.as_bytes(), vec![set("f", "q", &value)]).await;
            if written.is_err() {
                break;
            }
            acknowledged.entry(row.to_owned()).or_default().push(value);
            // Writers of a tablet that cannot be split, for its disk is gone, may wait for ever.
            if number == 6 && stack.master.split_large_tablets().await.is_err() {
                break;
            }
        }
        let is_past = fs.operation_count() <= begun + cut;
        drop(stack);

        let case = format!("cut at {cut}");
        let stack =
            open(&fs.power_cut(cut), u64::MAX).await.unwrap_or_else(|error| panic!("{case}: {error}"));
        let found =
            read_all(&stack, request(&table, start)).await.unwrap_or_else(|error| panic!("{case}: {error}"));
        for row in ROWS {
            let found = found.get(row).cloned().unwrap_or_default();
            let acknowledged = acknowledged.get(row).cloned().unwrap_or_default();
            assert!(found.starts_with(&acknowledged), "{case}: {found:?} after {acknowledged:?}");
            assert!(found.len() <= acknowledged.len() + 1, "{case}: {found:?} after {acknowledged:?}");
            assert_eq!(stack.value(&table, row).await.as_ref(), found.last(), "{case}");
        }
        stack.put(&table, "a", "after").await;
        let found = read_all(&stack, request(&table, start)).await.unwrap();
        assert_eq!(found["a"].last().unwrap(), "after", "{case}");
        stack.close().await;
        if is_past {
            assert!(cut > 10);
            return;
        }
    }
}

#[tokio::test]
async fn a_stream_tells_of_changes_as_they_come_and_between_them_that_there_are_none() {
    let fs = SimulatedFileSystem::new();
    let stack = open(&fs, u64::MAX).await.unwrap();
    let table = create(&stack).await;
    let request = ReadChangeStreamRequest {
        table_name: table.to_string(),
        partition: Some(all_rows()),
        heartbeat_duration: Some(prost_types::Duration { seconds: 0, nanos: 100_000_000 }),
        ..ReadChangeStreamRequest::default()
    };
    let mut stream = stack.client.data().read_change_stream(request.clone()).await.unwrap().into_inner();
    let mut next = async || stream.message().await.unwrap().unwrap().stream_record.unwrap();
    let StreamRecord::Heartbeat(heartbeat) = next().await else { panic!("no heartbeat") };
    let before = heartbeat.continuation_token.unwrap();
    for value in ["1", "2", "3"] {
        stack.put(&table, "a", value).await;
        let change = loop {
            if let StreamRecord::DataChange(change) = next().await {
                break change;
            }
        };
        let mut history = History::new();
        note(&mut history, &change);
        assert_eq!(history["a"], [value]);
    }
    // From an earlier token all comes again.
    let tokens = StreamContinuationTokens { tokens: vec![before] };
    let again = ReadChangeStreamRequest {
        start_from: Some(StartFrom::ContinuationTokens(tokens)),
        end_time: Some(SystemTime::now().into()),
        ..request
    };
    assert_eq!(read_all(&stack, again).await.unwrap()["a"], ["1", "2", "3"]);
    // A stream has no end but this.
    stack.router.end_streams();
    let status = loop {
        if let Err(status) = stream.message().await {
            break status;
        }
    };
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    stack.close().await;
}

#[tokio::test]
async fn a_stream_is_enabled_changed_and_disabled_while_its_table_is_written_to() {
    let fs = SimulatedFileSystem::new();
    let stack = open(&fs, u64::MAX).await.unwrap();
    let table = stack.create("t", &["m"]).await;
    stack.put(&table, "a", "before").await;
    let refused = read_all(&stack, request(&table, SystemTime::now())).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");

    for round in ["first", "second"] {
        let earlier = SystemTime::now();
        update(&stack, &table, kept(1)).await;
        let start = SystemTime::now();
        stack.put(&table, "a", round).await;
        update(&stack, &table, kept(7)).await;
        stack.put(&table, "z", round).await;
        let found = read_all(&stack, request(&table, start)).await.unwrap();
        assert_eq!((found["a"].join(" "), found["z"].join(" ")), (round.to_owned(), round.to_owned()));
        let refused = read_all(&stack, request(&table, earlier)).await.unwrap_err();
        assert_eq!(refused.code(), Code::OutOfRange, "{refused}");

        update(&stack, &table, None).await;
        let refused = read_all(&stack, request(&table, start)).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        stack.put(&table, "a", "between").await;
    }
    stack.close().await;
    let stack = open(&fs.power_cut(0), u64::MAX).await.unwrap();
    assert_eq!(stack.value(&table, "a").await.unwrap(), "between");
    stack.close().await;
}

#[tokio::test]
async fn a_value_too_long_for_a_message_comes_in_pieces() {
    let fs = SimulatedFileSystem::new();
    let stack = open(&fs, u64::MAX).await.unwrap();
    let table = create(&stack).await;
    let start = SystemTime::now();
    let long = "v".repeat(3 << 20);
    stack.put(&table, "a", &long).await;
    let mut stream =
        stack.client.data().read_change_stream(request(&table, start)).await.unwrap().into_inner();
    let (mut value, mut is_done) = (0, false);
    while let Some(message) = stream.message().await.unwrap() {
        let Some(StreamRecord::DataChange(change)) = message.stream_record else { break };
        for chunk in change.chunks {
            let Some(Kind::SetCell(cell)) = chunk.mutation.unwrap().mutation else { panic!("no cell") };
            assert_eq!(usize::try_from(chunk.chunk_info.unwrap().chunked_value_offset).unwrap(), value);
            value += cell.value.len();
        }
        is_done = change.done;
    }
    assert!(is_done && value == long.len());
    stack.close().await;
}

#[tokio::test]
async fn a_stream_follows_its_tablet_from_server_to_server() {
    let fs = SimulatedFileSystem::new();
    let options = MasterOptions::default();
    let stack = Stack::open_fleet(Arc::new(fs.clone()), Path::new(DIR), 2, |_| {}, options).await.unwrap();
    let table = create(&stack).await;
    let start = SystemTime::now();
    let endless = ReadChangeStreamRequest { end_time: None, ..request(&table, start) };
    let mut stream = stack.client.data().read_change_stream(endless).await.unwrap().into_inner();
    let mut servers = Vec::new();
    for round in 0..4 {
        stack.put(&table, "a", &format!("{round}")).await;
        let change = loop {
            let message = stream.message().await.unwrap().unwrap();
            match message.stream_record.unwrap() {
                StreamRecord::DataChange(change) => break change,
                StreamRecord::Heartbeat(_) => {}
                StreamRecord::CloseStream(close) => panic!("{close:?}"),
            }
        };
        let mut history = History::new();
        note(&mut history, &change);
        assert_eq!(history["a"], [round.to_string()]);
        let is_tables = |stats: &TabletStats| stats.assignment.table != METADATA_TABLE;
        let (from, stats) = stack.served().into_iter().find(|(_, stats)| is_tables(stats)).unwrap();
        let others = stack.fleet.servers();
        let to = others.iter().map(|server| TabletControl::id(&**server)).find(|id| **id != from).unwrap();
        stack.master.move_tablet(stats.assignment.tablet, to.clone()).await.unwrap();
        servers.push(from);
    }
    assert!(servers.windows(2).all(|pair| pair[0] != pair[1]));
    assert_eq!(read_all(&stack, request(&table, start)).await.unwrap()["a"], ["0", "1", "2", "3"]);
    stack.close().await;
}
