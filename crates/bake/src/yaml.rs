//! YAML documents as values: aliases with a budget, merge keys, and the plain scalars that Compose files know.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};

/// Most values of a document, aliases counted each time.
///
/// LIMIT: aliases of aliases grow without bound.
const MAX_NODES: usize = 100_000;

/// Deepest nesting.
const MAX_DEPTH: usize = 100;

/// Something that is being filled.
enum Open {
    List(Vec<Value>, usize),
    Map(Map<String, Value>, Option<String>, usize),
}

/// Reads one document.
pub(crate) fn read(text: &str) -> Result<Value, String> {
    let mut anchors: BTreeMap<usize, (Value, usize)> = BTreeMap::new();
    let mut open: Vec<Open> = Vec::new();
    let mut whole = Value::Null;
    let mut nodes = 0;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|why| why.to_string())?;
        let at = || format!("line {}", span.start.line());
        let mut size = 1;
        let (done, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = matches!(style, ScalarStyle::Plain) && tag.is_none();
                (if plain { plain_scalar(&text) } else { Value::from(text.as_ref()) }, anchor)
            }
            Event::Alias(id) => {
                let (value, count) =
                    anchors.get(&id).ok_or_else(|| format!("unknown alias at {}", at()))?;
                size = *count;
                (value.clone(), 0)
            }
            Event::SequenceStart(anchor, _) => {
                open.push(Open::List(Vec::new(), anchor));
                continue;
            }
            Event::MappingStart(anchor, _) => {
                open.push(Open::Map(Map::new(), None, anchor));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::List(list, anchor)) => (Value::Array(list), anchor),
                Some(Open::Map(map, _, anchor)) => (Value::Object(map), anchor),
                None => continue,
            },
            _ => continue,
        };
        nodes += size;
        if nodes > MAX_NODES || open.len() > MAX_DEPTH {
            return Err(format!("the document is too large or nests too deep at {}", at()));
        }
        if anchor > 0 {
            anchors.insert(anchor, (done.clone(), count(&done)));
        }
        match open.last_mut() {
            None => whole = done,
            Some(Open::List(list, _)) => list.push(done),
            Some(Open::Map(map, key, _)) => match key.take() {
                None => {
                    let text = scalar_text(&done);
                    *key = Some(text.ok_or_else(|| format!("a key is no text at {}", at()))?);
                }
                Some(key) if key == "<<" => merge(map, done),
                Some(key) => {
                    map.insert(key, done);
                }
            },
        }
    }
    Ok(whole)
}

fn count(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(count).sum::<usize>(),
        Value::Object(map) => 1 + map.values().map(count).sum::<usize>(),
        _ => 1,
    }
}

fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Null => Some(String::new()),
        Value::Array(_) | Value::Object(_) => None,
    }
}

/// What is merged in does not replace what is there.
fn merge(map: &mut Map<String, Value>, merged: Value) {
    let sources = match merged {
        Value::Array(list) => list,
        one => vec![one],
    };
    for source in sources {
        if let Value::Object(source) = source {
            for (key, value) in source {
                map.entry(key).or_insert(value);
            }
        }
    }
}

fn plain_scalar(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    // A leading zero would be lost.
    let whole = text.parse::<i64>().ok().filter(|whole| whole.to_string() == text);
    whole.map_or_else(|| Value::from(text), Value::from)
}
