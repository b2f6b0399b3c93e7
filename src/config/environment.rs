//! Settings from environment variables: `HAYLOFT_` and the key in upper case.

use super::{Config, ConfigError, KEYS, keys};

const PREFIX: &str = "HAYLOFT_";

/// Applies each variable of `environment` that names a key.
///
/// A variable that is nearly a key is taken for a misspelt one and refused.
/// Others are left alone: Kubernetes, for one, sets `HAYLOFT_PORT` and its kin
/// in every pod beside a service called hayloft.
pub(super) fn apply(
    config: &mut Config,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<(), ConfigError> {
    for (variable, value) in environment {
        let Some(rest) = variable.strip_prefix(PREFIX) else { continue };
        let place = format!("environment variable {variable}");
        if let Some(key) = KEYS.iter().find(|key| key.variable() == variable) {
            config.set(&place, key.name, &value)?;
            continue;
        }
        let written = rest.to_lowercase();
        let flat = |name: &str| name.replace('.', "_");
        let nearest = KEYS.iter().find(|key| strsim::damerau_levenshtein(&flat(key.name), &written) <= 2);
        if let Some(key) = nearest {
            return Err(ConfigError::UnknownKey {
                place,
                key: written,
                suggestion: keys::similar_to(key.name),
            });
        }
    }
    Ok(())
}
