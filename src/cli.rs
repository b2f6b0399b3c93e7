//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::admin::Admin;
use crate::inspect::Inspect;
use crate::salvage;

/// Rows, photos and hot data on your own machine: Bigtable's API, Haystack's
/// volumes and a memcached door in one process.
#[derive(Debug, Parser)]
#[command(name = "hayloft", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run every role in this process.
    ///
    /// Prints the address of each door, then a line `ready`. SIGTERM or Ctrl-C
    /// finishes what is in flight and exits with 0.
    #[command(after_help = SERVE_HELP)]
    Serve(Settings),
    /// Run one store of photos, for a `hayloft serve` that keeps replicas.
    ///
    /// Prints its address, then a line `ready`. Name it to `serve` with
    /// --haystack-store http://HOST:PORT, once for each store.
    HaystackStore(StoreSettings),
    /// Ask a running server to do something: tables, tablets, photo volumes, stores, the cache.
    #[command(subcommand)]
    Admin(Admin),
    /// Look into files of a data directory, offline.
    ///
    /// Reads only. Exits with 1 if something is damaged, naming each place by
    /// file and offset, and with 2 if it was asked wrongly.
    #[command(subcommand)]
    Inspect(Inspect),
    /// Make a server start again that refuses to because its commit log is damaged.
    ///
    /// Copy the data directory first, if you can. Without --write nothing is
    /// changed: it tells what is lost (files, offsets, sequence numbers) and
    /// what would be done. With --write, batches before the damage and whole
    /// ones behind it are kept in new segments; the old segments are renamed to
    /// *.log-damaged and never deleted. The server must not run.
    Salvage(salvage::Settings),
    /// Sign the path of a photo or a blob, so that it can be read until a time.
    ///
    /// The first of the keys in `photos.signing_keys` signs. Of a photo the path
    /// may ask for any variant: `/photos/ID?w=640&fm=webp`.
    SignUrl(SignUrl),
    /// Show every setting: its value, its meaning, and its environment variable.
    ///
    /// What it prints is a valid configuration file.
    Config(Settings),
}

/// What to sign, and for how long.
#[derive(Debug, Args)]
pub(crate) struct SignUrl {
    /// The path, with its query if it has one
    pub(crate) path: String,
    /// How long it can be read: 15min, 12h, 30days
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    pub(crate) expires: Duration,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

const SERVE_HELP: &str = "\
Try it:
  export BIGTABLE_EMULATOR_HOST=127.0.0.1:8086   # then any Bigtable client
  curl -F photo=@cat.jpg http://127.0.0.1:8080/photos
  printf 'set k 0 0 2\\r\\nhi\\r\\nget k\\r\\nquit\\r\\n' | nc 127.0.0.1 11211
  curl http://127.0.0.1:8081/readyz

`hayloft config` lists every other setting.";

/// Where settings come from. Flags override the environment, which overrides
/// the file.
#[derive(Args, Debug, Default)]
pub(crate) struct Settings {
    /// Read settings from this TOML file.
    #[arg(long, value_name = "FILE", env = "HAYLOFT_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Where everything is kept [default: ./hayloft-data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Keep nothing after the process ends.
    #[arg(long)]
    pub(crate) ephemeral: bool,
    /// The door for Bigtable clients; port 0 picks one [default: 127.0.0.1:8086]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) bigtable_listen: Option<SocketAddr>,
    /// The door for photos [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) photos_listen: Option<SocketAddr>,
    /// The door for memcached clients [default: 127.0.0.1:11211]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) memcached_listen: Option<SocketAddr>,
    /// A file of user:password lines that memcached clients must know
    #[arg(long, value_name = "FILE")]
    pub(crate) memcached_users_file: Option<PathBuf>,
    /// Certificates, in PEM, for TLS at the memcached door
    #[arg(long, value_name = "FILE")]
    pub(crate) memcached_tls_chain_file: Option<PathBuf>,
    /// Their key
    #[arg(long, value_name = "FILE")]
    pub(crate) memcached_tls_key_file: Option<PathBuf>,
    /// A Unix socket for memcached clients, beside that door
    #[arg(long, value_name = "PATH")]
    pub(crate) memcached_unix_socket: Option<PathBuf>,
    /// An address for memcached over UDP, beside that door
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) memcached_udp_listen: Option<SocketAddr>,
    /// The door for operators [default: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) console_listen: Option<SocketAddr>,
    /// Tablet servers in this process, which share the memory for rows [default: 1]
    #[arg(long, value_name = "COUNT")]
    pub(crate) tablet_servers: Option<u64>,
    /// A store that keeps replicas of photos, such as http://127.0.0.1:8090, or
    /// `local` for the one of this process; may be given several times
    #[arg(long, value_name = "URL")]
    pub(crate) haystack_store: Vec<String>,
    /// Replicas of each photo, where there are stores [default: 3]
    #[arg(long, value_name = "COUNT")]
    pub(crate) photo_replicas: Option<u64>,
    /// Let doors without TLS or tokens listen on addresses that other machines
    /// can reach.
    #[arg(long)]
    pub(crate) insecure: bool,
}

impl Settings {
    /// The settings given as flags, as pairs of a key and its value.
    pub(crate) fn flags(&self) -> Vec<(&'static str, String)> {
        let text = |value: &dyn ToString| value.to_string();
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        [
            ("data_dir", path(&self.data_dir)),
            ("ephemeral", self.ephemeral.then(|| text(&true))),
            ("bigtable.listen", self.bigtable_listen.as_ref().map(|address| text(address))),
            ("photos.listen", self.photos_listen.as_ref().map(|address| text(address))),
            ("memcached.listen", self.memcached_listen.as_ref().map(|address| text(address))),
            ("memcached.users_file", path(&self.memcached_users_file)),
            ("memcached.tls_chain_file", path(&self.memcached_tls_chain_file)),
            ("memcached.tls_key_file", path(&self.memcached_tls_key_file)),
            ("memcached.unix_socket", path(&self.memcached_unix_socket)),
            ("memcached.udp_listen", self.memcached_udp_listen.as_ref().map(|address| text(address))),
            ("console.listen", self.console_listen.as_ref().map(|address| text(address))),
            ("rows.tablet_servers", self.tablet_servers.as_ref().map(|count| text(count))),
            ("photos.stores", (!self.haystack_store.is_empty()).then(|| self.haystack_store.join(","))),
            ("photos.replicas", self.photo_replicas.as_ref().map(|count| text(count))),
            ("insecure", self.insecure.then(|| text(&true))),
        ]
        .into_iter()
        .filter_map(|(key, value)| value.map(|value| (key, value)))
        .collect()
    }
}

/// Where the settings of a store come from.
#[derive(Args, Debug, Default)]
pub(crate) struct StoreSettings {
    /// Read settings from this TOML file.
    #[arg(long, value_name = "FILE", env = "HAYLOFT_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Where its volumes are kept, in `haystack/` [default: ./hayloft-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where it listens; port 0 picks one [default: 127.0.0.1:8090]
    #[arg(long, value_name = "ADDRESS", alias = "haystack-store-listen")]
    listen: Option<SocketAddr>,
    /// Where it stands, such as rack=a,room=2: replicas lie in different racks
    #[arg(long, value_name = "LABELS")]
    labels: Option<String>,
    /// A file with the token that it asks for
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Let it listen without a token on an address that other machines can reach.
    #[arg(long)]
    insecure: bool,
}

impl StoreSettings {
    /// The settings given as flags, as pairs of a key and its value.
    pub(crate) fn flags(&self) -> Vec<(&'static str, String)> {
        let path = |path: &PathBuf| path.display().to_string();
        [
            ("data_dir", self.data_dir.as_ref().map(path)),
            ("haystack_store.listen", self.listen.map(|address| address.to_string())),
            ("haystack_store.labels", self.labels.clone()),
            ("photos.store_token_file", self.token_file.as_ref().map(path)),
            ("insecure", self.insecure.then(|| true.to_string())),
        ]
        .into_iter()
        .filter_map(|(key, value)| value.map(|value| (key, value)))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
