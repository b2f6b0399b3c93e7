//! Events and metrics.
//!
//! Events go to stderr through `tracing`, as text or as one JSON object a line.
//! Metrics are recorded through the `metrics` macros anywhere in the process
//! and rendered here for Prometheus; the process's own figures are read from
//! `/proc` at each rendering.

mod process;

use std::io::IsTerminal;
use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

/// How an event is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EventFormat {
    /// A line for a person.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

/// Why events cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum EventsError {
    /// The filter is not one.
    #[error("{filter:?} is no event filter; write a level, or levels by module: info,lsm=debug")]
    Filter {
        /// The filter as given.
        filter: String,
        /// What is wrong with it.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Somebody in this process already decides where events go.
    #[error("events already have a destination")]
    AlreadySet,
}

/// Writes this process's events to stderr from now on.
///
/// `filter` is a level, or a list of levels by module: `info,lsm=debug`.
///
/// # Errors
///
/// - [`EventsError::Filter`]: `filter` cannot be parsed.
/// - [`EventsError::AlreadySet`]: this was called before.
pub fn init_events(format: EventFormat, filter: &str) -> Result<(), EventsError> {
    let events =
        tracing_subscriber::fmt().with_env_filter(parse_filter(filter)?).with_writer(std::io::stderr);
    let set = match format {
        EventFormat::Text => events.with_ansi(std::io::stderr().is_terminal()).try_init(),
        EventFormat::Json => events.json().flatten_event(true).try_init(),
    };
    set.map_err(|_| EventsError::AlreadySet)
}

/// Refuses what [`init_events`] would not take as a filter.
///
/// # Errors
///
/// [`EventsError::Filter`]: `filter` cannot be parsed.
pub fn check_filter(filter: &str) -> Result<(), EventsError> {
    parse_filter(filter).map(drop)
}

fn parse_filter(filter: &str) -> Result<EnvFilter, EventsError> {
    let parsed = EnvFilter::builder().parse(filter);
    parsed.map_err(|source| EventsError::Filter { filter: filter.to_owned(), source })
}

/// Bounds of the buckets of every duration, in seconds: from a cache hit to a
/// stalled disk.
const SECONDS_BUCKETS: [f64; 18] = [
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1,
    0.25, 0.5, 1.0, 2.5, 10.0,
];

/// Samples wait in memory until somebody sorts them into their buckets: a
/// scrape, or this timer where nobody scrapes.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// What this process has spent on processors so far, all of them together;
/// none where the system does not tell.
pub fn process_cpu_time() -> Option<Duration> {
    process::cpu_time()
}

/// The process's metrics. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Telemetry {
    handle: PrometheusHandle,
}

impl Telemetry {
    /// Collects what is recorded in this process from now on. Later calls give
    /// the same metrics.
    ///
    /// Histograms whose names end in `_seconds` have buckets from 10 µs to 10 s;
    /// others are summaries.
    ///
    /// # Panics
    ///
    /// If somebody else collects them.
    pub fn install() -> Self {
        static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
        let handle = HANDLE.get_or_init(|| {
            let recorder = PrometheusBuilder::new()
                .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS_BUCKETS)
                .expect("there are buckets")
                .build_recorder();
            let handle = recorder.handle();
            metrics::set_global_recorder(recorder).expect("nobody else collects this process's metrics");
            let upkeep = handle.clone();
            std::thread::Builder::new()
                .name("telemetry".to_owned())
                .spawn(move || {
                    loop {
                        std::thread::sleep(UPKEEP_INTERVAL);
                        upkeep.run_upkeep();
                    }
                })
                .expect("a new process can start a thread");
            handle
        });
        Self { handle: handle.clone() }
    }

    /// All metrics in Prometheus's text format, with the process's own figures
    /// under their standard names, `process_*`.
    pub fn render(&self) -> String {
        let mut text = self.handle.render();
        process::render(&mut text);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_is_rendered_beside_the_process() {
        Telemetry::install();
        metrics::counter!("hayloft_test_total", "door" => "test").increment(3);
        metrics::histogram!("hayloft_test_seconds").record(0.003);
        let text = Telemetry::install().render();
        assert!(text.contains("hayloft_test_total{door=\"test\"} 3\n"), "{text}");
        assert!(text.contains("hayloft_test_seconds_bucket{le=\"0.005\"} 1\n"), "{text}");
        assert!(text.contains("\nprocess_resident_memory_bytes "), "{text}");
    }

    #[test]
    fn a_filter_that_is_none_is_refused_with_an_example() {
        let error = init_events(EventFormat::Text, "lsm=loud").unwrap_err();
        assert!(error.to_string().contains("info,lsm=debug"), "{error}");
    }
}
