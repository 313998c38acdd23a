//! Network namespaces: made, entered and tuned by threads of their own, so that no other thread ever leaves its namespace.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

const OWN: &str = "/proc/thread-self/ns/net";

fn on_own_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        // LIMIT: the work makes a few system calls; a small stack keeps the thread cheap.
        let builder = std::thread::Builder::new().name("netns".to_owned()).stack_size(128 * 1024);
        let thread = builder.spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the namespace thread panicked")))
    })
}

/// Makes a network namespace and runs `work` in it, on a thread that ends with it.
///
/// The namespace lives as long as the descriptor, or anything else that holds it, does.
pub fn new_namespace<T: Send>(
    work: impl FnOnce(BorrowedFd<'_>) -> io::Result<T> + Send,
) -> io::Result<(OwnedFd, T)> {
    on_own_thread(|| {
        // SAFETY: a network namespace shares neither memory nor descriptors, and only this thread moves.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let namespace = own_namespace()?;
        let result = work(rustix::fd::AsFd::as_fd(&namespace))?;
        Ok((namespace, result))
    })
}

/// Runs `work` in a namespace, on a thread that ends with it.
pub fn run_in_namespace<T: Send>(
    namespace: BorrowedFd<'_>,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    on_own_thread(|| {
        // SAFETY: the descriptor is open; only this thread moves, and the kernel checks that it is a network namespace.
        if unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
            return Err(io::Error::last_os_error());
        }
        work()
    })
}

/// Opens the calling thread's network namespace.
pub fn own_namespace() -> io::Result<OwnedFd> {
    Ok(File::open(OWN)?.into())
}

/// Opens the network namespace of a process.
pub fn process_namespace(pid: i32) -> io::Result<OwnedFd> {
    Ok(File::open(format!("/proc/{pid}/ns/net"))?.into())
}

fn sysctl_path(key: &[&str]) -> io::Result<String> {
    // An interface's name may hold dots, but neither a slash nor be a path of its own.
    if key.iter().any(|part| part.is_empty() || part.contains('/') || matches!(*part, "." | "..")) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(format!("/proc/sys/net/{}", key.join("/")))
}

/// Sets `net.<key>` in the calling thread's network namespace.
pub fn set_sysctl(key: &[&str], value: &str) -> io::Result<()> {
    File::options().write(true).open(sysctl_path(key)?)?.write_all(value.as_bytes())
}

/// Reads `net.<key>` in the calling thread's network namespace.
pub fn read_sysctl(key: &[&str]) -> io::Result<String> {
    let mut text = String::new();
    File::open(sysctl_path(key)?)?.take(4096).read_to_string(&mut text)?;
    Ok(text.trim_end().to_owned())
}
