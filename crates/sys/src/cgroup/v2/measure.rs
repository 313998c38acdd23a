//! Reading the numbers of version 2.

use crate::cgroup::Error;
use crate::cgroup::file::{Directory, pair, pairs};
use crate::cgroup::stats::{BlockEntry, BlockStats, CpuStats, MemoryStats, PidsStats, Stats};

pub(super) fn stats(group: &Directory) -> Result<Stats, Error> {
    Ok(Stats {
        cpu: cpu(&group.read_if_present("cpu.stat")?.unwrap_or_default()),
        memory: memory(group)?,
        pids: PidsStats {
            current: group.read_number("pids.current")?.unwrap_or(0),
            limit: group.read_number("pids.max")?,
        },
        block_io: block_io(&group.read_if_present("io.stat")?.unwrap_or_default()),
    })
}

pub(super) fn cpu(text: &str) -> CpuStats {
    let micros = |key| pair(text, key).unwrap_or(0).saturating_mul(1000);
    CpuStats {
        total: micros("usage_usec"),
        user: micros("user_usec"),
        system: micros("system_usec"),
        per_cpu: Vec::new(),
        periods: pair(text, "nr_periods").unwrap_or(0),
        throttled_periods: pair(text, "nr_throttled").unwrap_or(0),
        throttled_time: micros("throttled_usec"),
    }
}

fn memory(group: &Directory) -> Result<MemoryStats, Error> {
    let details = group.read_if_present("memory.stat")?.unwrap_or_default();
    let events = group.read_if_present("memory.events")?.unwrap_or_default();
    Ok(MemoryStats {
        usage: group.read_number("memory.current")?.unwrap_or(0),
        max_usage: group.read_number("memory.peak")?.unwrap_or(0),
        limit: group.read_number("memory.max")?,
        failures: pair(&events, "max").unwrap_or(0),
        swap_usage: group.read_number("memory.swap.current")?,
        swap_limit: group.read_number("memory.swap.max")?,
        details: pairs(&details).map(|(key, value)| (key.to_owned(), value)).collect(),
        oom_kills: pair(&events, "oom_kill").unwrap_or(0),
    })
}

/// Reads lines of the form `major:minor rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`.
pub(super) fn block_io(text: &str) -> BlockStats {
    let mut stats = BlockStats::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let device = words.next().and_then(|device| device.split_once(':'));
        let Some((Ok(major), Ok(minor))) = device.map(|(a, b)| (a.parse(), b.parse())) else {
            continue;
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let (list, operation) = match key {
                "rbytes" => (&mut stats.bytes, "read"),
                "wbytes" => (&mut stats.bytes, "write"),
                "dbytes" => (&mut stats.bytes, "discard"),
                "rios" => (&mut stats.requests, "read"),
                "wios" => (&mut stats.requests, "write"),
                "dios" => (&mut stats.requests, "discard"),
                _ => continue,
            };
            if let Ok(value) = value.parse() {
                list.push(BlockEntry { major, minor, operation: operation.to_owned(), value });
            }
        }
    }
    stats
}
