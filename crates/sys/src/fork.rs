//! Forking without executing, for single-threaded servers.

use std::io;

/// Which of the two processes this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forked {
    /// The old one; knows the new one's process id.
    Parent(i32),
    /// The new one.
    Child,
}

/// Makes a copy of this process, see `fork(2)`.
///
/// # Errors
///
/// `InvalidInput` when the process has more than one thread: the copy would have one thread and everybody's locks.
/// `EAGAIN` when no more processes are allowed.
pub fn fork() -> io::Result<Forked> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "more than one thread"));
    }
    fork_single_threaded()
}

/// As [`fork`], where the caller has made sure once that there is one thread and starts none.
pub fn fork_single_threaded() -> io::Result<Forked> {
    // SAFETY: with one thread nobody else can hold a lock whose owner is missing in the child, so the child may go on
    // as any process would.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent(pid)),
    }
}

/// Gives freed memory of the allocator back to the kernel.
pub fn trim_heap() {
    // SAFETY: `malloc_trim` has no preconditions.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
