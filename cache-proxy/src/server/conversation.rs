//! One connection: bytes in, a batch of commands, bytes out.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use cluster::Shutdown;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::Cache;
use crate::connections::{Connection, Peer, Phase};
use crate::protocol::admin::stream;
use crate::protocol::output::Output;
use crate::session::{Session, Status};

/// What a connection reads at once; a longer line makes its buffer grow.
const READ_BYTES: usize = 16 << 10;

/// How long a client may take to take the end.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a connection ended, in memcached's words.
#[derive(Clone, Copy, Debug)]
enum End {
    /// The client left, or asked for the end, or the process stops.
    Normal,
    /// The client sent what no client sends.
    Protocol,
    /// It was silent for too long.
    Idle,
}

impl End {
    fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Protocol => "error",
            Self::Idle => "idle_timeout",
        }
    }
}

impl Cache {
    /// Serves one connection to its end.
    pub(super) async fn serve_stream<S>(self, mut stream: S, peer: Peer, shutdown: Shutdown)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let shared = &self.shared;
        let (number, connection) = shared.connections.insert(peer, self.clock.now_s());
        if shared.watchers.want(stream::CONNECTIONS) {
            let event = format_args!("type=conn_new {} cfd={number}", connection.peer.for_watchers());
            shared.watchers.tell(stream::CONNECTIONS, event);
        }
        let outcome = self.converse(&mut stream, number, &connection, &shutdown).await;
        if outcome.is_ok() {
            // TLS says that this is the end; a peer that does not take it is gone.
            let _ = tokio::time::timeout(FAREWELL_TIMEOUT, stream.shutdown()).await;
        }
        shared.connections.remove(number);
        if shared.watchers.want(stream::CONNECTIONS) {
            let reason = outcome.as_ref().map_or("error", |end| end.name());
            let peer = connection.peer.for_watchers();
            let event = format_args!("type=conn_close {peer} reason={reason} cfd={number}");
            shared.watchers.tell(stream::CONNECTIONS, event);
        }
        if let Err(error) = outcome {
            tracing::debug!(peer = %connection.peer, %error, "a memcached connection broke");
        }
    }

    async fn converse<S>(
        &self,
        stream: &mut S,
        number: u64,
        connection: &Connection,
        shutdown: &Shutdown,
    ) -> io::Result<End>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut session = Session::new(Arc::clone(&self.shared), number);
        let mut input = Input::new();
        let mut output = Output::default();
        let stop = shutdown.begun();
        tokio::pin!(stop);
        let traffic = &self.shared.connections;
        loop {
            let now = self.clock.now_s();
            connection.set_phase(Phase::Command);
            let (done, status) = session.advance(input.filled(), &mut output, now);
            input.consume(done);
            if output.len() > 0 {
                traffic.written_bytes.fetch_add(output.len() as u64, Ordering::Relaxed);
                send(stream, &mut output).await?;
            }
            match status {
                Status::OutputFull => continue,
                Status::Errand => {
                    if let (Some(origins), Some(errand)) = (&self.shared.origins, session.take_errand()) {
                        session.resume(origins.run(errand).await);
                    }
                    continue;
                }
                Status::Close if session.is_protocol_error() => return Ok(End::Protocol),
                Status::Close => return Ok(End::Normal),
                Status::NeedInput | Status::Watching => {}
            }
            let is_partial = session.is_in_value() || !input.filled().is_empty();
            connection.set_phase(if is_partial { Phase::Value } else { Phase::Read });
            if status == Status::Watching {
                let read = read_or_stop(stream, input.spare(), stop.as_mut());
                tokio::select! {
                    // What it says is of no interest, that it left is.
                    outcome = read => if !matches!(outcome?, Some(1..)) { return Ok(End::Normal) },
                    () = session.news() => {}
                }
                continue;
            }
            let target = match session.value_buffer() {
                Some(buffer) if input.filled().is_empty() => buffer,
                _ => input.spare(),
            };
            let read = read_or_stop(stream, target, stop.as_mut());
            let outcome = match self.shared.options.idle_timeout {
                None => read.await?,
                Some(timeout) => match tokio::time::timeout(timeout, read).await {
                    Ok(outcome) => outcome?,
                    Err(_) => {
                        traffic.idle_kick_count.fetch_add(1, Ordering::Relaxed);
                        return Ok(End::Idle);
                    }
                },
            };
            let Some(count @ 1..) = outcome else { return Ok(End::Normal) };
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
async fn send(stream: &mut (impl AsyncWrite + Unpin), output: &mut Output) -> io::Result<()> {
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
    stream: &mut (impl AsyncRead + Unpin),
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
