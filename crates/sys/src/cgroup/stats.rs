//! What a group has used, in one form for both versions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Everything measured. What the host does not measure is zero or empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Processor time.
    pub cpu: CpuStats,
    /// Memory.
    pub memory: MemoryStats,
    /// Tasks.
    pub pids: PidsStats,
    /// Block devices.
    pub block_io: BlockStats,
}

/// Processor time in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuStats {
    /// All of it.
    pub total: u64,
    /// In user mode.
    pub user: u64,
    /// In the kernel.
    pub system: u64,
    /// By processor; version 1 only.
    pub per_cpu: Vec<u64>,
    /// Periods with a quota that have passed.
    pub periods: u64,
    /// Those of them in which the quota was used up.
    pub throttled_periods: u64,
    /// Time spent waiting for the next period.
    pub throttled_time: u64,
}

/// Memory in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryStats {
    /// In use now, page cache included.
    pub usage: u64,
    /// Highest use; zero where the kernel does not keep it.
    pub max_usage: u64,
    /// The limit; `None` for unlimited.
    pub limit: Option<u64>,
    /// How often the limit was hit.
    pub failures: u64,
    /// Swap in use now; on version 1 memory included, as its file counts.
    pub swap_usage: Option<u64>,
    /// Limit of the same.
    pub swap_limit: Option<u64>,
    /// The kernel's details by its own names.
    pub details: BTreeMap<String, u64>,
    /// How many processes were killed for lack of memory.
    pub oom_kills: u64,
}

/// Tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PidsStats {
    /// How many there are.
    pub current: u64,
    /// How many there may be; `None` for unlimited.
    pub limit: Option<u64>,
}

/// Block devices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockStats {
    /// Bytes by device and operation.
    pub bytes: Vec<BlockEntry>,
    /// Requests by device and operation.
    pub requests: Vec<BlockEntry>,
}

/// A number about one device and one operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockEntry {
    /// Major number.
    pub major: u64,
    /// Minor number.
    pub minor: u64,
    /// `read`, `write`, … in lower case, as Docker's API shows them.
    pub operation: String,
    /// The number.
    pub value: u64,
}
