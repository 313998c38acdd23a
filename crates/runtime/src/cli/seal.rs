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
    // The kernel wants two layers; what is in the second does not matter.
    let view = if mount::overlay_takes_layers() {
        detached_layers(directory)
    } else {
        named_layers(directory)
    }?;
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

/// Mounts `directory` over an empty file system that nobody sees.
fn detached_layers(directory: &Path) -> io::Result<OwnedFd> {
    let empty = FsContext::open("tmpfs")?.create(RDONLY | NOSUID | NODEV)?;
    let second = format!("/proc/self/fd/{}", empty.as_raw_fd());
    let context = FsContext::open("overlay")?;
    context.set_string("lowerdir+", directory.as_os_str().as_bytes())?;
    context.set_string("lowerdir+", second.as_bytes())?;
    context.create(RDONLY | NOSUID | NODEV)
}

/// The same for kernels before 6.5, which take layers from the tree of mounts only, all in one string.
fn named_layers(directory: &Path) -> io::Result<OwnedFd> {
    let is_plain = |text: &&str| !text.contains([':', '\\', ',']);
    let directory = directory.to_str().filter(is_plain).ok_or(io::ErrorKind::InvalidInput)?;
    // Neither may contain the other.
    let second = if directory.starts_with("/run") { "/etc" } else { "/run" };
    let context = FsContext::open("overlay")?;
    context.set_string("lowerdir", format!("{directory}:{second}").as_bytes())?;
    context.create(RDONLY | NOSUID | NODEV)
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

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn both_ways_of_mounting_show_the_directory() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("program"), b"content").expect("written");
        let named: fn(&Path) -> io::Result<OwnedFd> = named_layers;
        let ways =
            if mount::overlay_takes_layers() { vec![detached_layers, named] } else { vec![named] };
        for mount in ways {
            let view = mount(folder.path()).expect("mounted");
            let file = rustix::fs::openat(&view, "program", OFlags::RDONLY, Mode::empty());
            let mut text = String::new();
            std::fs::File::from(file.expect("opened")).read_to_string(&mut text).expect("read");
            assert_eq!(text, "content");
            let written = rustix::fs::openat(&view, "program", OFlags::WRONLY, Mode::empty());
            assert_eq!(written.err(), Some(rustix::io::Errno::ROFS));
        }
    }
}
