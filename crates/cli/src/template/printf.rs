//! `printf` with Go's verbs, flags, widths and precisions.

use super::print;
use super::value::Value;

#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "the flags of a verb")]
struct Spec {
    minus: bool,
    plus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

// LIMIT: nobody's terminal is wider.
const WIDEST: i64 = 10_000;

/// `fmt.Sprintf`
pub(super) fn sprintf(format: &str, arguments: &[Value]) -> String {
    let mut out = String::new();
    let mut chars = format.chars().peekable();
    let mut used = 0;
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut spec = Spec::default();
        while let Some(flag) = chars.peek() {
            match flag {
                '-' => spec.minus = true,
                '+' => spec.plus = true,
                '#' => spec.sharp = true,
                ' ' => spec.space = true,
                '0' => spec.zero = true,
                _ => break,
            }
            chars.next();
        }
        spec.width = number(&mut chars, arguments, &mut used);
        if chars.next_if_eq(&'.').is_some() {
            spec.precision = Some(number(&mut chars, arguments, &mut used).unwrap_or(0));
        }
        match chars.next() {
            None => out.push_str("%!(NOVERB)"),
            Some('%') => out.push('%'),
            Some(verb) => match arguments.get(used) {
                None => out.push_str(&format!("%!{verb}(MISSING)")),
                Some(value) => {
                    used += 1;
                    out.push_str(&one(&spec, verb, value));
                }
            },
        }
    }
    if used < arguments.len() {
        let rest: Vec<String> = arguments[used..]
            .iter()
            .map(|value| match value {
                Value::Nil | Value::NilPointer => "<nil>".to_owned(),
                value => format!("{}={}", value.type_name(), print::plain(value)),
            })
            .collect();
        out.push_str(&format!("%!(EXTRA {})", rest.join(", ")));
    }
    out
}

fn number(
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
    arguments: &[Value],
    used: &mut usize,
) -> Option<usize> {
    if chars.next_if_eq(&'*').is_some() {
        let value = arguments.get(*used);
        *used += 1;
        return match value {
            Some(Value::Int(value)) => Some((*value).clamp(0, WIDEST) as usize),
            _ => None,
        };
    }
    let mut digits = String::new();
    while let Some(digit) = chars.next_if(char::is_ascii_digit) {
        digits.push(digit);
    }
    let value: i64 = digits.parse().ok()?;
    Some(value.min(WIDEST) as usize)
}

fn one(spec: &Spec, verb: char, value: &Value) -> String {
    let text = match (verb, value) {
        ('v', Value::Text(text)) if spec.sharp => quoted(text),
        ('v', value) => print::plain(value),
        ('T', value) => value.type_name().to_owned(),
        ('t', Value::Bool(value)) => value.to_string(),
        ('s', Value::Text(text)) => cut(text, spec.precision),
        ('q', Value::Text(text)) => quoted(text),
        ('x' | 'X', Value::Text(text)) => hex(text.as_bytes(), verb == 'X'),
        ('s' | 'q', Value::List(_) | Value::Map(_) | Value::Record(_)) => nested(verb, value),
        (_, Value::Int(value)) => return integer(spec, verb, *value),
        (_, Value::Float(value)) => return real(spec, verb, *value),
        (_, Value::Nil | Value::NilPointer) if verb == 's' => "%!s(<nil>)".to_owned(),
        (verb, Value::Nil | Value::NilPointer) => format!("%!{verb}(<nil>)"),
        (verb, value) => format!("%!{verb}({}={})", value.type_name(), print::plain(value)),
    };
    padded(spec, &text)
}

/// Lists and maps apply the verb to what they hold.
fn nested(verb: char, value: &Value) -> String {
    let spec = Spec::default();
    match value {
        Value::List(items) => {
            let words: Vec<String> = items.iter().map(|item| one(&spec, verb, item)).collect();
            format!("[{}]", words.join(" "))
        }
        Value::Map(pairs) => {
            let pair = |(key, value): &(std::rc::Rc<str>, Value)| {
                let key = one(&spec, verb, &Value::Text(std::rc::Rc::clone(key)));
                format!("{key}:{}", one(&spec, verb, value))
            };
            format!("map[{}]", pairs.iter().map(pair).collect::<Vec<_>>().join(" "))
        }
        Value::Record(record) => {
            let words: Vec<String> =
                record.fields.iter().map(|(_, value)| one(&spec, verb, value)).collect();
            format!("{{{}}}", words.join(" "))
        }
        other => print::plain(other),
    }
}

fn integer(spec: &Spec, verb: char, value: i64) -> String {
    let magnitude = value.unsigned_abs();
    let digits = match verb {
        'd' | 'v' => magnitude.to_string(),
        'x' => format!("{}{magnitude:x}", if spec.sharp { "0x" } else { "" }),
        'X' => format!("{}{magnitude:X}", if spec.sharp { "0X" } else { "" }),
        'o' => format!("{}{magnitude:o}", if spec.sharp { "0" } else { "" }),
        'O' => format!("0o{magnitude:o}"),
        'b' => format!("{magnitude:b}"),
        'c' => {
            let c = u32::try_from(value).ok().and_then(char::from_u32).unwrap_or('\u{fffd}');
            return padded(spec, &c.to_string());
        }
        'q' => {
            let c = u32::try_from(value).ok().and_then(char::from_u32).unwrap_or('\u{fffd}');
            return padded(spec, &format!("'{c}'"));
        }
        'U' => return padded(spec, &format!("U+{magnitude:04X}")),
        verb => return padded(spec, &format!("%!{verb}(int={value})")),
    };
    let digits = match spec.precision {
        Some(precision) => format!("{digits:0>precision$}"),
        None => digits,
    };
    signed(spec, value < 0, &digits, spec.precision.is_none())
}

fn real(spec: &Spec, verb: char, value: f64) -> String {
    let magnitude = value.abs();
    let digits = match verb {
        'f' | 'F' => format!("{magnitude:.*}", spec.precision.unwrap_or(6)),
        'e' => {
            let text = format!("{magnitude:.*e}", spec.precision.unwrap_or(6));
            let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            let exponent: i32 = exponent.parse().unwrap_or(0);
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        'g' | 'v' => print::float(magnitude),
        verb => {
            let text = format!("%!{verb}(float64={})", print::float(value));
            return padded(spec, &text);
        }
    };
    signed(spec, value < 0.0, &digits, true)
}

fn signed(spec: &Spec, negative: bool, digits: &str, may_fill: bool) -> String {
    let sign = match (negative, spec.plus, spec.space) {
        (true, _, _) => "-",
        (false, true, _) => "+",
        (false, false, true) => " ",
        _ => "",
    };
    match spec.width {
        Some(width) if spec.zero && may_fill && !spec.minus => {
            let room = width.saturating_sub(sign.len());
            format!("{sign}{digits:0>room$}")
        }
        _ => padded(spec, &format!("{sign}{digits}")),
    }
}

fn padded(spec: &Spec, text: &str) -> String {
    let width = spec.width.unwrap_or(0);
    match (spec.minus, spec.zero) {
        (true, _) => format!("{text:<width$}"),
        (false, true) => format!("{text:0>width$}"),
        (false, false) => format!("{text:>width$}"),
    }
}

fn cut(text: &str, precision: Option<usize>) -> String {
    text.chars().take(precision.unwrap_or(usize::MAX)).collect()
}

fn hex(bytes: &[u8], upper: bool) -> String {
    let digit = |byte: &u8| if upper { format!("{byte:02X}") } else { format!("{byte:02x}") };
    bytes.iter().map(digit).collect()
}

/// `strconv.Quote`
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                out.push_str(&format!("\\x{:02x}", c as u32));
            }
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
