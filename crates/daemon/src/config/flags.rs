//! Reads the command line: the settings of the table, and what only the command line has.

use serde_json::{Map, Value};

use crate::config::ConfigError;
use crate::config::table::{Kind, Row, by_flag, by_letter};

/// What the command line says.
#[derive(Clone, Debug, Default)]
pub(crate) struct CommandLine {
    /// Settings by key.
    pub(crate) settings: Map<String, Value>,
    /// `--config-file`
    pub(crate) config_file: Option<String>,
    /// `--validate`
    pub(crate) validate: bool,
    /// `--help`
    pub(crate) help: bool,
    /// `--version`
    pub(crate) version: bool,
    /// `--allow-insecure-tcp`
    pub(crate) allow_insecure_tcp: bool,
}

/// Reads arguments (without the program's name).
pub(crate) fn parse(args: impl Iterator<Item = String>) -> Result<CommandLine, ConfigError> {
    let mut line = CommandLine::default();
    let mut args = args.peekable();
    while let Some(arg) = args.next() {
        let (name, mut value, is_long) = if let Some(long) = arg.strip_prefix("--") {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (long.to_owned(), None),
            };
            (name, value, true)
        } else if let Some(rest) = arg.strip_prefix('-').filter(|rest| !rest.is_empty()) {
            let letter: String = rest.chars().take(1).collect();
            let tail = &rest[letter.len()..];
            let tail = tail.strip_prefix('=').unwrap_or(tail);
            (letter, (!tail.is_empty()).then(|| tail.to_owned()), false)
        } else {
            return Err(ConfigError::ExtraArgument(arg));
        };
        if line.own_flag(&name, value.as_deref(), is_long)? {
            continue;
        }
        let row = if is_long { by_flag(&name) } else { name.chars().next().and_then(by_letter) };
        if row.is_none() && is_long && name == "config-file"
            || row.is_some_and(|row| row.kind != Kind::Bool)
        {
            let missing = || ConfigError::MissingValue(arg.clone());
            value = Some(match value {
                Some(value) => value,
                None => args.next().ok_or_else(missing)?,
            });
        }
        match row {
            Some(row) => line.set(row, &value.unwrap_or_else(|| "true".to_owned()))?,
            None if is_long && name == "config-file" => line.config_file = value,
            None => return Err(ConfigError::UnknownFlag(arg)),
        }
    }
    Ok(line)
}

impl CommandLine {
    /// Takes flags that are no settings.
    fn own_flag(
        &mut self,
        name: &str,
        value: Option<&str>,
        is_long: bool,
    ) -> Result<bool, ConfigError> {
        let target = match (name, is_long) {
            ("validate", true) => &mut self.validate,
            ("help", true) | ("h", false) => &mut self.help,
            ("version", true) | ("v", false) => &mut self.version,
            ("allow-insecure-tcp", true) => &mut self.allow_insecure_tcp,
            _ => return Ok(false),
        };
        *target = parse_bool(name, value.unwrap_or("true"))?;
        Ok(true)
    }

    fn set(&mut self, row: &Row, text: &str) -> Result<(), ConfigError> {
        let bad = |why: String| ConfigError::BadFlag {
            flag: row.flag.to_owned(),
            value: text.to_owned(),
            why,
        };
        let slot = self.settings.entry(row.key).or_insert(Value::Null);
        match row.kind {
            Kind::Bool => *slot = Value::from(parse_bool(row.flag, text)?),
            Kind::Int => {
                *slot = Value::from(text.parse::<i64>().map_err(|error| bad(error.to_string()))?);
            }
            Kind::Text | Kind::Size => *slot = Value::from(text),
            Kind::List | Kind::Objects => match slot {
                Value::Array(list) => list.push(Value::from(text)),
                _ => *slot = Value::from(vec![text]),
            },
            Kind::Map | Kind::Object => {
                let (key, value) = text.split_once('=').unwrap_or((text, ""));
                if !slot.is_object() {
                    *slot = Value::Object(Map::new());
                }
                slot[key] = Value::from(value);
            }
        }
        Ok(())
    }
}

fn parse_bool(flag: &str, text: &str) -> Result<bool, ConfigError> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(ConfigError::BadFlag {
            flag: flag.to_owned(),
            value: text.to_owned(),
            why: "need true or false".to_owned(),
        }),
    }
}
