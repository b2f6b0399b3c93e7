//! Follows all partitions of a table, for as long as cells of it are cached.
//!
//! A follower sees to it that the table has a stream of changes, reads all its
//! partitions, goes on where splits and merges lead, and saves where it is. It
//! says that the table is followed once every stream has told something and is
//! close to now; where streams begin anew instead of going on, whatever was
//! cached until then is invalid.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cluster::Shutdown;
use row_api::admin::{ChangeStreamConfig, GetTableRequest, Table, UpdateTableRequest};
use row_api::data::GenerateInitialChangeStreamPartitionsRequest;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tonic::{Code, Status};

use super::handover::{Handover, Rows};
use super::positions::{Positions, StreamPosition};
use super::stream::{Ending, Stream};
use super::table_state::TableState;
use crate::origins::Origins;

/// How long a stream of changes is kept that nobody had enabled: the shortest there is.
const RETENTION_SECONDS: i64 = 24 * 3600;

const TICK: Duration = Duration::from_millis(50);
const SAVE_PERIOD: Duration = Duration::from_secs(5);
const SCHEMA_PERIOD: Duration = Duration::from_secs(30);
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Positions that are older are not gone on from: to read so many changes again
/// costs more than to fill the cache again.
const POSITION_AGE_MAX: Duration = Duration::from_secs(300);

/// An admin call or a list of partitions takes no longer.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Has every table followed that is wished to be, until `shutdown`.
pub(crate) async fn follow_all(origins: Arc<Origins>, shutdown: Shutdown) {
    loop {
        tokio::select! {
            () = shutdown.begun() => return,
            () = origins.wish_to_follow.notified() => {}
        }
        for table in origins.tables() {
            if table.take_follower() {
                let follower = Follower { origins: Arc::clone(&origins), table, shutdown: shutdown.clone() };
                shutdown.spawn(follower.run());
            }
        }
    }
}

struct Follower {
    origins: Arc<Origins>,
    table: Arc<TableState>,
    shutdown: Shutdown,
}

/// What a follower has open.
#[derive(Default)]
struct Streams {
    running: JoinSet<(Arc<Stream>, Ending)>,
    by_number: BTreeMap<u64, Arc<Stream>>,
    handover: Handover,
    last_number: u64,
}

impl Follower {
    async fn run(self) {
        let mut may_go_on = true;
        loop {
            let Err(status) = self.follow(may_go_on).await else { break };
            self.table.lose(status.message());
            self.table.clear_watermarks();
            if status.code() == Code::NotFound {
                break;
            }
            tracing::warn!(table = %self.table.name, %status, "changes cannot be followed");
            may_go_on = false;
            tokio::select! {
                () = self.shutdown.begun() => break,
                () = tokio::time::sleep(RETRY_DELAY) => {}
            }
        }
        self.table.lose("it is not followed any more");
        self.table.leave_follower();
        self.origins.forget_table(&self.table.part);
    }

    /// Follows the table until the process stops.
    ///
    /// # Errors
    ///
    /// Why changes may have been missed, or cannot be read.
    async fn follow(&self, may_go_on: bool) -> Result<(), Status> {
        self.table.learn_ages(&self.enable_stream().await?);
        let saved = if may_go_on { self.saved_positions() } else { None };
        let mut has_gap = saved.is_none();
        let starts = match saved {
            Some(Positions { generations, streams, .. }) => {
                self.table.await_generations(generations);
                streams
            }
            None => self.partitions().await?,
        };
        let mut streams = Streams::default();
        for position in starts {
            self.start(&mut streams, position);
        }
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut save_at, mut schema_at) = (Instant::now() + SAVE_PERIOD, Instant::now() + SCHEMA_PERIOD);
        loop {
            tokio::select! {
                () = self.shutdown.begun() => {
                    self.save(&streams).await;
                    return Ok(());
                }
                Some(ended) = streams.running.join_next() => match ended {
                    Ok((stream, ending)) => self.end(&mut streams, &stream, ending)?,
                    Err(error) => return Err(Status::internal(format!("a stream's task failed: {error}"))),
                },
                _ = ticks.tick() => {}
            }
            self.judge(&streams, &mut has_gap);
            let now = Instant::now();
            if now >= save_at {
                save_at = now + SAVE_PERIOD;
                self.save(&streams).await;
            }
            if now >= schema_at {
                schema_at = now + SCHEMA_PERIOD;
                if self.table.learn_ages(&self.get_table().await?) {
                    self.table.invalidate_all();
                }
            }
        }
    }

    /// Says whether the table is followed.
    fn judge(&self, streams: &Streams, has_gap: &mut bool) {
        let now_us = self.origins.clock.now_us();
        // Notices, too, when it has fallen behind.
        self.table.lifetime(now_us);
        let is_open = streams.by_number.values().all(|stream| stream.is_open());
        if !self.table.is_followed() && is_open && self.table.has_caught_up(now_us) {
            self.table.regain(std::mem::take(has_gap));
        }
    }

    fn start(&self, streams: &mut Streams, position: StreamPosition) -> u64 {
        streams.last_number += 1;
        let number = streams.last_number;
        let stream = Arc::new(Stream::new(&self.origins, &self.table, number, position));
        streams.by_number.insert(number, Arc::clone(&stream));
        streams.running.spawn(stream.follow());
        number
    }

    fn end(&self, streams: &mut Streams, stream: &Stream, ending: Ending) -> Result<(), Status> {
        let parts = match ending {
            Ending::Lost(status) => return Err(status),
            Ending::Closed(parts) => parts,
        };
        let mut over = vec![stream.number];
        streams.by_number.remove(&stream.number);
        for successor in streams.handover.take(parts) {
            let watermarks = successor.of_streams.iter().map(|number| self.table.watermark(*number));
            let watermark_us = watermarks.min().unwrap_or(0);
            let number = self.start(streams, successor.position);
            // It is as far as the slowest that it goes on from, until it tells more.
            self.table.set_watermark(number, watermark_us);
            over.extend(successor.of_streams);
        }
        for number in over {
            if !streams.handover.awaits(number) {
                self.table.remove_watermark(number);
            }
        }
        Ok(())
    }

    /// The table, with a stream of changes.
    async fn enable_stream(&self) -> Result<Table, Status> {
        let table = self.get_table().await?;
        if table.change_stream_config.is_some() {
            return Ok(table);
        }
        let retention_period = Some(prost_types::Duration { seconds: RETENTION_SECONDS, nanos: 0 });
        let request = UpdateTableRequest {
            table: Some(Table {
                name: self.table.name.to_string(),
                change_stream_config: Some(ChangeStreamConfig { retention_period }),
                ..Table::default()
            }),
            update_mask: Some(prost_types::FieldMask { paths: vec!["change_stream_config".to_owned()] }),
            ..UpdateTableRequest::default()
        };
        timely(self.origins.client.table_admin().update_table(request)).await?;
        tracing::info!(table = %self.table.name, "enabled its stream of changes, kept for a day");
        // The operation is done when the table says so.
        for _ in 0..50 {
            let table = self.get_table().await?;
            if table.change_stream_config.is_some() {
                return Ok(table);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Err(Status::unavailable("the table's stream of changes is not enabled yet"))
    }

    async fn get_table(&self) -> Result<Table, Status> {
        let request = GetTableRequest { name: self.table.name.to_string(), ..GetTableRequest::default() };
        Ok(timely(self.origins.client.table_admin().get_table(request)).await?.into_inner())
    }

    /// The partitions of now, to be followed from now.
    async fn partitions(&self) -> Result<Vec<StreamPosition>, Status> {
        let request = GenerateInitialChangeStreamPartitionsRequest {
            table_name: self.table.name.to_string(),
            ..GenerateInitialChangeStreamPartitionsRequest::default()
        };
        let mut client = self.origins.client.data();
        let answers = client.generate_initial_change_stream_partitions(request);
        let mut answers = timely(answers).await?.into_inner();
        let mut positions = Vec::new();
        while let Some(answer) = timely(answers.message()).await? {
            let rows = answer.partition.as_ref().and_then(Rows::of);
            let Rows { start, end } =
                rows.ok_or_else(|| Status::data_loss("a partition of the stream has no rows"))?;
            positions.push(StreamPosition { start, end, tokens: Vec::new() });
        }
        Ok(positions)
    }

    /// The positions that were saved, where it is worth going on from them.
    fn saved_positions(&self) -> Option<Positions> {
        let positions = self.origins.positions.load(&self.table.name.to_string())?;
        let age_us = self.origins.clock.now_us().saturating_sub(positions.saved_at_us);
        (Duration::from_micros(age_us) <= POSITION_AGE_MAX).then_some(positions)
    }

    /// Saves where the streams are, if all have told so and nothing was missed.
    async fn save(&self, streams: &Streams) {
        let positions: Option<Vec<_>> = streams.by_number.values().map(|stream| stream.position()).collect();
        let Some(mut positions) = positions.filter(|_| self.table.is_followed()) else { return };
        positions.extend(streams.handover.positions());
        let positions = Positions {
            table: self.table.name.to_string(),
            saved_at_us: self.origins.clock.now_us(),
            generations: self.table.generations(),
            streams: positions,
        };
        let files = Arc::clone(&self.origins.positions);
        let saved = tokio::task::spawn_blocking(move || files.save(&positions)).await;
        if let Ok(Err(error)) = saved {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "cannot save where changes are followed"
            );
        }
    }
}

async fn timely<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let late = |_| Status::deadline_exceeded("no answer in time");
    tokio::time::timeout(CALL_TIMEOUT, call).await.map_err(late)?
}
