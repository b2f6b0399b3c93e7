//! A cache behind a door, and clients of it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cache_proxy::{Cache, CacheOptions, Clock};
use cluster::{Door, Shutdown};

/// Patience with a server that does not answer: a test that needs it fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A clock that moves when it is told to.
#[derive(Debug)]
pub struct ManualClock(AtomicU32);

impl ManualClock {
    pub fn advance(&self, seconds: u32) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_s(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }
}

/// A cache that serves until this is dropped.
pub struct House {
    pub clock: Arc<ManualClock>,
    pub cache: Cache,
    pub address: SocketAddr,
    pub shutdown: Shutdown,
    runtime: tokio::runtime::Runtime,
}

impl House {
    pub fn open(options: CacheOptions) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let clock = Arc::new(ManualClock(AtomicU32::new(1_000_000_000)));
        let door = options.door(([127, 0, 0, 1], 0).into(), false);
        let door = runtime.block_on(Door::open(door)).unwrap();
        let address = door.local_address();
        let cache = Cache::new(options, clock.clone()).unwrap();
        let shutdown = Shutdown::new();
        let (served, stop) = (cache.clone(), shutdown.clone());
        runtime.spawn(async move { served.serve(door, stop).await });
        Self { clock, cache, address, shutdown, runtime }
    }

    pub fn client(&self) -> Client {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client(stream)
    }

    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
    }

    pub fn block_on<F: Future>(&self, task: F) -> F::Output {
        self.runtime.block_on(task)
    }

    /// Runs `open` where it finds the house's runtime.
    pub fn enter<T>(&self, open: impl FnOnce() -> T) -> T {
        let _runtime = self.runtime.enter();
        open()
    }

    /// Stops; whether every connection ended.
    pub fn stop(&self) -> bool {
        self.shutdown.begin();
        self.runtime.block_on(self.shutdown.drained(PATIENCE))
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.shutdown.begin();
    }
}

/// A connection.
pub struct Client(pub TcpStream);

impl Client {
    pub fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// Reads as many bytes as `expected` has, and they must be those.
    #[track_caller]
    pub fn expect(&mut self, expected: &[u8]) {
        let mut found = vec![0; expected.len()];
        let mut filled = 0;
        while filled < found.len() {
            match self.0.read(&mut found[filled..]) {
                Ok(count @ 1..) => filled += count,
                outcome => {
                    let found = show(&found[..filled]);
                    panic!("{outcome:?}: expected {:?}, found {found:?}", show(expected));
                }
            }
        }
        assert!(found == expected, "expected {:?}, found {:?}", show(expected), show(&found));
    }

    #[track_caller]
    pub fn ask(&mut self, bytes: &[u8], expected: &[u8]) {
        self.send(bytes);
        self.expect(expected);
    }

    /// The server closes, without another word.
    #[track_caller]
    pub fn expect_end(&mut self) {
        let mut rest = Vec::new();
        // A reset ends a connection too: the server did not read all we sent.
        let _ = self.0.read_to_end(&mut rest);
        assert_eq!(show(&rest), "");
    }
}

/// `bytes` as text, cut where it gets long.
pub fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned()
}
