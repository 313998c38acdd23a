//! Views of layers for ourselves: overlays that are attached nowhere and end with their last descriptor.
//!
//! The containers' own mounts are the runtime's business.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rorqual_core::mount::UpperPlan;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, OpenTreeFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, mount_change,
};
use rustix::thread::UnshareFlags;

use crate::Error;
use crate::layer::{io_failed, unique};

/// Options of every overlay we make or plan: copies are whole and renames never refer below, so that a writable directory
/// can be read without the kernel's help.
pub(crate) const OPTIONS: [&str; 3] = ["index=off", "metacopy=off", "redirect_dir=off"];

/// Opens a view of `lower` (top first), writable with `upper`. Blocking.
pub(crate) fn view(lower: &[PathBuf], upper: Option<&UpperPlan>) -> io::Result<OwnedFd> {
    match detached(lower, upper) {
        // Before Linux 6.8 an overlay cannot be made layer by layer, before 5.2 there is no such interface at all.
        Err(Errno::INVAL | Errno::NOSYS) => in_namespace(lower, upper),
        result => Ok(result?),
    }
}

/// Fails where writable layers cannot lie beside `dir`, in which it is tried: in a container's own root for instance, which
/// is an overlay itself. Blocking.
pub(crate) fn check_writable(lower: &Path, dir: &Path) -> Result<(), Error> {
    let probe = dir.join(unique("probe-"));
    let plan = UpperPlan { upper: probe.join("upper"), work: probe.join("work") };
    for made in [&probe, &plan.upper, &plan.work] {
        std::fs::create_dir(made).map_err(io_failed(format!("make {}", made.display())))?;
    }
    let tried = view(&[lower.to_owned()], Some(&plan)).map(drop);
    std::fs::remove_dir_all(&probe).map_err(io_failed(format!("remove {}", probe.display())))?;
    tried.map_err(|error| {
        Error::Unsupported(format!(
            "containers cannot be kept in {}: its file system takes no writable layers of overlays ({error}); choose a \
             directory on another one, within a container a volume (for instance ext4, xfs with ftype=1, btrfs or tmpfs)",
            dir.parent().unwrap_or(dir).display()
        ))
    })
}

fn detached(lower: &[PathBuf], upper: Option<&UpperPlan>) -> rustix::io::Result<OwnedFd> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for layer in lower {
        fsconfig_set_string(&context, "lowerdir+", layer)?;
    }
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
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    // A mount's own descriptor can be resolved in but not listed.
    rustix::fs::openat(&mount, ".", DIRECTORY, Mode::empty())
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Mounts in a namespace that lives as long as this call: the descriptor alone keeps the file system afterwards.
fn in_namespace(lower: &[PathBuf], upper: Option<&UpperPlan>) -> io::Result<OwnedFd> {
    std::thread::scope(|scope| {
        let mounting = scope.spawn(|| mount_alone(lower, upper));
        mounting.join().map_err(|_| io::Error::other("the mounting thread panicked"))?
    })
}

/// Runs on a thread of its own, whose mount namespace ends with it.
fn mount_alone(lower: &[PathBuf], upper: Option<&UpperPlan>) -> io::Result<OwnedFd> {
    #[expect(deprecated, reason = "safe here: the thread shares neither of the two afterwards")]
    rustix::thread::unshare(UnshareFlags::FS | UnshareFlags::NEWNS)?;
    // ORDER: before the mount, which must not propagate to the host.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    // LIMIT: all options must fit in one page, so directories are named by descriptors.
    // ORDER: opened in this namespace, an overlay takes no directories of another one.
    let open = |path: &PathBuf| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty())
    };
    let dirs = upper.map(|plan| [&plan.upper, &plan.work]);
    let handles =
        lower.iter().chain(dirs.into_iter().flatten()).map(open).collect::<Result<Vec<_>, _>>()?;
    let names = handles.iter().map(|fd| format!("/proc/self/fd/{}", fd.as_raw_fd()));
    let names = names.collect::<Vec<_>>();
    let (lower_names, upper_names) = names.split_at(lower.len());
    let mut options = format!("lowerdir={},{}", lower_names.join(":"), OPTIONS.join(","));
    let mut flags = MountFlags::NODEV | MountFlags::NOATIME;
    match upper_names {
        [upper, work] => options = format!("{options},upperdir={upper},workdir={work}"),
        _ => flags |= MountFlags::RDONLY,
    }
    let target = lower.first().ok_or(Errno::INVAL)?;
    let options = CString::new(options)?;
    mount("overlay", target, "overlay", flags, &*options)?;
    Ok(rustix::fs::open(target, DIRECTORY, Mode::empty())?)
}

/// Opens the root of a running process, with all of its mounts.
pub(crate) fn process_root(pid: i32) -> io::Result<OwnedFd> {
    let path = format!("/proc/{pid}/root");
    Ok(rustix::fs::open(Path::new(&path), DIRECTORY, Mode::empty())?)
}

/// Opens the root file system of a running process without what is mounted below it.
pub(crate) fn process_root_alone(pid: i32) -> io::Result<OwnedFd> {
    let path = format!("/proc/{pid}/ns/mnt");
    let namespace =
        rustix::fs::open(Path::new(&path), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let clone = move || -> io::Result<OwnedFd> {
        #[expect(
            deprecated,
            reason = "safe here: the thread shares its root with nobody afterwards"
        )]
        rustix::thread::unshare(UnshareFlags::FS)?;
        // The kernel copies mounts of the caller's own namespace only; joining makes the container's root ours, too.
        let kind = Some(rustix::thread::LinkNameSpaceType::Mount);
        rustix::thread::move_into_link_name_space(namespace.as_fd(), kind)?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let mount = rustix::mount::open_tree(rustix::fs::CWD, "/", flags)?;
        Ok(rustix::fs::openat(&mount, ".", DIRECTORY, Mode::empty())?)
    };
    // On a thread of its own, whose namespace nobody else has.
    let joined = std::thread::scope(|scope| scope.spawn(clone).join());
    joined.map_err(|_| io::Error::other("the thread that clones a mount panicked"))?
}

#[cfg(test)]
mod tests;
