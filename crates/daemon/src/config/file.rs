//! Reads `daemon.json`: known keys only, each at most once, each of its type.

use std::fmt;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::config::ConfigError;
use crate::config::table::{DEAD_KEYS, Kind, by_key};

/// Members of an object in their order, doubles included.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of settings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Collect)
    }
}

/// Reads the file at `path`; a missing one is empty unless it was asked for.
pub(crate) fn read(path: &Path, is_asked_for: bool) -> Result<Map<String, Value>, ConfigError> {
    let unreadable = |why: String| ConfigError::File { path: path.to_owned(), why };
    match std::fs::read(path) {
        Ok(text) => parse(&text).map_err(unreadable),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !is_asked_for => {
            Ok(Map::new())
        }
        // COMPAT: dockerd's text.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(unreadable(format!("open {}: no such file or directory", path.display())))
        }
        Err(error) => Err(unreadable(error.to_string())),
    }
}

/// Reads the text of a file. Errors are words for the user.
pub(crate) fn parse(text: &[u8]) -> Result<Map<String, Value>, String> {
    // COMPAT: an empty file is no error, nor is a byte order mark.
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    if text.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    let Members(members) =
        serde_json::from_slice(text).map_err(|error| format!("invalid JSON: {error}"))?;
    let mut settings = Map::new();
    let mut unknown = Vec::new();
    for (key, value) in members {
        if settings.contains_key(&key) {
            return Err(format!("the key {key:?} is given twice"));
        }
        match by_key(&key) {
            Some(row) => check(&key, row.kind, &value)?,
            None if DEAD_KEYS.contains(&key.as_str()) => continue,
            None => {
                unknown.push(key);
                continue;
            }
        }
        // COMPAT: null is the same as nothing.
        if !value.is_null() {
            settings.insert(key, value);
        }
    }
    if unknown.is_empty() {
        return Ok(settings);
    }
    unknown.sort();
    // COMPAT: dockerd's text.
    Err(format!(
        "the following directives don't match any configuration option: {}",
        unknown.join(", ")
    ))
}

fn check(key: &str, kind: Kind, value: &Value) -> Result<(), String> {
    let is_text_map =
        |value: &Value| value.as_object().is_some_and(|map| map.values().all(Value::is_string));
    let (fits, need) = match kind {
        Kind::Bool => (value.is_boolean(), "true or false"),
        Kind::Int => (value.is_i64(), "a whole number"),
        Kind::Text => (value.is_string(), "a string"),
        Kind::Size => {
            (value.is_string() || value.is_u64(), "a number of bytes or a size such as \"64M\"")
        }
        Kind::List => (
            value.as_array().is_some_and(|list| list.iter().all(Value::is_string)),
            "a list of strings",
        ),
        Kind::Map => (is_text_map(value), "an object with strings as values"),
        Kind::Object => (value.is_object(), "an object"),
        Kind::Objects => (
            value.as_array().is_some_and(|list| list.iter().all(Value::is_object)),
            "a list of objects",
        ),
    };
    if fits || value.is_null() { Ok(()) } else { Err(format!("{key}: need {need}, not {value}")) }
}
