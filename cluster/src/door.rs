//! A listening socket with a bound on its connections.
//!
//! Each door of the process is one of these: it binds, counts, and hands each
//! connection to the door's own protocol. When its connections are used up it
//! tells the newcomer so in the protocol's words and closes, as memcached does,
//! rather than leave it waiting in the backlog.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Shutdown;

/// What a door is told when it opens.
#[derive(Clone, Debug)]
pub struct DoorOptions {
    /// The door's name in messages and metrics: `bigtable`, `photos`, ….
    pub name: &'static str,
    /// Where to listen; port 0 picks one.
    pub address: SocketAddr,
    /// Allows an address that is not loopback although the door has neither
    /// TLS nor tokens.
    pub insecure: bool,
    /// Connections open at once; at least 1.
    pub connection_count_max: usize,
    /// Written to a connection over the bound before it is closed.
    pub refusal: &'static [u8],
}

/// Why a door did not open.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// The address is reachable from other machines and nothing protects it.
    #[error(
        "the {door} door would listen on {address}, which other machines can reach, \
         without TLS or tokens; listen on a loopback address, or pass --insecure if the network is trusted"
    )]
    Exposed {
        /// The door's name.
        door: &'static str,
        /// The address asked for.
        address: SocketAddr,
    },
    /// The system refused the address.
    #[error(
        "the {door} door cannot listen on {address}; if another program does, choose an address with --{door}-listen"
    )]
    Bind {
        /// The door's name.
        door: &'static str,
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// A bound socket that has not begun to accept.
#[derive(Debug)]
pub struct Door {
    options: DoorOptions,
    listener: TcpListener,
    local_address: SocketAddr,
}

impl Door {
    /// Binds the door's socket; connections wait in its backlog until [`Door::serve`].
    ///
    /// # Errors
    ///
    /// - [`DoorError::Exposed`]: not loopback, and not `insecure`.
    /// - [`DoorError::Bind`]: in use, or not ours.
    pub async fn open(options: DoorOptions) -> Result<Self, DoorError> {
        let DoorOptions { name: door, address, .. } = options;
        if !address.ip().is_loopback() && !options.insecure {
            return Err(DoorError::Exposed { door, address });
        }
        let bind = |source| DoorError::Bind { door, address, source };
        let listener = TcpListener::bind(address).await.map_err(bind)?;
        let local_address = listener.local_addr().map_err(bind)?;
        Ok(Self { options, listener, local_address })
    }

    /// The door's name.
    pub fn name(&self) -> &'static str {
        self.options.name
    }

    /// Where the door really listens.
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// Accepts until `shutdown` begins, and runs `handle` for each connection
    /// as a task that `shutdown` waits for. Nagle's algorithm is off.
    ///
    /// `handle` gets the stream and the peer's address, and watches `shutdown`
    /// itself to end an idle connection.
    pub async fn serve<H, F>(self, shutdown: Shutdown, handle: H)
    where
        H: Fn(TcpStream, SocketAddr) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        let Self { options, listener, .. } = self;
        let permits = Arc::new(Semaphore::new(options.connection_count_max));
        let meters = Meters::new(options.name);
        loop {
            let accepted = tokio::select! {
                () = shutdown.begun() => return,
                accepted = listener.accept() => accepted,
            };
            let (mut stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most likely: one that closes makes room.
                    tracing::warn!(door = options.name, %error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
                meters.refused.increment(1);
                // The socket's buffer is empty, so this does not wait; if the peer is gone, so be it.
                let _ = stream.write_all(options.refusal).await;
                continue;
            };
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(door = options.name, %peer, %error, "the peer left at once");
                continue;
            }
            meters.accepted.increment(1);
            let open = Open::new(&meters.open, permit);
            let connection = handle(stream, peer);
            shutdown.spawn(async move {
                let _open = open;
                connection.await;
            });
        }
    }
}

/// A connection as it is counted: until its task ends, or panics.
struct Open {
    gauge: Gauge,
    _permit: OwnedSemaphorePermit,
}

impl Open {
    fn new(gauge: &Gauge, permit: OwnedSemaphorePermit) -> Self {
        gauge.increment(1);
        Self { gauge: gauge.clone(), _permit: permit }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.gauge.decrement(1);
    }
}

struct Meters {
    accepted: Counter,
    refused: Counter,
    open: Gauge,
}

impl Meters {
    fn new(door: &'static str) -> Self {
        Self {
            accepted: metrics::counter!("hayloft_connections_accepted_total", "door" => door),
            refused: metrics::counter!("hayloft_connections_refused_total", "door" => door),
            open: metrics::gauge!("hayloft_connections_open", "door" => door),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    fn options(address: &str) -> DoorOptions {
        DoorOptions {
            name: "test",
            address: address.parse().unwrap(),
            insecure: false,
            connection_count_max: 1,
            refusal: b"full\r\n",
        }
    }

    #[tokio::test]
    async fn an_address_that_others_can_reach_needs_insecure() {
        let error = Door::open(options("0.0.0.0:0")).await.unwrap_err();
        assert!(error.to_string().contains("--insecure"), "{error}");
        assert!(Door::open(DoorOptions { insecure: true, ..options("0.0.0.0:0") }).await.is_ok());
    }

    #[tokio::test]
    async fn the_connection_over_the_bound_is_told_and_closed() {
        let door = Door::open(options("127.0.0.1:0")).await.unwrap();
        let address = door.local_address();
        let shutdown = Shutdown::new();
        let stop = shutdown.clone();
        let serving = tokio::spawn(door.serve(shutdown.clone(), move |mut stream, _| {
            let stop = stop.clone();
            async move {
                stream.write_all(b"hello").await.unwrap();
                stop.begun().await;
            }
        }));
        let mut first = TcpStream::connect(address).await.unwrap();
        let mut hello = [0; 5];
        first.read_exact(&mut hello).await.unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        let mut answer = Vec::new();
        second.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"full\r\n");
        shutdown.begin();
        serving.await.unwrap();
        assert!(shutdown.drained(Duration::from_secs(10)).await);
    }
}
