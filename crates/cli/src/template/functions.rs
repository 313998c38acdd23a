//! The functions templates may call: Go's own and the eight of Docker.

use std::cmp::Ordering;
use std::rc::Rc;

use super::value::Value;
use super::{Mode, print, printf};

/// Why a call failed.
pub(super) enum Failure {
    /// Wrong number of arguments: what is wanted, what came.
    Count(&'static str, usize),
    /// Anything else.
    Reason(String),
}

impl Failure {
    /// Returns Go's text.
    pub(super) fn text(self, name: &str) -> String {
        match self {
            Self::Count(wanted, got) => {
                format!("wrong number of args for {name}: want {wanted} got {got}")
            }
            Self::Reason(reason) => format!("error calling {name}: {reason}"),
        }
    }
}

type Outcome = Result<Value, Failure>;

const NAMES: [&str; 27] = [
    "and", "or", "not", "eq", "ne", "lt", "le", "gt", "ge", "len", "index", "slice", "print",
    "printf", "println", "html", "js", "urlquery", "call", "json", "split", "join", "title",
    "lower", "upper", "pad", "truncate",
];

/// Tells whether there is such a function.
pub(super) fn is_known(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Calls a function; `and` and `or` are the evaluator's.
pub(super) fn call(name: &str, arguments: &[Value], mode: Mode) -> Outcome {
    // COMPAT: the header of a table is its template run over the names of the columns, which
    // functions on the data must leave alone; `pad` does pad them.
    if mode == Mode::Header
        && matches!(name, "json" | "split" | "join" | "title" | "lower" | "upper" | "truncate")
    {
        return Ok(arguments.first().cloned().unwrap_or(Value::Nil));
    }
    match name {
        "not" => one(arguments).map(|value| Value::Bool(!value.is_true())),
        "eq" => equal(arguments),
        "ne" => two(arguments)
            .and_then(|(a, b)| a.equals(b).map(|same| Value::Bool(!same)).ok_or_else(incompatible)),
        "lt" => ordered(arguments, Ordering::is_lt),
        "le" => ordered(arguments, Ordering::is_le),
        "gt" => ordered(arguments, Ordering::is_gt),
        "ge" => ordered(arguments, Ordering::is_ge),
        "len" => length(one(arguments)?),
        "index" => index(arguments),
        "slice" => slice(arguments),
        "print" => Ok(Value::text(print::sprint(arguments))),
        "println" => Ok(Value::text(print::sprintln(arguments))),
        "printf" => match arguments {
            [Value::Text(format), rest @ ..] => Ok(Value::text(printf::sprintf(format, rest))),
            [] => Err(Failure::Count("at least 1", 0)),
            [other, ..] => Err(wrong_type(other, "string")),
        },
        "html" => Ok(Value::text(html(&print::sprint(arguments)))),
        "js" => Ok(Value::text(javascript(&print::sprint(arguments)))),
        "urlquery" => Ok(Value::text(query_escaped(&print::sprint(arguments)))),
        "call" => Err(Failure::Reason("call of nil".to_owned())),
        "json" => one(arguments).map(|value| Value::text(print::go_json(value))),
        _ => text_function(name, arguments),
    }
}

fn text_function(name: &str, arguments: &[Value]) -> Outcome {
    match name {
        "split" => {
            let (value, separator) = two(arguments)?;
            let (value, separator) = (text(value)?, text(separator)?);
            let parts: Vec<Value> = if separator.is_empty() {
                value.chars().map(|c| Value::text(c.to_string())).collect()
            } else {
                value.split(&*separator).map(Value::text).collect()
            };
            Ok(Value::List(Rc::new(parts)))
        }
        "join" => {
            let (list, separator) = two(arguments)?;
            let separator = text(separator)?;
            match list {
                Value::List(items) => {
                    let words: Vec<String> = items.iter().map(print::shown).collect();
                    Ok(Value::text(words.join(&separator)))
                }
                Value::Nil => Ok(Value::text("")),
                other => Err(wrong_type(other, "[]string")),
            }
        }
        "title" => Ok(Value::text(titled(&text(one(arguments)?)?))),
        "lower" => Ok(Value::text(text(one(arguments)?)?.to_lowercase())),
        "upper" => Ok(Value::text(text(one(arguments)?)?.to_uppercase())),
        "pad" => match arguments {
            [value, Value::Int(before), Value::Int(after)] => {
                let value = text(value)?;
                // LIMIT: wider than any terminal.
                let blanks = |count: &i64| " ".repeat((*count).clamp(0, 10_000) as usize);
                let padded = match value.is_empty() {
                    true => String::new(),
                    false => format!("{}{value}{}", blanks(before), blanks(after)),
                };
                Ok(Value::text(padded))
            }
            _ => Err(Failure::Count("3", arguments.len())),
        },
        "truncate" => match two(arguments)? {
            (Value::Text(value), Value::Int(length)) => {
                Ok(Value::text(value.chars().take((*length).max(0) as usize).collect::<String>()))
            }
            (_, other) => Err(wrong_type(other, "int")),
        },
        _ => Err(Failure::Reason(format!("function {name:?} not defined"))),
    }
}

fn one(arguments: &[Value]) -> Result<&Value, Failure> {
    match arguments {
        [only] => Ok(only),
        _ => Err(Failure::Count("1", arguments.len())),
    }
}

fn two(arguments: &[Value]) -> Result<(&Value, &Value), Failure> {
    match arguments {
        [first, second] => Ok((first, second)),
        _ => Err(Failure::Count("2", arguments.len())),
    }
}

fn text(value: &Value) -> Result<Rc<str>, Failure> {
    match value {
        Value::Text(text) => Ok(Rc::clone(text)),
        other => Err(wrong_type(other, "string")),
    }
}

fn wrong_type(value: &Value, wanted: &str) -> Failure {
    let kind = value.type_name();
    Failure::Reason(format!("wrong type for value; expected {wanted}; got {kind}"))
}

fn incompatible() -> Failure {
    Failure::Reason("incompatible types for comparison".to_owned())
}

fn equal(arguments: &[Value]) -> Outcome {
    let [first, others @ ..] = arguments else {
        return Err(Failure::Reason("missing argument for comparison".to_owned()));
    };
    if others.is_empty() {
        return Err(Failure::Reason("missing argument for comparison".to_owned()));
    }
    for other in others {
        if first.equals(other).ok_or_else(incompatible)? {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

fn ordered(arguments: &[Value], wanted: fn(Ordering) -> bool) -> Outcome {
    let (first, second) = two(arguments)?;
    first.compare(second).map(|order| Value::Bool(wanted(order))).ok_or_else(incompatible)
}

fn length(value: &Value) -> Outcome {
    let length = match value {
        Value::Text(text) => text.len(),
        Value::List(items) => items.len(),
        Value::Map(pairs) => pairs.len(),
        Value::Nil | Value::NilPointer => {
            return Err(Failure::Reason("len of nil pointer".to_owned()));
        }
        other => return Err(Failure::Reason(format!("len of type {}", other.type_name()))),
    };
    Ok(Value::Int(length as i64))
}

fn index(arguments: &[Value]) -> Outcome {
    let [value, keys @ ..] = arguments else { return Err(Failure::Count("at least 1", 0)) };
    let mut value = value.clone();
    for key in keys {
        value = match (&value, key) {
            (Value::List(items), Value::Int(at)) => {
                let found = usize::try_from(*at).ok().and_then(|at| items.get(at));
                let reason = || format!("index out of range: {at}");
                found.cloned().ok_or_else(|| Failure::Reason(reason()))?
            }
            (Value::Text(text), Value::Int(at)) => {
                let found = usize::try_from(*at).ok().and_then(|at| text.as_bytes().get(at));
                let reason = || format!("index out of range: {at}");
                let byte = found.ok_or_else(|| Failure::Reason(reason()))?;
                Value::Int(i64::from(*byte))
            }
            (Value::Map(pairs), Value::Text(key)) => {
                let found = pairs.iter().find(|(name, _)| name == key);
                // A map of texts has the empty text for its missing keys.
                let texts = !pairs.is_empty()
                    && pairs.iter().all(|(_, value)| matches!(value, Value::Text(_)));
                let missing = if texts { Value::text("") } else { Value::Nil };
                found.map_or(missing, |(_, value)| value.clone())
            }
            (Value::List(_) | Value::Text(_), other) => {
                let reason = format!("cannot index slice/array with type {}", other.type_name());
                return Err(Failure::Reason(reason));
            }
            (Value::Map(_), other) => {
                let kind = other.type_name();
                let reason = format!("value has type {kind}; should be string");
                return Err(Failure::Reason(reason));
            }
            (Value::Nil | Value::NilPointer, _) => {
                return Err(Failure::Reason("index of untyped nil".to_owned()));
            }
            (other, _) => {
                let reason = format!("can't index item of type {}", other.type_name());
                return Err(Failure::Reason(reason));
            }
        };
    }
    Ok(value)
}

fn slice(arguments: &[Value]) -> Outcome {
    let [value, bounds @ ..] = arguments else { return Err(Failure::Count("at least 1", 0)) };
    let mut places = Vec::new();
    for bound in bounds {
        match bound {
            Value::Int(at) => places.push(*at),
            other => {
                let reason = format!("cannot index slice/array with type {}", other.type_name());
                return Err(Failure::Reason(reason));
            }
        }
    }
    let size = match value {
        Value::Text(text) => text.len(),
        Value::List(items) => items.len(),
        other => {
            let reason = format!("can't slice item of type {}", other.type_name());
            return Err(Failure::Reason(reason));
        }
    };
    let place = |at: usize, default: usize| match places.get(at) {
        None => Ok(default),
        Some(wanted) => usize::try_from(*wanted)
            .ok()
            .filter(|at| *at <= size)
            .ok_or_else(|| Failure::Reason(format!("index out of range: {wanted}"))),
    };
    let (from, to) = (place(0, 0)?, place(1, size)?);
    if from > to {
        return Err(Failure::Reason(format!("invalid slice index: {from} > {to}")));
    }
    match value {
        Value::Text(text) => Ok(Value::text(String::from_utf8_lossy(&text.as_bytes()[from..to]))),
        Value::List(items) => Ok(Value::List(Rc::new(items[from..to].to_vec()))),
        _ => Ok(Value::Nil),
    }
}

fn titled(text: &str) -> String {
    let mut start = true;
    let mut out = String::new();
    for c in text.chars() {
        if start {
            out.extend(c.to_uppercase());
        } else {
            out.push(c);
        }
        start = !(c.is_alphanumeric() || c == '_' || c == '\'');
    }
    out
}

fn html(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\0' => out.push('\u{fffd}'),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c => out.push(c),
        }
    }
    out
}

fn javascript(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\'' => out.push_str("\\'"),
            '"' => out.push_str("\\\""),
            '<' | '>' | '&' | '=' => out.push_str(&format!("\\u{:04X}", c as u32)),
            c if (c as u32) < 0x20 => out.push_str(&format!("\\u{:04X}", c as u32)),
            c => out.push(c),
        }
    }
    out
}

fn query_escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            b' ' => out.push('+'),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
