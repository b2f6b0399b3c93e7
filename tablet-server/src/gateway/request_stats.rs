//! What a ReadRows tells of itself in its last message, where it was asked to.

use std::time::Instant;

use row_api::data;
use row_api::data::read_rows_request::RequestStatsView;
use row_api::data::request_stats::StatsView;
use tonic::Status;

use crate::limits;
use crate::row::{Row, Seen};

/// The figures of one read under way.
pub(super) struct RequestStats {
    begun: Instant,
    returned: Seen,
}

impl RequestStats {
    /// Begins to count where `view` asks for it.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT where it is no view.
    pub(super) fn begin(view: i32) -> Result<Option<Self>, Status> {
        match RequestStatsView::try_from(view) {
            Ok(RequestStatsView::RequestStatsFull) => {
                Ok(Some(Self { begun: Instant::now(), returned: Seen::default() }))
            }
            Ok(RequestStatsView::Unspecified | RequestStatsView::RequestStatsNone) => Ok(None),
            Err(_) => {
                let why = "must be REQUEST_STATS_NONE or REQUEST_STATS_FULL";
                Err(limits::refuse("request_stats_view", format_args!("{view}, {why}")))
            }
        }
    }

    /// Counts rows that are returned.
    pub(super) fn count(&mut self, rows: &[Row]) {
        self.returned.row_count += rows.len() as u64;
        self.returned.cell_count += rows.iter().map(|row| row.cells.len() as u64).sum::<u64>();
    }

    /// The last message of a read that looked at `seen`.
    pub(super) fn end(self, seen: Seen) -> data::ReadRowsResponse {
        let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let iteration = data::ReadIterationStats {
            rows_seen_count: count(seen.row_count),
            rows_returned_count: count(self.returned.row_count),
            cells_seen_count: count(seen.cell_count),
            cells_returned_count: count(self.returned.cell_count),
        };
        let latency = self.begun.elapsed().try_into().unwrap_or_default();
        let view = data::FullReadStatsView {
            read_iteration_stats: Some(iteration),
            request_latency_stats: Some(data::RequestLatencyStats { frontend_server_latency: Some(latency) }),
        };
        data::ReadRowsResponse {
            request_stats: Some(data::RequestStats { stats_view: Some(StatsView::FullReadStatsView(view)) }),
            ..data::ReadRowsResponse::default()
        }
    }
}
