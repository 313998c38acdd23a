//! Entries of targets that are written as comma-separated `key=value` or as objects: caches, outputs, secrets, agents,
//! attestations.

use serde_json::{Map, Value};

use crate::eval::text;

/// What an entry is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Cache,
    Output,
    Secret,
    Ssh,
    Attest,
}

/// Reads one entry; `None` for one that says nothing.
pub(crate) fn read(kind: Kind, value: &Value) -> Result<Option<Value>, String> {
    let fields = match value {
        Value::String(written) if written.is_empty() => return Ok(None),
        Value::String(written) => from_text(kind, written)?,
        Value::Object(map) => {
            let fields = map.iter().filter(|(_, value)| !value.is_null());
            fields
                .map(|(key, value)| match value {
                    Value::Array(_) => Ok((key.clone(), value.clone())),
                    other => Ok((key.clone(), Value::String(text(other)?))),
                })
                .collect::<Result<Vec<_>, String>>()?
        }
        other => return Err(format!("an entry is a text or an object, not {other}")),
    };
    let mut fields: Vec<(String, Value)> = fields;
    // Objects are printed in the order of their keys; secrets and agents begin with their name.
    let first =
        |key: &str| (!(matches!(kind, Kind::Secret | Kind::Ssh) && key == "id"), key != "src");
    match kind {
        Kind::Secret | Kind::Ssh => fields.sort_by_key(|(key, _)| first(key)),
        _ => fields.sort_by(|(a, _), (b, _)| a.cmp(b)),
    }
    let map: Map<String, Value> = fields.into_iter().collect();
    let required = if matches!(kind, Kind::Secret | Kind::Ssh) { "id" } else { "type" };
    match map.contains_key(required) {
        true => Ok(Some(Value::Object(map))),
        false => Err(format!("{required} is required for {value}")),
    }
}

fn from_text(kind: Kind, written: &str) -> Result<Vec<(String, Value)>, String> {
    let pair = |key: &str, value: &str| (key.to_owned(), Value::from(value));
    if kind == Kind::Ssh {
        return Ok(match written.split_once('=') {
            Some((id, paths)) => {
                vec![pair("id", id), ("paths".to_owned(), paths.split(',').collect())]
            }
            None => vec![pair("id", written)],
        });
    }
    if !written.contains('=') {
        return Ok(match kind {
            Kind::Cache => vec![pair("ref", written), pair("type", "registry")],
            Kind::Output if written == "-" => vec![pair("type", "tar"), pair("dest", "-")],
            Kind::Output => vec![pair("type", "local"), pair("dest", written)],
            Kind::Attest => vec![pair("type", written)],
            Kind::Secret | Kind::Ssh => vec![pair("id", written)],
        });
    }
    let mut fields = Vec::new();
    for field in split(written)? {
        match field.split_once('=') {
            Some((key, value)) => {
                let key = key.trim().to_lowercase();
                match (kind, key.as_str()) {
                    (Kind::Secret, "source" | "src") => fields.push(pair("src", value)),
                    // Only tells files and variables apart.
                    (Kind::Secret, "type") if matches!(value, "file" | "env") => {}
                    _ => fields.push(pair(&key, value)),
                }
            }
            None if kind == Kind::Attest => fields.push(pair(&field, "true")),
            None => {
                return Err(format!("invalid value {field}, expected key=value in {written:?}"));
            }
        }
    }
    Ok(fields)
}

/// Splits at commas outside quotes.
fn split(text: &str) -> Result<Vec<String>, String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let current = fields.len() - 1;
        match c {
            '"' if quoted && chars.next_if_eq(&'"').is_some() => fields[current].push('"'),
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => fields[current].push(c),
        }
    }
    if quoted { Err(format!("a quote does not end in {text:?}")) } else { Ok(fields) }
}
