//! What a cache is told when it is made.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use cluster::DoorOptions;

use crate::error::{Error, Result};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

const STALE_MAX: Duration = Duration::from_secs(3600);

/// What a connection over the bound is told, in memcached's words.
pub const REFUSAL: &[u8] = b"ERROR Too many open connections\r\n";

/// A cache's options. [`Default`] is memcached's defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheOptions {
    /// Bytes that the items may take in memory, with everything that holds
    /// them: allocator overhead, table, queues. When they are used up, items
    /// are evicted. Connection buffers and values that are still arriving come
    /// on top. At least 1 MiB; 64 MiB by default.
    pub memory_bytes_max: u64,
    /// The largest item, in bytes, as memcached counts it: key, value and 59
    /// bytes. A larger one is refused. 1 KiB to 1 GiB, and at most half of
    /// `memory_bytes_max`; 1 MiB by default.
    pub item_bytes_max: u64,
    /// Connections open at once; the next one is told so and closed. Each may
    /// hold a value of `item_bytes_max` that is still arriving. 1 to 1,000,000;
    /// 1024 by default.
    pub connection_count_max: usize,
    /// Answers held for a client that does not read them, in bytes, before its
    /// next commands wait. More makes fewer writes of a long pipeline. 4 KiB to
    /// 64 MiB; 64 KiB by default. One answer can exceed it by one value.
    pub output_bytes_max: usize,
    /// How long a deleted value is kept for those who take a stale one while
    /// somebody fetches the new one (`lease-get`). Whole seconds; zero keeps
    /// none. At most one hour; 10 seconds by default.
    pub stale: Duration,
    /// Who may use the cache, by memcached's ASCII authentication; everybody if
    /// empty, the default.
    pub credentials: Vec<Credential>,
    /// Whether `shutdown` stops the process ([`Cache::shutdown_asked`]). No by default.
    ///
    /// [`Cache::shutdown_asked`]: crate::Cache::shutdown_asked
    pub shutdown_command: bool,
    /// Whether clients may `flush_all`. Yes by default.
    pub flush_enabled: bool,
    /// Whether clients may list all keys. Yes by default.
    pub dump_enabled: bool,
    /// Closes a connection that sent nothing for this long; `None`, the
    /// default, never does. At least one second.
    pub idle_timeout: Option<Duration>,
}

/// A user and a password that may use a cache.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    user: Vec<u8>,
    password: Vec<u8>,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Credential").finish_non_exhaustive()
    }
}

impl Credential {
    /// `user` with `password`; neither is empty, and a user has no space.
    pub fn new(user: &str, password: &str) -> Option<Self> {
        let fits = !user.is_empty() && !password.is_empty() && !user.contains(' ');
        fits.then(|| Self { user: user.into(), password: password.into() })
    }

    /// Reads memcached's file of them: `user:password`, one a line.
    ///
    /// # Errors
    ///
    /// [`Error::Credentials`]: the file cannot be read, has a line that is
    /// neither empty nor this, or has no other.
    pub fn read_file(path: &Path) -> Result<Vec<Self>> {
        let wrong = |line, source| Error::Credentials { path: path.to_owned(), line, source };
        let text = std::fs::read_to_string(path).map_err(|error| wrong(0, Some(error)))?;
        let mut credentials = Vec::new();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let parsed = line.split_once(':').and_then(|(user, password)| Self::new(user, password));
            credentials.push(parsed.ok_or_else(|| wrong(number + 1, None))?);
        }
        if credentials.is_empty() { Err(wrong(1, None)) } else { Ok(credentials) }
    }

    /// Whether it is these, in a time that does not tell how much of them is right.
    pub(crate) fn matches(&self, user: &[u8], password: &[u8]) -> bool {
        is_same(&self.user, user) & is_same(&self.password, password)
    }
}

fn is_same(secret: &[u8], given: &[u8]) -> bool {
    let mut difference = u8::from(secret.len() != given.len());
    for (index, byte) in given.iter().enumerate() {
        difference |= byte ^ secret[index % secret.len()];
    }
    difference == 0
}

impl Default for CacheOptions {
    fn default() -> Self {
        Self {
            memory_bytes_max: 64 * MIB,
            item_bytes_max: MIB,
            connection_count_max: 1024,
            output_bytes_max: 64 << 10,
            stale: Duration::from_secs(10),
            credentials: Vec::new(),
            shutdown_command: false,
            flush_enabled: true,
            dump_enabled: true,
            idle_timeout: None,
        }
    }
}

impl CacheOptions {
    /// Refuses a value out of its range.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] names the first such option and its range.
    pub fn check(&self) -> Result<()> {
        let refuse = |option, found: String, range: String| Err(Error::Option { option, found, range });
        if self.memory_bytes_max < MIB {
            return refuse("memory_bytes_max", self.memory_bytes_max.to_string(), format!("at least {MIB}"));
        }
        let item_bytes_most = GIB.min(self.memory_bytes_max / 2);
        if !(KIB..=item_bytes_most).contains(&self.item_bytes_max) {
            let range = format!("{KIB} to {item_bytes_most}: half of memory_bytes_max, and 1 GiB at most");
            return refuse("item_bytes_max", self.item_bytes_max.to_string(), range);
        }
        if !(1..=1_000_000).contains(&self.connection_count_max) {
            return refuse(
                "connection_count_max",
                self.connection_count_max.to_string(),
                "1 to 1000000".into(),
            );
        }
        if !(4 << 10..=64 << 20).contains(&self.output_bytes_max) {
            return refuse("output_bytes_max", self.output_bytes_max.to_string(), "4096 to 67108864".into());
        }
        if self.stale > STALE_MAX {
            return refuse("stale", format!("{:?}", self.stale), format!("at most {STALE_MAX:?}"));
        }
        match self.idle_timeout {
            Some(timeout) if timeout < Duration::from_secs(1) => {
                refuse("idle_timeout", format!("{timeout:?}"), "at least 1s".into())
            }
            _ => Ok(()),
        }
    }

    /// [`CacheOptions::stale`] in seconds.
    pub(crate) fn stale_seconds(&self) -> u32 {
        u32::try_from(self.stale.as_secs()).unwrap_or(u32::MAX)
    }

    /// The door that a cache with these options listens behind.
    pub fn door(&self, address: SocketAddr, insecure: bool) -> DoorOptions {
        DoorOptions {
            name: "memcached",
            address,
            insecure,
            connection_count_max: self.connection_count_max,
            refusal: REFUSAL,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl FnOnce(&mut CacheOptions), complaint: &str) {
        let mut options = CacheOptions::default();
        change(&mut options);
        let error = options.check().unwrap_err().to_string();
        assert!(error.contains(complaint), "{error}");
    }

    #[test]
    fn options_out_of_range_are_refused_by_name() {
        CacheOptions::default().check().unwrap();
        check(|o| o.memory_bytes_max = 1000, "memory_bytes_max is 1000; it must be at least 1048576");
        check(|o| o.item_bytes_max = 40 << 20, "half of memory_bytes_max");
        check(|o| o.item_bytes_max = 10, "item_bytes_max is 10");
        check(|o| o.connection_count_max = 0, "connection_count_max is 0");
        check(|o| o.output_bytes_max = 0, "output_bytes_max is 0");
        check(|o| o.idle_timeout = Some(Duration::ZERO), "idle_timeout is 0ns");
    }
}
