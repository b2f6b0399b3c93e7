//! memcached's text protocol: bytes into commands, answers into bytes.
//!
//! Nothing here knows a socket or an item. Read on in this order:
//!
//! - [`number`]: numbers as memcached reads and writes them;
//! - [`tokens`]: a line's words;
//! - [`command`]: a line into a classic command, or into the answer that refuses it;
//! - [`admin`]: the same for those who look after a cache;
//! - [`meta`]: the same for `mg`, `ms`, `md`, `ma`, `me`;
//! - [`output`]: answers on their way to the socket.
//!
//! Source: memcached's `doc/protocol.txt`, and what memcached 1.6 answers
//! where that file is silent.

pub(crate) mod admin;
pub(crate) mod command;
pub(crate) mod meta;
pub(crate) mod number;
pub(crate) mod output;
pub(crate) mod tokens;

/// The answers that stand alone, as memcached writes them.
pub(crate) mod answer {
    pub(crate) const ERROR: &str = "ERROR\r\n";
    pub(crate) const BAD_LINE: &str = "CLIENT_ERROR bad command line format\r\n";
    pub(crate) const BAD_CHUNK: &str = "CLIENT_ERROR bad data chunk\r\n";
    pub(crate) const BAD_EXPTIME: &str = "CLIENT_ERROR invalid exptime argument\r\n";
    pub(crate) const BAD_DELTA: &str = "CLIENT_ERROR invalid numeric delta argument\r\n";
    pub(crate) const BAD_DELETE: &str =
        "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n";
    pub(crate) const NOT_NUMERIC: &str = "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n";
    pub(crate) const TOO_LARGE: &str = "SERVER_ERROR object too large for cache\r\n";
    pub(crate) const NO_MEMORY: &str = "SERVER_ERROR out of memory storing object\r\n";
    pub(crate) const LIMIT_OUT_OF_BOUNDS: &str =
        "MEMLIMIT_ADJUST_FAILED out of bounds or unable to adjust\r\n";
    pub(crate) const STORED: &str = "STORED\r\n";
    pub(crate) const STALE_STORED: &str = "STALE_STORED\r\n";
    pub(crate) const NOT_STORED: &str = "NOT_STORED\r\n";
    pub(crate) const EXISTS: &str = "EXISTS\r\n";
    pub(crate) const NOT_FOUND: &str = "NOT_FOUND\r\n";
    pub(crate) const DELETED: &str = "DELETED\r\n";
    pub(crate) const TOUCHED: &str = "TOUCHED\r\n";
    pub(crate) const OK: &str = "OK\r\n";
    pub(crate) const RESET: &str = "RESET\r\n";
    pub(crate) const END: &str = "END\r\n";
}
