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

/// Returns which flags of a filter, of those with these names, the running kernel knows.
pub fn supported<'a>(names: &[&'a str]) -> Vec<&'a str> {
    names.iter().copied().filter(|name| flag(name).is_some_and(knows)).collect()
}

fn flag(name: &str) -> Option<libc::c_ulong> {
    Some(match name {
        "SECCOMP_FILTER_FLAG_TSYNC" => libc::SECCOMP_FILTER_FLAG_TSYNC,
        "SECCOMP_FILTER_FLAG_LOG" => libc::SECCOMP_FILTER_FLAG_LOG,
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
        // The kernel takes it only with a listener.
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => {
            libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER
        }
        _ => return None,
    })
}

/// Asks with a filter that is not there: the flags are looked at first.
fn knows(flags: libc::c_ulong) -> bool {
    let nothing = std::ptr::null::<libc::sock_fprog>();
    // SAFETY: a null filter is refused before anything is installed.
    let answer =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, nothing) };
    answer < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT)
}
