//! A thundering herd: 1,000 clients miss one key at the same moment.
//!
//! ```sh
//! cargo run --release -- serve &
//! cargo run --release --example thundering_herd [MEMCACHED [BIGTABLE [CONSOLE]]]
//! ```
//!
//! First the way of plain memcached: everybody who misses asks the origin and
//! sets what it found. Then one key with a route, `row:<table>:<row>:<family>:<qualifier>`:
//! who misses waits for the one read that the cache makes for all, so the origin
//! is asked once ("Scaling Memcache at Facebook", NSDI 2013, section 3.2.1, says
//! what a herd does and how leases tame it). Then somebody writes the row by the
//! row API, and the herd sees the new value.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use row_api::admin::{ColumnFamily, CreateTableRequest, Table};
use row_api::client::{RowClient, connect_lazy};
use row_api::data::mutation::{Mutation, SetCell};
use row_api::names::TableName;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const CLIENT_COUNT: usize = 1_000;
const TABLE: &str = "projects/any/instances/any/tables/herd";
const KEY: &str = "row:projects/any/instances/any/tables/herd:hot:f:q";

struct Client(BufReader<TcpStream>);

impl Client {
    async fn connect(address: &str) -> Outcome<Self> {
        Ok(Self(BufReader::new(TcpStream::connect(address).await?)))
    }

    async fn ask(&mut self, command: &str) -> Outcome<String> {
        self.0.write_all(command.as_bytes()).await?;
        let mut line = String::new();
        self.0.read_line(&mut line).await?;
        Ok(line.trim_end().to_owned())
    }

    async fn get(&mut self, key: &str) -> Outcome<Option<String>> {
        let line = self.ask(&format!("get {key}\r\n")).await?;
        let mut words = line.split(' ');
        match words.next() {
            Some("END") => return Ok(None),
            Some("VALUE") => {}
            _ => return Err(line.into()),
        }
        let mut value = vec![0; words.nth(2).unwrap_or("0").parse::<usize>()? + "\r\nEND\r\n".len()];
        self.0.read_exact(&mut value).await?;
        Ok(Some(String::from_utf8(value)?.split("\r\n").next().unwrap_or_default().to_owned()))
    }
}

/// Has all clients read `key` at once, and those who miss read the row and set it; what they got.
async fn stampede(
    address: &str,
    key: &'static str,
    rows: &RowClient,
    table: &Arc<TableName>,
) -> Outcome<String> {
    let (mut clients, asked) = (Vec::new(), Arc::new(AtomicU64::new(0)));
    for _ in 0..CLIENT_COUNT {
        clients.push(Client::connect(address).await?);
    }
    let (started, mut herd) = (Instant::now(), tokio::task::JoinSet::new());
    for mut client in clients {
        let (rows, table, asked) = (rows.clone(), Arc::clone(table), Arc::clone(&asked));
        herd.spawn(async move {
            if let Some(value) = client.get(key).await? {
                return Outcome::Ok(value);
            }
            asked.fetch_add(1, Ordering::Relaxed);
            let row = rows.read_row(&table, b"hot").await?.ok_or("there is no row")?;
            let value = String::from_utf8(row.cell("f", b"q").ok_or("there is no cell")?.value.to_vec())?;
            client.ask(&format!("set {key} 0 0 {}\r\n{value}\r\n", value.len())).await?;
            Ok(value)
        });
    }
    let mut values = std::collections::BTreeSet::new();
    while let Some(value) = herd.join_next().await {
        values.insert(value??);
    }
    let (asked, ms) = (asked.load(Ordering::Relaxed), started.elapsed().as_millis());
    Ok(format!("{CLIENT_COUNT} clients got {values:?} in {ms} ms; {asked} of them asked the origin"))
}

/// The cells that the cache has read from its origin so far.
fn cells_read(console: &str) -> Outcome<u64> {
    let metrics = ureq::get(format!("http://{console}/metrics")).call()?.body_mut().read_to_string()?;
    let series = metrics.lines().find(|line| line.starts_with("hayloft_cache_origin_keys_total"));
    Ok(series.and_then(|line| line.rsplit(' ').next()).map_or(Ok(0), str::parse)?)
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let mut words = std::env::args().skip(1);
    let mut address = |default: &str| words.next().unwrap_or(default.to_owned());
    let (memcached, bigtable, console) =
        (address("127.0.0.1:11211"), address("127.0.0.1:8086"), address("127.0.0.1:8081"));
    let rows = RowClient::new(connect_lazy(&format!("http://{bigtable}").parse::<http::Uri>()?.into()));
    let table = Arc::new(TableName::parse("table", TABLE)?);
    let families = [("f".to_owned(), ColumnFamily::default())].into();
    let request = CreateTableRequest {
        parent: table.instance.to_string(),
        table_id: table.table.clone(),
        table: Some(Table { column_families: families, ..Table::default() }),
        ..CreateTableRequest::default()
    };
    if let Err(status) = rows.table_admin().create_table(request).await {
        println!("the table: {}", status.message());
    }
    for (value, key) in [("first", "hot"), ("second", KEY), ("third", KEY)] {
        let set = SetCell {
            family_name: "f".into(),
            column_qualifier: "q".into(),
            timestamp_micros: -1,
            value: value.into(),
        };
        rows.mutate_row(&table, b"hot", vec![Mutation::SetCell(set).into()]).await?;
        tokio::time::sleep(Duration::from_millis(1500)).await;
        Client::connect(&memcached).await?.ask("delete hot\r\n").await?;
        let before = cells_read(&console)?;
        println!("{key}: {}", stampede(&memcached, key, &rows, &table).await?);
        println!("    the cache read the origin {} times", cells_read(&console)? - before);
    }
    Ok(())
}
