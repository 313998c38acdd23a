//! User namespaces made from outside, also by processes with many threads, and file access as one of their users.
//!
//! The kernel makes a namespace with a process in it. That process does nothing but wait for its end; what keeps the
//! namespace is the descriptor handed out.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};

use crate::namespace::Namespaces;
use crate::process::{CloneOptions, Cloned, clone_process, pidfd_send_signal, wait_pidfd};

/// Makes a user namespace with maps as `/proc/PID/uid_map` and `gid_map` take them.
pub fn make(users: &str, groups: &str) -> io::Result<OwnedFd> {
    let process = Bystander::start(Namespaces::USER, || 0)?;
    process.write_maps(users, groups)?;
    process.namespace("user")
}

/// Makes a user namespace and a network namespace that belongs to it.
pub fn make_with_network(users: &str, groups: &str) -> io::Result<(OwnedFd, OwnedFd)> {
    let process = Bystander::start(Namespaces::USER.with(Namespaces::NETWORK), || 0)?;
    process.write_maps(users, groups)?;
    Ok((process.namespace("user")?, process.namespace("net")?))
}

/// Makes a network namespace that belongs to a user namespace.
pub fn network_of(user: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let user = user.as_raw_fd();
    let process = Bystander::start(Namespaces::empty(), || {
        // SAFETY: plain integers, and both calls only make system calls.
        let made = unsafe {
            libc::setns(user, libc::CLONE_NEWUSER) == 0 && libc::unshare(libc::CLONE_NEWNET) == 0
        };
        if made { 0 } else { io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL) }
    })?;
    process.namespace("net")
}

/// Opens the user namespace of a process; `None` when it is that of the caller.
pub fn of_process(pid: i32) -> io::Result<Option<OwnedFd>> {
    let theirs = File::open(format!("/proc/{pid}/ns/user"))?;
    let (own, other) = (rustix::fs::stat("/proc/self/ns/user")?, rustix::fs::fstat(&theirs)?);
    Ok(((own.st_dev, own.st_ino) != (other.st_dev, other.st_ino)).then(|| theirs.into()))
}

/// Accesses files as this user and group from now on, with all capabilities that the calling thread has.
///
/// For file systems that show ids by a map in which the thread's own user has no place. Other threads stay who they are.
pub fn access_files_as(user: u32, group: u32) -> io::Result<()> {
    // SAFETY: plain integers; the C library makes these calls for the calling thread alone.
    unsafe {
        libc::setfsgid(group);
        libc::setfsuid(user);
        // The calls tell of no failure; asking for an impossible id changes nothing and tells the present one.
        if libc::setfsgid(u32::MAX) as u32 != group || libc::setfsuid(u32::MAX) as u32 != user {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
    }
    // ORDER: the change of user has put the capabilities that concern files out of force.
    let sets = crate::capability::current()?;
    crate::capability::set(&crate::capability::Capabilities { effective: sets.permitted, ..sets })
}

/// A process that is there for its namespaces.
struct Bystander {
    pid: i32,
    pidfd: OwnedFd,
}

impl Bystander {
    /// Starts one and has it `prepare` first, which returns an error number or 0.
    ///
    /// `prepare` may make system calls and nothing else: this process may have other threads, whose locks nobody in the
    /// new one will ever open.
    fn start(namespaces: Namespaces, prepare: impl FnOnce() -> i32) -> io::Result<Self> {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let written = writer.as_raw_fd();
        // ORDER: blocked before the clone, or a handler of this process could run in the other one.
        let blocked = BlockedSignals::block();
        // No signal at its end: whoever waits for children of this process does not hear of it.
        let options = CloneOptions { namespaces, quiet: true, ..CloneOptions::default() };
        let process = match clone_process(&options)? {
            Cloned::Child => stand_by(written, prepare),
            Cloned::Parent { pid, pidfd } => Self { pid, pidfd },
        };
        drop(blocked);
        drop(writer);
        let mut answer = [0; 4];
        File::from(reader).read_exact(&mut answer)?;
        match i32::from_ne_bytes(answer) {
            0 => Ok(process),
            number => Err(io::Error::from_raw_os_error(number)),
        }
    }

    fn write_maps(&self, users: &str, groups: &str) -> io::Result<()> {
        std::fs::write(format!("/proc/{}/gid_map", self.pid), groups)?;
        std::fs::write(format!("/proc/{}/uid_map", self.pid), users)
    }

    fn namespace(&self, kind: &str) -> io::Result<OwnedFd> {
        Ok(File::open(format!("/proc/{}/ns/{kind}", self.pid))?.into())
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        // It waits for nothing else; that it cannot be reaped leaves an entry of the process table until we end.
        let _ = pidfd_send_signal(self.pidfd.as_fd(), libc::SIGKILL);
        let _ = wait_pidfd(self.pidfd.as_fd());
    }
}

/// The other process: system calls only.
fn stand_by(answer_to: RawFd, prepare: impl FnOnce() -> i32) -> ! {
    // SAFETY: plain integers; should the thread that waits for us end, so do we.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) };
    let answer = prepare().to_ne_bytes();
    // SAFETY: the bytes outlive the calls; signals are blocked, so only the end comes.
    unsafe {
        libc::write(answer_to, answer.as_ptr().cast(), answer.len());
        loop {
            libc::pause();
        }
    }
}

/// All signals of the calling thread blocked, until this is dropped.
struct BlockedSignals(libc::sigset_t);

impl BlockedSignals {
    fn block() -> Self {
        // SAFETY: both sets are plain data that the calls fill in.
        unsafe {
            let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
            Self(before)
        }
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // SAFETY: the set was filled in by the kernel.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut())
        };
    }
}

#[cfg(test)]
mod tests;
