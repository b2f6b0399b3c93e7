//! Serves the memcached door alone: `memcached [PORT [MEBIBYTES]]`.
//!
//! Prints its address, and stops on ctrl-c. For trying a client, or a
//! comparison with another memcached.

use std::sync::Arc;
use std::time::Duration;

use cache_proxy::{Cache, CacheOptions, SystemClock};
use cluster::{Door, Shutdown};

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let port: u16 = arguments.next().map_or(Ok(11211), |port| port.parse())?;
    let mebibytes: u64 = arguments.next().map_or(Ok(64), |mebibytes| mebibytes.parse())?;
    let options = CacheOptions { memory_bytes_max: mebibytes << 20, ..CacheOptions::default() };
    let door = Door::open(options.door(([127, 0, 0, 1], port).into(), false)).await?;
    println!("memcached on {}", door.local_address());
    let cache = Cache::new(options, Arc::new(SystemClock::new()))?;
    let shutdown = Shutdown::new();
    let serving = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { cache.serve(door, shutdown).await }
    });
    tokio::signal::ctrl_c().await?;
    shutdown.begin();
    serving.await?;
    shutdown.drained(Duration::from_secs(5)).await;
    Ok(())
}
