//! The one error of this crate.

/// A cache that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An option is out of its range; nothing was made.
    #[error("{option} is {found}; it must be {range}")]
    Option {
        /// The option's name.
        option: &'static str,
        /// Its value.
        found: String,
        /// The values that would do.
        range: String,
    },
}

/// The outcome of making a cache.
pub type Result<T> = std::result::Result<T, Error>;
