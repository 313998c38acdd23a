//! JSON documents as the Go structs templates see: fields in order, absent ones with their zero.

use std::borrow::Cow;
use std::rc::Rc;

use serde_json::{Map, Value as Json};

use crate::template::{Record, Value};

/// Fields whose Go type is a map: their keys are data, and a missing one is no error of the template.
const MAPS: &[&str] = &[
    "Annotations",
    "Attributes",
    "AuxiliaryAddresses",
    "Containers",
    "Data",
    "Details",
    "DriverOpts",
    "ExposedPorts",
    "Labels",
    "Networks",
    "Options",
    "PortBindings",
    "Ports",
    "Runtimes",
    "Services",
    "StorageOpt",
    "Sysctls",
    "Tmpfs",
    "Volumes",
    "IndexConfigs",
];

/// Fields Go leaves out of JSON when they are zero, by the field their struct is in.
const ABSENT: &[(&str, &[&str])] = &[
    ("", &["SizeRw", "SizeRootFs"]),
    (
        "Config",
        &[
            "ExposedPorts",
            "Healthcheck",
            "MacAddress",
            "NetworkDisabled",
            "Shell",
            "StopSignal",
            "StopTimeout",
        ],
    ),
    ("State", &["Health"]),
    ("HostConfig", &["Annotations", "Init", "Mounts", "Runtime", "StorageOpt", "Sysctls", "Tmpfs"]),
];

/// Makes a template's value of a document.
pub(super) fn value(document: &Json) -> Value {
    typed(document, "", "")
}

/// Makes the value of a document whose Go type is `type_name`.
pub(super) fn named(document: &Json, type_name: &'static str) -> Value {
    let Json::Object(fields) = document else { return value(document) };
    let record = structure(fields, document, "");
    Record { type_name, ..record }.into()
}

fn typed(document: &Json, name: &str, parent: &str) -> Value {
    match document {
        Json::Object(fields) if !is_map(name, parent) => structure(fields, document, name).into(),
        Json::Object(fields) => Value::map(
            fields
                .iter()
                .map(|(key, item)| (key.as_str().into(), typed(item, "*", name)))
                .collect(),
        ),
        Json::Array(items) => {
            Value::List(Rc::new(items.iter().map(|item| typed(item, "*", name)).collect()))
        }
        Json::Null => zero(name),
        other => Value::from(other),
    }
}

fn is_map(name: &str, parent: &str) -> bool {
    MAPS.contains(&name) || (parent == "LogConfig" && name == "Config")
}

fn structure(fields: &Map<String, Json>, document: &Json, name: &str) -> Record {
    let mut all: Vec<(Cow<'static, str>, Value)> = fields
        .iter()
        .map(|(key, field)| (Cow::Owned(key.clone()), typed(field, key, name)))
        .collect();
    let absent = ABSENT.iter().filter(|(place, _)| *place == name).flat_map(|(_, names)| *names);
    for key in absent.filter(|key| !fields.contains_key(**key)) {
        // Only where the struct is the one of a container or image.
        if name.is_empty() && !fields.contains_key("HostConfig") {
            continue;
        }
        all.push((Cow::Borrowed(*key), zero(key)));
    }
    Record {
        type_name: "map[string]interface {}",
        fields: all,
        labels: None,
        pointer: false,
        json: Some(document.clone()),
    }
}

/// What Go has for a field nobody set.
fn zero(name: &str) -> Value {
    const POINTERS: &[&str] = &[
        "GraphDriver",
        "Health",
        "Healthcheck",
        "IPAMConfig",
        "Init",
        "OomKillDisable",
        "PidsLimit",
        "SizeRootFs",
        "SizeRw",
        "StopTimeout",
    ];
    match name {
        "MacAddress" | "StopSignal" | "Runtime" => Value::text(""),
        "NetworkDisabled" => Value::Bool(false),
        "*" => Value::Nil,
        name if MAPS.contains(&name) => Value::map(Vec::new()),
        name if POINTERS.contains(&name) => Value::NilPointer,
        _ => Value::List(Rc::new(Vec::new())),
    }
}
