//! `hayloft admin cache`.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use clap::Subcommand;
use serde_json::Value;

use super::{AdminError, Console};

/// Clears the terminal and goes to its first line.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// What to look at.
#[derive(Debug, Subcommand)]
pub(crate) enum Cache {
    /// What the cache does, its hot keys and hit rates by prefix, again and again until Ctrl-C.
    Top {
        /// Seconds between two looks
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
        every: u64,
        /// Look so many times and stop; once if the output is no terminal
        #[arg(long)]
        times: Option<u64>,
        /// Keys and prefixes shown
        #[arg(long, default_value_t = 15)]
        lines: usize,
        /// Print the answer as it comes, in JSON, once.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        console: Console,
    },
}

/// Asks, and prints the answer.
pub(super) fn run(what: &Cache) -> Result<(), AdminError> {
    let Cache::Top { every, times, lines, json, console } = what;
    let mut out = std::io::stdout().lock();
    if *json {
        writeln!(out, "{:#}", console.get("/cache")?)?;
        return Ok(());
    }
    let is_terminal = out.is_terminal();
    let times = times.unwrap_or(if is_terminal { u64::MAX } else { 1 });
    let mut before: Option<(Instant, Value)> = None;
    for turn in 0..times {
        if turn > 0 {
            std::thread::sleep(Duration::from_secs(*every));
        }
        let (at, now) = (Instant::now(), console.get("/cache")?);
        if is_terminal {
            write!(out, "{CLEAR}")?;
        }
        let earlier =
            before.as_ref().map(|(earlier, value)| (at.duration_since(*earlier).as_secs_f64(), value));
        show(&mut out, &now, earlier, *lines)?;
        out.flush()?;
        before = Some((at, now));
    }
    Ok(())
}

/// One look; rates are since the one before, or counts if there was none.
fn show(
    out: &mut impl Write,
    now: &Value,
    before: Option<(f64, &Value)>,
    line_count: usize,
) -> std::io::Result<()> {
    let number = |field: &str| now[field].as_u64().unwrap_or_default();
    let grown = |field: &str| {
        let earlier = before.map_or(0, |(_, before)| before[field].as_u64().unwrap_or_default());
        number(field).saturating_sub(earlier)
    };
    let (seconds, unit) = before.map_or((1.0, ""), |(seconds, _)| (seconds, "/s"));
    let rate = |field: &str| format!("{:.0}{unit}", grown(field) as f64 / seconds);
    let mib = |field: &str| number(field) >> 20;
    writeln!(
        out,
        "{} items, {} of {} MiB, {} connections, {} leases",
        number("items"),
        mib("memory_bytes"),
        mib("memory_bytes_max"),
        number("connections"),
        number("leases"),
    )?;
    writeln!(
        out,
        "gets {}  hits {}  sets {}  deletes {}  evictions {} (the last unused for {} s)  expired {}",
        rate("gets"),
        percent(grown("hits"), grown("gets")),
        rate("sets"),
        rate("deletes"),
        rate("evictions"),
        number("eviction_age_seconds"),
        rate("expired"),
    )?;
    let count = |of: &Value| of.as_u64().unwrap_or_default();
    writeln!(out, "\n{:>12}  {:>12}  HOT KEY", "REQUESTS", "ERROR")?;
    for hot in now["hot_keys"].as_array().into_iter().flatten().take(line_count) {
        let key = hot["key"].as_str().unwrap_or_default();
        writeln!(out, "{:>12}  {:>12}  {key}", count(&hot["requests"]), count(&hot["error"]))?;
    }
    writeln!(out, "\n{:>12}  {:>12}  PREFIX", "GETS", "HITS")?;
    for prefix in now["prefixes"].as_array().into_iter().flatten().take(line_count) {
        let hits = percent(count(&prefix["hits"]), count(&prefix["gets"]));
        let name = prefix["prefix"].as_str().unwrap_or_default();
        writeln!(out, "{:>12}  {hits:>12}  {name}", count(&prefix["gets"]))?;
    }
    Ok(())
}

fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.1} %", part as f64 * 100.0 / whole as f64) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_second_look_shows_rates() {
        let before = json!({ "gets": 100, "hits": 100 });
        let now = json!({
            "items": 3, "gets": 300, "hits": 200, "memory_bytes": 5 << 20, "memory_bytes_max": 64 << 20,
            "hot_keys": [{ "key": "user:1", "requests": 640, "error": 0 }],
            "prefixes": [{ "prefix": "user", "gets": 640, "hits": 320 }],
        });
        let mut out = Vec::new();
        show(&mut out, &now, Some((2.0, &before)), 10).unwrap();
        let text = String::from_utf8(out).unwrap();
        for expected in
            ["3 items, 5 of 64 MiB", "gets 100/s  hits 50.0 %", "640             0  user:1", "50.0 %  user"]
        {
            assert!(text.contains(expected), "{expected:?} is not in {text}");
        }
    }
}
