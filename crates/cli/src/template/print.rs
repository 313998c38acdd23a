//! Values as Go prints them, and as JSON.

use serde_json::Value as Json;

use super::value::Value;

/// What an action prints.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Nil => "<no value>".to_owned(),
        other => plain(other),
    }
}

/// `%v`
pub(super) fn plain(value: &Value) -> String {
    let mut out = String::new();
    write_plain(value, &mut out);
    out
}

fn write_plain(value: &Value, out: &mut String) {
    match value {
        Value::Nil | Value::NilPointer => out.push_str("<nil>"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Int(value) => out.push_str(&value.to_string()),
        Value::Float(value) => out.push_str(&float(*value)),
        Value::Text(text) => out.push_str(text),
        Value::List(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(' ');
                }
                write_plain(item, out);
            }
            out.push(']');
        }
        Value::Map(pairs) => {
            out.push_str("map[");
            for (index, (key, value)) in pairs.iter().enumerate() {
                if index > 0 {
                    out.push(' ');
                }
                out.push_str(key);
                out.push(':');
                write_plain(value, out);
            }
            out.push(']');
        }
        Value::Record(record) => {
            out.push('{');
            for (index, (_, value)) in record.fields.iter().enumerate() {
                if index > 0 {
                    out.push(' ');
                }
                write_plain(value, out);
            }
            out.push('}');
        }
    }
}

/// `%v` of a float: the shortest text, with an exponent when that is below -4 or above 20.
pub(super) fn float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..21).contains(&exponent) {
        return format!("{value}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// `fmt.Sprint`: a blank between operands when neither is a text.
pub(super) fn sprint(values: &[Value]) -> String {
    let mut out = String::new();
    let mut after_text = true;
    for (index, value) in values.iter().enumerate() {
        let is_text = matches!(value, Value::Text(_));
        if index > 0 && !is_text && !after_text {
            out.push(' ');
        }
        write_plain(value, &mut out);
        after_text = is_text;
    }
    out
}

/// `fmt.Sprintln`
pub(super) fn sprintln(values: &[Value]) -> String {
    let words: Vec<String> = values.iter().map(plain).collect();
    format!("{}\n", words.join(" "))
}

/// Returns the JSON document of a value.
pub(super) fn to_json(value: &Value) -> Json {
    match value {
        Value::Nil | Value::NilPointer => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::Int(value) => Json::from(*value),
        Value::Float(value) => Json::from(*value),
        Value::Text(text) => Json::String(text.to_string()),
        Value::List(items) => Json::Array(items.iter().map(to_json).collect()),
        Value::Map(pairs) => Json::Object(
            pairs.iter().map(|(key, value)| (key.to_string(), to_json(value))).collect(),
        ),
        Value::Record(record) => record.json.clone().unwrap_or_else(|| {
            let mut fields: Vec<_> = record.fields.iter().collect();
            // COMPAT: rows are written as a map, whose keys Go sorts.
            if record.pointer {
                fields.sort_by(|a, b| a.0.cmp(&b.0));
            }
            Json::Object(
                fields
                    .into_iter()
                    .map(|(name, value)| (name.to_string(), to_json(value)))
                    .collect(),
            )
        }),
    }
}

/// `{{json x}}`: one line, nothing escaped for HTML.
pub(super) fn go_json(value: &Value) -> String {
    escape_separators(to_json(value).to_string())
}

/// `--format json`: one line, `<`, `>` and `&` escaped as `json.Marshal` does.
pub(crate) fn html_escaped_json(value: &Value) -> String {
    let text = escape_separators(to_json(value).to_string());
    text.replace('&', "\\u0026").replace('<', "\\u003c").replace('>', "\\u003e")
}

/// Go escapes the two line separators of Unicode in JSON.
fn escape_separators(text: String) -> String {
    if !text.contains(['\u{2028}', '\u{2029}']) {
        return text;
    }
    text.replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}
