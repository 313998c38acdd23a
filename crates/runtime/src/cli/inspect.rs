//! `state`, `list`, `ps`, `events`.

use std::fmt::Write as _;
use std::process::Command;
use std::time::Duration;

use clap::ArgMatches;
use rorqual_sys::cgroup::{BlockEntry, Stats};
use serde_json::{Value, json};

use super::state::{Container, Status};
use super::{Context, Failure, Outcome, print, text};
use crate::rdt::Membership;

fn document(container: &Container, with_owner: bool) -> Value {
    let record = &container.record;
    let status = container.status();
    let mut document = json!({
        "ociVersion": record.version,
        "id": record.id,
        "pid": if status == Status::Stopped { 0 } else { record.pid },
        "status": status.name(),
        "bundle": record.bundle,
        "rootfs": record.rootfs,
        "created": record.created,
    });
    if !record.annotations.is_empty() {
        document["annotations"] = json!(record.annotations);
    }
    // COMPAT: state says nothing of the owner, list does.
    document["owner"] = json!(if with_owner { record.owner.as_str() } else { "" });
    document
}

pub(super) fn state(context: &Context, matches: &ArgMatches) -> Outcome {
    let container = context.store.load(text(matches, "id"))?;
    let document = document(&container, false);
    print(&serde_json::to_string_pretty(&document).unwrap_or_default())
}

pub(super) fn list(context: &Context, matches: &ArgMatches) -> Outcome {
    // A directory without a record is being made or taken apart.
    let ids = context.store.ids();
    let containers: Vec<Container> =
        ids.iter().filter_map(|id| context.store.load(id).ok()).collect();
    if matches.get_flag("quiet") {
        let ids: Vec<&str> = containers.iter().map(|c| c.record.id.as_str()).collect();
        return print(&ids.iter().flat_map(|id| [*id, "\n"]).collect::<String>());
    }
    let documents: Vec<Value> = containers.iter().map(|c| document(c, true)).collect();
    if text(matches, "format") == "json" {
        let text = if documents.is_empty() { "null".into() } else { json!(documents).to_string() };
        return print(&text);
    }
    let mut rows = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned)];
    for document in &documents {
        let cell = |key: &str| match &document[key] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        rows.push(["id", "pid", "status", "bundle", "created", "owner"].map(cell));
    }
    print(&table(&rows))
}

fn table(rows: &[[String; 6]]) -> String {
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            let width = rows.iter().map(|row| row[column].len()).max().unwrap_or(0).max(9) + 3;
            if column + 1 == row.len() {
                let _ = writeln!(text, "{cell}");
            } else {
                let _ = write!(text, "{cell:<width$}");
            }
        }
    }
    text
}

pub(super) fn ps(context: &Context, matches: &ArgMatches) -> Outcome {
    let container = context.store.load(text(matches, "id"))?;
    let pids = container.processes()?;
    if text(matches, "format") == "json" {
        return print(&json!(pids).to_string());
    }
    let options: Vec<&String> = matches.get_many("options").into_iter().flatten().collect();
    let mut command = Command::new("ps");
    if options.is_empty() {
        command.arg("-ef")
    } else {
        command.args(options)
    };
    let output = command.output().map_err(|error| Failure::io("cannot run ps", &error))?;
    if !output.status.success() {
        return Err(Failure::new(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines = output.lines();
    let title = lines.next().unwrap_or("");
    let Some(column) = title.split_whitespace().position(|word| word == "PID") else {
        return Err(Failure::new("couldn't find PID field in ps output"));
    };
    let mut text = format!("{title}\n");
    for line in lines {
        let pid = line.split_whitespace().nth(column).and_then(|word| word.parse::<i32>().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            let _ = writeln!(text, "{line}");
        }
    }
    print(&text)
}

pub(super) fn events(context: &Context, matches: &ArgMatches) -> Outcome {
    let container = context.store.load(text(matches, "id"))?;
    if container.status() == Status::Stopped {
        return Err(Failure::new(format!(
            "container with id {} is not running",
            container.record.id
        )));
    }
    let interval = interval(text(matches, "interval"))?;
    let group = container.cgroup()?;
    let class = container.record.class.as_ref();
    let mut kills = group.oom_kills().unwrap_or(0);
    loop {
        if container.status() == Status::Stopped {
            return Ok(0);
        }
        let event = json!({
            "type": "stats",
            "id": container.record.id,
            "data": stats(&group.stats()?, class),
        });
        print(&format!("{event}\n"))?;
        if matches.get_flag("stats") {
            return Ok(0);
        }
        let now = group.oom_kills().unwrap_or(kills);
        if now > kills {
            kills = now;
            print(&format!("{}\n", json!({"type": "oom", "id": container.record.id})))?;
        }
        container.await_end(interval);
    }
}

fn interval(text: &str) -> Result<Duration, Failure> {
    let bad = || Failure::new("duration interval must be greater than 0");
    let (number, unit) =
        text.split_at(text.find(|c: char| c.is_alphabetic()).unwrap_or(text.len()));
    let number: f64 = number.parse().map_err(|_| bad())?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "s" | "" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(bad()),
    };
    Duration::try_from_secs_f64(seconds).ok().filter(|d| !d.is_zero()).ok_or_else(bad)
}

fn stats(stats: &Stats, class: Option<&Membership>) -> Value {
    let (cpu, memory) = (&stats.cpu, &stats.memory);
    let entries = |list: &[BlockEntry]| -> Vec<Value> {
        list.iter()
            .map(|one| {
                json!({"major": one.major, "minor": one.minor, "op": one.operation, "value": one.value})
            })
            .collect()
    };
    // COMPAT: no limit is the largest number that pages can count.
    let limit = |limit: Option<u64>| limit.unwrap_or(0x7fff_ffff_ffff_f000);
    json!({
        "cpu": {
            "usage": {
                "total": cpu.total, "percpu": cpu.per_cpu, "kernel": cpu.system, "user": cpu.user,
            },
            "throttling": {
                "periods": cpu.periods,
                "throttledPeriods": cpu.throttled_periods,
                "throttledTime": cpu.throttled_time,
            },
        },
        "memory": {
            "cache": memory.details.get("cache").or(memory.details.get("file")),
            "usage": {
                "limit": limit(memory.limit),
                "usage": memory.usage,
                "max": memory.max_usage,
                "failcnt": memory.failures,
            },
            "swap": {
                "limit": limit(memory.swap_limit),
                "usage": memory.swap_usage.unwrap_or(0),
                "failcnt": 0,
            },
            "raw": memory.details,
        },
        "pids": {"current": stats.pids.current, "limit": stats.pids.limit.unwrap_or(0)},
        "blkio": {
            "ioServiceBytesRecursive": entries(&stats.block_io.bytes),
            "ioServicedRecursive": entries(&stats.block_io.requests),
        },
        "hugetlb": {},
        "intel_rdt": class.and_then(Membership::stats).unwrap_or_else(|| json!({})),
        "network_interfaces": null,
    })
}
