//! Limits in the words of the specification.

use rorqual_core::Ulimit;
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::spec::{BlkioDevice, Resources};

/// Returns the `linux.resources` section without devices.
pub(super) fn section(resources: &Resources, unified: bool) -> Result<Value> {
    let mut all = Map::new();
    let mut put = |key: &str, value: Value| {
        if value.as_object().is_some_and(|object| !object.is_empty()) {
            all.insert(key.to_owned(), value);
        }
    };
    put("memory", memory(resources));
    put("cpu", cpu(resources));
    put("blockIO", block_io(resources, unified)?);
    if let Some(limit) = resources.pids {
        put("pids", json!({ "limit": if limit <= 0 { -1 } else { limit } }));
    }
    Ok(Value::Object(all))
}

fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let given = fields.into_iter().filter(|(_, value)| !value.is_null());
    Value::Object(given.map(|(key, value)| (key.to_owned(), value)).collect())
}

fn memory(resources: &Resources) -> Value {
    // COMPAT: memory alone allows as much swap again.
    let swap =
        resources.memory_swap.or_else(|| resources.memory.map(|limit| limit.saturating_mul(2)));
    let swappiness = resources.memory_swappiness.filter(|value| *value >= 0);
    object([
        ("limit", json!(resources.memory)),
        ("reservation", json!(resources.memory_reservation)),
        ("swap", json!(swap)),
        ("swappiness", json!(swappiness)),
        ("disableOOMKiller", json!(resources.oom_kill_disable.filter(|disable| *disable))),
    ])
}

fn cpu(resources: &Resources) -> Value {
    // A share of CPUs is a quota over Docker's period of 100 ms.
    let (period, quota) = match resources.nano_cpus {
        Some(nanos) => (Some(100_000), Some(nanos / 10_000)),
        None => (resources.cpu_period, resources.cpu_quota),
    };
    object([
        ("shares", json!(resources.cpu_shares)),
        ("quota", json!(quota)),
        ("period", json!(period)),
        ("realtimeRuntime", json!(resources.cpu_rt_runtime)),
        ("realtimePeriod", json!(resources.cpu_rt_period)),
        ("cpus", json!(resources.cpuset_cpus)),
        ("mems", json!(resources.cpuset_mems)),
    ])
}

fn block_io(resources: &Resources, _unified: bool) -> Result<Value> {
    let weights = resources.blkio_weight_devices.iter().map(|device| {
        let (major, minor) = block_device(&device.path)?;
        Ok(json!({ "major": major, "minor": minor, "weight": device.weight }))
    });
    let weights = weights.collect::<Result<Vec<Value>>>()?;
    Ok(object([
        ("weight", json!(resources.blkio_weight)),
        ("weightDevice", if weights.is_empty() { Value::Null } else { json!(weights) }),
        ("throttleReadBpsDevice", throttles(&resources.blkio_read_bps)?),
        ("throttleWriteBpsDevice", throttles(&resources.blkio_write_bps)?),
        ("throttleReadIOPSDevice", throttles(&resources.blkio_read_iops)?),
        ("throttleWriteIOPSDevice", throttles(&resources.blkio_write_iops)?),
    ]))
}

fn throttles(devices: &[BlkioDevice]) -> Result<Value> {
    let all = devices.iter().map(|device| {
        let (major, minor) = block_device(&device.path)?;
        Ok(json!({ "major": major, "minor": minor, "rate": device.rate }))
    });
    let all = all.collect::<Result<Vec<Value>>>()?;
    Ok(if all.is_empty() { Value::Null } else { json!(all) })
}

/// The numbers of a device that is to be limited: one that is not there cannot be.
fn block_device(path: &str) -> Result<(i64, i64)> {
    // COMPAT: dockerd's text.
    let missing = || Error::Invalid(format!("stat {path}: no such file or directory"));
    super::devices::number_of(path).ok_or_else(missing)
}

/// The container's limits per process, then the daemon's that it does not set.
pub(super) fn rlimits(own: &[Ulimit], defaults: &[Ulimit]) -> Result<Value> {
    let missing =
        defaults.iter().filter(|default| !own.iter().any(|mine| mine.name == default.name));
    let all = own.iter().chain(missing).map(rlimit).collect::<Result<Vec<_>>>()?;
    Ok(if all.is_empty() { Value::Null } else { json!(all) })
}

fn rlimit(limit: &Ulimit) -> Result<Value> {
    let resource = limit.resource().map_err(|error| Error::Invalid(error.to_string()))?;
    // -1 is the kernel's "no limit".
    let bound = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
    Ok(json!({
        "type": resource,
        "soft": bound(limit.soft),
        "hard": bound(limit.hard),
    }))
}
