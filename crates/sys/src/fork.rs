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

/// Checks that this process has a single thread, on which [`fork`] relies.
///
/// # Errors
///
/// `InvalidInput` when there are more.
pub fn ensure_single_thread() -> io::Result<()> {
    if std::fs::read_dir("/proc/self/task")?.count() == 1 {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "more than one thread"))
}

/// Makes a copy of this process, see `fork(2)`. The caller has made sure that there is one thread and starts none:
/// a copy of more would have one thread and everybody's locks.
///
/// # Errors
///
/// `EAGAIN` when no more processes are allowed.
pub fn fork() -> io::Result<Forked> {
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

/// Ends a forked copy at once, without what the original would do at its end, see `_exit(2)`.
pub fn leave(code: i32) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Closes all descriptors from `first` on, see `close_range(2)` (Linux 5.9). For forked copies that need none of them:
/// whatever owns one in this process must not be used any more.
pub fn close_descriptors_from(first: u32) {
    // SAFETY: closing a descriptor cannot break memory safety; that nobody uses them again is the caller's part.
    unsafe {
        libc::syscall(libc::SYS_close_range, first, u32::MAX, 0);
    }
}
