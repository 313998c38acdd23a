//! One build: its attributes, how two descriptions of it become one, and how it is changed from the command line.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::Error;
use crate::entries::{self, Kind};
use crate::eval::text;

/// What an attribute holds, and whether a later description replaces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Text,
    Switch,
    /// Texts by name; a later description adds.
    Map,
    /// A list that a later description replaces.
    List,
    /// A list that a later description extends.
    Growing,
    Entries(Kind),
    GrowingEntries(Kind),
}

/// All attributes, in the order in which they are printed.
const ATTRIBUTES: [(&str, Shape); 26] = [
    ("description", Shape::Text),
    ("annotations", Shape::Growing),
    ("attest", Shape::GrowingEntries(Kind::Attest)),
    ("context", Shape::Text),
    ("contexts", Shape::Map),
    ("dockerfile", Shape::Text),
    ("dockerfile-inline", Shape::Text),
    ("args", Shape::Map),
    ("labels", Shape::Map),
    ("tags", Shape::List),
    ("cache-from", Shape::GrowingEntries(Kind::Cache)),
    ("cache-to", Shape::Entries(Kind::Cache)),
    ("target", Shape::Text),
    ("secret", Shape::GrowingEntries(Kind::Secret)),
    ("ssh", Shape::GrowingEntries(Kind::Ssh)),
    ("platforms", Shape::List),
    ("output", Shape::Entries(Kind::Output)),
    ("pull", Shape::Switch),
    ("no-cache", Shape::Switch),
    ("network", Shape::Text),
    ("no-cache-filter", Shape::Growing),
    ("shm-size", Shape::Text),
    ("ulimits", Shape::Growing),
    ("call", Shape::Text),
    ("entitlements", Shape::Growing),
    ("extra-hosts", Shape::Map),
];

fn shape(name: &str) -> Option<Shape> {
    ATTRIBUTES.iter().find(|(known, _)| *known == name).map(|(_, shape)| *shape)
}

/// One build.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    attributes: BTreeMap<&'static str, Value>,
}

impl Target {
    /// The value of an attribute that is a text: `context`, `dockerfile`, `target`, `network`, …
    pub fn text(&self, name: &str) -> Option<&str> {
        self.attributes.get(name)?.as_str()
    }

    /// The value of an attribute that is a switch: `pull`, `no-cache`.
    pub fn switch(&self, name: &str) -> Option<bool> {
        self.attributes.get(name)?.as_bool()
    }

    /// The values of an attribute that is a list of texts: `tags`, `platforms`, …
    pub fn list(&self, name: &str) -> Vec<&str> {
        let list = self.attributes.get(name).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// The values of an attribute that is a map of texts: `args`, `labels`, `contexts`, `extra-hosts`.
    pub fn map(&self, name: &str) -> Vec<(&str, &str)> {
        let map = self.attributes.get(name).and_then(Value::as_object);
        map.into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
            .collect()
    }

    /// The entries of `cache-from`, `cache-to`, `output`, `secret`, `ssh` or `attest`, each with its fields.
    pub fn entries(&self, name: &str) -> Vec<&Map<String, Value>> {
        let list = self.attributes.get(name).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_object).collect()
    }

    /// The builds whose results this one takes as contexts, with the name of each context.
    pub fn links(&self) -> Vec<(&str, &str)> {
        let contexts = self.map("contexts").into_iter();
        contexts
            .filter_map(|(name, context)| Some((name, context.strip_prefix("target:")?)))
            .collect()
    }

    /// The flags of `build` that make this build, without its contexts and its Dockerfile.
    pub fn build_flags(&self) -> Vec<String> {
        let mut flags = Vec::new();
        let mut add =
            |flag: &str, value: &str| flags.extend([format!("--{flag}"), value.to_owned()]);
        for (name, flag) in
            [("args", "build-arg"), ("labels", "label"), ("extra-hosts", "add-host")]
        {
            for (key, value) in self.map(name) {
                add(flag, &format!("{key}={value}"));
            }
        }
        for (name, flag) in [
            ("tags", "tag"),
            ("platforms", "platform"),
            ("no-cache-filter", "no-cache-filter"),
            ("ulimits", "ulimit"),
            ("entitlements", "allow"),
            ("annotations", "annotation"),
        ] {
            self.list(name).into_iter().for_each(|value| add(flag, value));
        }
        for flag in ["target", "network", "shm-size", "call"] {
            if let Some(value) = self.text(flag) {
                add(flag, value);
            }
        }
        for flag in ["cache-from", "cache-to", "secret", "attest", "output"] {
            self.entries(flag).into_iter().for_each(|entry| add(flag, &written(entry)));
        }
        for agent in self.entries("ssh") {
            let id = agent.get("id").and_then(Value::as_str).unwrap_or("default");
            let paths = agent.get("paths").and_then(Value::as_array);
            let paths: Vec<&str> = paths.into_iter().flatten().filter_map(Value::as_str).collect();
            let paths =
                if paths.is_empty() { String::new() } else { format!("={}", paths.join(",")) };
            add("ssh", &format!("{id}{paths}"));
        }
        for flag in ["pull", "no-cache"] {
            if self.switch(flag) == Some(true) {
                flags.push(format!("--{flag}"));
            }
        }
        flags
    }

    /// As `--print` shows it: `${` of values is escaped, so that the output is a bake file again.
    pub(crate) fn document(&self) -> Value {
        let mut document = Map::new();
        for (name, _) in ATTRIBUTES {
            if let Some(value) = self.attributes.get(name) {
                let escapes = matches!(
                    name,
                    "annotations" | "dockerfile-inline" | "labels" | "args" | "extra-hosts"
                );
                let shown = match name {
                    "attest" => switched(value),
                    _ if escapes => escaped(value),
                    _ => value.clone(),
                };
                document.insert(name.to_owned(), shown);
            }
        }
        Value::Object(document)
    }

    /// Sets an attribute of a description; null says nothing.
    pub(crate) fn set(&mut self, name: &str, value: Value) -> Result<(), String> {
        let Some((known, shape)) = ATTRIBUTES.iter().find(|(known, _)| *known == name) else {
            return Err(format!(
                "Unsupported argument; An argument named {name:?} is not expected here."
            ));
        };
        if value.is_null() {
            return Ok(());
        }
        let fail = |why: String| format!("{name}: {why}");
        let value = match shape {
            Shape::Text => Value::String(text(&value).map_err(fail)?),
            Shape::Switch => Value::Bool(crate::eval::truth(&value).map_err(fail)?),
            Shape::Map => Value::Object(map(&value).map_err(fail)?),
            Shape::List | Shape::Growing => Value::Array(list(&value).map_err(fail)?),
            Shape::Entries(kind) | Shape::GrowingEntries(kind) => {
                Value::Array(entry_list(*kind, &value).map_err(fail)?)
            }
        };
        self.attributes.insert(known, value);
        Ok(())
    }

    /// Adds what a later description of the same build says.
    pub(crate) fn merge(&mut self, later: &Self) {
        for (name, value) in &later.attributes {
            match (shape(name), self.attributes.get_mut(name), value) {
                (Some(Shape::Map), Some(Value::Object(own)), Value::Object(more)) => {
                    own.extend(more.clone());
                    sort_map(own);
                }
                (
                    Some(Shape::Growing | Shape::GrowingEntries(_)),
                    Some(Value::Array(own)),
                    Value::Array(more),
                ) => own.extend(more.clone()),
                _ => {
                    self.attributes.insert(name, value.clone());
                }
            }
        }
    }

    /// Leaves out what is said twice or says nothing, and adds what follows from the rest.
    pub(crate) fn normalize(&mut self) {
        if self.text("network") == Some("host") {
            self.grow("entitlements", vec![Value::from("network.host")]);
        }
        for value in self.attributes.values_mut() {
            if let Value::Array(list) = value {
                let mut seen: Vec<Value> = Vec::new();
                list.retain(|one| {
                    let new = one.as_str() != Some("") && !seen.contains(one);
                    seen.extend(new.then(|| one.clone()));
                    new
                });
            }
        }
        if let Some(Value::Object(contexts)) = self.attributes.get_mut("contexts") {
            contexts.retain(|_, value| value.as_str() != Some(""));
        }
        self.attributes.retain(|_, value| match value {
            Value::Array(list) => !list.is_empty(),
            Value::Object(map) => !map.is_empty(),
            _ => true,
        });
    }

    pub(crate) fn default_text(&mut self, name: &'static str, value: &str) {
        if self.text(name).is_none_or(str::is_empty) {
            self.attributes.insert(name, Value::from(value));
        }
    }

    pub(crate) fn replace(&mut self, name: &'static str, value: Value) {
        self.attributes.insert(name, value);
    }

    pub(crate) fn grow(&mut self, name: &'static str, more: Vec<Value>) {
        let list = self.attributes.entry(name).or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(list) = list {
            list.extend(more);
        }
    }

    /// Changes an attribute as `--set target.KEY=VALUE` says; several values of one list come together.
    pub(crate) fn change(&mut self, key: &str, change: &Override) -> Result<(), Error> {
        let (name, inner) =
            key.split_once('.').map_or((key, None), |(name, inner)| (name, Some(inner)));
        let last = || change.values.last().cloned().unwrap_or_default();
        let name = match name {
            "platform" => "platforms",
            "secrets" => "secret",
            "push" | "load" => return self.change_output(name, &last()),
            name => name,
        };
        let Some((known, shape)) = ATTRIBUTES.iter().find(|(known, _)| *known == name) else {
            return Err(Error::invalid(format!("unknown key: {name}")));
        };
        let value = match (shape, inner) {
            (Shape::Map, None) => {
                return Err(Error::invalid(format!(
                    "invalid format for {name}, expecting {name}.<name>=<value>"
                )));
            }
            (Shape::Map, Some(inner)) => {
                let map = self.attributes.entry(known).or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(map) = map {
                    map.insert(inner.to_owned(), Value::String(last()));
                    sort_map(map);
                }
                return Ok(());
            }
            (Shape::Switch, _) => match last().as_str() {
                "1" | "t" | "true" | "TRUE" | "True" | "T" => Value::Bool(true),
                "0" | "f" | "false" | "FALSE" | "False" | "F" => Value::Bool(false),
                other => {
                    return Err(Error::invalid(format!(
                        "invalid value {other} for boolean key {name}"
                    )));
                }
            },
            (Shape::Text, _) => Value::String(last()),
            _ => Value::Array(change.values.iter().cloned().map(Value::String).collect()),
        };
        let mut one = Self::default();
        one.set(known, value).map_err(Error::Invalid)?;
        let appends = change.append || matches!(name, "entitlements" | "annotations" | "attest");
        match (appends, one.attributes.remove(known)) {
            (true, Some(Value::Array(more))) => self.grow(known, more),
            (_, Some(value)) => {
                self.attributes.insert(known, value);
            }
            (_, None) => {}
        }
        Ok(())
    }

    /// `push=true` pushes images, `load=true` loads them; false takes that back.
    fn change_output(&mut self, name: &str, value: &str) -> Result<(), Error> {
        let wanted = match value {
            "1" | "true" => true,
            "0" | "false" => false,
            other => {
                return Err(Error::invalid(format!(
                    "invalid value {other} for boolean key {name}"
                )));
            }
        };
        let outputs = self.attributes.remove("output");
        let mut outputs = outputs.and_then(|list| list.as_array().cloned()).unwrap_or_default();
        let kind = |output: &Value| output["type"].as_str().unwrap_or_default().to_owned();
        if name == "push" {
            outputs.retain(|output| wanted || kind(output) != "registry");
            let mut images =
                outputs.iter_mut().filter(|output| output["type"] == "image").peekable();
            match images.peek().is_some() {
                true => images.for_each(|output| output["push"] = Value::from(wanted.to_string())),
                false if wanted && !outputs.iter().any(|output| kind(output) == "registry") => {
                    outputs.push(serde_json::json!({"push": "true", "type": "image"}));
                }
                false => {}
            }
        } else {
            let loads = |output: &Value| kind(output) == "docker" && output.get("dest").is_none();
            match (wanted, outputs.iter().any(loads)) {
                (true, false) => outputs.push(serde_json::json!({"type": "docker"})),
                (true, true) => {}
                (false, _) => outputs.retain(|output| !loads(output)),
            }
        }
        if !outputs.is_empty() {
            self.attributes.insert("output", Value::Array(outputs));
        }
        Ok(())
    }
}

/// What `--set` says of one key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Override {
    pub(crate) values: Vec<String>,
    pub(crate) append: bool,
}

/// An entry as comma-separated `key=value`.
fn written(entry: &Map<String, Value>) -> String {
    let fields = entry.iter().map(|(key, value)| {
        let field = format!("{key}={}", value.as_str().unwrap_or_default());
        match field.contains([',', '"']) {
            true => format!("\"{}\"", field.replace('"', "\"\"")),
            false => field,
        }
    });
    fields.collect::<Vec<_>>().join(",")
}

/// Attestations, with the one switch they have as a switch.
fn switched(value: &Value) -> Value {
    let mut value = value.clone();
    for entry in value.as_array_mut().into_iter().flatten() {
        if entry["disabled"] == "true" {
            entry["disabled"] = Value::Bool(true);
        }
    }
    value
}

fn escaped(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(text.replace("${", "$${").replace("%{", "%%{")),
        Value::Array(list) => list.iter().map(escaped).collect(),
        Value::Object(map) => {
            map.iter().map(|(key, value)| (key.clone(), escaped(value))).collect()
        }
        other => other.clone(),
    }
}

fn map(value: &Value) -> Result<Map<String, Value>, String> {
    let Value::Object(map) = value else {
        return Err(format!("an object is required, not {value}"));
    };
    let named = map.iter().filter(|(_, value)| !value.is_null());
    let texts = named.map(|(key, value)| Ok((key.clone(), Value::String(text(value)?))));
    let mut texts = texts.collect::<Result<Map<_, _>, String>>()?;
    sort_map(&mut texts);
    Ok(texts)
}

fn sort_map(map: &mut Map<String, Value>) {
    map.sort_keys();
}

fn items(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().filter(|item| !item.is_null()).collect(),
        one => vec![one],
    }
}

fn list(value: &Value) -> Result<Vec<Value>, String> {
    items(value).into_iter().map(|item| text(item).map(Value::String)).collect()
}

fn entry_list(kind: Kind, value: &Value) -> Result<Vec<Value>, String> {
    let read = items(value).into_iter().map(|item| entries::read(kind, item));
    Ok(read.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}
