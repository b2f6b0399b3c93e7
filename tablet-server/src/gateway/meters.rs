//! What the row service counts: requests, how long each took, and refusals.

use std::time::Instant;

use metrics::Histogram;
use tonic::{Code, Status};

/// One RPC's figures.
pub(super) struct Meter {
    rpc: &'static str,
    seconds: Histogram,
}

/// The figures of the row service's RPCs.
pub(super) struct Meters {
    pub(super) read_rows: Meter,
    pub(super) sample_row_keys: Meter,
    pub(super) mutate_row: Meter,
    pub(super) mutate_rows: Meter,
    pub(super) check_and_mutate_row: Meter,
    pub(super) read_modify_write_row: Meter,
    pub(super) generate_initial_change_stream_partitions: Meter,
    pub(super) read_change_stream: Meter,
}

impl Meters {
    pub(super) fn new() -> Self {
        Self {
            read_rows: Meter::new("ReadRows"),
            sample_row_keys: Meter::new("SampleRowKeys"),
            mutate_row: Meter::new("MutateRow"),
            mutate_rows: Meter::new("MutateRows"),
            check_and_mutate_row: Meter::new("CheckAndMutateRow"),
            read_modify_write_row: Meter::new("ReadModifyWriteRow"),
            generate_initial_change_stream_partitions: Meter::new("GenerateInitialChangeStreamPartitions"),
            read_change_stream: Meter::new("ReadChangeStream"),
        }
    }
}

impl Meter {
    fn new(rpc: &'static str) -> Self {
        Self { rpc, seconds: metrics::histogram!("hayloft_row_request_seconds", "rpc" => rpc) }
    }

    /// Counts a request that began at `begun` and has its answer, or its first rows where it is a scan.
    ///
    /// Who would take the future of the answer instead held it twice.
    pub(super) fn count<T>(&self, begun: Instant, answer: &Result<T, Status>) {
        self.seconds.record(begun.elapsed());
        if let Err(status) = answer {
            self.count_error(status.code());
        }
    }

    /// Counts a request that failed.
    pub(super) fn count_error(&self, code: Code) {
        metrics::counter!("hayloft_row_request_errors_total", "rpc" => self.rpc, "code" => format!("{code:?}"))
            .increment(1);
    }
}
