//! What a connection sends, gathered until its task has nothing more to add.
//!
//! h2 writes after each data frame of 256 bytes or more, so the answer to a
//! read of one row went out in two pieces, the trailers alone in the second:
//! two system calls here, and often two wake-ups of the client. Here bytes stay
//! in a buffer, bounded, until the task that serves the connection has been
//! polled, which is when [`Gathered::poll_send`] writes them at once.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that wait to be sent, at most; more are written through.
const WAITING_BYTES_MAX: usize = 64 << 10;
/// Room that a connection keeps when nothing waits.
const KEPT_BYTES: usize = 4 << 10;

/// A stream whose writes wait for [`Gathered::poll_send`]. Its clones are one stream.
#[derive(Debug)]
pub(super) struct Gathered<S> {
    inner: Arc<Mutex<Inner<S>>>,
}

#[derive(Debug)]
struct Inner<S> {
    stream: S,
    /// Bytes that were read of the stream before.
    unread: Bytes,
    waiting: Vec<u8>,
    /// How much of `waiting` has been sent.
    sent: usize,
}

impl<S> Clone for Gathered<S> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<S: AsyncWrite + Unpin> Gathered<S> {
    /// The stream, of which `unread` was read already and is to be read again.
    pub(super) fn new(stream: S, unread: Bytes) -> Self {
        Self { inner: Arc::new(Mutex::new(Inner { stream, unread, waiting: Vec::new(), sent: 0 })) }
    }

    /// Writes what waits.
    pub(super) fn poll_send(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.lock().poll_send(context)
    }
}

impl<S: AsyncWrite + Unpin> Inner<S> {
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.waiting.len() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, &self.waiting[self.sent..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += written;
        }
        self.forget_sent();
        Poll::Ready(Ok(()))
    }

    fn forget_sent(&mut self) {
        self.sent = 0;
        self.waiting.clear();
        self.waiting.shrink_to(KEPT_BYTES);
    }

    fn poll_write(&mut self, context: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
        if self.waiting.len() + bytes <= WAITING_BYTES_MAX {
            for piece in pieces {
                self.waiting.extend_from_slice(piece);
            }
            return Poll::Ready(Ok(bytes));
        }
        self.poll_write_through(context, pieces)
    }

    /// Writes what waits and then `pieces`, uncopied.
    fn poll_write_through(
        &mut self,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        const PIECES_MAX: usize = 8;
        loop {
            let waiting = &self.waiting[self.sent..];
            let mut all = [IoSlice::new(&[]); PIECES_MAX];
            all[0] = IoSlice::new(waiting);
            for (place, piece) in all[1..].iter_mut().zip(pieces) {
                *place = IoSlice::new(piece);
            }
            let stream = Pin::new(&mut self.stream);
            let written = ready!(stream.poll_write_vectored(context, &all))?;
            if written == 0 {
                return Poll::Ready(Ok(0));
            }
            if let Some(of_pieces) = written.checked_sub(waiting.len()) {
                self.forget_sent();
                if of_pieces > 0 {
                    return Poll::Ready(Ok(of_pieces));
                }
            } else {
                self.sent += written;
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut inner = self.inner.lock();
        if inner.unread.is_empty() {
            return Pin::new(&mut inner.stream).poll_read(context, buffer);
        }
        let bytes = inner.unread.len().min(buffer.remaining());
        buffer.put_slice(&inner.unread.split_to(bytes));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.inner.lock().poll_write(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.inner.lock().poll_write(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Leaves what waits to [`Gathered::poll_send`]: h2 flushes in the middle of an answer too.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.inner.lock();
        ready!(inner.poll_send(context))?;
        Pin::new(&mut inner.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn writes_wait_until_they_are_sent_and_keep_their_order() {
        let (ours, mut theirs) = duplex(1 << 20);
        let gathered = Gathered::new(ours, Bytes::new());
        let mut writer = gathered.clone();
        writer.write_all(b"header").await.unwrap();
        writer.flush().await.unwrap();
        writer.write_all(b"trailer").await.unwrap();
        let mut received = [0; 13];
        let nothing = theirs.read_exact(&mut received);
        assert!(tokio::time::timeout(std::time::Duration::ZERO, nothing).await.is_err());
        poll_fn(|context| gathered.poll_send(context)).await.unwrap();
        theirs.read_exact(&mut received).await.unwrap();
        assert_eq!(&received, b"headertrailer");
    }

    #[tokio::test]
    async fn what_was_read_before_is_read_first() {
        let (mut ours, mut theirs) = duplex(100);
        theirs.write_all(b"preface and more").await.unwrap();
        let mut preface = [0; 7];
        ours.read_exact(&mut preface).await.unwrap();
        let mut gathered = Gathered::new(ours, Bytes::copy_from_slice(&preface));
        let mut received = [0; 16];
        gathered.read_exact(&mut received).await.unwrap();
        assert_eq!(&received, b"preface and more");
    }

    #[tokio::test]
    async fn what_does_not_fit_is_written_through_in_order_however_slow_the_peer() {
        let (ours, mut theirs) = duplex(1000);
        let bytes: Vec<u8> = (0..1_000_003_u32).map(|i| i.to_le_bytes()[0] ^ i.to_le_bytes()[1]).collect();
        let sent = bytes.clone();
        let writing = tokio::spawn(async move {
            let gathered = Gathered::new(ours, Bytes::new());
            let mut writer = gathered.clone();
            for (place, piece) in sent.chunks(30_011).enumerate() {
                writer.write_all(piece).await.unwrap();
                assert!(gathered.inner.lock().waiting.len() <= WAITING_BYTES_MAX);
                if place % 5 == 0 {
                    poll_fn(|context| gathered.poll_send(context)).await.unwrap();
                    assert!(gathered.inner.lock().waiting.capacity() <= KEPT_BYTES);
                }
            }
            writer.shutdown().await.unwrap();
        });
        let mut received = Vec::new();
        theirs.read_to_end(&mut received).await.unwrap();
        writing.await.unwrap();
        assert!(received == bytes);
    }
}
