//! Text into values, each with its range in the refusal.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use haystack::options::LOCAL_STORE;
use haystack::stores::client::check_address;
use row_api::names::InstanceName;

pub(super) fn boolean(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "must be true or false".to_owned())
}

pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "must be an address and a port, such as 127.0.0.1:8086".to_owned())
}

/// A path; none if the text is empty.
pub(super) fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| text.into())
}

pub(super) fn shown_path(path: Option<&Path>) -> String {
    path.map(|path| path.display().to_string()).unwrap_or_default()
}

/// Permissions of a file, in octal digits.
pub(super) fn mode(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| "must be permissions in octal digits, from 0 to 777".to_owned())
}

pub(super) fn count(text: &str, range: RangeInclusive<u64>) -> Result<u64, String> {
    text.parse()
        .ok()
        .filter(|value| range.contains(value))
        .ok_or_else(|| format!("must be a number from {} to {}", range.start(), range.end()))
}

pub(super) fn instance(text: &str) -> Result<InstanceName, String> {
    InstanceName::parse("", text).map_err(|_| "must be projects/<project>/instances/<instance>".to_owned())
}

/// Where an origin is, none being here: `http://host:port`, or without a scheme `host:port`.
pub(super) fn origin(text: &str, with_scheme: bool) -> Result<Option<String>, String> {
    if text == "here" {
        return Ok(None);
    }
    let form = if with_scheme { "http://host:port" } else { "host:port" };
    let authority = if with_scheme { text.strip_prefix("http://") } else { Some(text) };
    let uri = authority.and_then(|authority| authority.parse::<http::uri::Authority>().ok());
    match uri.filter(|uri| uri.port_u16().is_some_and(|port| port > 0) && !uri.as_str().contains('@')) {
        Some(_) => Ok(Some(text.to_owned())),
        None => Err(format!("must be {form}, or here for this process")),
    }
}

/// Addresses between commas, or a list of TOML as it stands in a file.
pub(super) fn addresses(text: &str) -> Result<Vec<String>, String> {
    let listed = text.trim().strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let parts =
        listed.unwrap_or(text).split(',').map(|part| part.trim().trim_matches('"').trim_end_matches('/'));
    let addresses: Vec<String> = parts.filter(|part| !part.is_empty()).map(str::to_owned).collect();
    match addresses.iter().find(|address| *address != LOCAL_STORE && check_address(address).is_err()) {
        None => Ok(addresses),
        Some(bad) => Err(format!("{bad:?} is neither `local` nor an address such as http://10.0.0.7:8090")),
    }
}

/// Bytes, plain or with a unit: `4096`, `64MiB`.
pub(super) fn bytes(text: &str, smallest: u64, largest: u64) -> Result<u64, String> {
    let size: ByteSize =
        text.parse().map_err(|_| "must be a size such as 64MiB or a number of bytes".to_owned())?;
    if (smallest..=largest).contains(&size.as_u64()) {
        Ok(size.as_u64())
    } else {
        Err(format!("must be from {} to {}", ByteSize(smallest), ByteSize(largest)))
    }
}

/// A size in the largest unit that says it exactly.
pub(super) fn shown_bytes(size: u64) -> String {
    let units = ["", "KiB", "MiB", "GiB", "TiB"];
    let steps = (size.trailing_zeros() / 10).min(4) as usize;
    format!("{}{}", size >> (10 * steps), units[steps])
}

pub(super) fn span(text: &str, smallest_s: u64, largest_s: u64) -> Result<Duration, String> {
    let allowed = Duration::from_secs(smallest_s)..=Duration::from_secs(largest_s);
    humantime::parse_duration(text).ok().filter(|value| allowed.contains(value)).ok_or_else(|| {
        let [smallest, largest] =
            [allowed.start(), allowed.end()].map(|end| humantime::format_duration(*end));
        format!("must be a time such as 30s or 2m, from {smallest} to {largest}")
    })
}
