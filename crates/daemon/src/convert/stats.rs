//! Usage counters.

use std::collections::BTreeMap;

use rorqual_api::stats::{
    Blkio, BlkioEntry, Cpu, CpuUsage, Memory, Network, Pids, Stats as Document, Storage, Throttling,
};
use rorqual_core::Timestamp;
use rorqual_engine::StatsSample;
use rorqual_shim::Stats;

use crate::convert::time;

/// Writes a sample; `before` is what shares are computed against.
pub(crate) fn stats_document(sample: &StatsSample, before: Option<&StatsSample>) -> Document {
    let name = format!("/{}", sample.name);
    let id = sample.id.to_string();
    if !sample.running {
        // COMPAT: dockerd answers zeros and null lists for a container that does not run.
        let zero = time(None);
        return Document { name, id, read: zero.clone(), preread: zero, ..Document::default() };
    }
    let stats = &sample.stats;
    let before = before.filter(|before| before.running);
    Document {
        name,
        id,
        read: sample.read.to_string(),
        preread: time(before.map(|before: &StatsSample| -> Timestamp { before.read })),
        pids_stats: Pids { current: stats.pids.0, limit: stats.pids.1.unwrap_or_default() },
        blkio_stats: blkio(stats),
        num_procs: 0,
        storage_stats: Storage::default(),
        cpu_stats: cpu(sample),
        precpu_stats: before.map(cpu).unwrap_or_default(),
        memory_stats: memory(stats),
        networks: (!stats.networks.is_empty()).then(|| networks(stats)),
    }
}

fn cpu(sample: &StatsSample) -> Cpu {
    let [total, user, kernel] = sample.stats.cpu;
    let [periods, throttled_periods, throttled_time] = sample.stats.throttling;
    Cpu {
        cpu_usage: CpuUsage {
            total_usage: total,
            percpu_usage: sample.stats.cpu_per_core.clone(),
            usage_in_kernelmode: kernel,
            usage_in_usermode: user,
        },
        system_cpu_usage: sample.system_cpu,
        online_cpus: sample.online_cpus,
        throttling_data: Throttling { periods, throttled_periods, throttled_time },
    }
}

fn blkio(stats: &Stats) -> Blkio {
    let entries = |list: &[(u64, u64, String, u64)]| {
        let entry = |(major, minor, op, value): &(u64, u64, String, u64)| BlkioEntry {
            major: *major,
            minor: *minor,
            op: op.clone(),
            value: *value,
        };
        Some(list.iter().map(entry).collect())
    };
    // COMPAT: with cgroup v2 what the kernel does not count is null, with v1 empty.
    let rest = if stats.unified { None } else { Some(Vec::new()) };
    Blkio {
        io_service_bytes_recursive: entries(&stats.blkio_bytes),
        io_serviced_recursive: if stats.unified { None } else { entries(&stats.blkio_ops) },
        io_queue_recursive: rest.clone(),
        io_service_time_recursive: rest.clone(),
        io_wait_time_recursive: rest.clone(),
        io_merged_recursive: rest.clone(),
        io_time_recursive: rest.clone(),
        sectors_recursive: rest,
    }
}

fn memory(stats: &Stats) -> Memory {
    let [usage, max_usage, limit, failcnt] = stats.memory;
    Memory {
        usage,
        max_usage,
        stats: Some(stats.memory_stat.iter().cloned().collect::<BTreeMap<_, _>>()),
        failcnt,
        limit,
    }
}

fn networks(stats: &Stats) -> BTreeMap<String, Network> {
    let one = |[
        rx_bytes,
        rx_packets,
        rx_errors,
        rx_dropped,
        tx_bytes,
        tx_packets,
        tx_errors,
        tx_dropped,
    ]: [u64; 8]| Network {
        rx_bytes,
        rx_packets,
        rx_errors,
        rx_dropped,
        tx_bytes,
        tx_packets,
        tx_errors,
        tx_dropped,
    };
    stats.networks.iter().map(|(name, counters)| (name.clone(), one(*counters))).collect()
}
