//! Hayloft, the binary: command line, configuration, roles wired together, console.
//!
//! No storage logic lives here. Read on in this order:
//!
//! - [`cli`]: what can be asked for.
//! - [`config`]: what this process was told, and where a wrong setting stands.
//! - [`serve`]: every role in one process, from binding the doors to the last sync.
//! - [`haystack_store`]: the role of one store of photos, alone.
//! - [`bigtable_door`]: gRPC connections.
//! - [`console`]: health, readiness, metrics.
//! - [`admin`]: a running server, asked from outside.
//! - [`inspect`]: files of a data directory, offline.
//! - [`sign_url`]: paths of photos and blobs, signed.
//! - [`salvage`]: a damaged commit log made to open again.

mod admin;
mod bigtable_door;
mod cli;
mod config;
mod console;
mod haystack_store;
mod inspect;
mod salvage;
mod serve;
mod sign_url;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command, Settings};
use config::{Config, ConfigError, KEYS};

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Serve(settings) => {
            load(&settings).map_err(Into::into).and_then(|config| serve::run(&config).map_err(Into::into))
        }
        Command::HaystackStore(settings) => load_from(settings.config.as_deref(), &settings.flags())
            .map_err(Into::into)
            .and_then(|config| haystack_store::run(&config).map_err(Into::into)),
        Command::Admin(what) => admin::run(&what).map_err(Into::into),
        Command::Inspect(what) => inspect::run(&what).map_err(Into::into),
        Command::Salvage(settings) => salvage::run(&settings).map_err(Into::into),
        Command::SignUrl(asked) => load(&asked.settings)
            .map_err(Into::into)
            .and_then(|config| sign_url::run(&asked, &config).map_err(Into::into)),
        Command::Config(settings) => {
            load(&settings).map(|config| print_settings(&config)).map_err(Into::into)
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hayloft: {}", explained(&error));
            ExitCode::FAILURE
        }
    }
}

/// Why a command failed; the text of the whole chain is all that is asked of it.
type AnyError = Box<dyn std::error::Error>;

fn load(settings: &Settings) -> Result<Config, ConfigError> {
    load_from(settings.config.as_deref(), &settings.flags())
}

fn load_from(file: Option<&Path>, flags: &[(&'static str, String)]) -> Result<Config, ConfigError> {
    Config::load(file, std::env::vars(), flags)
}

/// The error and its causes on one line.
fn explained(error: &AnyError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// Prints every setting as a configuration file that would give the same one.
fn print_settings(config: &Config) {
    let mut table = "";
    for key in KEYS {
        let (in_table, name) = key.name.split_once('.').unwrap_or(("", key.name));
        if in_table != table {
            table = in_table;
            println!("\n[{table}]");
        }
        let value = (key.show)(config);
        let bare = value.parse::<u64>().is_ok() || value.parse::<bool>().is_ok();
        let value = if bare { value } else { format!("{value:?}") };
        println!("# {} ({})\n{name} = {value}", key.about, key.variable());
    }
}
