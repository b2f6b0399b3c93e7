//! Serves the memcached door alone, with memcached's own flags, so that what is
//! written for `memcached` can be run against it, memcached's tests included.
//!
//! `-p PORT`, `-l ADDRESS`, `-U UDP_PORT`, `-s UNIX_SOCKET`, `-a MODE` (octal),
//! `-m MEBIBYTES`, `-I ITEM_SIZE` (with k, m or g), `-c CONNECTIONS`, `-t THREADS`,
//! `-A` (shutdown command), `-Y FILE` (users), `-F` (no flush_all), `-X` (no dumps),
//! `-Z` with `-o ssl_chain_cert=FILE,ssl_key=FILE`, `-o idle_timeout=SECONDS`; others are
//! taken and left alone.

use std::collections::BTreeMap;
use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cache_proxy::{Cache, CacheOptions, Certificates, Credential, SystemClock};
use cluster::{Door, Shutdown};
use tokio::signal::unix::{SignalKind, signal};

/// Flags with a value, and those without.
const VALUED: &str = "plUsamIctYoubfnRCBDLe";

struct Flags(BTreeMap<char, String>);

impl Flags {
    fn parse(arguments: impl Iterator<Item = String>) -> Self {
        let mut flags = BTreeMap::new();
        let mut arguments = arguments.peekable();
        while let Some(argument) = arguments.next() {
            let Some(letter) = argument.strip_prefix('-').and_then(|rest| rest.chars().next()) else {
                continue;
            };
            let attached = argument[2..].to_owned();
            let value = match VALUED.contains(letter) {
                true if attached.is_empty() => arguments.next().unwrap_or_default(),
                _ => attached,
            };
            // `-o` comes as often as one likes.
            flags.entry(letter).and_modify(|all: &mut String| *all += &format!(",{value}")).or_insert(value);
        }
        Self(flags)
    }

    fn has(&self, letter: char) -> bool {
        self.0.contains_key(&letter)
    }

    fn number(&self, letter: char, default: u64) -> Result<u64, Box<dyn Error>> {
        let Some(text) = self.0.get(&letter) else { return Ok(default) };
        let text = text.to_ascii_lowercase();
        let shift = match text.chars().last() {
            Some('k') => 10,
            Some('m') => 20,
            Some('g') => 30,
            _ => 0,
        };
        Ok(text.trim_end_matches(['k', 'm', 'g']).parse::<u64>()? << shift)
    }

    fn option(&self, name: &str) -> Option<&str> {
        let options = self.0.get(&'o')?.split(',');
        options
            .filter_map(|option| option.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let flags = Flags::parse(std::env::args().skip(1));
    let threads = usize::try_from(flags.number('t', 4)?)?;
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()?
        .block_on(serve(&flags))
}

async fn serve(flags: &Flags) -> Result<(), Box<dyn Error>> {
    let idle_s = flags.option("idle_timeout").map_or(Ok(0), str::parse)?;
    let users = flags.0.get(&'Y').map(|path| Credential::read_file(Path::new(path))).transpose()?;
    let options = CacheOptions {
        memory_bytes_max: flags.number('m', 64)? << 20,
        item_bytes_max: flags.number('I', 1 << 20)?,
        connection_count_max: usize::try_from(flags.number('c', 1024)?)?,
        credentials: users.unwrap_or_default(),
        shutdown_command: flags.has('A'),
        flush_enabled: !flags.has('F'),
        dump_enabled: !flags.has('X'),
        idle_timeout: (idle_s > 0).then(|| Duration::from_secs(idle_s)),
        ..CacheOptions::default()
    };
    let cache = Cache::new(options.clone(), Arc::new(SystemClock::new()))?;
    let shutdown = Shutdown::new();
    if let Some(path) = flags.0.get(&'s') {
        let mode = flags.0.get(&'a').map_or(Ok(0o700), |mode| u32::from_str_radix(mode, 8))?;
        let listener = Cache::open_unix(Path::new(path), mode)?;
        println!("memcached on {path}");
        cache.keep(&shutdown);
        let (cache, path, stop) = (cache.clone(), path.into(), shutdown.clone());
        shutdown.spawn(async move { cache.serve_unix(listener, path, stop).await });
    } else {
        let ip: IpAddr = flags.0.get(&'l').map_or(Ok([127, 0, 0, 1].into()), |text| text.parse())?;
        let address = SocketAddr::new(ip, u16::try_from(flags.number('p', 11211)?)?);
        let door = Door::open(options.door(address, true)).await?;
        println!("memcached on {}", door.local_address());
        let udp_port = u16::try_from(flags.number('U', 0)?)?;
        if udp_port != 0 {
            let socket = tokio::net::UdpSocket::bind((ip, udp_port)).await?;
            let (cache, stop) = (cache.clone(), shutdown.clone());
            shutdown.spawn(async move { cache.serve_udp(socket, stop).await });
        }
        let (cache, stop) = (cache.clone(), shutdown.clone());
        if flags.has('Z') {
            let file = |name| flags.option(name).ok_or(format!("-Z needs -o {name}=FILE"));
            let certificates = Certificates::read(file("ssl_chain_cert")?.into(), file("ssl_key")?.into())?;
            shutdown.spawn(async move { cache.serve_tls(door, Arc::new(certificates), stop).await });
        } else {
            shutdown.spawn(async move { cache.serve(door, stop).await });
        }
    }
    let (mut terminate, mut user) = (signal(SignalKind::terminate())?, signal(SignalKind::user_defined1())?);
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
        _ = user.recv() => {}
        () = cache.shutdown_asked() => {}
    }
    shutdown.begin();
    shutdown.drained(Duration::from_secs(5)).await;
    Ok(())
}
