//! Reads the specification's documents as callers write them: what may be unknown in them is taken out beforehand, what
//! the library spells differently is respelled.

use oci_spec::runtime::{Process, Spec};
use rorqual_sys::capability;
use serde_json::Value;

/// A document and what of it had to be left out, in words for the user.
pub(super) type Read<T> = Result<(T, Vec<String>), String>;

/// Reads `config.json`.
pub(super) fn spec(bytes: &[u8]) -> Read<Spec> {
    let mut document = parse(bytes)?;
    check_version(&document)?;
    let warnings = normalise(&mut document["process"]);
    if let Some(rdt) = document.pointer_mut("/linux/intelRdt") {
        join_monitoring(rdt);
    }
    let spec = serde_json::from_value(document).map_err(|error| error.to_string())?;
    Ok((spec, warnings))
}

/// Reads `process.json`.
pub(super) fn process(bytes: &[u8]) -> Read<Process> {
    let mut document = parse(bytes)?;
    let warnings = normalise(&mut document);
    let process = serde_json::from_value(document).map_err(|error| error.to_string())?;
    Ok((process, warnings))
}

fn parse(bytes: &[u8]) -> Result<Value, String> {
    let document: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if document.is_object() { Ok(document) } else { Err("not a JSON object".to_owned()) }
}

/// Refuses documents of a future that may mean something else by the same words.
fn check_version(document: &Value) -> Result<(), String> {
    let version = document["ociVersion"].as_str().unwrap_or("");
    match version.split('.').next().map(str::parse::<u32>) {
        Some(Ok(0 | 1)) => Ok(()),
        _ => Err(format!("ociVersion {version:?} is not supported: it must be 1.something")),
    }
}

/// COMPAT: older specifications switch two kinds of monitoring, which the kernel has only together.
fn join_monitoring(rdt: &mut Value) {
    let Some(members) = rdt.as_object_mut() else { return };
    for name in ["enableCMT", "enableMBM"] {
        if members.remove(name) == Some(Value::Bool(true)) {
            members.insert("enableMonitoring".to_owned(), Value::Bool(true));
        }
    }
}

fn normalise(process: &mut Value) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(sets) = process.get_mut("capabilities").and_then(Value::as_object_mut) {
        for list in sets.values_mut().filter_map(Value::as_array_mut) {
            list.retain(|name| is_known(name, &mut warnings));
        }
    }
    if let Some(flags) = process.pointer_mut("/scheduler/flags").and_then(Value::as_array_mut) {
        for flag in flags {
            respell(flag);
        }
    }
    warnings
}

/// The specification wants unknown capabilities told, and the container to run without them.
fn is_known(name: &Value, warnings: &mut Vec<String>) -> bool {
    let Some(text) = name.as_str() else { return true };
    let known = capability::number(text).is_some();
    let warning = format!("unknown capability {text:?} is left out");
    if !known && !warnings.contains(&warning) {
        warnings.push(warning);
    }
    known
}

/// The library derives two names by a rule that the specification does not follow.
fn respell(flag: &mut Value) {
    match flag.as_str() {
        Some("SCHED_FLAG_RESET_ON_FORK") => *flag = "SCHED_RESET_ON_FORK".into(),
        Some("SCHED_FLAG_DL_OVERRUN") => *flag = "SCHED_FLAG_D_L_OVERRUN".into(),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
