//! `update`, `pause`, `resume`.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::ArgMatches;
use oci_spec::runtime::{LinuxIntelRdt, LinuxResources};
use serde_json::{Value, json};

use super::state::Status;
use super::{Context, Failure, Outcome, text};

pub(super) fn update(context: &Context, matches: &ArgMatches) -> Outcome {
    let container = context.store.load(text(matches, "id"))?;
    let resources = match matches.get_one::<PathBuf>("resources") {
        Some(path) => read(path)?,
        None => from_flags(matches)?,
    };
    let resources = crate::cgroup::convert(&resources)?;
    for warning in container.cgroup()?.apply(&resources)? {
        context.log.warning(&warning.0);
    }
    if let Some(rdt) = shares(matches)? {
        let class = container.record.class.as_ref();
        let class =
            class.ok_or_else(|| Failure::new("Intel RDT is not enabled for the container"))?;
        class.update(&rdt)?;
    }
    Ok(0)
}

/// Returns what is wanted of caches and memory bandwidth.
fn shares(matches: &ArgMatches) -> Result<Option<LinuxIntelRdt>, Failure> {
    let mut document = json!({});
    for (flag, key) in [("l3-cache-schema", "l3CacheSchema"), ("mem-bw-schema", "memBwSchema")] {
        if let Some(schema) = matches.get_one::<String>(flag).filter(|schema| !schema.is_empty()) {
            document[key] = json!(schema);
        }
    }
    if document == json!({}) {
        return Ok(None);
    }
    let rdt = serde_json::from_value(document);
    rdt.map(Some).map_err(|error| Failure::new(format!("invalid schema: {error}")))
}

fn read(path: &Path) -> Result<LinuxResources, Failure> {
    let failed = |error: &std::io::Error| Failure::io(&format!("cannot read {path:?}"), error);
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        std::io::stdin().read_to_end(&mut bytes).map_err(|error| failed(&error))?;
    } else {
        bytes = std::fs::read(path).map_err(|error| failed(&error))?;
    }
    serde_json::from_slice(&bytes)
        .map_err(|error| Failure::new(format!("invalid resources: {error}")))
}

const NUMBERS: [(&str, &str, &str); 12] = [
    ("blkio-weight", "blockIO", "weight"),
    ("cpu-period", "cpu", "period"),
    ("cpu-quota", "cpu", "quota"),
    ("cpu-burst", "cpu", "burst"),
    ("cpu-share", "cpu", "shares"),
    ("cpu-rt-period", "cpu", "realtimePeriod"),
    ("cpu-rt-runtime", "cpu", "realtimeRuntime"),
    ("cpu-idle", "cpu", "idle"),
    ("memory", "memory", "limit"),
    ("memory-reservation", "memory", "reservation"),
    ("memory-swap", "memory", "swap"),
    ("pids-limit", "pids", "limit"),
];

fn from_flags(matches: &ArgMatches) -> Result<LinuxResources, Failure> {
    let mut document: Value = json!({});
    for (flag, section, key) in NUMBERS {
        if let Some(number) = matches.get_one::<i64>(flag) {
            document[section][key] = json!(number);
        }
    }
    for (flag, key) in [("cpuset-cpus", "cpus"), ("cpuset-mems", "mems")] {
        if let Some(list) = matches.get_one::<String>(flag) {
            document["cpu"][key] = json!(list);
        }
    }
    serde_json::from_value(document)
        .map_err(|error| Failure::new(format!("invalid resources: {error}")))
}

pub(super) fn pause(context: &Context, matches: &ArgMatches) -> Outcome {
    let container = context.store.load(text(matches, "id"))?;
    match container.status() {
        Status::Running | Status::Created => {
            container.cgroup()?.freeze()?;
            Ok(0)
        }
        status => Err(Failure::new(format!("container not running or created: {}", status.name()))),
    }
}

pub(super) fn resume(context: &Context, matches: &ArgMatches) -> Outcome {
    let container = context.store.load(text(matches, "id"))?;
    let group = container.cgroup()?;
    if !group.is_frozen()? {
        return Err(Failure::new("container not paused"));
    }
    group.thaw()?;
    Ok(0)
}
