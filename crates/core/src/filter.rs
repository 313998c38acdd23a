//! The `filters` query parameter of the Engine API, in both of its spellings.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A filter that cannot be understood or is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFilter {
    /// Not the JSON that filters are written in.
    #[error("invalid filter: not a JSON object of lists or of true-valued objects")]
    Malformed,
    /// A key that this command does not have.
    // COMPAT: dockerd's text.
    #[error("invalid filter '{0}'")]
    Unknown(String),
    /// A value that this key does not take.
    // COMPAT: dockerd's text, with all values in brackets.
    #[error("invalid filter '{key}=[{value}]'")]
    Value {
        /// The key.
        key: String,
        /// The refused value.
        value: String,
    },
}

/// Values by key. Values of one key are alternatives, different keys must all hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, Vec<String>>);

#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    List(Vec<String>),
    Set(BTreeMap<String, bool>),
}

impl Filters {
    /// Reads `{"key":["value"]}` or `{"key":{"value":true}}`; an empty text is no filter.
    pub fn from_json(text: &str) -> Result<Self, InvalidFilter> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let document = serde_json::from_str::<BTreeMap<String, Values>>(text)
            .map_err(|_| InvalidFilter::Malformed)?;
        let lists = document.into_iter().map(|(key, values)| {
            let values = match values {
                Values::List(values) => values,
                Values::Set(set) => set.into_iter().filter(|(_, on)| *on).map(|(v, _)| v).collect(),
            };
            (key, values)
        });
        Ok(Self(lists.collect()))
    }

    /// Adds one value.
    pub fn add(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.0.entry(key.into()).or_default().push(value.into());
    }

    /// Returns the values of `key`, none when it was not given.
    pub fn values(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// Tells whether `key` was given.
    pub fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// Tells whether no filter was given.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns all keys with their values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.0.iter().map(|(key, values)| (key.as_str(), values.as_slice()))
    }

    /// Tells whether `key` was not given or one of its values satisfies `test`.
    pub fn any(&self, key: &str, test: impl FnMut(&String) -> bool) -> bool {
        let values = self.values(key);
        values.is_empty() || values.iter().any(test)
    }

    /// Tells whether all `label` values (`key` or `key=value`) hold for the labels that `find` knows.
    pub fn labels_match<'l>(&self, key: &str, find: impl Fn(&str) -> Option<&'l str>) -> bool {
        self.values(key).iter().all(|wanted| match wanted.split_once('=') {
            Some((name, value)) => find(name) == Some(value),
            None => find(wanted).is_some(),
        })
    }

    /// Checks that every key is one of `known`.
    pub fn check_keys(&self, known: &[&str]) -> Result<(), InvalidFilter> {
        match self.0.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(InvalidFilter::Unknown(key.clone())),
            None => Ok(()),
        }
    }

    /// Reads a boolean filter such as `dangling`: `1`, `true`, `0`, `false`.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, InvalidFilter> {
        let mut seen = None;
        for value in self.values(key) {
            let parsed = match value.to_ascii_lowercase().as_str() {
                "1" | "true" | "t" => true,
                "0" | "false" | "f" => false,
                _ => {
                    return Err(InvalidFilter::Value { key: key.to_owned(), value: value.clone() });
                }
            };
            seen = Some(parsed);
        }
        Ok(seen)
    }
}

#[cfg(test)]
mod tests;
