//! Every setting, once: its key, what it does, what it accepts.

use cluster::telemetry::{EventFormat, check_filter};
use haystack::stores::identity::BadLabels;

use super::Config;
use super::photo_values::{shown_signing_keys, shown_variants, signing_keys, variants};
use super::values::{
    address, addresses, boolean, bytes, count, instance, mode, origin, path, shown_bytes, shown_path, span,
};

/// One setting.
pub(crate) struct Key {
    /// Its name in the file: a table and a key. In the environment:
    /// `HAYLOFT_`, upper case, `_` for the dot.
    pub(crate) name: &'static str,
    /// What it does.
    pub(crate) about: &'static str,
    /// Sets it from text; what is wrong with the text otherwise.
    pub(crate) set: fn(&mut Config, &str) -> Result<(), String>,
    /// What it is, as text that `set` accepts.
    pub(crate) show: fn(&Config) -> String,
}

impl Key {
    /// The environment variable of this key.
    pub(crate) fn variable(&self) -> String {
        format!("HAYLOFT_{}", self.name.replace('.', "_").to_uppercase())
    }
}

/// The known key that looks most like `name`, if one does.
pub(crate) fn similar_to(name: &str) -> Option<&'static str> {
    KEYS.iter()
        .map(|key| (strsim::damerau_levenshtein(key.name, name), key.name))
        .filter(|(distance, _)| *distance <= 2)
        .min()
        .map(|(_, key)| key)
}

const CONNECTIONS: std::ops::RangeInclusive<u64> = 1..=1_000_000;

/// Every setting, in the order that `hayloft config` shows them.
pub(crate) const KEYS: &[Key] = &[
    Key {
        name: "data_dir",
        about: "where everything is kept",
        set: |config, text| {
            if text.is_empty() {
                return Err("must be a directory".to_owned());
            }
            config.data_dir = text.into();
            Ok(())
        },
        show: |config| config.data_dir.display().to_string(),
    },
    Key {
        name: "ephemeral",
        about: "keep nothing after the process ends, whatever data_dir says; for test suites",
        set: |config, text| boolean(text).map(|value| config.ephemeral = value),
        show: |config| config.ephemeral.to_string(),
    },
    Key {
        name: "insecure",
        about: "let doors that have neither TLS nor tokens listen on addresses that other machines can reach",
        set: |config, text| boolean(text).map(|value| config.insecure = value),
        show: |config| config.insecure.to_string(),
    },
    Key {
        name: "drain",
        about: "how long a stop waits for requests in flight",
        set: |config, text| span(text, 0, 3600).map(|value| config.drain = value),
        show: |config| humantime::format_duration(config.drain).to_string(),
    },
    Key {
        name: "bigtable.listen",
        about: "the door for Bigtable clients (gRPC)",
        set: |config, text| address(text).map(|value| config.bigtable.address = value),
        show: |config| config.bigtable.address.to_string(),
    },
    Key {
        name: "bigtable.connections_max",
        about: "connections open at once at that door",
        set: |config, text| count(text, CONNECTIONS).map(|value| config.bigtable.connections_max = value),
        show: |config| config.bigtable.connections_max.to_string(),
    },
    Key {
        name: "bigtable.in_flight_max",
        about: "memory for the bodies of requests under way at that door; what comes beyond is answered UNAVAILABLE",
        set: |config, text| bytes(text, 1 << 20, 1 << 40).map(|value| config.in_flight_bytes_max = value),
        show: |config| shown_bytes(config.in_flight_bytes_max),
    },
    Key {
        name: "photos.listen",
        about: "the door for photos (HTTP)",
        set: |config, text| address(text).map(|value| config.photos.address = value),
        show: |config| config.photos.address.to_string(),
    },
    Key {
        name: "photos.connections_max",
        about: "connections open at once at that door",
        set: |config, text| count(text, CONNECTIONS).map(|value| config.photos.connections_max = value),
        show: |config| config.photos.connections_max.to_string(),
    },
    Key {
        name: "photos.upload_max",
        about: "the largest photo taken",
        set: |config, text| bytes(text, 1 << 10, 64 << 20).map(|value| config.photo_bytes_max = value),
        show: |config| shown_bytes(config.photo_bytes_max),
    },
    Key {
        name: "photos.blob_max",
        about: "the largest blob taken; it is stored in chunks of 1 MiB",
        set: |config, text| bytes(text, 1 << 10, 1 << 40).map(|value| config.blob_bytes_max = value),
        show: |config| shown_bytes(config.blob_bytes_max),
    },
    Key {
        name: "photos.bodies_max",
        about: "memory for the bodies of uploads under way; what comes beyond waits, and gets 503 if that takes too long",
        set: |config, text| {
            bytes(text, 64 << 20, 64 << 30).map(|value| config.photo_bodies_bytes_max = value)
        },
        show: |config| shown_bytes(config.photo_bodies_bytes_max),
    },
    Key {
        name: "photos.variants",
        about: "variants of photos that need no signature, such as: w=320&fm=auto, w=200&h=200&fit=cover",
        set: |config, text| variants(text).map(|value| config.photo_variants = value),
        show: |config| shown_variants(&config.photo_variants),
    },
    Key {
        name: "photos.variant_cache",
        about: "memory for variants that were made lately",
        set: |config, text| bytes(text, 0, 64 << 30).map(|value| config.variant_cache_bytes = value),
        show: |config| shown_bytes(config.variant_cache_bytes),
    },
    Key {
        name: "photos.signing_keys",
        about: "keys of signed URLs, separated by commas: all verify, the first signs; 16 characters at least",
        set: |config, text| signing_keys(text).map(|value| config.signing_keys = value),
        show: |config| shown_signing_keys(&config.signing_keys),
    },
    Key {
        name: "photos.signed_only",
        about: "read photos and blobs by signed URLs only; lists of them stay open",
        set: |config, text| boolean(text).map(|value| config.signed_only = value),
        show: |config| config.signed_only.to_string(),
    },
    Key {
        name: "photos.pixels_max",
        about: "the most pixels a photo may have",
        set: |config, text| count(text, 1..=500_000_000).map(|value| config.photo_pixels_max = value),
        show: |config| config.photo_pixels_max.to_string(),
    },
    Key {
        name: "photos.volume_max",
        about: "how large a volume file grows before it is sealed and another one begun",
        set: |config, text| bytes(text, 1 << 20, 16 << 30).map(|value| config.volume_bytes_max = value),
        show: |config| shown_bytes(config.volume_bytes_max),
    },
    Key {
        name: "photos.garbage_percent",
        about: "how much of a volume may be garbage before it is compacted, in percent; 0 compacts by command only",
        set: |config, text| count(text, 0..=95).map(|value| config.garbage_percent = value),
        show: |config| config.garbage_percent.to_string(),
    },
    Key {
        name: "photos.compaction_rate",
        about: "bytes a second that a compaction of a volume reads in the background; 0 is no limit",
        set: |config, text| bytes(text, 0, 1 << 40).map(|value| config.compaction_bytes_per_second = value),
        show: |config| shown_bytes(config.compaction_bytes_per_second),
    },
    Key {
        name: "photos.scrub_rate",
        about: "bytes a second that are read to find damaged photos; 0 looks by command only",
        set: |config, text| bytes(text, 0, 1 << 40).map(|value| config.scrub_bytes_per_second = value),
        show: |config| shown_bytes(config.scrub_bytes_per_second),
    },
    Key {
        name: "photos.image_threads",
        about: "threads that decode and scale photos",
        set: |config, text| count(text, 1..=256).map(|value| config.image_threads = value),
        show: |config| config.image_threads.to_string(),
    },
    Key {
        name: "photos.stores",
        about: "the stores that keep replicas of photos, such as http://10.0.0.7:8090, and `local` for the one in this process; none: this process alone",
        set: |config, text| addresses(text).map(|value| config.stores = value),
        show: |config| config.stores.join(","),
    },
    Key {
        name: "photos.replicas",
        about: "replicas of each photo, where there are stores",
        set: |config, text| {
            count(text, 1..=9)
                .map(|value| config.replicas.replica_count = usize::try_from(value).unwrap_or(9))
        },
        show: |config| config.replicas.replica_count.to_string(),
    },
    Key {
        name: "photos.replace_after",
        about: "how long a store may be away before its replicas are made elsewhere",
        set: |config, text| span(text, 1, 30 * 24 * 3600).map(|value| config.replicas.replace_after = value),
        show: |config| humantime::format_duration(config.replicas.replace_after).to_string(),
    },
    Key {
        name: "photos.compare_period",
        about: "how often the replicas of a volume are compared",
        set: |config, text| span(text, 1, 30 * 24 * 3600).map(|value| config.replicas.compare_period = value),
        show: |config| humantime::format_duration(config.replicas.compare_period).to_string(),
    },
    Key {
        name: "photos.copy_rate",
        about: "bytes of photos copied between stores in a second, at most, to make replicas",
        set: |config, text| {
            bytes(text, 1 << 10, 1 << 40).map(|value| config.replicas.copy_bytes_per_s = value)
        },
        show: |config| shown_bytes(config.replicas.copy_bytes_per_s),
    },
    Key {
        name: "photos.store_token_file",
        about: "a file with the token that stores ask for, the same at all of them; none: stores listen on loopback addresses and ask for none",
        set: |config, text| {
            config.store_token_file = path(text);
            Ok(())
        },
        show: |config| shown_path(config.store_token_file.as_deref()),
    },
    Key {
        name: "haystack_store.listen",
        about: "the door of `hayloft haystack-store`",
        set: |config, text| address(text).map(|value| config.haystack_store.address = value),
        show: |config| config.haystack_store.address.to_string(),
    },
    Key {
        name: "haystack_store.connections_max",
        about: "connections open at once at that door",
        set: |config, text| {
            count(text, CONNECTIONS).map(|value| config.haystack_store.connections_max = value)
        },
        show: |config| config.haystack_store.connections_max.to_string(),
    },
    Key {
        name: "haystack_store.labels",
        about: "where the store of this process stands, such as rack=a,room=2: replicas lie in different racks",
        set: |config, text| {
            text.parse().map(|value| config.store_labels = value).map_err(|bad: BadLabels| bad.to_string())
        },
        show: |config| config.store_labels.to_string(),
    },
    Key {
        name: "memcached.listen",
        about: "the door for memcached clients (text protocol)",
        set: |config, text| address(text).map(|value| config.memcached.address = value),
        show: |config| config.memcached.address.to_string(),
    },
    Key {
        name: "memcached.connections_max",
        about: "connections open at once at that door",
        set: |config, text| count(text, CONNECTIONS).map(|value| config.memcached.connections_max = value),
        show: |config| config.memcached.connections_max.to_string(),
    },
    Key {
        name: "memcached.memory",
        about: "memory for items, their overhead included",
        set: |config, text| bytes(text, 1 << 20, 1 << 40).map(|value| config.cache_bytes = value),
        show: |config| shown_bytes(config.cache_bytes),
    },
    Key {
        name: "memcached.item_max",
        about: "the largest item taken",
        set: |config, text| bytes(text, 1 << 10, 1 << 30).map(|value| config.cache_item_bytes_max = value),
        show: |config| shown_bytes(config.cache_item_bytes_max),
    },
    Key {
        name: "memcached.warm_restart",
        about: "whether a clean stop saves the items and the next start loads them, but for rows and photos; not for clients whose deletes are lost while it is down",
        set: |config, text| boolean(text).map(|value| config.cache_warm_restart = value),
        show: |config| config.cache_warm_restart.to_string(),
    },
    Key {
        name: "memcached.users_file",
        about: "a file of user:password, one a line, that clients of that door must know (ASCII authentication); none: everybody comes in",
        set: |config, text| {
            config.cache_access.users_file = path(text);
            Ok(())
        },
        show: |config| shown_path(config.cache_access.users_file.as_deref()),
    },
    Key {
        name: "memcached.tls_chain_file",
        about: "the certificates, in PEM, with which that door speaks TLS; refresh_certs reads them again. With users as well, other machines may reach it",
        set: |config, text| {
            config.cache_access.tls_chain_file = path(text);
            Ok(())
        },
        show: |config| shown_path(config.cache_access.tls_chain_file.as_deref()),
    },
    Key {
        name: "memcached.tls_key_file",
        about: "the key of these certificates, in PEM",
        set: |config, text| {
            config.cache_access.tls_key_file = path(text);
            Ok(())
        },
        show: |config| shown_path(config.cache_access.tls_key_file.as_deref()),
    },
    Key {
        name: "memcached.unix_socket",
        about: "a Unix socket for memcached clients, beside the door; none if empty",
        set: |config, text| {
            config.cache_access.unix_socket = path(text);
            Ok(())
        },
        show: |config| shown_path(config.cache_access.unix_socket.as_deref()),
    },
    Key {
        name: "memcached.unix_mode",
        about: "the permissions of that socket, in octal digits",
        set: |config, text| mode(text).map(|value| config.cache_access.unix_mode = value),
        show: |config| format!("{:o}", config.cache_access.unix_mode),
    },
    Key {
        name: "memcached.udp_listen",
        about: "an address for memcached over UDP, beside the door, for keys without a route; none if empty",
        set: |config, text| {
            config.cache_access.udp = if text.is_empty() { None } else { Some(address(text)?) };
            Ok(())
        },
        show: |config| config.cache_access.udp.map(|address| address.to_string()).unwrap_or_default(),
    },
    Key {
        name: "origins.instance",
        about: "the instance of tables that a memcached key row:<table>:… names by their id alone",
        set: |config, text| instance(text).map(|value| config.origins.instance = value),
        show: |config| config.origins.instance.to_string(),
    },
    Key {
        name: "origins.rows",
        about: "where cells of such keys are read and written: http://host:port of a Bigtable door, or here",
        set: |config, text| origin(text, true).map(|value| config.origins.rows = value),
        show: |config| config.origins.rows.clone().unwrap_or_else(|| "here".to_owned()),
    },
    Key {
        name: "origins.photos",
        about: "where photos of memcached keys photo:<id>:<size> are read: host:port of a photo door, or here",
        set: |config, text| origin(text, false).map(|value| config.origins.photos = value),
        show: |config| config.origins.photos.clone().unwrap_or_else(|| "here".to_owned()),
    },
    Key {
        name: "origins.timeout",
        about: "the longest that a read or write of an origin takes before its client is told of an error",
        set: |config, text| span(text, 1, 300).map(|value| config.origins.timeout = value),
        show: |config| humantime::format_duration(config.origins.timeout).to_string(),
    },
    Key {
        name: "origins.calls_max",
        about: "reads and writes of origins under way at once; others wait",
        set: |config, text| count(text, 1..=10_000).map(|value| config.origins.calls_max = value),
        show: |config| config.origins.calls_max.to_string(),
    },
    Key {
        name: "origins.staleness_max",
        about: "the oldest that a cached cell is which was written elsewhere, when its table's changes cannot be followed",
        set: |config, text| span(text, 1, 3600).map(|value| config.origins.staleness_max = value),
        show: |config| humantime::format_duration(config.origins.staleness_max).to_string(),
    },
    Key {
        name: "console.listen",
        about: "the door for operators: /healthz, /readyz, /metrics",
        set: |config, text| address(text).map(|value| config.console.address = value),
        show: |config| config.console.address.to_string(),
    },
    Key {
        name: "console.connections_max",
        about: "connections open at once at that door",
        set: |config, text| count(text, CONNECTIONS).map(|value| config.console.connections_max = value),
        show: |config| config.console.connections_max.to_string(),
    },
    Key {
        name: "rows.memory",
        about: "memory for rows: rows.memtables, log buffers, filters, decoded SSTable blocks",
        set: |config, text| bytes(text, 1 << 20, 1 << 40).map(|value| config.rows_bytes = value),
        show: |config| shown_bytes(config.rows_bytes),
    },
    Key {
        name: "rows.memtables",
        about: "of rows.memory, for rows that are not in an SSTable yet",
        set: |config, text| bytes(text, 1 << 20, 1 << 40).map(|value| config.memtable_bytes = value),
        show: |config| shown_bytes(config.memtable_bytes),
    },
    Key {
        name: "rows.in_memory",
        about: "of rows.memory, for blocks of locality groups that are kept in memory; no more than three quarters of what rows.memtables and log buffers leave; blocks beyond it are read as those of other groups are",
        set: |config, text| bytes(text, 0, 1 << 40).map(|value| config.in_memory_bytes = value),
        show: |config| shown_bytes(config.in_memory_bytes),
    },
    Key {
        name: "rows.tablet_servers",
        about: "tablet servers in this process, which share rows.memory; tablets move between them as load asks",
        set: |config, text| {
            count(text, 1..=tablet_server::fleet::SERVER_COUNT_MAX as u64)
                .map(|value| config.tablet_server_count = value)
        },
        show: |config| config.tablet_server_count.to_string(),
    },
    Key {
        name: "rows.tablet_max",
        about: "how large a tablet grows before it is split in two, under traffic",
        set: |config, text| bytes(text, 1 << 10, 1 << 50).map(|value| config.tablet_bytes_max = value),
        show: |config| shown_bytes(config.tablet_bytes_max),
    },
    Key {
        name: "rows.merge_after",
        about: "small neighbouring tablets that have not grown for so long become one",
        set: |config, text| span(text, 1, 365 * 24 * 3600).map(|value| config.merge_after = value),
        show: |config| humantime::format_duration(config.merge_after).to_string(),
    },
    Key {
        name: "rows.undelete",
        about: "how long a deleted table can be brought back by UndeleteTable, and keeps its disk space; 0s deletes at once",
        set: |config, text| span(text, 0, 365 * 24 * 3600).map(|value| config.undelete_time = value),
        show: |config| humantime::format_duration(config.undelete_time).to_string(),
    },
    Key {
        name: "events.format",
        about: "how events are written to standard error: text or json",
        set: |config, text| {
            config.events_format = match text {
                "text" => EventFormat::Text,
                "json" => EventFormat::Json,
                _ => return Err("must be text or json".to_owned()),
            };
            Ok(())
        },
        show: |config| match config.events_format {
            EventFormat::Text => "text".to_owned(),
            EventFormat::Json => "json".to_owned(),
        },
    },
    Key {
        name: "events.filter",
        about: "which events are written: error, warn, info, debug or trace, or such a level a module: info,haystack=debug",
        set: |config, text| {
            check_filter(text).map_err(|error| error.to_string())?;
            config.events_filter = text.to_owned();
            Ok(())
        },
        show: |config| config.events_filter.clone(),
    },
];
