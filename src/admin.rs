//! `hayloft admin`: asks a running server, at its console door.

mod cache;
mod logical_volumes;
mod tables;
mod tablets;
mod volumes;

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::Value;

use self::cache::Cache;
use self::logical_volumes::{LogicalVolumes, Stores};
use self::volumes::Volumes;

/// An answer that has not come by then will not come.
const PATIENCE: Duration = Duration::from_secs(60);

/// What to ask.
#[derive(Debug, Subcommand)]
pub(crate) enum Admin {
    /// The tables: list, and the locality groups of one.
    #[command(subcommand)]
    Tables(tables::Tables),
    /// The tablets of all tables: list, move, split.
    #[command(subcommand)]
    Tablets(tablets::Tablets),
    /// The photo volumes of the server itself: list, show, compact, scrub.
    #[command(subcommand)]
    Volumes(Volumes),
    /// Photo volumes with replicas on several stores: list, show, keep photos from one.
    #[command(subcommand)]
    LogicalVolumes(LogicalVolumes),
    /// The stores that keep replicas: list, keep photos from one.
    #[command(subcommand)]
    Stores(Stores),
    /// What the memcached door does: top.
    #[command(subcommand)]
    Cache(Cache),
}

/// Which server to ask.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Console {
    /// The server's console door.
    #[arg(long, value_name = "ADDRESS", env = "HAYLOFT_CONSOLE_LISTEN", default_value = "127.0.0.1:8081")]
    console: SocketAddr,
}

/// Why there is no answer, or which one it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdminError {
    #[error("cannot reach a server at {address}: is it running, and is that its console door?")]
    Unreachable {
        address: SocketAddr,
        #[source]
        source: Box<ureq::Error>,
    },
    #[error("{0}")]
    Refused(String),
    #[error("cannot write the output")]
    Output(#[from] std::io::Error),
}

/// Asks, and prints the answer.
pub(crate) fn run(what: &Admin) -> Result<(), AdminError> {
    let mut out = std::io::stdout().lock();
    match what {
        Admin::Tables(what) => tables::run(what, &mut out),
        Admin::Tablets(what) => tablets::run(what, &mut out),
        Admin::Volumes(what) => volumes::run(what),
        Admin::LogicalVolumes(what) => logical_volumes::run(what),
        Admin::Stores(what) => logical_volumes::run_stores(what),
        Admin::Cache(what) => cache::run(what),
    }
}

impl Console {
    fn get(self, path: &str) -> Result<Value, AdminError> {
        self.answer(agent(PATIENCE).get(self.url(path)).call())
    }

    fn post(self, path: &str, body: &Value) -> Result<Value, AdminError> {
        self.post_patiently(path, body, PATIENCE)
    }

    fn post_patiently(self, path: &str, body: &Value, patience: Duration) -> Result<Value, AdminError> {
        let request = agent(patience).post(self.url(path)).header("content-type", "application/json");
        self.answer(request.send(body.to_string()))
    }

    fn url(self, path: &str) -> String {
        format!("http://{}{path}", self.console)
    }

    fn answer(self, answer: Result<http::Response<ureq::Body>, ureq::Error>) -> Result<Value, AdminError> {
        let unreachable =
            |source| AdminError::Unreachable { address: self.console, source: Box::new(source) };
        let mut answer = answer.map_err(unreachable)?;
        let text = answer.body_mut().read_to_string().map_err(unreachable)?;
        let value: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        if answer.status().is_success() {
            return Ok(value);
        }
        let why =
            value["error"].as_str().map_or_else(|| format!("{}: {text}", answer.status()), str::to_owned);
        Err(AdminError::Refused(why))
    }
}

fn agent(patience: Duration) -> ureq::Agent {
    let config = ureq::Agent::config_builder().timeout_global(Some(patience));
    // A refusal says why in its body.
    config.http_status_as_error(false).proxy(None).build().into()
}
