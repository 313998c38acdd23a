//! Installing a filter. No allocation happens here: it may run between clone and exec.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use super::Program;

/// Installs `program` for the calling thread, or for all threads when its flags say so.
///
/// The caller must have `CAP_SYS_ADMIN` in its user namespace or have set `no_new_privs`. Gives the
/// listener back when the program notifies one. See `seccomp(2)`.
pub fn install(program: &Program) -> io::Result<Option<OwnedFd>> {
    let length = u16::try_from(program.instructions.len())
        .map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let header = libc::sock_fprog {
        len: length,
        // The kernel only reads through this pointer.
        filter: program.instructions.as_ptr().cast::<libc::sock_filter>().cast_mut(),
    };
    // SAFETY: `header` points at `len` instructions with the layout of `sock_filter` (`repr(C)`, same
    // fields), alive during the call; the kernel copies and verifies them.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            program.flags,
            std::ptr::from_ref(&header),
        )
    };
    match answer {
        ..0 => Err(io::Error::last_os_error()),
        // SAFETY: with a new listener a success is a fresh descriptor nobody else owns.
        fd if program.has_listener() => Ok(Some(unsafe { OwnedFd::from_raw_fd(fd as i32) })),
        0 => Ok(None),
        // Without TSYNC_ESRCH a positive answer is the id of a thread that could not follow.
        _ => Err(io::Error::from_raw_os_error(libc::ESRCH)),
    }
}
