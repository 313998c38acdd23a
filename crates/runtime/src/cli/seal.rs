//! Keeps the runtime's own file out of reach of containers.
//!
//! For a moment a process inside the container runs the runtime's code, and `/proc/PID/exe` of it names the file. So the
//! commands that get into that position start themselves again from a view of the file that can never be written.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rorqual_sys::mount::{self, FsContext, NODEV, NOSUID, RDONLY};
use rorqual_sys::process;
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};

use super::Failure;

const MARK: &str = "_RORQUAL_SEALED";

/// Returns once this process runs from a sealed view.
pub(super) fn ensure() -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::io("cannot seal the runtime", &error);
    // SAFETY-relevant but not trusted for security: whoever may set the variable owns the file anyway.
    if std::env::var_os(MARK).is_some() {
        return Ok(());
    }
    let file = overlay_view().or_else(|_| memory_copy()).map_err(failed)?;
    let args = strings(std::env::args_os().map(OsStringExt::into_vec));
    let mut env = strings(
        std::env::vars_os().map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat()),
    );
    env.extend(CString::new(format!("{MARK}=1")));
    Err(failed(process::execute_fd(file.as_fd(), &args, &env)))
}

fn strings(list: impl Iterator<Item = Vec<u8>>) -> Vec<CString> {
    list.filter_map(|bytes| CString::new(bytes).ok()).collect()
}

/// Opens the binary through a private read-only overlay: nothing is copied, and nobody can mount it writable.
fn overlay_view() -> io::Result<OwnedFd> {
    let exe = std::fs::read_link("/proc/self/exe")?;
    let directory = exe.parent().unwrap_or(Path::new("/"));
    let name = exe.file_name().ok_or(io::ErrorKind::NotFound)?;
    if !mount::overlay_takes_layers() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let context = FsContext::open("overlay")?;
    // The kernel wants two layers; the second is empty.
    let empty = FsContext::open("tmpfs")?.create(RDONLY | NOSUID | NODEV)?;
    let second = format!("/proc/self/fd/{}", empty.as_raw_fd());
    context.set_string("lowerdir+", directory.as_os_str().as_bytes())?;
    context.set_string("lowerdir+", second.as_bytes())?;
    let view = context.create(RDONLY | NOSUID | NODEV)?;
    let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::openat(&view, name, flags, Mode::empty())?;
    let (inside, running) = (rustix::fs::fstat(&file)?, rustix::fs::stat(&exe)?);
    // Another file may have taken the name since this process started.
    if inside.st_ino != running.st_ino || inside.st_size != running.st_size {
        return Err(io::ErrorKind::NotFound.into());
    }
    mount::file_system_magic(file.as_fd())?;
    Ok(file)
}

/// Copies the binary to memory and seals it.
fn memory_copy() -> io::Result<OwnedFd> {
    let mut own = std::fs::File::open("/proc/self/exe")?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = rustix::fs::memfd_create("rorqual-runtime", flags)?;
    let mut file = std::fs::File::from(memory);
    io::copy(&mut own, &mut file)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}
