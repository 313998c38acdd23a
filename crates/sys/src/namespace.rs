//! Namespaces: creating, joining, and the little that a new one needs.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// A set of namespace kinds as `CLONE_NEW*` bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Namespaces(u64);

impl Namespaces {
    /// `CLONE_NEWTIME`
    pub const TIME: Self = Self(0x80);
    /// `CLONE_NEWNS`
    pub const MOUNT: Self = Self(0x2_0000);
    /// `CLONE_NEWCGROUP`
    pub const CGROUP: Self = Self(0x200_0000);
    /// `CLONE_NEWUTS`
    pub const UTS: Self = Self(0x400_0000);
    /// `CLONE_NEWIPC`
    pub const IPC: Self = Self(0x800_0000);
    /// `CLONE_NEWUSER`
    pub const USER: Self = Self(0x1000_0000);
    /// `CLONE_NEWPID`
    pub const PID: Self = Self(0x2000_0000);
    /// `CLONE_NEWNET`
    pub const NETWORK: Self = Self(0x4000_0000);

    /// No namespace.
    pub const fn empty() -> Self {
        Self(0)
    }

    /// Returns the `CLONE_NEW*` bits.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Tells whether all of `other` is in this set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns this set without `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Tells whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Joins namespaces: one behind a namespace file, or several of the process behind a pidfd.
///
/// For a pid namespace only later children of the caller are in it.
pub fn join(fd: BorrowedFd<'_>, kinds: Namespaces) -> io::Result<()> {
    // SAFETY: plain integers. Callers are single-threaded processes, see the crate's users.
    let result = unsafe { libc::setns(fd.as_raw_fd(), kinds.bits() as i32) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Moves the calling process into new namespaces.
pub fn unshare(kinds: Namespaces) -> io::Result<()> {
    // SAFETY: none of the namespace flags shares or unshares memory or descriptors.
    let result = unsafe { libc::unshare(kinds.bits() as i32) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Brings the loopback interface of the present network namespace up.
pub fn bring_up_loopback() -> io::Result<()> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: ifreq is plain data for which all zeroes is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    // SAFETY: the request is the one this ioctl expects.
    let result = unsafe {
        libc::ioctl(socket.as_fd().as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
