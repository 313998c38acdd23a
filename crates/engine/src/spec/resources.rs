//! Limits of a container. `None` always means: no limit, the kernel's default.

use rorqual_core::Ulimit;
use serde::{Deserialize, Serialize};

/// Limits of a container; for `update`, `None` means: leave as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Bytes of memory.
    pub memory: Option<i64>,
    /// Bytes of memory and swap together; -1 without bound; `None`: twice the memory.
    pub memory_swap: Option<i64>,
    /// Bytes of memory to shrink to under pressure.
    pub memory_reservation: Option<i64>,
    /// 0 to 100.
    pub memory_swappiness: Option<i64>,
    /// Do not kill when out of memory.
    pub oom_kill_disable: Option<bool>,
    /// Billionths of a CPU.
    pub nano_cpus: Option<i64>,
    /// Relative weight, 2 to 262144.
    pub cpu_shares: Option<i64>,
    /// Microseconds of CPU time per period.
    pub cpu_quota: Option<i64>,
    /// Length of a period in microseconds.
    pub cpu_period: Option<i64>,
    /// Microseconds of real-time scheduling per period.
    pub cpu_rt_runtime: Option<i64>,
    /// Length of a real-time period in microseconds.
    pub cpu_rt_period: Option<i64>,
    /// CPUs as in `0-3,5`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes.
    pub cpuset_mems: Option<String>,
    /// Number of processes; -1 without bound.
    pub pids: Option<i64>,
    /// Weight of block I/O, 10 to 1000.
    pub blkio_weight: Option<u16>,
    /// Weights per device.
    pub blkio_weight_devices: Vec<WeightDevice>,
    /// Bytes per second read.
    pub blkio_read_bps: Vec<BlkioDevice>,
    /// Bytes per second written.
    pub blkio_write_bps: Vec<BlkioDevice>,
    /// Reads per second.
    pub blkio_read_iops: Vec<BlkioDevice>,
    /// Writes per second.
    pub blkio_write_iops: Vec<BlkioDevice>,
    /// Devices of the host.
    pub devices: Vec<DeviceSpec>,
    /// `c 1:3 rwm` rules as written.
    pub device_rules: Vec<String>,
    /// Limits per process.
    pub ulimits: Vec<Ulimit>,
    /// Cgroup below which the container's own is made.
    pub cgroup_parent: Option<String>,
}

/// A weight for one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightDevice {
    /// Path of the device node on the host.
    pub path: String,
    /// 10 to 1000.
    pub weight: u16,
}

/// A rate for one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlkioDevice {
    /// Path of the device node on the host.
    pub path: String,
    /// Bytes or operations per second.
    pub rate: u64,
}

/// A device of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceSpec {
    /// Path on the host; a directory stands for all devices in it.
    pub host: String,
    /// Path inside the container.
    pub container: String,
    /// Letters of `rwm`.
    pub permissions: String,
}
