//! What this process was told, from four places: built-in defaults, a TOML
//! file, the environment, flags. Later places win.
//!
//! [`keys`] lists every setting once, with its meaning and its range; [`mod@file`]
//! and [`environment`] look names up there, so a misspelt one is refused with
//! its place whatever door it came through.

mod environment;
mod file;
mod keys;
mod photo_values;
mod values;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cache_proxy::{CacheOptions, OriginOptions};
use cluster::telemetry::EventFormat;
use haystack::HaystackOptions;
use haystack::imaging::variant::Variant;
use haystack::logical::ReplicaOptions;
use haystack::stores::identity::Labels;
use row_api::names::InstanceName;

pub(crate) use keys::KEYS;

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    /// Where everything is kept.
    pub(crate) data_dir: PathBuf,
    /// Keep nothing after the process ends.
    pub(crate) ephemeral: bool,
    /// Allow doors on addresses that other machines can reach.
    pub(crate) insecure: bool,
    /// How long a stop waits for requests in flight.
    pub(crate) drain: Duration,
    /// The Bigtable door.
    pub(crate) bigtable: Listen,
    /// Bytes of request bodies that the Bigtable door holds at once.
    pub(crate) in_flight_bytes_max: u64,
    /// The photo door.
    pub(crate) photos: Listen,
    /// The memcached door.
    pub(crate) memcached: Listen,
    /// The console door.
    pub(crate) console: Listen,
    /// Bytes of memory for rows, all kinds together.
    pub(crate) rows_bytes: u64,
    /// Of them, for rows that are not in an SSTable yet.
    pub(crate) memtable_bytes: u64,
    /// Of them, for locality groups that are kept in memory.
    pub(crate) in_memory_bytes: u64,
    /// Tablet servers in this process.
    pub(crate) tablet_server_count: u64,
    /// Bytes beyond which a tablet is split in two.
    pub(crate) tablet_bytes_max: u64,
    /// How long small neighbours must not have grown before they are merged.
    pub(crate) merge_after: Duration,
    /// How long deleted tables can be brought back.
    pub(crate) undelete_time: Duration,
    /// Bytes of the memcached door's items, overhead included.
    pub(crate) cache_bytes: u64,
    /// Bytes of the memcached door's largest item.
    pub(crate) cache_item_bytes_max: u64,
    /// How else the memcached door is reached, and by whom.
    pub(crate) cache_access: CacheAccess,
    /// Whether the memcached door's items outlive a clean stop.
    pub(crate) cache_warm_restart: bool,
    /// Where memcached keys with a route lead.
    pub(crate) origins: OriginConfig,
    /// Bytes of the largest photo taken.
    pub(crate) photo_bytes_max: u64,
    /// Bytes of the largest blob taken.
    pub(crate) blob_bytes_max: u64,
    /// Bytes of bodies of uploads in memory at once.
    pub(crate) photo_bodies_bytes_max: u64,
    /// Variants of photos that need no signature.
    pub(crate) photo_variants: Vec<Variant>,
    /// Bytes of variants kept in memory.
    pub(crate) variant_cache_bytes: u64,
    /// Keys of signed URLs.
    pub(crate) signing_keys: Vec<Vec<u8>>,
    /// Read photos and blobs by signed URLs only.
    pub(crate) signed_only: bool,
    /// Pixels of the largest photo taken.
    pub(crate) photo_pixels_max: u64,
    /// Bytes at which a photo volume is sealed.
    pub(crate) volume_bytes_max: u64,
    /// Part of a volume that may be garbage before it is compacted, percent.
    pub(crate) garbage_percent: u64,
    /// Bytes a second that a compaction reads.
    pub(crate) compaction_bytes_per_second: u64,
    /// Bytes a second that the scrub reads.
    pub(crate) scrub_bytes_per_second: u64,
    /// Threads that decode and scale photos.
    pub(crate) image_threads: u64,
    /// The stores that keep replicas of photos; none keeps photos in this process alone.
    pub(crate) stores: Vec<String>,
    /// How replicas are kept.
    pub(crate) replicas: ReplicaOptions,
    /// The file with the token that stores ask for.
    pub(crate) store_token_file: Option<PathBuf>,
    /// The door of a store that runs alone.
    pub(crate) haystack_store: Listen,
    /// Where the store of this process stands.
    pub(crate) store_labels: Labels,
    /// How events are written to standard error.
    pub(crate) events_format: EventFormat,
    /// Which events are written.
    pub(crate) events_filter: String,
}

/// How the memcached door is reached beside plain TCP, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CacheAccess {
    /// The file of users and passwords; everybody comes in without one.
    pub(crate) users_file: Option<PathBuf>,
    /// The certificates, in PEM, with which the door speaks TLS.
    pub(crate) tls_chain_file: Option<PathBuf>,
    /// Their key.
    pub(crate) tls_key_file: Option<PathBuf>,
    /// The Unix socket.
    pub(crate) unix_socket: Option<PathBuf>,
    /// The permissions of that socket.
    pub(crate) unix_mode: u32,
    /// The address for UDP.
    pub(crate) udp: Option<SocketAddr>,
}

/// Where memcached keys with a route lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OriginConfig {
    /// The instance of tables named by their id alone.
    pub(crate) instance: InstanceName,
    /// The URI of the Bigtable door of rows; none is this process.
    pub(crate) rows: Option<String>,
    /// `host:port` of the photo door; none is this process.
    pub(crate) photos: Option<String>,
    /// The longest a call takes.
    pub(crate) timeout: Duration,
    /// Calls under way at once.
    pub(crate) calls_max: u64,
    /// The oldest that a cached cell is whose table is not followed.
    pub(crate) staleness_max: Duration,
}

/// Where one door listens, and to how many at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listen {
    /// The address; port 0 picks one.
    pub(crate) address: SocketAddr,
    /// Connections open at once.
    pub(crate) connections_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        let listen = |port: u16, connections_max| Listen {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            connections_max,
        };
        // Each role's own default, so that it stands in one place.
        let rows = lsm::Options::default();
        let photos = HaystackOptions::default();
        let cache = CacheOptions::default();
        let origins = OriginOptions::default();
        Self {
            data_dir: PathBuf::from("./hayloft-data"),
            ephemeral: false,
            insecure: false,
            drain: Duration::from_secs(30),
            bigtable: listen(8086, 4096),
            // Four of the largest requests, or thousands of usual ones.
            in_flight_bytes_max: 1 << 30,
            photos: listen(8080, 4096),
            memcached: listen(11211, 1024),
            console: listen(8081, 64),
            rows_bytes: rows.memory_bytes_max as u64,
            memtable_bytes: rows.memtable_bytes_max as u64,
            in_memory_bytes: rows.in_memory_bytes_max as u64,
            tablet_server_count: 1,
            tablet_bytes_max: tablet_server::server::TABLET_BYTES_MAX,
            merge_after: master::balance::BalanceOptions::default().merge_after,
            undelete_time: master::MasterOptions::default().undelete_time,
            cache_bytes: cache.memory_bytes_max,
            cache_item_bytes_max: cache.item_bytes_max,
            cache_access: CacheAccess {
                users_file: None,
                tls_chain_file: None,
                tls_key_file: None,
                unix_socket: None,
                unix_mode: 0o700,
                udp: None,
            },
            cache_warm_restart: true,
            origins: OriginConfig {
                instance: origins.instance,
                rows: None,
                photos: None,
                timeout: origins.timeout,
                calls_max: origins.call_count_max as u64,
                staleness_max: origins.staleness_max,
            },
            photo_bytes_max: photos.photo_bytes_max,
            blob_bytes_max: photos.blob_bytes_max,
            photo_bodies_bytes_max: photos.body_bytes_in_flight_max,
            photo_variants: photos.variants_listed,
            variant_cache_bytes: photos.variant_cache_bytes_max,
            signing_keys: photos.signing_keys,
            signed_only: photos.signed_only,
            photo_pixels_max: photos.pixel_count_max,
            volume_bytes_max: photos.volume_bytes_max,
            garbage_percent: photos.compaction_garbage_percent.into(),
            compaction_bytes_per_second: photos.compaction_bytes_per_second,
            scrub_bytes_per_second: photos.scrub_bytes_per_second,
            image_threads: photos.imaging_thread_count as u64,
            stores: Vec::new(),
            replicas: ReplicaOptions::default(),
            store_token_file: None,
            haystack_store: listen(8090, 1024),
            store_labels: Labels::default(),
            events_format: EventFormat::Text,
            events_filter: "info".to_owned(),
        }
    }
}

/// A setting that was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is no TOML.
    #[error("{}: not valid TOML\n{message}", path.display())]
    NotToml {
        /// The file.
        path: PathBuf,
        /// The parser's own explanation, with the line.
        message: String,
    },
    /// There is no such key.
    #[error("{place}: unknown key {key:?}{}", suggestion.map(|key| format!("; did you mean {key:?}?")).unwrap_or_default())]
    UnknownKey {
        /// Where it stands.
        place: String,
        /// The key as written.
        key: String,
        /// A key that looks like it.
        suggestion: Option<&'static str>,
    },
    /// The key is known and the value is not one of its own.
    #[error("{place}: {key} = {value:?}: {reason}")]
    BadValue {
        /// Where it stands.
        place: String,
        /// The key.
        key: &'static str,
        /// The value as written.
        value: String,
        /// What is wrong, with the range.
        reason: String,
    },
}

impl Config {
    /// The configuration from defaults, `file`, the `environment` and `flags`,
    /// each of which overrides what comes before it. Flags are pairs of a key
    /// and a value.
    ///
    /// # Errors
    ///
    /// The first setting that is refused, with its place.
    pub(crate) fn load(
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
        flags: &[(&'static str, String)],
    ) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        if let Some(path) = file {
            file::apply(&mut config, path)?;
        }
        environment::apply(&mut config, environment)?;
        for (name, value) in flags {
            let place = format!("flag --{}", name.replace(['.', '_'], "-"));
            config.set(&place, name, value)?;
        }
        Ok(config)
    }

    /// Sets the key `name` to `value`, which was found at `place`.
    fn set(&mut self, place: &str, name: &str, value: &str) -> Result<(), ConfigError> {
        let key = KEYS.iter().find(|key| key.name == name).ok_or_else(|| ConfigError::UnknownKey {
            place: place.to_owned(),
            key: name.to_owned(),
            suggestion: keys::similar_to(name),
        })?;
        (key.set)(self, value).map_err(|reason| ConfigError::BadValue {
            place: place.to_owned(),
            key: key.name,
            value: value.to_owned(),
            reason,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hayloft.toml");
        std::fs::write(&path, file).unwrap();
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::load(Some(&path), environment, &[])
            .map_err(|error| error.to_string().replace(&path.display().to_string(), "hayloft.toml"))
    }

    #[test]
    fn later_places_override_earlier_ones() {
        let file = "[memcached]\nmemory = \"1GiB\"\nitem_max = 4096\n";
        let config = load(file, &[("HAYLOFT_MEMCACHED_ITEM_MAX", "8KiB")]).unwrap();
        assert_eq!(config.cache_bytes, 1 << 30);
        assert_eq!(config.cache_item_bytes_max, 8192);
        let flags = [("memcached.memory", "2GiB".to_owned())];
        assert_eq!(Config::load(None, std::iter::empty(), &flags).unwrap().cache_bytes, 2 << 30);
    }

    #[test]
    fn what_is_wrong_is_refused_with_its_place_and_range() {
        let cases = [
            ("data_dri = \"x\"\n", "hayloft.toml:1:1: unknown key \"data_dri\"; did you mean \"data_dir\"?"),
            (
                "\n[memcached]\n  memroy = 1\n",
                "hayloft.toml:3:3: unknown key \"memcached.memroy\"; did you mean \"memcached.memory\"?",
            ),
            (
                "[memcached]\nitem_max = \"3GiB\"\n",
                "hayloft.toml:2:12: memcached.item_max = \"3GiB\": must be from 1.0 KiB to 1.0 GiB",
            ),
            (
                "[bigtable]\nlisten = \"localhost\"\n",
                "hayloft.toml:2:10: bigtable.listen = \"localhost\": must be an address and a port, such as 127.0.0.1:8086",
            ),
            (
                "drain = 1.5\n",
                "hayloft.toml:1:9: drain = \"1.5\": must be a time such as 30s or 2m, from 0s to 1h",
            ),
            ("bigtable = 1\n", "hayloft.toml:1:1: unknown key \"bigtable\""),
            ("[zzzzzzzzz]\n", "hayloft.toml:1:2: unknown key \"zzzzzzzzz\""),
        ];
        for (file, expected) in cases {
            assert_eq!(load(file, &[]).unwrap_err(), expected, "{file}");
        }
        assert!(load("data_dir = \n", &[]).unwrap_err().starts_with("hayloft.toml: not valid TOML"));
    }

    #[test]
    fn the_environment_is_checked_like_the_file() {
        let error = load("", &[("HAYLOFT_DRAIN", "soon")]).unwrap_err();
        assert_eq!(
            error,
            "environment variable HAYLOFT_DRAIN: drain = \"soon\": must be a time such as 30s or 2m, from 0s to 1h"
        );
        let error = load("", &[("HAYLOFT_DATADIR", "x")]).unwrap_err();
        assert_eq!(
            error,
            "environment variable HAYLOFT_DATADIR: unknown key \"datadir\"; did you mean \"data_dir\"?"
        );
        // What another program left there is nobody's typing mistake.
        assert_eq!(load("", &[("HAYLOFT_PORT_8086_TCP_ADDR", "10.0.0.1")]).unwrap(), Config::default());
    }

    #[test]
    fn every_default_is_a_value_its_own_key_accepts() {
        let defaults = Config::default();
        for key in KEYS {
            let mut config = Config::default();
            let shown = (key.show)(&defaults);
            (key.set)(&mut config, &shown)
                .unwrap_or_else(|reason| panic!("{} = {shown}: {reason}", key.name));
            assert_eq!(config, defaults, "{}", key.name);
        }
    }
}
