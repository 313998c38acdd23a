//! The limits of a group as plain data. Absent means: leave as it is.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// All limits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Memory and swap.
    pub memory: Memory,
    /// Processor time and placement.
    pub cpu: Cpu,
    /// Number of tasks; zero or less means unlimited.
    pub pids: Option<i64>,
    /// Block devices.
    pub block_io: BlockIo,
    /// Huge pages by page size, as `2MB`.
    pub hugepages: Vec<Hugepages>,
    /// Remote direct memory access by device.
    pub rdma: BTreeMap<String, Rdma>,
    /// `net_cls.classid`, version 1 only.
    pub network_class: Option<u32>,
    /// `net_prio.ifpriomap`, version 1 only.
    pub network_priorities: Vec<NetworkPriority>,
    /// Which devices may be used; the last rule that speaks about an access decides. `None` leaves
    /// the present rules.
    pub devices: Option<Vec<DeviceRule>>,
    /// Files of version 2 by name, written last.
    pub unified: BTreeMap<String, String>,
}

/// Memory limits in bytes; -1 means unlimited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Hard limit.
    pub limit: Option<i64>,
    /// Hard limit of memory and swap together, as Docker counts.
    pub swap: Option<i64>,
    /// Soft limit.
    pub reservation: Option<i64>,
    /// Kernel memory, version 1 of old kernels only.
    pub kernel: Option<i64>,
    /// Kernel memory of TCP buffers, version 1 only.
    pub kernel_tcp: Option<i64>,
    /// 0 to 100, version 1 only.
    pub swappiness: Option<u64>,
    /// Whether processes wait instead of being killed, version 1 only.
    pub disable_oom_killer: Option<bool>,
    /// Whether a limit below the present use is refused instead of enforced by reclaim.
    pub check_before_update: bool,
}

/// Processor limits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cpu {
    /// Relative weight, 2 to 262144, 1024 being normal.
    pub shares: Option<u64>,
    /// Microseconds per period; -1 means unlimited.
    pub quota: Option<i64>,
    /// Length of a period in microseconds.
    pub period: Option<u64>,
    /// Microseconds that may be saved up for a burst.
    pub burst: Option<u64>,
    /// Real-time microseconds per real-time period, version 1 only.
    pub realtime_runtime: Option<i64>,
    /// Length of a real-time period in microseconds, version 1 only.
    pub realtime_period: Option<u64>,
    /// 1 for `SCHED_IDLE`.
    pub idle: Option<i64>,
    /// Processors as `0-3,8`.
    pub cpus: Option<String>,
    /// Memory nodes as `0-1`.
    pub mems: Option<String>,
}

/// Block device limits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BlockIo {
    /// Relative weight, 10 to 1000.
    pub weight: Option<u16>,
    /// Relative weight against groups below, version 1 of old kernels only.
    pub leaf_weight: Option<u16>,
    /// Weights by device.
    pub device_weights: Vec<DeviceWeight>,
    /// Bytes read per second.
    pub read_bps: Vec<DeviceLimit>,
    /// Bytes written per second.
    pub write_bps: Vec<DeviceLimit>,
    /// Reads per second.
    pub read_iops: Vec<DeviceLimit>,
    /// Writes per second.
    pub write_iops: Vec<DeviceLimit>,
}

/// A weight for one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceWeight {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Relative weight, 10 to 1000.
    pub weight: Option<u16>,
    /// Relative weight against groups below, version 1 of old kernels only.
    pub leaf_weight: Option<u16>,
}

/// A rate for one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceLimit {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Per second; zero means unlimited.
    pub rate: u64,
}

/// A limit of huge pages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hugepages {
    /// As in the file names: `64KB`, `2MB`, `1GB`.
    pub page_size: String,
    /// Bytes.
    pub limit: u64,
}

/// Limits of one RDMA device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rdma {
    /// Handles.
    pub handles: Option<u32>,
    /// Objects.
    pub objects: Option<u32>,
}

/// Priority of what leaves by one interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkPriority {
    /// Name of the interface.
    pub interface: String,
    /// Priority.
    pub priority: u32,
}

/// A kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DeviceKind {
    /// Both.
    All,
    /// Block devices.
    Block,
    /// Character devices.
    Char,
}

/// Ways of using a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Access {
    /// Opening for reading.
    pub read: bool,
    /// Opening for writing.
    pub write: bool,
    /// Making a node.
    pub mknod: bool,
}

impl Access {
    /// All three.
    pub const ALL: Self = Self { read: true, write: true, mknod: true };

    /// Reads letters out of `rwm`; `None` for any other letter. No letters at all mean all three.
    pub fn parse(letters: &str) -> Option<Self> {
        if letters.is_empty() {
            return Some(Self::ALL);
        }
        let known = letters.chars().all(|letter| "rwm".contains(letter));
        known.then(|| Self {
            read: letters.contains('r'),
            write: letters.contains('w'),
            mknod: letters.contains('m'),
        })
    }
}

/// One rule about devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DeviceRule {
    /// Whether it allows or denies.
    pub allow: bool,
    /// Which kind.
    pub kind: DeviceKind,
    /// Major number, `None` for every one.
    pub major: Option<u32>,
    /// Minor number, `None` for every one.
    pub minor: Option<u32>,
    /// Which ways of using it.
    pub access: Access,
}

impl Rdma {
    /// Returns the line both versions of the kernel's control take.
    pub(super) fn line(self, device: &str) -> String {
        let mut line = device.to_owned();
        for (key, value) in [("hca_handle", self.handles), ("hca_object", self.objects)] {
            if let Some(value) = value {
                // Writing to a string cannot fail.
                let _ = write!(line, " {key}={value}");
            }
        }
        line
    }
}
