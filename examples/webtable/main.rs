//! The Webtable of the Bigtable paper (section 2), from real pages.
//!
//! Walks a directory of HTML, writes a row a page under its reversed URL with
//! the families `contents`, `language` and `anchor`, and then asks it a few
//! questions. Any Bigtable will do:
//!
//! ```sh
//! cargo run --release -- serve &
//! cargo run --release --example webtable
//! ```

mod load;
mod page;
mod questions;

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;
use row_api::admin::{ColumnFamily, CreateTableRequest, GcRule, Table, gc_rule::Rule};
use row_api::client::{RowClient, connect_lazy};
use row_api::names::{InstanceName, TableName};
use tonic::Code;
use tonic::transport::Endpoint;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Loads web pages into a Bigtable and asks it about them.
#[derive(Debug, Parser)]
struct Arguments {
    /// A directory of HTML; the Rust documentation of the toolchain if absent.
    directory: Option<PathBuf>,
    /// Where the Bigtable listens.
    #[arg(long, env = "BIGTABLE_EMULATOR_HOST", default_value = "127.0.0.1:8086")]
    address: String,
    /// The host that serves the pages.
    #[arg(long, default_value = "doc.rust-lang.org")]
    host: String,
    /// Loads at most so many pages; 0 only asks.
    #[arg(long, default_value_t = usize::MAX, hide_default_value = true)]
    limit: usize,
    /// Batches on their way at once.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=64))]
    in_flight: u8,
    /// Asks for the pages below this path.
    #[arg(long, default_value = "std/vec/")]
    below: String,
    /// Asks who links to this page.
    #[arg(long, default_value = "std/vec/struct.Vec.html")]
    page: String,
    /// Asks for contents written in the last so many seconds; since the load began if absent.
    #[arg(long)]
    since: Option<u64>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("webtable: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Outcome<()> {
    let directory = match &arguments.directory {
        Some(directory) => directory.clone(),
        None => toolchain_documentation()?,
    };
    let endpoint =
        Endpoint::from_shared(format!("http://{}", arguments.address))?.http2_adaptive_window(true);
    let client = RowClient::new(connect_lazy(&endpoint));
    let instance = InstanceName { project: "web".to_owned(), instance: "crawl".to_owned() };
    let table = TableName { instance, table: "webtable".to_owned() };
    create_table(&client, &table).await?;

    let began = SystemTime::now();
    if arguments.limit > 0 {
        load::load(&client, &table, &directory, &arguments).await?;
    }
    let since =
        arguments.since.map_or(Some(began), |seconds| began.checked_sub(Duration::from_secs(seconds)));
    let pages = page::row_key(&arguments.host, &arguments.below);
    let target = page::row_key(&arguments.host, &arguments.page);
    questions::pages_below(&client, &table, &pages).await?;
    questions::who_links_to(&client, &table, &target).await?;
    questions::contents_since(&client, &table, &pages, since.unwrap_or(UNIX_EPOCH)).await
}

/// The toolchain installs thousands of pages.
fn toolchain_documentation() -> Outcome<PathBuf> {
    let printed = Command::new("rustc").args(["--print", "sysroot"]).output()?.stdout;
    let directory = PathBuf::from(String::from_utf8(printed)?.trim()).join("share/doc/rust/html");
    if directory.is_dir() {
        Ok(directory)
    } else {
        Err(format!(
            "{} is missing; `rustup component add rust-docs`, or name a directory",
            directory.display()
        )
        .into())
    }
}

async fn create_table(client: &RowClient, name: &TableName) -> Outcome<()> {
    let family = |versions| ColumnFamily {
        gc_rule: Some(GcRule { rule: Some(Rule::MaxNumVersions(versions)) }),
        ..ColumnFamily::default()
    };
    let families = [("contents", 3), ("anchor", 1), ("language", 1)];
    let column_families =
        families.into_iter().map(|(name, versions)| (name.to_owned(), family(versions))).collect();
    let request = CreateTableRequest {
        parent: name.instance.to_string(),
        table_id: name.table.clone(),
        table: Some(Table { column_families, ..Table::default() }),
        ..CreateTableRequest::default()
    };
    match client.table_admin().create_table(request).await {
        Err(status) if status.code() != Code::AlreadyExists => Err(status.into()),
        _ => Ok(()),
    }
}

/// A cell's timestamp: µs, whole milliseconds, as Bigtable tables count.
fn timestamp_us(time: SystemTime) -> Outcome<i64> {
    Ok(i64::try_from(time.duration_since(UNIX_EPOCH)?.as_millis())? * 1000)
}
