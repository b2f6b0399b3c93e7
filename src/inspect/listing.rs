//! Which writes of a file are printed, and how.

use std::io::Write as _;

use clap::Args;
use serde_json::{Value, json};

use super::{InspectError, Output};

/// Which writes to print, and how.
#[derive(Args, Debug)]
pub(crate) struct Listing {
    /// Print every write as well: sequence number, key, and what it does.
    #[arg(long)]
    pub(crate) keys: bool,
    /// Only keys from this one on.
    #[arg(long, value_name = "KEY", requires = "keys")]
    from: Option<String>,
    /// Only keys before this one.
    #[arg(long, value_name = "KEY", requires = "keys")]
    to: Option<String>,
    /// At most so many writes.
    #[arg(long, value_name = "COUNT", requires = "keys")]
    limit: Option<u64>,
    /// Keys in hexadecimal, those of --from and --to as well.
    #[arg(long)]
    hex: bool,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Prints writes as a [`Listing`] says, or collects them for a JSON object.
pub(crate) struct Lister<'a> {
    listing: &'a Listing,
    from: Vec<u8>,
    to: Option<Vec<u8>>,
    left: u64,
    collected: Vec<Value>,
}

impl Listing {
    /// Starts a listing. A bound that is not hexadecimal where it should be ends the process, as a wrong use.
    pub(crate) fn lister(&self) -> Lister<'_> {
        Lister {
            listing: self,
            from: self.from.as_deref().map(|key| self.parse(key)).unwrap_or_default(),
            to: self.to.as_deref().map(|key| self.parse(key)),
            left: self.limit.unwrap_or(u64::MAX),
            collected: Vec::new(),
        }
    }

    fn parse(&self, key: &str) -> Vec<u8> {
        if !self.hex {
            return key.as_bytes().to_owned();
        }
        let digits = key.as_bytes().chunks(2);
        let bytes = digits.map(|pair| {
            let text = str::from_utf8(pair).ok().filter(|text| text.len() == 2)?;
            u8::from_str_radix(text, 16).ok()
        });
        bytes.collect::<Option<_>>().unwrap_or_else(|| {
            let what = format!("{key:?} is not hexadecimal: two digits a byte\n");
            clap::Error::raw(clap::error::ErrorKind::ValueValidation, what).exit()
        })
    }

    /// `key` as it is printed.
    pub(crate) fn show(&self, key: &[u8]) -> String {
        if self.hex {
            key.iter().map(|byte| format!("{byte:02x}")).collect()
        } else {
            key.escape_ascii().to_string()
        }
    }
}

impl Lister<'_> {
    /// Whether nothing more is wanted.
    pub(crate) fn is_full(&self) -> bool {
        self.left == 0
    }

    /// Lists a write that does `what` to `key`, if it is wanted. `place` says where it stands.
    pub(crate) fn add(
        &mut self,
        out: &mut Output,
        sequence: u64,
        place: &str,
        key: &[u8],
        what: &str,
    ) -> Result<(), InspectError> {
        let is_before_end = self.to.as_deref().is_none_or(|to| key < to);
        if self.left == 0 || key < &self.from[..] || !is_before_end {
            return Ok(());
        }
        self.left -= 1;
        let key = self.listing.show(key);
        if self.listing.json {
            self.collected.push(json!({ "sequence": sequence, "place": place, "key": key, "what": what }));
        } else {
            writeln!(out, "{sequence:>12} {place}{}{key} {what}", if place.is_empty() { "" } else { " " })?;
        }
        Ok(())
    }

    /// The writes collected for a JSON object.
    pub(crate) fn into_json(self) -> Value {
        self.collected.into()
    }
}
