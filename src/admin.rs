//! `hayloft admin`: asks a running server, at its console door.

mod logical_volumes;
mod volumes;

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use self::logical_volumes::{LogicalVolumes, Stores};
use self::volumes::Volumes;

/// An answer that has not come by then will not come.
const PATIENCE: Duration = Duration::from_secs(60);

/// What to ask.
#[derive(Debug, Subcommand)]
pub(crate) enum Admin {
    /// The tablets of all tables: list, move, split.
    #[command(subcommand)]
    Tablets(Tablets),
    /// The photo volumes of the server itself: list, show, compact, scrub.
    #[command(subcommand)]
    Volumes(Volumes),
    /// Photo volumes with replicas on several stores: list, show, keep photos from one.
    #[command(subcommand)]
    LogicalVolumes(LogicalVolumes),
    /// The stores that keep replicas: list, keep photos from one.
    #[command(subcommand)]
    Stores(Stores),
}

/// What to do with tablets.
#[derive(Debug, Subcommand)]
pub(crate) enum Tablets {
    /// Every tablet: its number, server, sizes, table and rows.
    List {
        /// Print the answer as it comes, in JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        console: Console,
    },
    /// Move a tablet to another server, while it is read and written; prints its number there.
    Move {
        /// The tablet's number
        tablet: u64,
        /// The server's name
        server: String,
        #[command(flatten)]
        console: Console,
    },
    /// Split a tablet into halves, while it is read and written.
    Split {
        /// The tablet's number
        tablet: u64,
        #[command(flatten)]
        console: Console,
    },
}

/// Which server to ask.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Console {
    /// The server's console door.
    #[arg(long, value_name = "ADDRESS", env = "HAYLOFT_CONSOLE_LISTEN", default_value = "127.0.0.1:8081")]
    console: SocketAddr,
}

/// Why there is no answer, or which one it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdminError {
    #[error("cannot reach a server at {address}: is it running, and is that its console door?")]
    Unreachable {
        address: SocketAddr,
        #[source]
        source: Box<ureq::Error>,
    },
    #[error("{0}")]
    Refused(String),
    #[error("cannot write the output")]
    Output(#[from] std::io::Error),
}

/// Asks, and prints the answer.
pub(crate) fn run(what: &Admin) -> Result<(), AdminError> {
    match what {
        Admin::Tablets(what) => run_tablets(what),
        Admin::Volumes(what) => volumes::run(what),
        Admin::LogicalVolumes(what) => logical_volumes::run(what),
        Admin::Stores(what) => logical_volumes::run_stores(what),
    }
}

fn run_tablets(what: &Tablets) -> Result<(), AdminError> {
    let mut out = std::io::stdout().lock();
    match what {
        Tablets::List { json: true, console } => writeln!(out, "{:#}", console.get("/tablets")?)?,
        Tablets::List { json: false, console } => list(&mut out, &console.get("/tablets")?)?,
        Tablets::Move { tablet, server, console } => {
            let moved = console.post(&format!("/tablets/{tablet}/move"), &json!({ "to": server }))?;
            writeln!(out, "tablet {tablet} is tablet {} at {server} now", moved["tablet"])?;
        }
        Tablets::Split { tablet, console } => {
            console.post(&format!("/tablets/{tablet}/split"), &json!({}))?;
            writeln!(out, "tablet {tablet} is two now")?;
        }
    }
    Ok(())
}

fn list(out: &mut impl std::io::Write, tablets: &Value) -> std::io::Result<()> {
    writeln!(out, "{:>8}  {:<16} {:>12} {:>12}  TABLE, ROWS", "TABLET", "SERVER", "MEMORY", "DISK")?;
    for tablet in tablets.as_array().into_iter().flatten() {
        let text = |field: &str| tablet[field].as_str().unwrap_or_default().to_owned();
        let number = |field: &str| tablet[field].as_u64().unwrap_or_default();
        writeln!(
            out,
            "{:>8}  {:<16} {:>12} {:>12}  {} [{}, {})",
            number("tablet"),
            text("server"),
            number("memtable_bytes"),
            number("sstable_bytes"),
            text("table"),
            text("start"),
            text("end"),
        )?;
    }
    Ok(())
}

impl Console {
    fn get(self, path: &str) -> Result<Value, AdminError> {
        self.answer(agent(PATIENCE).get(self.url(path)).call())
    }

    fn post(self, path: &str, body: &Value) -> Result<Value, AdminError> {
        self.post_patiently(path, body, PATIENCE)
    }

    fn post_patiently(self, path: &str, body: &Value, patience: Duration) -> Result<Value, AdminError> {
        let request = agent(patience).post(self.url(path)).header("content-type", "application/json");
        self.answer(request.send(body.to_string()))
    }

    fn url(self, path: &str) -> String {
        format!("http://{}{path}", self.console)
    }

    fn answer(self, answer: Result<http::Response<ureq::Body>, ureq::Error>) -> Result<Value, AdminError> {
        let unreachable =
            |source| AdminError::Unreachable { address: self.console, source: Box::new(source) };
        let mut answer = answer.map_err(unreachable)?;
        let text = answer.body_mut().read_to_string().map_err(unreachable)?;
        let value: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        if answer.status().is_success() {
            return Ok(value);
        }
        let why =
            value["error"].as_str().map_or_else(|| format!("{}: {text}", answer.status()), str::to_owned);
        Err(AdminError::Refused(why))
    }
}

fn agent(patience: Duration) -> ureq::Agent {
    let config = ureq::Agent::config_builder().timeout_global(Some(patience));
    // A refusal says why in its body.
    config.http_status_as_error(false).proxy(None).build().into()
}
