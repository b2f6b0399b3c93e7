//! `hayloft admin tablets`.

use std::io::Write;

use clap::Subcommand;
use serde_json::{Value, json};

use super::{AdminError, Console};

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

/// Asks, and prints the answer.
pub(super) fn run(what: &Tablets, out: &mut impl Write) -> Result<(), AdminError> {
    match what {
        Tablets::List { json: true, console } => writeln!(out, "{:#}", console.get("/tablets")?)?,
        Tablets::List { json: false, console } => list(out, &console.get("/tablets")?)?,
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

fn list(out: &mut impl Write, tablets: &Value) -> std::io::Result<()> {
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
