//! Writes the pages: several MutateRows batches on their way, each of a few pages.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use row_api::client::RowClient;
use row_api::data::{Mutation, mutation};
use row_api::names::TableName;
use tokio::task::JoinSet;
use tonic::Status;
use walkdir::WalkDir;

use crate::page::{Page, row_key};
use crate::{Arguments, Outcome, timestamp_us};

/// Pages of a batch. With their links they are what is in memory, times the
/// batches in flight.
const BATCH_BYTES: u64 = 1 << 20;
const BATCH_PAGE_COUNT_MAX: usize = 64;

struct Source {
    path: PathBuf,
    bytes: u64,
    key: String,
}

struct Loaded {
    page_count: usize,
    bytes: u64,
    link_count: usize,
}

pub(crate) async fn load(
    client: &RowClient,
    table: &TableName,
    directory: &Path,
    arguments: &Arguments,
) -> Outcome<()> {
    let sources = walk(directory, &arguments.host, arguments.limit)?;
    let style = "{bar:40} {pos}/{len} pages  {per_sec}  {msg}  {eta} left";
    let bar = ProgressBar::new(sources.len() as u64).with_style(ProgressStyle::with_template(style)?);
    let (began, timestamp_us) = (Instant::now(), timestamp_us(SystemTime::now())?);
    let (mut total, mut running) = (Loaded { page_count: 0, bytes: 0, link_count: 0 }, JoinSet::new());
    let mut batches = batches(sources).into_iter();
    loop {
        while running.len() < usize::from(arguments.in_flight)
            && let Some(batch) = batches.next()
        {
            running.spawn(load_batch(client.clone(), table.clone(), batch, timestamp_us));
        }
        let Some(done) = running.join_next().await else { break };
        let done = done??;
        total.page_count += done.page_count;
        total.bytes += done.bytes;
        total.link_count += done.link_count;
        bar.inc(done.page_count as u64);
        bar.set_message(HumanBytes(total.bytes).to_string());
    }
    bar.finish_and_clear();
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{} pages, {}, {} links in {seconds:.1} s: {:.0} pages/s, {:.1} MB/s",
        HumanCount(total.page_count as u64),
        HumanBytes(total.bytes),
        HumanCount(total.link_count as u64),
        total.page_count as f64 / seconds,
        total.bytes as f64 / 1e6 / seconds,
    );
    Ok(())
}

fn walk(directory: &Path, host: &str, limit: usize) -> Outcome<Vec<Source>> {
    let mut sources = Vec::new();
    for entry in WalkDir::new(directory).sort_by_file_name() {
        let entry = entry?;
        if sources.len() < limit && entry.path().extension().is_some_and(|extension| extension == "html") {
            let url_path = entry.path().strip_prefix(directory)?.to_string_lossy().into_owned();
            let key = row_key(host, &url_path);
            sources.push(Source { bytes: entry.metadata()?.len(), path: entry.into_path(), key });
        }
    }
    Ok(sources)
}

fn batches(sources: Vec<Source>) -> Vec<Vec<Source>> {
    let mut batches: Vec<Vec<Source>> = Vec::new();
    let mut bytes = BATCH_BYTES;
    for source in sources {
        match batches.last_mut() {
            Some(batch) if bytes + source.bytes <= BATCH_BYTES && batch.len() < BATCH_PAGE_COUNT_MAX => {
                bytes += source.bytes;
                batch.push(source);
            }
            _ => {
                bytes = source.bytes;
                batches.push(vec![source]);
            }
        }
    }
    batches
}

async fn load_batch(
    client: RowClient,
    table: TableName,
    batch: Vec<Source>,
    timestamp_us: i64,
) -> Result<Loaded, Status> {
    let mut loaded =
        Loaded { page_count: batch.len(), bytes: batch.iter().map(|page| page.bytes).sum(), link_count: 0 };
    let rows = tokio::task::spawn_blocking(move || rows(batch, timestamp_us)).await;
    let rows = rows.map_err(|error| Status::internal(error.to_string()))??;
    let (keys, entries): (Vec<_>, Vec<_>) =
        rows.into_iter().map(|(key, mutations)| (key.clone(), (key.into_bytes(), mutations))).unzip();
    loaded.link_count =
        entries.iter().map(|(_, mutations)| mutations.len()).sum::<usize>() - 2 * loaded.page_count;
    let answers = client.mutate_rows(&table, entries).await?;
    for (key, answer) in keys.iter().zip(answers) {
        if let Err(status) = answer {
            return Err(Status::new(status.code(), format!("{key}: {}", status.message())));
        }
    }
    Ok(loaded)
}

/// What a batch of pages changes: its own rows, and those of the pages they link to.
fn rows(batch: Vec<Source>, timestamp_us: i64) -> std::io::Result<BTreeMap<String, Vec<Mutation>>> {
    let mut rows: BTreeMap<String, Vec<Mutation>> = BTreeMap::new();
    for source in batch {
        let html = String::from_utf8_lossy(&std::fs::read(&source.path)?).into_owned();
        let page = Page::parse(&source.key, &html);
        // A page that links twice to another has one anchor there: the first.
        let anchors: BTreeMap<_, _> = page.links.into_iter().rev().collect();
        for (target, text) in anchors {
            rows.entry(target).or_default().push(set("anchor", &source.key, text, timestamp_us));
        }
        let own = rows.entry(source.key).or_default();
        own.push(set("contents", "", html, timestamp_us));
        own.push(set("language", "", page.language.unwrap_or_default(), timestamp_us));
    }
    Ok(rows)
}

fn set(family: &str, qualifier: &str, value: String, timestamp_us: i64) -> Mutation {
    let cell = mutation::SetCell {
        family_name: family.to_owned(),
        column_qualifier: qualifier.as_bytes().to_vec().into(),
        timestamp_micros: timestamp_us,
        value: value.into_bytes().into(),
    };
    Mutation::from(mutation::Mutation::SetCell(cell))
}
