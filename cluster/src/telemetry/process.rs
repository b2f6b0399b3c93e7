//! The process's own figures, as Prometheus's client libraries name them.
//!
//! They come from `/proc` (proc(5)); one that cannot be read is left out.

use std::fmt::Write;
use std::fs;
use std::time::Duration;

/// Clock ticks a second in `/proc`: `USER_HZ`, which Linux fixes for all
/// architectures that Rust's standard library supports.
const TICKS_PER_SECOND: f64 = 100.0;

/// Appends what can be read.
pub(super) fn render(text: &mut String) {
    let read = |name: &str| fs::read_to_string(format!("/proc/{name}")).ok();
    let stat = read("self/stat").and_then(|stat| Stat::parse(&stat));
    let status = read("self/status").unwrap_or_default();
    let boot = read("stat").and_then(|stat| field(&stat, "btime"));

    let mut metric = |name: &str, kind: &str, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            // A String takes whatever is written to it.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
        }
    };
    metric(
        "process_cpu_seconds_total",
        "counter",
        "User and system CPU time spent, in seconds.",
        stat.as_ref().map(|stat| stat.cpu_seconds),
    );
    metric(
        "process_resident_memory_bytes",
        "gauge",
        "Resident memory, in bytes.",
        field(&status, "VmRSS:").map(|kib| kib * 1024.0),
    );
    metric(
        "process_virtual_memory_bytes",
        "gauge",
        "Virtual memory, in bytes.",
        field(&status, "VmSize:").map(|kib| kib * 1024.0),
    );
    metric("process_threads", "gauge", "Threads.", field(&status, "Threads:"));
    metric("process_open_fds", "gauge", "Open file descriptors.", open_descriptor_count());
    metric(
        "process_max_fds",
        "gauge",
        "File descriptors that may be open.",
        read("self/limits").and_then(|limits| field(&limits, "Max open files")),
    );
    metric(
        "process_start_time_seconds",
        "gauge",
        "When the process started, in seconds since 1970.",
        stat.zip(boot).map(|(stat, boot)| boot + stat.start_seconds),
    );
}

/// User and system CPU time spent.
pub(super) fn cpu_time() -> Option<Duration> {
    let stat = Stat::parse(&fs::read_to_string("/proc/self/stat").ok()?)?;
    Duration::try_from_secs_f64(stat.cpu_seconds).ok()
}

/// What `/proc/self/stat` says.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_seconds: f64,
    /// Since the machine booted.
    start_seconds: f64,
}

impl Stat {
    fn parse(stat: &str) -> Option<Self> {
        // The name in parentheses can hold spaces and parentheses. What follows
        // it starts with field 3.
        let (_, fields) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let ticks = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Self {
            cpu_seconds: (ticks(14)? + ticks(15)?) / TICKS_PER_SECOND,
            start_seconds: ticks(22)? / TICKS_PER_SECOND,
        })
    }
}

/// The number after `name` at the start of a line.
fn field(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn open_descriptor_count() -> Option<f64> {
    // Less the one that lists them.
    let count = fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1);
    u32::try_from(count).ok().map(f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_with_parentheses_moves_no_field() {
        let stat = "7 (a) (b c) S 1 2 3 4 5 6 7 8 9 10 150 50 13 14 15 16 17 18 4200 19 20";
        assert_eq!(Stat::parse(stat), Some(Stat { cpu_seconds: 2.0, start_seconds: 42.0 }));
        assert_eq!(Stat::parse("7 (a"), None);
        assert_eq!(Stat::parse("7 (a) S 1"), None);
    }

    #[test]
    fn every_figure_of_a_living_process_is_there() {
        let mut text = String::new();
        render(&mut text);
        let value = |name: &str| field(&text, name).unwrap_or_else(|| panic!("{name} is missing: {text}"));
        assert!(value("process_resident_memory_bytes ") > 100_000.0);
        assert!(value("process_virtual_memory_bytes ") >= value("process_resident_memory_bytes "));
        assert!(value("process_open_fds ") >= 3.0);
        assert!(value("process_max_fds ") >= value("process_open_fds "));
        assert!(value("process_threads ") >= 1.0);
        assert!(value("process_cpu_seconds_total ") >= 0.0);
        assert!(value("process_start_time_seconds ") > 1.6e9);
    }
}
