//! `hayloft admin logical-volumes` and `hayloft admin stores`.

use std::io::Write;

use clap::Subcommand;
use serde_json::{Value, json};

use super::{AdminError, Console};

/// What to do with logical volumes.
#[derive(Debug, Subcommand)]
pub(crate) enum LogicalVolumes {
    /// Every volume: whether it takes photos, its sizes, its replicas.
    List {
        /// Print the answer as it comes, in JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        console: Console,
    },
    /// Everything that is known of one volume, in JSON.
    Show {
        /// The volume's number
        volume: u64,
        #[command(flatten)]
        console: Console,
    },
    /// Keep new photos from a volume; reads and deletes go on.
    ReadOnly {
        /// The volume's number
        volume: u64,
        #[command(flatten)]
        console: Console,
    },
    /// Let a volume take photos again.
    Writable {
        /// The volume's number
        volume: u64,
        #[command(flatten)]
        console: Console,
    },
}

/// What to do with stores.
#[derive(Debug, Subcommand)]
pub(crate) enum Stores {
    /// Every store: how it does, its disk, its replicas.
    List {
        /// Print the answer as it comes, in JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        console: Console,
    },
    /// Keep new photos from all volumes with a replica at a store.
    ReadOnly {
        /// The store's address or number
        store: String,
        #[command(flatten)]
        console: Console,
    },
    /// Let a store take photos again.
    Writable {
        /// The store's address or number
        store: String,
        #[command(flatten)]
        console: Console,
    },
}

pub(super) fn run(what: &LogicalVolumes) -> Result<(), AdminError> {
    let mut out = std::io::stdout().lock();
    match what {
        LogicalVolumes::List { json: true, console } => {
            writeln!(out, "{:#}", console.get("/logical-volumes")?)?;
        }
        LogicalVolumes::List { json: false, console } => {
            list_volumes(&mut out, &console.get("/logical-volumes")?)?;
        }
        LogicalVolumes::Show { volume, console } => {
            let all = console.get("/logical-volumes")?;
            let mut volumes = all["volumes"].as_array().into_iter().flatten();
            let found = volumes.find(|found| found["volume"].as_u64() == Some(*volume));
            let found = found.ok_or_else(|| AdminError::Refused(format!("there is no volume {volume}")))?;
            writeln!(out, "{found:#}")?;
        }
        LogicalVolumes::ReadOnly { volume, console } => {
            console.post(&format!("/logical-volumes/{volume}/read-only"), &json!({}))?;
            writeln!(out, "volume {volume} takes no photos now")?;
        }
        LogicalVolumes::Writable { volume, console } => {
            console.post(&format!("/logical-volumes/{volume}/writable"), &json!({}))?;
            writeln!(out, "volume {volume} is not kept from photos any more")?;
        }
    }
    Ok(())
}

pub(super) fn run_stores(what: &Stores) -> Result<(), AdminError> {
    let mut out = std::io::stdout().lock();
    match what {
        Stores::List { json: true, console } => writeln!(out, "{:#}", console.get("/stores")?)?,
        Stores::List { json: false, console } => list_stores(&mut out, &console.get("/stores")?)?,
        Stores::ReadOnly { store, console } => {
            console.post("/stores/read-only", &json!({ "store": store }))?;
            writeln!(out, "store {store} takes no photos now")?;
        }
        Stores::Writable { store, console } => {
            console.post("/stores/writable", &json!({ "store": store }))?;
            writeln!(out, "store {store} is not kept from photos any more")?;
        }
    }
    Ok(())
}

fn list_volumes(out: &mut impl Write, answer: &Value) -> std::io::Result<()> {
    writeln!(
        out,
        "{:>8}  {:<14} {:>10} {:>14} {:>9}  NOTE",
        "VOLUME", "STATE", "PHOTOS", "BYTES", "REPLICAS"
    )?;
    for volume in answer["volumes"].as_array().into_iter().flatten() {
        let state = if volume["writable"] == true { "writable" } else { "read-only" };
        let replicas = volume["replicas"].as_array().map(Vec::as_slice).unwrap_or_default();
        let is_whole = |replica: &&Value| {
            replica["member"] == true
                && replica["condition"] == "well"
                && replica["report"]["filling"] == false
        };
        let whole =
            format!("{}/{}", replicas.iter().filter(is_whole).count(), number(volume, "replica_count"));
        let (photos, bytes) = (number(volume, "photo_count"), number(volume, "volume_bytes"));
        let of = number(volume, "volume");
        writeln!(out, "{of:>8}  {state:<14} {photos:>10} {bytes:>14} {whole:>9}  {}", note(volume))?;
    }
    Ok(())
}

/// What an operator wants to know beside the figures.
fn note(volume: &Value) -> String {
    let mut notes = Vec::new();
    if let Some(reason) = volume["reason"].as_str() {
        notes.push(reason.to_owned());
    }
    let refill = &volume["refill"];
    if refill.is_object() {
        let (copied, of) = (number(refill, "copied_count"), number(refill, "photo_count"));
        notes.push(format!("copied {copied} of {of} photos to {}", text(refill, "address")));
    }
    if number(volume, "debt_count") > 0 {
        notes.push(format!("{} tombstones owed", number(volume, "debt_count")));
    }
    match volume["unrepaired"].as_array().map(Vec::len) {
        Some(count) if count > 0 => notes.push(format!("{count} photos damaged in every replica")),
        _ => {}
    }
    notes.join("; ")
}

fn list_stores(out: &mut impl Write, answer: &Value) -> std::io::Result<()> {
    writeln!(
        out,
        "{:<28} {:<16} {:<10} {:>8} {:>10} {:>14} {:>14}  NOTE",
        "ADDRESS", "STORE", "CONDITION", "REPLICAS", "PHOTOS", "BYTES", "FREE"
    )?;
    for store in answer.as_array().into_iter().flatten() {
        let mut notes = Vec::new();
        for (is_so, note) in [("read_only", "read-only by command"), ("full", "disk full")] {
            if store[is_so] == true {
                notes.push(note.to_owned());
            }
        }
        notes.extend(store["complaint"].as_str().map(str::to_owned));
        notes.extend(Some(text(store, "labels")).filter(|labels| !labels.is_empty()));
        writeln!(
            out,
            "{:<28} {:<16} {:<10} {:>8} {:>10} {:>14} {:>14}  {}",
            text(store, "address"),
            text(store, "store"),
            text(store, "condition"),
            number(store, "replica_count"),
            number(store, "photo_count"),
            number(store, "volume_bytes"),
            number(store, "available_bytes"),
            notes.join("; "),
        )?;
    }
    Ok(())
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_default()
}
