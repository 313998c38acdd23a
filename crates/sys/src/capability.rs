//! Capabilities: the five sets of a thread.

use std::io;

use rustix::thread::{CapabilitySet, CapabilitySets};

/// The sets that a program starts with. Bit `n` is capability number `n`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// What `execve(2)` can ever give.
    pub bounding: u64,
    /// What is in force.
    pub effective: u64,
    /// What survives `execve(2)` together with the file's.
    pub inheritable: u64,
    /// What may be put in force.
    pub permitted: u64,
    /// What an ordinary `execve(2)` keeps.
    pub ambient: u64,
}

/// Names of the capabilities by number, without `CAP_`.
pub const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Returns the number of a capability; case and the prefix `CAP_` do not matter.
pub fn number(name: &str) -> Option<u32> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.iter().position(|known| *known == bare).map(|index| index as u32)
}

/// Reads the effective, permitted and inheritable sets of the calling thread.
pub fn current() -> io::Result<Capabilities> {
    let sets = rustix::thread::capabilities(None)?;
    Ok(Capabilities {
        effective: sets.effective.bits(),
        permitted: sets.permitted.bits(),
        inheritable: sets.inheritable.bits(),
        ..Capabilities::default()
    })
}

/// Reads the bounding set of the calling thread.
pub fn bounding() -> u64 {
    (0..64).filter(|bit| in_bounding_set(*bit)).fold(0, |set, bit| set | 1 << bit)
}

fn in_bounding_set(bit: u32) -> bool {
    // SAFETY: plain integers.
    unsafe { libc::prctl(libc::PR_CAPBSET_READ, u64::from(bit), 0, 0, 0) == 1 }
}

/// Removes everything but `keep` from the bounding set.
pub fn limit_bounding_set(keep: u64) -> io::Result<()> {
    for bit in 0..NAMES.len() as u32 {
        if keep & (1 << bit) != 0 {
            continue;
        }
        // SAFETY: plain integers.
        let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, u64::from(bit), 0, 0, 0) };
        if result != 0 {
            let error = io::Error::last_os_error();
            // An older kernel does not know the newest ones.
            if error.raw_os_error() != Some(libc::EINVAL) {
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Sets effective, permitted and inheritable of the calling thread.
pub fn set(capabilities: &Capabilities) -> io::Result<()> {
    let sets = CapabilitySets {
        effective: CapabilitySet::from_bits_retain(capabilities.effective),
        permitted: CapabilitySet::from_bits_retain(capabilities.permitted),
        inheritable: CapabilitySet::from_bits_retain(capabilities.inheritable),
    };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

/// Replaces the ambient set; each member must be permitted and inheritable.
pub fn set_ambient(ambient: u64) -> io::Result<()> {
    const RAISE: u64 = 2;
    const CLEAR_ALL: u64 = 4;
    let control = |operation: u64, bit: u64| {
        // SAFETY: plain integers.
        let result = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, operation, bit, 0, 0) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    control(CLEAR_ALL, 0)?;
    (0..64).filter(|bit| ambient & (1 << bit) != 0).try_for_each(|bit| control(RAISE, bit))
}

/// Lets the permitted set survive the next change of user ids.
pub fn keep_over_user_change(keep: bool) -> io::Result<()> {
    Ok(rustix::thread::set_keep_capabilities(keep)?)
}
