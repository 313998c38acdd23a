//! Reads words into flags and arguments, with the rules and the error texts of Go's pflag.

use std::collections::HashMap;

use rorqual_core::units;

use super::spec::{Args, Command, Flag, Kind};

/// Words that are no valid call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum UsageError {
    /// A flag that is unknown, incomplete or has a bad value.
    Flag(String),
    /// Too few or too many words.
    Count(String),
    /// `--help` or `-h`.
    Help,
}

/// What a command was called with.
#[derive(Debug)]
pub(crate) struct Matches {
    /// The command.
    pub(crate) command: &'static Command,
    /// How it was called, with the program's name: `docker container ls`.
    pub(crate) path: String,
    values: HashMap<&'static str, Vec<String>>,
    /// Words that are no flags.
    pub(crate) words: Vec<String>,
    /// Warnings about flags that go away.
    pub(crate) warnings: Vec<String>,
}

impl Matches {
    /// Makes the result for a command without any words.
    pub(crate) fn empty(command: &'static Command, path: String) -> Self {
        Self { command, path, values: HashMap::new(), words: Vec::new(), warnings: Vec::new() }
    }

    /// Tells whether the flag was given.
    pub(crate) fn given(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// Returns all values of a flag.
    pub(crate) fn list(&self, name: &str) -> &[String] {
        debug_assert!(self.command.find(name).is_some(), "no flag {name}");
        self.values.get(name).map_or(&[], Vec::as_slice)
    }

    /// Returns the value of a flag, or its default.
    pub(crate) fn text(&self, name: &str) -> &str {
        let default = || self.command.find(name).map_or("", |flag| flag.default);
        self.list(name).last().map_or_else(default, String::as_str)
    }

    /// Returns whether a switch is on.
    pub(crate) fn on(&self, name: &str) -> bool {
        parse_bool(self.text(name)).unwrap_or(false)
    }

    /// Returns the number of a flag; 0 when neither given nor with a default.
    pub(crate) fn int(&self, name: &str) -> i64 {
        parse_int(self.text(name)).unwrap_or(0)
    }

    /// Returns the size of a flag in bytes; 0 when not given, -1 for no limit.
    pub(crate) fn bytes(&self, name: &str) -> i64 {
        match self.text(name) {
            "-1" => -1,
            text => units::parse_size(text).ok().and_then(|size| size.try_into().ok()).unwrap_or(0),
        }
    }

    /// Returns the word at a place; empty when there is none.
    pub(crate) fn word(&self, at: usize) -> &str {
        self.words.get(at).map_or("", String::as_str)
    }
}

/// Reads `words`, which follow the command's name.
pub(crate) fn parse(
    command: &'static Command,
    path: String,
    words: &[String],
) -> Result<Matches, UsageError> {
    let mut matches = Matches::empty(command, path);
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        if word == "--" {
            matches.words.extend(rest.by_ref().cloned());
        } else if let Some(long) = word.strip_prefix("--") {
            long_flag(&mut matches, long, &mut rest)?;
        } else if word.len() > 1 && word.starts_with('-') {
            short_flags(&mut matches, &word[1..], &mut rest)?;
        } else {
            matches.words.push(word.clone());
            if command.stops_at_word {
                matches.words.extend(rest.by_ref().cloned());
            }
        }
    }
    Ok(matches)
}

impl Matches {
    /// Checks the number of words.
    pub(crate) fn check_count(&self) -> Result<(), UsageError> {
        let count = self.words.len();
        let plural = |number: usize| if number == 1 { "argument" } else { "arguments" };
        let path = &self.path;
        // COMPAT: docker's texts.
        let text = match self.command.args {
            Args::None if count > 0 => format!("'{path}' accepts no arguments"),
            Args::Exactly(wanted) if count != wanted => {
                format!("'{path}' requires {wanted} {}", plural(wanted))
            }
            Args::AtLeast(wanted) if count < wanted => {
                format!("'{path}' requires at least {wanted} {}", plural(wanted))
            }
            Args::AtMost(wanted) if count > wanted => {
                format!("'{path}' requires at most {wanted} {}", plural(wanted))
            }
            Args::Between(low, high) if count < low || count > high => {
                format!("'{path}' requires at least {low} and at most {high} {}", plural(high))
            }
            _ => return Ok(()),
        };
        Err(UsageError::Count(text))
    }

    fn set(&mut self, flag: &'static Flag, value: &str) -> Result<(), UsageError> {
        let flag = match flag.alias_of {
            "" => flag,
            target => self.command.find(target).unwrap_or(flag),
        };
        check(flag.kind, value).and_then(|()| (flag.check)(value)).map_err(|reason| {
            let name = match flag.short {
                '\0' => format!("--{}", flag.name),
                letter => format!("-{letter}, --{}", flag.name),
            };
            UsageError::Flag(format!("invalid argument {value:?} for {name:?} flag: {reason}"))
        })?;
        let values = self.values.entry(flag.name).or_default();
        match flag.kind {
            Kind::Commas(_) => values.extend(value.split(',').map(str::to_owned)),
            kind => {
                if !kind.is_list() {
                    values.clear();
                }
                values.push(value.to_owned());
            }
        }
        Ok(())
    }

    fn note_deprecated(&mut self, flag: &Flag) {
        if !flag.deprecated.is_empty() {
            let text = format!("Flag --{} has been deprecated, {}", flag.name, flag.deprecated);
            self.warnings.push(text);
        }
    }
}

fn long_flag(
    matches: &mut Matches,
    long: &str,
    rest: &mut std::slice::Iter<'_, String>,
) -> Result<(), UsageError> {
    let (name, value) = match long.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (long, None),
    };
    if name.is_empty() || name.starts_with('-') {
        return Err(UsageError::Flag(format!("bad flag syntax: --{long}")));
    }
    let Some(flag) = matches.command.find(name) else {
        return Err(match name {
            "help" => UsageError::Help,
            _ => UsageError::Flag(format!("unknown flag: --{name}")),
        });
    };
    matches.note_deprecated(flag);
    let value = match (value, flag.kind) {
        (Some(value), _) => value,
        (None, Kind::Bool) => "true",
        (None, _) => rest
            .next()
            .ok_or_else(|| UsageError::Flag(format!("flag needs an argument: --{name}")))?,
    };
    matches.set(flag, value)
}

fn short_flags(
    matches: &mut Matches,
    letters: &str,
    rest: &mut std::slice::Iter<'_, String>,
) -> Result<(), UsageError> {
    let mut left = letters;
    while let Some(letter) = left.chars().next() {
        let after = &left[letter.len_utf8()..];
        let Some(flag) = matches.command.flags().find(|flag| flag.short == letter) else {
            return Err(match letter {
                'h' => UsageError::Help,
                _ => UsageError::Flag(format!("unknown shorthand flag: '{letter}' in -{left}")),
            });
        };
        matches.note_deprecated(flag);
        if let Some(value) = after.strip_prefix('=') {
            return matches.set(flag, value);
        }
        if flag.kind == Kind::Bool {
            matches.set(flag, "true")?;
            left = after;
            continue;
        }
        if !after.is_empty() {
            return matches.set(flag, after);
        }
        let missing = || UsageError::Flag(format!("flag needs an argument: '{letter}' in -{left}"));
        return matches.set(flag, rest.next().ok_or_else(missing)?);
    }
    Ok(())
}

/// `strconv.ParseBool`
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn parse_int(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let radix = |prefix: &str, radix| {
        let digits = digits.strip_prefix(prefix)?;
        i64::from_str_radix(&format!("{sign}{digits}"), radix).ok()
    };
    radix("0x", 16).or_else(|| radix("0o", 8)).or_else(|| radix("0b", 2)).or_else(|| {
        let base = if digits.len() > 1 && digits.starts_with('0') { 8 } else { 10 };
        i64::from_str_radix(&format!("{sign}{digits}"), base).ok()
    })
}

/// Checks a value; the reasons are those of Go's number parsers.
fn check(kind: Kind, value: &str) -> Result<(), String> {
    let number = |function: &str| {
        let out_of_range = value.trim_start_matches(['-', '+']).bytes().all(|b| b.is_ascii_digit())
            && !value.trim_start_matches(['-', '+']).is_empty()
            && !(function == "ParseUint" && value.starts_with(['-', '+']));
        let reason = if out_of_range { "value out of range" } else { "invalid syntax" };
        format!("strconv.{function}: parsing {value:?}: {reason}")
    };
    let valid = match kind {
        Kind::List("filter") => {
            let bad = "bad format of filter (expected name=value)";
            return if value.is_empty() || value.contains('=') {
                Ok(())
            } else {
                Err(bad.to_owned())
            };
        }
        Kind::Bool if parse_bool(value).is_none() => {
            return Err(format!("strconv.ParseBool: parsing {value:?}: invalid syntax"));
        }
        Kind::Int => parse_int(value).is_some(),
        Kind::Uint16 => {
            let limit = i64::from(u16::MAX);
            if parse_int(value).is_none_or(|n| n < 0 || n > limit) || value.starts_with(['-', '+'])
            {
                return Err(number("ParseUint"));
            }
            true
        }
        Kind::SwapBytes if value == "-1" => true,
        Kind::Bytes | Kind::SwapBytes => {
            return units::parse_size(value).map(drop).map_err(|error| error.to_string());
        }
        Kind::Duration => {
            let positive = value.strip_prefix('-').unwrap_or(value);
            if units::parse_duration(positive).is_err() {
                return Err(duration_reason(value));
            }
            true
        }
        Kind::Cpus => return nano_cpus(value).map(drop),
        _ => true,
    };
    if valid { Ok(()) } else { Err(number("ParseInt")) }
}

fn duration_reason(value: &str) -> String {
    let body = value.trim_start_matches(['-', '+']);
    let digits = body.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    if body.starts_with(|c: char| c.is_ascii_digit() || c == '.') && digits.is_empty() {
        return format!("time: missing unit in duration {value:?}");
    }
    let unit: String = digits.chars().take_while(|c| !c.is_ascii_digit() && *c != '.').collect();
    if body.len() == digits.len() || unit.is_empty() {
        return format!("time: invalid duration {value:?}");
    }
    format!("time: unknown unit {unit:?} in duration {value:?}")
}

/// Reads a number of processors as billionths.
pub(crate) fn nano_cpus(text: &str) -> Result<i64, String> {
    let failed = || format!("failed to parse {text} as a rational number");
    let (numerator, denominator) = match text.split_once('/') {
        Some((a, b)) => (a, b.parse::<i128>().map_err(|_| failed())?),
        None => (text, 1),
    };
    let (sign, digits) = match numerator.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, numerator.strip_prefix('+').unwrap_or(numerator)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all = format!("{whole}{fraction}");
    // LIMIT: 18 digits fit the arithmetic below.
    if all.is_empty() || all.len() > 18 || !all.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(failed());
    }
    let scale = 10_i128.pow(fraction.len() as u32).checked_mul(denominator).ok_or_else(failed)?;
    let nanos = all.parse::<i128>().map_err(|_| failed())? * 1_000_000_000;
    if scale <= 0 {
        return Err(failed());
    }
    if nanos % scale != 0 {
        return Err("value is too precise".to_owned());
    }
    i64::try_from(sign * nanos / scale).map_err(|_| failed())
}

#[cfg(test)]
mod tests;
