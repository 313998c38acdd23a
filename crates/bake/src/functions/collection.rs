//! Functions on lists and objects.

use serde_json::{Map, Value};

use super::{Args, Outcome};
use crate::eval::{equal, item, number, text};

/// Longest list that a function makes.
///
/// LIMIT: memory; `range(1e12)` and products of lists.
const MAX_LIST: usize = 100_000;

pub(super) fn call(name: &str, args: &Args<'_>) -> Option<Outcome> {
    Some(match name {
        "length" => args.at(0).and_then(length),
        "keys" => {
            args.map(0).map(|map| Value::Array(sorted(map).map(|(key, _)| key.into()).collect()))
        }
        "values" => args
            .map(0)
            .map(|map| Value::Array(sorted(map).map(|(_, value)| value.clone()).collect())),
        "coalesce" => first(args, |value| !value.is_null()),
        "coalescelist" => {
            first(args, |value| value.as_array().is_some_and(|list| !list.is_empty()))
        }
        "compact" => args.list(0).map(|list| {
            Value::Array(list.iter().filter(|value| value.as_str() != Some("")).cloned().collect())
        }),
        "concat" => (0..args.values.len())
            .map(|at| args.list(at))
            .collect::<Result<Vec<_>, _>>()
            .map(|lists| Value::Array(lists.concat())),
        "contains" => args.list(0).and_then(|list| Ok(Value::Bool(has(list, args.at(1)?)))),
        "sethaselement" => args.list(0).and_then(|list| Ok(Value::Bool(has(list, args.at(1)?)))),
        "distinct" => args.list(0).map(|list| Value::Array(distinct(list))),
        "flatten" => args.list(0).map(|list| Value::Array(flatten(list, 0))),
        "reverselist" => {
            args.list(0).map(|list| Value::Array(list.iter().rev().cloned().collect()))
        }
        "sort" => args.list(0).and_then(sort),
        "element" => element(args),
        "index" => args.at(0).and_then(|value| item(value, args.at(1)?)),
        "hasindex" => {
            args.at(0).and_then(|value| Ok(Value::Bool(item(value, args.at(1)?).is_ok())))
        }
        "indexof" => args.list(0).and_then(|list| {
            let wanted = args.at(1)?;
            let found = list.iter().position(|value| equal(value, wanted));
            found.map(Value::from).ok_or_else(|| "item not found".to_owned())
        }),
        "lookup" => lookup(args),
        "merge" => merge(args),
        "zipmap" => zipmap(args),
        "range" => range(args),
        "slice" => slice(args),
        "chunklist" => chunks(args),
        "setproduct" => product(args),
        "setunion" => sets(args, |_, _| true, true),
        "setintersection" => sets(args, has, false),
        "setsubtract" => sets(args, |other, value| !has(other, value), false),
        "setsymmetricdifference" => symmetric(args),
        _ => return None,
    })
}

fn sorted(map: &Map<String, Value>) -> impl Iterator<Item = (&str, &Value)> {
    let mut pairs: Vec<_> = map.iter().map(|(key, value)| (key.as_str(), value)).collect();
    pairs.sort_by_key(|(key, _)| *key);
    pairs.into_iter()
}

fn length(value: &Value) -> Outcome {
    match value {
        Value::Array(list) => Ok(Value::from(list.len())),
        Value::Object(map) => Ok(Value::from(map.len())),
        other => Err(format!("collection must be a list, a map or a tuple, not {other}")),
    }
}

fn first(args: &Args<'_>, wanted: fn(&Value) -> bool) -> Outcome {
    let found = args.values.iter().find(|value| wanted(value));
    found.cloned().ok_or_else(|| "no non-null arguments".to_owned())
}

fn has(list: &[Value], wanted: &Value) -> bool {
    list.iter().any(|value| equal(value, wanted))
}

fn distinct(list: &[Value]) -> Vec<Value> {
    let mut found: Vec<Value> = Vec::new();
    for value in list {
        if !has(&found, value) {
            found.push(value.clone());
        }
    }
    found
}

fn flatten(list: &[Value], depth: usize) -> Vec<Value> {
    let each = list.iter().map(|value| match value {
        Value::Array(inner) if depth < 64 => flatten(inner, depth + 1),
        other => vec![other.clone()],
    });
    each.collect::<Vec<_>>().concat()
}

fn sort(list: &[Value]) -> Outcome {
    let mut texts = list.iter().map(text).collect::<Result<Vec<_>, _>>()?;
    texts.sort();
    Ok(Value::Array(texts.into_iter().map(Value::String).collect()))
}

fn element(args: &Args<'_>) -> Outcome {
    let (list, at) = (args.list(0)?, args.whole(1)?);
    if list.is_empty() {
        return Err("cannot use element function with an empty list".to_owned());
    }
    Ok(list[at.rem_euclid(list.len() as i64) as usize].clone())
}

fn lookup(args: &Args<'_>) -> Outcome {
    let found = args.map(0)?.get(&args.text(1)?).cloned();
    match found {
        Some(found) => Ok(found),
        None => args.at(2).cloned(),
    }
}

fn merge(args: &Args<'_>) -> Outcome {
    let mut merged = Map::new();
    for (at, value) in args.values.iter().enumerate() {
        if !value.is_null() {
            merged.extend(args.map(at)?.clone());
        }
    }
    Ok(Value::Object(merged))
}

fn zipmap(args: &Args<'_>) -> Outcome {
    let (keys, values) = (args.list(0)?, args.list(1)?);
    if keys.len() != values.len() {
        return Err(format!("{} keys and {} values do not fit", keys.len(), values.len()));
    }
    let pairs = keys.iter().zip(values).map(|(key, value)| Ok((text(key)?, value.clone())));
    pairs.collect::<Result<_, String>>().map(Value::Object)
}

fn range(args: &Args<'_>) -> Outcome {
    let (start, end, step) = match args.values.len() {
        1 => (0.0, args.float(0)?, 1.0),
        2 => (args.float(0)?, args.float(1)?, 1.0),
        _ => (args.float(0)?, args.float(1)?, args.float(2)?),
    };
    let step = if end < start && args.values.len() < 3 { -1.0 } else { step };
    let count = ((end - start) / step).ceil();
    if !count.is_finite() || count > MAX_LIST as f64 {
        return Err(format!("a list may have {MAX_LIST} elements"));
    }
    let count = if count > 0.0 { count as usize } else { 0 };
    Ok(Value::Array((0..count).map(|at| number(start + step * at as f64)).collect()))
}

fn slice(args: &Args<'_>) -> Outcome {
    let (list, start, end) = (args.list(0)?, args.whole(1)?, args.whole(2)?);
    let found = usize::try_from(start).ok().zip(usize::try_from(end).ok());
    let found = found.and_then(|(start, end)| list.get(start..end));
    found
        .map(|part| Value::Array(part.to_vec()))
        .ok_or_else(|| format!("{start} to {end} is no part of a list of {} elements", list.len()))
}

fn chunks(args: &Args<'_>) -> Outcome {
    let (list, size) = (args.list(0)?, args.whole(1)?);
    let size = usize::try_from(size).map_err(|_| "the size of a chunk cannot be negative")?;
    let size = if size == 0 { list.len().max(1) } else { size };
    Ok(Value::Array(list.chunks(size).map(|part| Value::Array(part.to_vec())).collect()))
}

fn product(args: &Args<'_>) -> Outcome {
    let mut rows: Vec<Vec<Value>> = vec![Vec::new()];
    for at in 0..args.values.len() {
        let list = args.list(at)?;
        if rows.len().saturating_mul(list.len()) > MAX_LIST {
            return Err(format!("a list may have {MAX_LIST} elements"));
        }
        let with = |row: Vec<Value>| {
            let longer = list
                .iter()
                .map(move |value| [row.as_slice(), std::slice::from_ref(value)].concat());
            longer.collect::<Vec<_>>()
        };
        rows = rows.into_iter().flat_map(with).collect();
    }
    Ok(Value::Array(rows.into_iter().map(Value::Array).collect()))
}

/// Keeps of the first list what holds against every other one, or adds the others.
fn sets(args: &Args<'_>, keep: fn(&[Value], &Value) -> bool, add: bool) -> Outcome {
    let mut found = distinct(args.list(0)?);
    for at in 1..args.values.len() {
        let other = args.list(at)?;
        match add {
            true => found = distinct(&[found.as_slice(), other].concat()),
            false => found.retain(|value| keep(other, value)),
        }
    }
    Ok(Value::Array(found))
}

fn symmetric(args: &Args<'_>) -> Outcome {
    let (first, second) = (distinct(args.list(0)?), distinct(args.list(1)?));
    let only = |of: &[Value], not: &[Value]| {
        of.iter().filter(|value| !has(not, value)).cloned().collect::<Vec<_>>()
    };
    Ok(Value::Array([only(&first, &second), only(&second, &first)].concat()))
}
