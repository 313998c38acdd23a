//! Views of layers for ourselves: overlays that are attached nowhere and end with their last descriptor.
//!
//! The containers' own mounts are the runtime's business.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rorqual_core::mount::UpperPlan;
use rustix::fs::{Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

/// Options of every overlay we make or plan: copies are whole and renames never refer below, so that a writable directory
/// can be read without the kernel's help.
pub(crate) const OPTIONS: [&str; 3] = ["index=off", "metacopy=off", "redirect_dir=off"];

/// Opens a view of `lower` (top first), writable with `upper`.
pub(crate) fn view(lower: &[PathBuf], upper: Option<&UpperPlan>) -> io::Result<OwnedFd> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    set_lower(&context, lower)?;
    match upper {
        Some(plan) => {
            fsconfig_set_string(&context, "upperdir", &plan.upper)?;
            fsconfig_set_string(&context, "workdir", &plan.work)?;
        }
        None => fsconfig_set_flag(&context, "ro")?,
    }
    for option in OPTIONS {
        if let Some((key, value)) = option.split_once('=') {
            fsconfig_set_string(&context, key, value)?;
        }
    }
    fsconfig_create(&context)?;
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOATIME;
    if upper.is_none() {
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

fn set_lower(context: &OwnedFd, lower: &[PathBuf]) -> io::Result<()> {
    for (at, layer) in lower.iter().enumerate() {
        match fsconfig_set_string(context, "lowerdir+", layer) {
            Ok(()) => {}
            // Before Linux 6.8 there is only the joined form.
            Err(rustix::io::Errno::INVAL) if at == 0 => return set_joined(context, lower),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// LIMIT: the kernel takes 255 bytes per option, so directories are named by descriptors there.
fn set_joined(context: &OwnedFd, lower: &[PathBuf]) -> io::Result<()> {
    let open = |path: &PathBuf| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty())
    };
    let handles = lower.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let names = handles.iter().map(|fd| format!("/proc/self/fd/{}", fd.as_raw_fd()));
    let joined = names.collect::<Vec<_>>().join(":");
    if joined.len() > 255 {
        let text = "a view of so many layers needs Linux 6.8";
        return Err(io::Error::new(io::ErrorKind::Unsupported, text));
    }
    Ok(fsconfig_set_string(context, "lowerdir", &joined)?)
}

/// Opens the root of a running process, with all of its mounts.
pub(crate) fn process_root(pid: i32) -> io::Result<OwnedFd> {
    let path = format!("/proc/{pid}/root");
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(Path::new(&path), flags, Mode::empty())?)
}
