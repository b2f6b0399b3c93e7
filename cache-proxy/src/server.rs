//! The memcached door's sockets and timers, and [`Cache`], which owns the rest.
//!
//! A connection is a task. It reads once, runs every command that came with
//! that read, and writes their answers once; then it waits. It does not read on
//! while a client leaves its answers unread. When the process stops, a
//! connection finishes the commands it has and closes.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use cluster::{Door, Shutdown};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use crate::clock::Clock;
use crate::connections::Connection;
use crate::error::Result;
use crate::item_table::TableStatistics;
use crate::options::CacheOptions;
use crate::protocol::output::Output;
use crate::session::{Session, SharedState, Status};

/// What a connection reads at once; a longer line makes its buffer grow.
const READ_BYTES: usize = 16 << 10;

/// How often expired items are looked for.
const REAP_INTERVAL: Duration = Duration::from_secs(1);

/// A memcached: a table of items, and the protocol that serves it.
///
/// Cheap to clone; all clones are one cache.
#[derive(Clone, Debug)]
pub struct Cache {
    pub(crate) shared: Arc<SharedState>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Cache {
    /// An empty cache. Its hash is seeded at random, so that nobody can choose
    /// keys that collide.
    ///
    /// # Errors
    ///
    /// [`Error::Option`](crate::Error::Option): an option is out of its range.
    pub fn new(options: CacheOptions, clock: Arc<dyn Clock>) -> Result<Self> {
        options.check()?;
        let shared = SharedState::new(options, rand::random(), clock.now_s());
        Ok(Self { shared: Arc::new(shared), clock })
    }

    /// What the cache was made with.
    pub fn options(&self) -> &CacheOptions {
        &self.shared.options
    }

    /// What the cache holds now, and what it counted.
    pub fn statistics(&self) -> TableStatistics {
        self.shared.table.statistics(self.clock.now_s())
    }

    /// Serves `door` until `shutdown` begins; its connections are tasks that
    /// `shutdown` waits for. Expired items are removed meanwhile.
    pub async fn serve(&self, door: Door, shutdown: Shutdown) {
        let reaper = self.clone().reap(shutdown.clone());
        shutdown.spawn(reaper);
        let connection_shutdown = shutdown.clone();
        let serve = |stream, peer| self.clone().serve_connection(stream, peer, connection_shutdown.clone());
        door.serve(shutdown, serve).await;
    }

    /// Brings the `hayloft_cache_*` metrics up to date: to be called when they
    /// are about to be read. The table counts for itself, at no cost a command.
    pub fn publish_metrics(&self) {
        let table = self.statistics();
        let counts = &table.counts;
        for (name, count) in [
            ("get", counts.cmd_get),
            ("set", counts.cmd_set),
            ("touch", counts.cmd_touch),
            ("delete", counts.delete_hits + counts.delete_misses),
            ("incr", counts.incr_hits + counts.incr_misses),
            ("decr", counts.decr_hits + counts.decr_misses),
            ("flush_all", self.shared.flush_count.load(Ordering::Relaxed)),
        ] {
            metrics::counter!("hayloft_cache_commands_total", "command" => name).absolute(count);
        }
        metrics::counter!("hayloft_cache_hits_total").absolute(counts.get_hits);
        metrics::counter!("hayloft_cache_misses_total").absolute(counts.get_misses);
        for (event, count) in [
            ("token", counts.lease_tokens),
            ("wait", counts.lease_waits),
            ("stale_hit", counts.lease_stale_hits),
            ("fill", counts.lease_fills),
            ("refusal", counts.lease_refusals),
        ] {
            metrics::counter!("hayloft_cache_leases_total", "event" => event).absolute(count);
        }
        metrics::counter!("hayloft_cache_evictions_total").absolute(counts.evictions);
        metrics::counter!("hayloft_cache_expired_total").absolute(counts.reclaimed);
        let connections = &self.shared.connections;
        let read_bytes = connections.read_bytes.load(Ordering::Relaxed);
        let written_bytes = connections.written_bytes.load(Ordering::Relaxed);
        metrics::counter!("hayloft_cache_read_bytes_total").absolute(read_bytes);
        metrics::counter!("hayloft_cache_written_bytes_total").absolute(written_bytes);
        #[expect(clippy::cast_precision_loss, reason = "gauges are floating point")]
        for (name, value) in [
            ("hayloft_cache_items", table.item_count),
            ("hayloft_cache_memory_bytes", table.memory_bytes),
            ("hayloft_cache_memory_max_bytes", table.memory_bytes_max),
            ("hayloft_cache_oldest_age_seconds", table.oldest_age_s),
        ] {
            metrics::gauge!(name).set(value as f64);
        }
    }

    async fn reap(self, shutdown: Shutdown) {
        let mut ticks = tokio::time::interval(REAP_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.begun() => return,
                _ = ticks.tick() => {}
            }
            let now = self.clock.now_s();
            self.shared.table.flush_if_due(now);
            for shard_index in 0..self.shared.table.shard_count() {
                while self.shared.table.reap(shard_index, now) {
                    // Commands come first.
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    async fn serve_connection(self, stream: TcpStream, peer: SocketAddr, shutdown: Shutdown) {
        let (number, connection) = self.shared.connections.insert(peer, self.clock.now_s());
        let outcome = self.converse(stream, &connection, &shutdown).await;
        self.shared.connections.remove(number);
        if let Err(error) = outcome {
            tracing::debug!(%peer, %error, "a memcached connection broke");
        }
    }

    async fn converse(
        &self,
        mut stream: TcpStream,
        connection: &Connection,
        shutdown: &Shutdown,
    ) -> io::Result<()> {
        let mut session = Session::new(Arc::clone(&self.shared));
        let mut input = Input::new();
        let mut output = Output::default();
        let stop = shutdown.begun();
        tokio::pin!(stop);
        let traffic = &self.shared.connections;
        loop {
            let now = self.clock.now_s();
            let (done, status) = session.advance(input.filled(), &mut output, now);
            input.consume(done);
            if output.len() > 0 {
                traffic.written_bytes.fetch_add(output.len() as u64, Ordering::Relaxed);
                send(&mut stream, &mut output).await?;
            }
            match status {
                Status::OutputFull => continue,
                Status::Close => return Ok(()),
                Status::NeedInput => {}
            }
            let target = match session.value_buffer() {
                Some(buffer) if input.filled().is_empty() => buffer,
                _ => input.spare(),
            };
            let read = read_or_stop(&mut stream, target, stop.as_mut());
            let outcome = match self.shared.options.idle_timeout {
                None => read.await?,
                Some(timeout) => match tokio::time::timeout(timeout, read).await {
                    Ok(outcome) => outcome?,
                    Err(_) => return Ok(()),
                },
            };
            let Some(count @ 1..) = outcome else { return Ok(()) };
            traffic.read_bytes.fetch_add(count as u64, Ordering::Relaxed);
            connection.active_at.store(now, Ordering::Relaxed);
            if session.value_buffer().is_some() && input.filled().is_empty() {
                session.value_arrived(count);
            } else {
                input.fill(count);
            }
        }
    }
}

/// Sends all of `output`, in as few writes as the socket allows.
async fn send(stream: &mut TcpStream, output: &mut Output) -> io::Result<()> {
    while output.len() > 0 {
        let (slices, count) = output.slices();
        let sent = match count {
            1 => stream.write(&slices[0]).await?,
            _ => stream.write_vectored(&slices[..count]).await?,
        };
        if sent == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        output.advance(sent);
    }
    Ok(())
}

/// Reads into `buffer`; how many bytes came, or nothing if stopping began before
/// any did.
///
/// `stop` is asked only when the task is woken and there is nothing to read: it
/// has had the task's waker since its first poll, and asking takes a lock that
/// all connections share.
async fn read_or_stop<F: Future<Output = ()>>(
    stream: &mut TcpStream,
    buffer: &mut [u8],
    mut stop: Pin<&mut F>,
) -> io::Result<Option<usize>> {
    std::future::poll_fn(|context| {
        let mut target = ReadBuf::new(buffer);
        if let Poll::Ready(outcome) = Pin::new(&mut *stream).poll_read(context, &mut target) {
            return Poll::Ready(outcome.map(|()| Some(target.filled().len())));
        }
        stop.as_mut().poll(context).map(|()| Ok(None))
    })
    .await
}

/// The bytes that came and were not understood yet.
#[derive(Debug)]
struct Input {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Input {
    fn new() -> Self {
        Self { buffer: vec![0; READ_BYTES], start: 0, end: 0 }
    }

    fn filled(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    fn consume(&mut self, count: usize) {
        self.start += count;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.buffer.len() > READ_BYTES {
                self.buffer = vec![0; READ_BYTES];
            }
        }
    }

    /// Room for the next read: at least half the buffer. The session bounds
    /// what is left in it, and so how far it grows.
    fn spare(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end > self.buffer.len() / 2 {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        &mut self.buffer[self.end..]
    }

    fn fill(&mut self, count: usize) {
        self.end += count;
    }
}
