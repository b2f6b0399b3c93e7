//! Settings from a TOML file, each with its line and column.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Config, ConfigError, keys};

/// Applies every setting of the file at `path`.
pub(super) fn apply(config: &mut Config, path: &Path) -> Result<(), ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    let table = DeTable::parse(&text)
        .map_err(|error| ConfigError::NotToml { path: path.to_owned(), message: error.to_string() })?;
    let document = Document { path, text: &text };
    document.apply_table(config, "", table.get_ref())
}

struct Document<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Document<'_> {
    fn apply_table(&self, config: &mut Config, prefix: &str, table: &DeTable<'_>) -> Result<(), ConfigError> {
        for (name, value) in table {
            let key = format!("{prefix}{}", name.get_ref());
            let known = keys::KEYS.iter().any(|known| known.name == key);
            match value.get_ref() {
                DeValue::Table(inner) if !known && is_table_of_keys(&key) => {
                    self.apply_table(config, &format!("{key}."), inner)?;
                }
                _ if !known => {
                    let place = self.place(name.span().start);
                    return Err(ConfigError::UnknownKey { place, suggestion: keys::similar_to(&key), key });
                }
                _ => config.set(&self.place(value.span().start), &key, &self.written(value))?,
            }
        }
        Ok(())
    }

    /// The value's text: a string's content, anything else as it stands.
    fn written(&self, value: &Spanned<DeValue<'_>>) -> String {
        match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) => number.as_str().to_owned(),
            _ => self.text[value.span()].to_owned(),
        }
    }

    /// `file:line:column` of a byte offset.
    fn place(&self, offset: usize) -> String {
        let before = &self.text[..offset];
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|letter| *letter != '\n').count() + 1;
        format!("{}:{line}:{column}", self.path.display())
    }
}

/// Whether some key stands in the table `name`.
fn is_table_of_keys(name: &str) -> bool {
    keys::KEYS.iter().any(|key| key.name.split_once('.').is_some_and(|(table, _)| table == name))
}
