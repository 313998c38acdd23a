//! The `build` sections of a Compose file as targets. What else a Compose file says is not looked at.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::target::Target;
use crate::{Error, File, yaml};

/// Keys of `build` that are named as in bake files.
const SAME: [(&str, &str); 14] = [
    ("dockerfile", "dockerfile"),
    ("dockerfile_inline", "dockerfile-inline"),
    ("target", "target"),
    ("network", "network"),
    ("tags", "tags"),
    ("platforms", "platforms"),
    ("cache_from", "cache-from"),
    ("cache_to", "cache-to"),
    ("no_cache", "no-cache"),
    ("pull", "pull"),
    ("shm_size", "shm-size"),
    ("entitlements", "entitlements"),
    ("ssh", "ssh"),
    ("no_cache_filter", "no-cache-filter"),
];

/// Tells by its name whether a file is a Compose file.
pub(crate) fn is_compose(file: &File) -> bool {
    let name = file.name.to_lowercase();
    [".yml", ".yaml"].iter().any(|ending| name.ends_with(ending))
}

/// Reads the services that are built, in order.
pub(crate) fn read(
    file: &File,
    environment: &BTreeMap<String, String>,
) -> Result<Vec<(String, Target)>, Error> {
    let fail = |message: String| Error::Syntax { file: file.name.clone(), message };
    let document = yaml::read(&file.text).map_err(fail)?;
    let document = interpolated(document, environment).map_err(fail)?;
    let Some(services) = document.get("services").and_then(Value::as_object) else {
        return Err(fail("empty compose file".to_owned()));
    };
    let secrets = document.get("secrets").and_then(Value::as_object);
    let mut targets = Vec::new();
    for (name, service) in services {
        let build = match service.get("build") {
            None | Some(Value::Null) => continue,
            Some(Value::String(context)) => json!({ "context": context }),
            Some(build) => build.clone(),
        };
        let Value::Object(build) = build else {
            return Err(fail(format!("service {name:?}: build is a text or an object")));
        };
        let target = target(&build, service, secrets, environment);
        let target = target.map_err(|why| fail(format!("service {name:?}: {why}")))?;
        // COMPAT: a name of a service may have dots, that of a target may not.
        targets.push((name.replace('.', "_"), target));
    }
    targets.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(targets)
}

fn target(
    build: &Map<String, Value>,
    service: &Value,
    secrets: Option<&Map<String, Value>>,
    environment: &BTreeMap<String, String>,
) -> Result<Target, String> {
    let mut target = Target::default();
    for (from, to) in SAME {
        if let Some(value) = build.get(from).filter(|value| **value != Value::Bool(false)) {
            target.set(to, value.clone())?;
        }
    }
    if let Some(Value::String(context)) = build.get("context") {
        target.set("context", Value::String(cleaned(context)))?;
    }
    let outside = |name: &str| {
        let own = service.get("environment").map(|own| named(own, '='));
        let own = own.and_then(|own| own.get(name).and_then(Value::as_str).map(str::to_owned));
        own.or_else(|| environment.get(name).cloned())
    };
    if let Some(args) = build.get("args") {
        let mut args = named(args, '=');
        for (name, value) in &mut args {
            if value.is_null() {
                *value = outside(name).map_or(Value::Null, Value::String);
            }
        }
        target.set("args", Value::Object(args))?;
    }
    for (from, to, separator) in [
        ("labels", "labels", '='),
        ("extra_hosts", "extra-hosts", '='),
        ("additional_contexts", "contexts", '='),
    ] {
        if let Some(value) = build.get(from) {
            let mut map = named(value, separator);
            if to == "contexts" {
                map.values_mut().for_each(service_context);
            }
            target.set(to, Value::Object(map))?;
        }
    }
    if let Some(Value::Object(ulimits)) = build.get("ulimits") {
        let each = ulimits.iter().map(|(name, limit)| match limit {
            Value::Object(limit) => format!("{name}={}:{}", limit["soft"], limit["hard"]),
            limit => format!("{name}={limit}:{limit}"),
        });
        target.set("ulimits", each.collect())?;
    }
    if let Some(Value::Array(used)) = build.get("secrets") {
        let entries = used.iter().map(|secret| build_secret(secret, secrets));
        target.set("secret", Value::Array(entries.collect::<Result<_, _>>()?))?;
    }
    for (key, kind) in [("sbom", "sbom"), ("provenance", "provenance")] {
        match build.get(key) {
            None | Some(Value::Null) => {}
            Some(Value::Bool(false)) => {
                target.grow("attest", vec![json!({"disabled": "true", "type": kind})]);
            }
            Some(Value::Bool(true)) => target.grow("attest", vec![json!({ "type": kind })]),
            Some(value) => {
                let text = format!("type={kind},{}", value.as_str().unwrap_or_default());
                let mut one = Target::default();
                one.set("attest", Value::String(text))?;
                target.merge(&one);
            }
        }
    }
    if target.list("tags").is_empty()
        && let Some(image) = service.get("image").filter(|image| image.is_string())
    {
        target.set("tags", image.clone())?;
    }
    if let Some(Value::Object(more)) = build.get("x-bake") {
        for (key, value) in more {
            target.set(key, value.clone())?;
        }
    }
    Ok(target)
}

/// `service:NAME` is the result of another service's build.
fn service_context(context: &mut Value) {
    if let Some(name) = context.as_str().and_then(|text| text.strip_prefix("service:")) {
        *context = Value::String(format!("target:{}", name.replace('.', "_")));
    }
}

fn build_secret(secret: &Value, known: Option<&Map<String, Value>>) -> Result<Value, String> {
    let source = secret.as_str().or_else(|| secret["source"].as_str());
    let source = source.ok_or_else(|| format!("a secret has a source, unlike {secret}"))?;
    let definition = known.and_then(|known| known.get(source));
    let definition = definition.ok_or_else(|| format!("secret {source:?} is not defined"))?;
    match (definition["file"].as_str(), definition["environment"].as_str()) {
        (Some(file), _) => Ok(json!({ "id": source, "src": file })),
        (None, Some(variable)) => Ok(json!({ "id": source, "env": variable })),
        (None, None) => Err(format!("secret {source:?} has neither a file nor a variable")),
    }
}

/// A map, or a list of `name=value`; a lone name has no value.
fn named(value: &Value, separator: char) -> Map<String, Value> {
    match value {
        Value::Object(map) => map.clone(),
        Value::Array(list) => list
            .iter()
            .filter_map(Value::as_str)
            .map(|text| {
                match text
                    .split_once(separator)
                    .or_else(|| text.split_once(':').filter(|_| !text.contains(separator)))
                {
                    Some((name, value)) => (name.to_owned(), Value::from(value)),
                    None => (text.to_owned(), Value::Null),
                }
            })
            .collect(),
        _ => Map::new(),
    }
}

/// A path without `./`; URLs stay.
fn cleaned(path: &str) -> String {
    if path.contains("://") || path.starts_with("git@") {
        return path.to_owned();
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "." | "")).collect();
    let joined = parts.join("/");
    match (path.starts_with('/'), joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

fn interpolated(value: Value, environment: &BTreeMap<String, String>) -> Result<Value, String> {
    match value {
        Value::String(text) => interpolate(&text, environment).map(Value::String),
        Value::Array(list) => list
            .into_iter()
            .map(|item| interpolated(item, environment))
            .collect::<Result<_, _>>()
            .map(Value::Array),
        Value::Object(map) => map
            .into_iter()
            .map(|(key, value)| Ok((key, interpolated(value, environment)?)))
            .collect::<Result<_, String>>()
            .map(Value::Object),
        other => Ok(other),
    }
}

/// `$X`, `${X}`, `${X:-default}`, `${X-default}`, `${X:?message}`, `${X?message}`, `${X:+other}`, `${X+other}`, `$$`.
fn interpolate(text: &str, environment: &BTreeMap<String, String>) -> Result<String, String> {
    let mut done = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        done.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(tail) = rest.strip_prefix('$') {
            done.push('$');
            rest = tail;
            continue;
        }
        let braced = rest.strip_prefix('{');
        let body = braced.unwrap_or(rest);
        let end =
            body.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(body.len());
        let (name, tail) = body.split_at(end);
        if name.is_empty() {
            return Err(format!("invalid interpolation format in {text:?}"));
        }
        let value = environment.get(name);
        if braced.is_none() {
            done.push_str(value.map_or("", String::as_str));
            rest = tail;
            continue;
        }
        let close =
            tail.find('}').ok_or_else(|| format!("invalid interpolation format in {text:?}"))?;
        let modifier = &tail[..close];
        rest = &tail[close + 1..];
        let (modifier, value) = match modifier.strip_prefix(':') {
            Some(modifier) => (modifier, value.filter(|value| !value.is_empty())),
            None => (modifier, value),
        };
        let mut chars = modifier.chars();
        match (chars.next(), value) {
            (None, value) => done.push_str(value.map_or("", String::as_str)),
            (Some('-'), None) => done.push_str(chars.as_str()),
            (Some('-' | '?'), Some(value)) => done.push_str(value),
            (Some('?'), None) => {
                return Err(format!(
                    "required variable {name} is missing a value: {}",
                    chars.as_str()
                ));
            }
            (Some('+'), Some(_)) => done.push_str(chars.as_str()),
            (Some('+'), None) => {}
            (Some(_), _) => return Err(format!("invalid interpolation format in {text:?}")),
        }
    }
    done.push_str(rest);
    Ok(done)
}
