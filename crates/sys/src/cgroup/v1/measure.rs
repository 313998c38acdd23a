//! Reading the numbers of version 1.

use super::Group;
use crate::cgroup::Error;
use crate::cgroup::file::{Directory, number, pair, pairs};
use crate::cgroup::stats::{BlockEntry, BlockStats, CpuStats, MemoryStats, PidsStats, Stats};

pub(super) fn stats(group: &Group) -> Result<Stats, Error> {
    Ok(Stats {
        cpu: cpu(group)?,
        memory: memory(group)?,
        pids: pids(group)?,
        block_io: block_io(group)?,
    })
}

fn cpu(group: &Group) -> Result<CpuStats, Error> {
    let mut stats = CpuStats::default();
    if let Some(account) = group.part("cpuacct") {
        stats.total = account.read_number("cpuacct.usage")?.unwrap_or(0);
        stats.user = account.read_number("cpuacct.usage_user")?.unwrap_or(0);
        stats.system = account.read_number("cpuacct.usage_sys")?.unwrap_or(0);
        let text = account.read_if_present("cpuacct.usage_percpu")?.unwrap_or_default();
        stats.per_cpu = text.split_whitespace().filter_map(number).collect();
    }
    if let Some(cpu) = group.part("cpu") {
        let text = cpu.read_if_present("cpu.stat")?.unwrap_or_default();
        stats.periods = pair(&text, "nr_periods").unwrap_or(0);
        stats.throttled_periods = pair(&text, "nr_throttled").unwrap_or(0);
        stats.throttled_time = pair(&text, "throttled_time").unwrap_or(0);
    }
    Ok(stats)
}

fn memory(group: &Group) -> Result<MemoryStats, Error> {
    let Some(memory) = group.part("memory") else { return Ok(MemoryStats::default()) };
    let details = memory.read_if_present("memory.stat")?.unwrap_or_default();
    let oom = memory.read_if_present("memory.oom_control")?.unwrap_or_default();
    Ok(MemoryStats {
        usage: memory.read_number("memory.usage_in_bytes")?.unwrap_or(0),
        max_usage: memory.read_number("memory.max_usage_in_bytes")?.unwrap_or(0),
        limit: memory.read_number("memory.limit_in_bytes")?,
        failures: memory.read_number("memory.failcnt")?.unwrap_or(0),
        swap_usage: memory.read_number("memory.memsw.usage_in_bytes")?,
        swap_limit: memory.read_number("memory.memsw.limit_in_bytes")?,
        details: pairs(&details).map(|(key, value)| (key.to_owned(), value)).collect(),
        oom_kills: pair(&oom, "oom_kill").unwrap_or(0),
    })
}

fn pids(group: &Group) -> Result<PidsStats, Error> {
    let Some(pids) = group.part("pids") else { return Ok(PidsStats::default()) };
    Ok(PidsStats {
        current: pids.read_number("pids.current")?.unwrap_or(0),
        limit: pids.read_number("pids.max")?,
    })
}

fn block_io(group: &Group) -> Result<BlockStats, Error> {
    let Some(block) = group.part("blkio") else { return Ok(BlockStats::default()) };
    Ok(BlockStats {
        bytes: entries(
            block,
            ["blkio.throttle.io_service_bytes_recursive", "blkio.bfq.io_service_bytes_recursive"],
        )?,
        requests: entries(
            block,
            ["blkio.throttle.io_serviced_recursive", "blkio.bfq.io_serviced_recursive"],
        )?,
    })
}

/// Reads the first of two files that says anything.
fn entries(block: &Directory, files: [&str; 2]) -> Result<Vec<BlockEntry>, Error> {
    for file in files {
        let text = block.read_if_present(file)?.unwrap_or_default();
        let found: Vec<_> = text.lines().filter_map(entry).collect();
        if !found.is_empty() {
            return Ok(found);
        }
    }
    Ok(Vec::new())
}

/// Reads `major:minor Operation value`; the total at the end has no device.
fn entry(line: &str) -> Option<BlockEntry> {
    let mut words = line.split_whitespace();
    let (major, minor) = words.next()?.split_once(':')?;
    Some(BlockEntry {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        operation: words.next()?.to_ascii_lowercase(),
        value: words.next()?.parse().ok()?,
    })
}
