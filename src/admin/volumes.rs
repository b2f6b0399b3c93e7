//! `hayloft admin volumes`.

use std::io::Write as _;
use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};

use super::{AdminError, Console};

/// All of a volume is read, and written anew: that takes its time.
const PATIENCE: Duration = Duration::from_secs(3600);

/// What to do with photo volumes.
#[derive(Debug, Subcommand)]
pub(crate) enum Volumes {
    /// Every volume: its number, state, photos, sizes.
    List {
        /// Print the answer as it comes, in JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        console: Console,
    },
    /// One volume, in full.
    Show {
        /// The volume's number
        volume: u32,
        /// Print the answer as it comes, in JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        console: Console,
    },
    /// Copy what is live to a new file and drop the rest, while the volume is read and written.
    Compact {
        /// The volume's number
        volume: u32,
        #[command(flatten)]
        console: Console,
    },
    /// Read every photo of a volume, and name those that are damaged.
    Scrub {
        /// The volume's number
        volume: u32,
        #[command(flatten)]
        console: Console,
    },
}

pub(super) fn run(what: &Volumes) -> Result<(), AdminError> {
    let mut out = std::io::stdout().lock();
    match what {
        Volumes::List { json: true, console } => writeln!(out, "{:#}", console.get("/volumes")?)?,
        Volumes::List { json: false, console } => list(&mut out, &console.get("/volumes")?)?,
        Volumes::Show { volume, json, console } => {
            let shown = console.get(&format!("/volumes/{volume}"))?;
            if *json {
                writeln!(out, "{shown:#}")?;
            } else {
                for (name, value) in shown.as_object().into_iter().flatten() {
                    let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    writeln!(out, "{:<20} {value}", name.replace('_', " "))?;
                }
            }
        }
        Volumes::Compact { volume, console } => {
            let path = format!("/volumes/{volume}/compact");
            let compacted = console.post_patiently(&path, &json!({}), PATIENCE)?;
            let (before, after) = (&compacted["bytes_before"], &compacted["bytes_after"]);
            writeln!(out, "volume {volume} had {before} bytes and has {after} now")?;
        }
        Volumes::Scrub { volume, console } => {
            let path = format!("/volumes/{volume}/scrub");
            let scrubbed = console.post_patiently(&path, &json!({}), PATIENCE)?;
            return show_scrub(&mut out, *volume, &scrubbed);
        }
    }
    Ok(())
}

fn list(out: &mut impl std::io::Write, volumes: &Value) -> std::io::Result<()> {
    writeln!(
        out,
        "{:>8}  {:<14} {:>10} {:>14} {:>14} {:>12}",
        "VOLUME", "STATE", "PHOTOS", "BYTES", "GARBAGE", "INDEX"
    )?;
    for volume in volumes.as_array().into_iter().flatten() {
        let number = |field: &str| volume[field].as_u64().unwrap_or_default();
        writeln!(
            out,
            "{:>8}  {:<14} {:>10} {:>14} {:>14} {:>12}",
            number("volume"),
            volume["state"].as_str().unwrap_or_default(),
            number("photos"),
            number("bytes"),
            number("garbage_bytes"),
            number("index_memory_bytes"),
        )?;
    }
    Ok(())
}

/// Says what was found; damage is a refusal, for scripts.
fn show_scrub(out: &mut impl std::io::Write, volume: u32, scrubbed: &Value) -> Result<(), AdminError> {
    writeln!(out, "volume {volume}: {} needles, {} bytes read", scrubbed["needles"], scrubbed["bytes"])?;
    let bad_count = scrubbed["bad_needles"].as_u64().unwrap_or_default();
    if bad_count == 0 {
        return Ok(());
    }
    for bad in scrubbed["bad"].as_array().into_iter().flatten() {
        let text = |field: &str| bad[field].as_str().unwrap_or_default().to_owned();
        writeln!(out, "{} {} at {}: {}", text("key"), text("size"), bad["offset"], text("error"))?;
    }
    Err(AdminError::Refused(format!("{bad_count} needles of volume {volume} are damaged")))
}
