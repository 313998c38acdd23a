//! Older API versions: what their clients send is brought up to the newest, what they get is brought down.
//!
//! One file per version that changed something; each names the reason. Handlers only know the newest version.

mod v1_40;
mod v1_41;
mod v1_42;
mod v1_43;
mod v1_44;
mod v1_45;
mod v1_46;
mod v1_48;
mod v1_49;
mod v1_50;

use serde_json::{Map, Value};

use crate::ApiVersion;

/// Which document is at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Document {
    /// Body of `POST /containers/create`.
    ContainerCreate,
    /// Answer of `GET /containers/{id}/json`.
    ContainerInspect,
    /// Answer of `GET /containers/json`.
    ContainerList,
    /// Body of `POST /containers/{id}/update`.
    ContainerUpdate,
    /// Body of `POST /containers/{id}/exec` or `/exec/{id}/start`.
    Exec,
    /// Answer of `GET /images/{name}/json`.
    ImageInspect,
    /// Answer of `GET /images/json`.
    ImageList,
    /// Answer of `GET /info`.
    Info,
    /// Answer of `GET /system/df`.
    DiskUsage,
    /// Answer of `GET /networks` and `GET /networks/{id}`.
    Network,
}

/// A request that its own API version does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{feature} needs API v{since} or newer")]
pub struct TooOld {
    /// What was asked for.
    pub feature: &'static str,
    /// Which version brought it.
    pub since: ApiVersion,
}

type Fields = Map<String, Value>;

/// One version's changes.
struct Step {
    since: ApiVersion,
    upgrade: fn(Document, &mut Fields) -> Result<(), TooOld>,
    downgrade: fn(Document, &mut Fields),
}

const STEPS: [Step; 10] = [
    v1_40::STEP,
    v1_41::STEP,
    v1_42::STEP,
    v1_43::STEP,
    v1_44::STEP,
    v1_45::STEP,
    v1_46::STEP,
    v1_48::STEP,
    v1_49::STEP,
    v1_50::STEP,
];

/// Makes a request of version `from` one of the newest version.
///
/// # Errors
///
/// When it asks for what its version does not have and that must not be ignored.
pub fn upgrade(document: Document, from: ApiVersion, value: &mut Value) -> Result<(), TooOld> {
    let Value::Object(fields) = value else { return Ok(()) };
    STEPS
        .iter()
        .filter(|step| from < step.since)
        .try_for_each(|step| (step.upgrade)(document, fields))
}

/// Makes an answer of the newest version one of version `to`; lists are changed item by item.
pub fn downgrade(document: Document, to: ApiVersion, value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| downgrade(document, to, item)),
        Value::Object(fields) => {
            for step in STEPS.iter().rev().filter(|step| to < step.since) {
                (step.downgrade)(document, fields);
            }
        }
        _ => {}
    }
}

fn no_upgrade(_: Document, _: &mut Fields) -> Result<(), TooOld> {
    Ok(())
}

fn no_downgrade(_: Document, _: &mut Fields) {}

/// Finds the value of `key`, spelled in any case as clients may.
fn field<'f>(fields: &'f mut Fields, key: &str) -> Option<&'f mut Value> {
    fields.iter_mut().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value)
}

fn object<'f>(fields: &'f mut Fields, key: &str) -> Option<&'f mut Fields> {
    field(fields, key).and_then(Value::as_object_mut)
}

/// Removes `key`, spelled in any case, keeping the order of the others.
fn remove(fields: &mut Fields, key: &str) -> Option<Value> {
    let name = fields.keys().find(|name| name.eq_ignore_ascii_case(key))?.clone();
    fields.shift_remove(&name)
}

fn is_given(fields: &mut Fields, key: &str) -> bool {
    field(fields, key).is_some_and(|value| match value {
        Value::Null => false,
        Value::Bool(on) => *on,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(_) => true,
    })
}

/// Calls `change` with every entry of `HostConfig.Mounts`.
fn each_mount(
    fields: &mut Fields,
    mut change: impl FnMut(&mut Fields) -> Result<(), TooOld>,
) -> Result<(), TooOld> {
    let mounts = object(fields, "HostConfig").and_then(|host| field(host, "Mounts"));
    let Some(Value::Array(mounts)) = mounts else { return Ok(()) };
    mounts.iter_mut().filter_map(Value::as_object_mut).try_for_each(&mut change)
}

/// Calls `change` with every endpoint of `NetworkSettings.Networks`.
fn each_endpoint(fields: &mut Fields, mut change: impl FnMut(&mut Fields)) {
    let networks =
        object(fields, "NetworkSettings").and_then(|settings| object(settings, "Networks"));
    if let Some(networks) = networks {
        networks.values_mut().filter_map(Value::as_object_mut).for_each(&mut change);
    }
}

#[cfg(test)]
mod tests;
