//! Memory of processes, as the kernel accounts it.

use std::fs;

/// Sum of the proportional set sizes of the given processes, KiB (`smaps_rollup`, see `proc(5)`).
pub(crate) fn pss(pids: &[u32]) -> u64 {
    sum(pids, "smaps_rollup", "Pss:")
}

/// Sum of the resident set sizes of the given processes, KiB.
pub(crate) fn rss(pids: &[u32]) -> u64 {
    sum(pids, "status", "VmRSS:")
}

fn sum(pids: &[u32], file: &str, field: &str) -> u64 {
    let value = |pid: &u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(field))?.trim().to_owned();
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    pids.iter().filter_map(value).sum()
}

/// Processes whose command line contains `mark`.
pub(crate) fn marked(mark: &str) -> Vec<u32> {
    let own = std::process::id();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_string_lossy().parse::<u32>().ok());
    pids.filter(|pid| *pid != own)
        .filter(|pid| {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&command).contains(mark)
        })
        .collect()
}
