//! Resource limits of a process.

use std::io;

/// The limits by their names without `RLIMIT_`, in the order of their numbers on x86 and arm.
pub const NAMES: [&str; 16] = [
    "CPU",
    "FSIZE",
    "DATA",
    "STACK",
    "CORE",
    "RSS",
    "NPROC",
    "NOFILE",
    "MEMLOCK",
    "AS",
    "LOCKS",
    "SIGPENDING",
    "MSGQUEUE",
    "NICE",
    "RTPRIO",
    "RTTIME",
];

/// A soft and a hard limit; `u64::MAX` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rlimit {
    /// What is enforced.
    pub soft: u64,
    /// How far the soft limit may be raised.
    pub hard: u64,
}

/// Returns the number of a limit; case and the prefix `RLIMIT_` do not matter.
pub fn number(name: &str) -> Option<u32> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("RLIMIT_").unwrap_or(&upper);
    NAMES.iter().position(|known| *known == bare).map(|index| index as u32)
}

/// Reads a limit of the calling process.
pub fn get(resource: u32) -> io::Result<Rlimit> {
    exchange(0, resource, None)
}

/// Reads a limit of another process; 0 is the calling one.
pub fn get_of(pid: i32, resource: u32) -> io::Result<Rlimit> {
    exchange(pid, resource, None)
}

/// Sets a limit of the calling process.
pub fn set(resource: u32, limit: Rlimit) -> io::Result<()> {
    exchange(0, resource, Some(limit)).map(|_| ())
}

/// Sets a limit of another process.
pub fn set_of(pid: i32, resource: u32, limit: Rlimit) -> io::Result<()> {
    exchange(pid, resource, Some(limit)).map(|_| ())
}

fn exchange(pid: i32, resource: u32, new: Option<Rlimit>) -> io::Result<Rlimit> {
    let new = new.map(|limit| libc::rlimit64 { rlim_cur: limit.soft, rlim_max: limit.hard });
    let mut old = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    let new_pointer = new.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: both pointers are null or valid for the time of the call.
    let result =
        unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, new_pointer, &raw mut old) };
    if result == 0 {
        Ok(Rlimit { soft: old.rlim_cur, hard: old.rlim_max })
    } else {
        Err(io::Error::last_os_error())
    }
}
