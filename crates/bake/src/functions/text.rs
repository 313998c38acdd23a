//! Functions on text.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha1::Digest as _;

use super::{Args, Outcome};
use crate::eval::{MAX_SIZE, float, text};

pub(super) fn call(name: &str, args: &Args<'_>, now: u64) -> Option<Outcome> {
    let of =
        |change: &dyn Fn(&str) -> String| args.text(0).map(|text| Value::String(change(&text)));
    let with = |change: &dyn Fn(&str, &str) -> String| {
        Ok(Value::String(change(&args.text(0)?, &args.text(1)?)))
    };
    Some(match name {
        "lower" => of(&str::to_lowercase),
        "upper" => of(&str::to_uppercase),
        "title" => of(&title),
        "trimspace" => of(&|text| text.trim().to_owned()),
        "chomp" => of(&|text| text.trim_end_matches(['\r', '\n']).to_owned()),
        "reverse" => of(&|text| text.chars().rev().collect()),
        "basename" => {
            of(&|path| path.trim_end_matches('/').rsplit('/').next().unwrap_or("").to_owned())
        }
        "dirname" => of(&|path| match path.trim_end_matches('/').rsplit_once('/') {
            Some(("", _)) => "/".to_owned(),
            Some((parent, _)) => parent.to_owned(),
            None => ".".to_owned(),
        }),
        "sanitize" => of(&|text| {
            text.chars()
                .map(|c| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' })
                .collect()
        }),
        "urlencode" => of(&url_encoded),
        "base64encode" => of(&|text| STANDARD.encode(text)),
        "base64decode" => args.text(0).and_then(|text| {
            let bytes = STANDARD.decode(text).map_err(|why| why.to_string())?;
            String::from_utf8(bytes).map(Value::String).map_err(|why| why.to_string())
        }),
        "sha1" => of(&|text| hex(&sha1::Sha1::digest(text))),
        "sha256" => of(&|text| hex(&sha2::Sha256::digest(text))),
        "sha512" => of(&|text| hex(&sha2::Sha512::digest(text))),
        "strlen" => args.text(0).map(|text| Value::from(text.chars().count())),
        "byteslen" => args.text(0).map(|text| Value::from(text.len())),
        "trim" => with(&|text, cut| text.trim_matches(|c| cut.contains(c)).to_owned()),
        "trimprefix" => with(&|text, cut| text.strip_prefix(cut).unwrap_or(text).to_owned()),
        "trimsuffix" => with(&|text, cut| text.strip_suffix(cut).unwrap_or(text).to_owned()),
        "indent" => indent(args),
        "replace" => replace(args),
        "split" => split(args),
        "join" => join(args),
        "substr" => substr(args),
        "format" => format(args.values),
        "formatlist" => format_list(args),
        "parseint" => parse_int(args),
        "regex" | "regexall" | "regex_replace" => regex(name, args),
        "jsonencode" => args.at(0).map(|value| Value::String(value.to_string())),
        "jsondecode" => {
            args.text(0).and_then(|text| serde_json::from_str(&text).map_err(|why| why.to_string()))
        }
        "timestamp" => Ok(Value::String(rfc3339(now))),
        _ => return None,
    })
}

fn title(text: &str) -> String {
    let mut start = true;
    let upper = |c: char| {
        let changed = if start { c.to_uppercase().to_string() } else { c.to_string() };
        start = !c.is_alphanumeric();
        changed
    };
    text.chars().map(upper).collect()
}

fn url_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(byte as char);
            }
            b' ' => encoded.push('+'),
            byte => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

fn bounded(text: String) -> Outcome {
    match text.len() > MAX_SIZE {
        true => Err(format!("a text is longer than {MAX_SIZE} bytes")),
        false => Ok(Value::String(text)),
    }
}

fn indent(args: &Args<'_>) -> Outcome {
    let width = usize::try_from(args.whole(0)?).unwrap_or(0).min(1000);
    bounded(args.text(1)?.replace('\n', &format!("\n{}", " ".repeat(width))))
}

fn replace(args: &Args<'_>) -> Outcome {
    let (text, old, new) = (args.text(0)?, args.text(1)?, args.text(2)?);
    if text.matches(&old).count().saturating_mul(new.len()) > MAX_SIZE {
        return Err(format!("a text is longer than {MAX_SIZE} bytes"));
    }
    bounded(text.replace(&old, &new))
}

fn split(args: &Args<'_>) -> Outcome {
    let (separator, text) = (args.text(0)?, args.text(1)?);
    let parts: Vec<Value> = match (text.is_empty(), separator.is_empty()) {
        (true, _) => Vec::new(),
        (false, true) => text.chars().map(|c| Value::String(c.to_string())).collect(),
        (false, false) => text.split(&separator).map(Value::from).collect(),
    };
    Ok(Value::Array(parts))
}

fn join(args: &Args<'_>) -> Outcome {
    let separator = args.text(0)?;
    let mut parts = Vec::new();
    for at in 1..args.values.len() {
        for item in args.list(at)? {
            parts.push(text(item)?);
        }
    }
    bounded(parts.join(&separator))
}

fn substr(args: &Args<'_>) -> Outcome {
    let chars: Vec<char> = args.text(0)?.chars().collect();
    let (start, length) = (args.whole(1)?, args.whole(2)?);
    let size = chars.len() as i64;
    let start = if start < 0 { (size + start).max(0) } else { start.min(size) };
    let end = if length < 0 { size } else { start.saturating_add(length).min(size) };
    Ok(Value::String(chars[start as usize..end.max(start) as usize].iter().collect()))
}

/// `%s`, `%d`, `%v`, `%q`, `%t`, `%f`, `%x`, with zero padding and width; `%%`.
fn format(values: &[Value]) -> Outcome {
    let Some(Value::String(pattern)) = values.first() else {
        return Err("function \"format\" needs a text first".to_owned());
    };
    let mut rest = values[1..].iter();
    let mut done = String::new();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            done.push(c);
            continue;
        }
        let mut flags = String::new();
        while let Some(flag) = chars.next_if(|c| "0123456789.-+".contains(*c)) {
            flags.push(flag);
        }
        let verb = chars.next().unwrap_or('%');
        if verb == '%' {
            done.push('%');
            continue;
        }
        let value = rest.next().ok_or("function \"format\" needs more arguments")?;
        done.push_str(&formatted(verb, &flags, value)?);
    }
    bounded(done)
}

fn formatted(verb: char, flags: &str, value: &Value) -> Result<String, String> {
    let shown = match verb {
        's' | 'v' => text(value).unwrap_or_else(|_| value.to_string()),
        't' => crate::eval::truth(value)?.to_string(),
        'q' => Value::String(text(value)?).to_string(),
        'd' => format!("{:.0}", float(value)?.trunc()),
        'x' => format!("{:x}", float(value)? as i64),
        'f' => {
            let digits = flags.split_once('.').and_then(|(_, digits)| digits.parse::<usize>().ok());
            format!("{:.*}", digits.unwrap_or(6).min(100), float(value)?)
        }
        other => return Err(format!("unsupported format verb '{other}'")),
    };
    let width = flags.trim_start_matches(['-', '+', '0']).split('.').next().unwrap_or("");
    let width = width.parse::<usize>().unwrap_or(0).min(1000);
    Ok(match (flags.starts_with('-'), flags.starts_with('0')) {
        (true, _) => format!("{shown:<width$}"),
        (false, true) => format!("{shown:0>width$}"),
        (false, false) => format!("{shown:>width$}"),
    })
}

fn format_list(args: &Args<'_>) -> Outcome {
    let lists = args.values.iter().filter_map(Value::as_array).map(Vec::len);
    let count = lists.min().unwrap_or(1);
    let each = (0..count).map(|at| {
        let values = args.values.iter().map(|value| match value {
            Value::Array(items) => items[at].clone(),
            other => other.clone(),
        });
        format(&values.collect::<Vec<_>>())
    });
    each.collect::<Result<_, _>>().map(Value::Array)
}

fn parse_int(args: &Args<'_>) -> Outcome {
    let (text, base) = (args.text(0)?, args.whole(1)?);
    let base = u32::try_from(base).ok().filter(|base| (2..=36).contains(base));
    let base = base.ok_or("the base of a number is between 2 and 36")?;
    i64::from_str_radix(&text, base)
        .map(Value::from)
        .map_err(|why| format!("cannot read {text:?}: {why}"))
}

fn regex(name: &str, args: &Args<'_>) -> Outcome {
    let pattern = |at| {
        let text = args.text(at)?;
        // LIMIT: a compiled pattern takes at most this much memory.
        let built = regex::RegexBuilder::new(&text).size_limit(1 << 20).build();
        built.map_err(|why| why.to_string())
    };
    if name == "regex_replace" {
        let (text, pattern, new) = (args.text(0)?, pattern(1)?, args.text(2)?);
        return bounded(pattern.replace_all(&text, new.as_str()).into_owned());
    }
    let (pattern, text) = (pattern(0)?, args.text(1)?);
    let shown = |found: &regex::Captures<'_>| {
        let group =
            |at: usize| found.get(at).map_or(Value::Null, |group| Value::from(group.as_str()));
        let names: Vec<&str> = pattern.capture_names().flatten().collect();
        if !names.is_empty() {
            let named = names.into_iter().map(|name| {
                let value =
                    found.name(name).map_or(Value::Null, |group| Value::from(group.as_str()));
                (name.to_owned(), value)
            });
            return Value::Object(named.collect());
        }
        match found.len() {
            1 => group(0),
            count => Value::Array((1..count).map(group).collect()),
        }
    };
    if name == "regexall" {
        return Ok(Value::Array(pattern.captures_iter(&text).map(|found| shown(&found)).collect()));
    }
    let found = pattern.captures(&text);
    found
        .map(|found| shown(&found))
        .ok_or_else(|| "pattern did not match any part of the given string".to_owned())
}

/// Seconds since the epoch as `2024-01-02T03:04:05Z`.
fn rfc3339(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // The calendar of civil days, counted from 1 March of year 0.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let part = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * part + 2) / 5 + 1;
    let month = if part < 10 { part + 3 } else { part - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}
