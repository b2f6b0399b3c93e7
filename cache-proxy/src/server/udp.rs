//! The same over UDP: a request is a datagram, an answer one or more.
//!
//! ```text
//! OFFSET  SIZE  FIELD, big-endian
//! 0       2     request id, repeated in the answer
//! 2       2     sequence number of this datagram, from 0
//! 4       2     datagrams of the message
//! 6       2     0
//! ```
//!
//! Requests of several datagrams are refused, as memcached does; what is
//! incomplete in its datagram is dropped. An answer is bounded. Anybody can
//! write any address into a datagram, so this is off unless asked for, and not
//! for addresses that are not loopback: a short request has a long answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use cluster::Shutdown;
use tokio::net::UdpSocket;

use super::Cache;
use crate::connections::Peer;
use crate::protocol::output::Output;
use crate::session::{Session, Status};

const HEADER_BYTES: usize = 8;
const REQUEST_BYTES_MAX: usize = 65_536;

/// Bytes of an answer in one datagram: memcached's.
const ANSWER_DATAGRAM_BYTES: usize = 1400 - HEADER_BYTES;

/// Bytes of an answer: more than the largest item of the default limit.
const ANSWER_BYTES_MAX: usize = 2 << 20;

impl Cache {
    /// Serves `socket` until `shutdown` begins. [`Cache::keep`] is the caller's.
    pub async fn serve_udp(&self, socket: UdpSocket, shutdown: Shutdown) {
        let Ok(local) = socket.local_addr() else { return };
        let _listener = self.shared.connections.listen(Peer::Udp { local });
        let mut buffer = vec![0; REQUEST_BYTES_MAX];
        loop {
            let received = tokio::select! {
                () = shutdown.begun() => return,
                received = socket.recv_from(&mut buffer) => received,
            };
            // An error is an earlier answer's: its client is gone.
            let Ok((count, peer)) = received else { continue };
            let Some((header, request)) = buffer[..count].split_at_checked(HEADER_BYTES) else { continue };
            let (id, total) = ([header[0], header[1]], u16::from_be_bytes([header[4], header[5]]));
            let traffic = &self.shared.connections;
            traffic.read_bytes.fetch_add(count as u64, Ordering::Relaxed);
            let answer = if total > 1 {
                b"SERVER_ERROR multi-packet request not supported\r\n".to_vec()
            } else {
                self.answer(request)
            };
            traffic.written_bytes.fetch_add(answer.len() as u64, Ordering::Relaxed);
            send(&socket, peer, id, &answer).await;
        }
    }

    /// The answers to the commands in `request`.
    fn answer(&self, request: &[u8]) -> Vec<u8> {
        let mut session = Session::new(Arc::clone(&self.shared), 0);
        let (mut output, mut answer) = (Output::default(), Vec::new());
        let (mut rest, now) = (request, self.clock.now_s());
        loop {
            let (done, status) = session.advance(rest, &mut output, now);
            rest = &rest[done..];
            while output.len() > 0 {
                let (slices, count) = output.slices();
                let before = answer.len();
                slices[..count].iter().for_each(|slice| answer.extend_from_slice(slice));
                output.advance(answer.len() - before);
            }
            if answer.len() > ANSWER_BYTES_MAX {
                return b"SERVER_ERROR response too large for UDP\r\n".to_vec();
            }
            if status == Status::Errand {
                return b"SERVER_ERROR keys with a route are not served over UDP\r\n".to_vec();
            }
            if status != Status::OutputFull {
                return answer;
            }
        }
    }
}

async fn send(socket: &UdpSocket, peer: SocketAddr, id: [u8; 2], answer: &[u8]) {
    let Ok(total) = u16::try_from(answer.len().div_ceil(ANSWER_DATAGRAM_BYTES)) else { return };
    for (sequence, part) in (0..total).zip(answer.chunks(ANSWER_DATAGRAM_BYTES)) {
        let mut datagram = Vec::with_capacity(HEADER_BYTES + part.len());
        datagram.extend_from_slice(&id);
        datagram.extend_from_slice(&sequence.to_be_bytes());
        datagram.extend_from_slice(&total.to_be_bytes());
        datagram.extend_from_slice(&[0, 0]);
        datagram.extend_from_slice(part);
        if socket.send_to(&datagram, peer).await.is_err() {
            return;
        }
    }
}
