//! `hayloft sign-url`: the path of a photo or a blob, signed with the first key.

use std::time::SystemTime;

use haystack::signature::sign;

use crate::cli::SignUrl;
use crate::config::Config;

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignError {
    #[error("there is no key to sign with; photos.signing_keys, or HAYLOFT_PHOTOS_SIGNING_KEYS, has none")]
    NoKey,
    #[error("{path:?} is no path; it begins with a slash, such as /photos/ID/large")]
    NoPath { path: String },
}

/// Prints the path that was asked for, signed.
///
/// # Errors
///
/// See [`SignError`].
pub(crate) fn run(asked: &SignUrl, config: &Config) -> Result<(), SignError> {
    let key = config.signing_keys.first().ok_or(SignError::NoKey)?;
    if !asked.path.starts_with('/') {
        return Err(SignError::NoPath { path: asked.path.clone() });
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    println!("{}", sign(&asked.path, now.saturating_add(asked.expires).as_secs(), key));
    Ok(())
}
