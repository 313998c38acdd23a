//! Processes by descriptor, see `pidfd_open(2)`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Sends a signal, real-time ones included.
///
/// # Errors
///
/// `ESRCH` when the process has ended.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: takes numbers and a null pointer only, which stands for what `kill(2)` would send.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if sent == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
