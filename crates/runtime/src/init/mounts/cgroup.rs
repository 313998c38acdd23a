//! cgroup v1 inside a container: a small tmpfs with one directory per hierarchy.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rorqual_sys::mount::{self, FsContext, MountAttributes, NODEV, NOEXEC, NOSUID, RDONLY};
use rustix::fs::{Mode, OFlags};

use super::{Init, StepError, Tried};
use crate::plan::{Hierarchy, mount_flags};

impl Init<'_> {
    pub(super) fn mount_cgroups(
        &self,
        destination: &Path,
        attributes: u64,
        private: bool,
        list: &[Hierarchy],
    ) -> Result<(), StepError> {
        let what = || format!("cannot mount cgroups on {destination:?}");
        let target = self.mount_point(destination, true)?;
        super::refuse_proc(target.as_fd(), destination)?;
        let context = FsContext::open("tmpfs").tried(what)?;
        context.set_string("mode", b"755").tried(what)?;
        let base = context.create(NOSUID | NODEV | NOEXEC).tried(what)?;
        mount::attach(base.as_fd(), target.as_fd()).tried(what)?;
        for hierarchy in list {
            let Some(name) = hierarchy.mountpoint.file_name() else { continue };
            let tree = if private {
                own_hierarchy(hierarchy, attributes)
            } else {
                shown_hierarchy(hierarchy, attributes)
            };
            let Some(tree) = tree.tried(what)? else { continue };
            rustix::fs::mkdirat(&base, name, Mode::from_raw_mode(0o755)).tried(what)?;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let place = rustix::fs::openat(&base, name, flags, Mode::empty()).tried(what)?;
            mount::attach(tree.as_fd(), place.as_fd()).tried(what)?;
            let name = name.to_string_lossy();
            if name.contains(',') {
                for alias in name.split(',') {
                    // Programs look for single controllers; an alias that is there already is as good.
                    let _ = rustix::fs::symlinkat(name.as_ref(), &base, alias);
                }
            }
        }
        let read_only = MountAttributes { set: attributes & RDONLY, ..Default::default() };
        mount::set_attributes(base.as_fd(), &read_only, false).tried(what)
    }
}

/// Mounts the hierarchy as the container's cgroup namespace shows it.
fn own_hierarchy(hierarchy: &Hierarchy, attributes: u64) -> std::io::Result<Option<OwnedFd>> {
    let context = FsContext::open("cgroup")?;
    context.set_string("source", b"cgroup")?;
    for controller in hierarchy.controllers.split(',').filter(|part| !part.is_empty()) {
        match controller.split_once('=') {
            Some((key, value)) => context.set_string(key, value.as_bytes())?,
            None => context.set_flag(controller)?,
        }
    }
    context.create(mount_flags(attributes)).map(Some)
}

/// Shows the container's own directory of the host's mount.
fn shown_hierarchy(hierarchy: &Hierarchy, attributes: u64) -> std::io::Result<Option<OwnedFd>> {
    let relative = hierarchy.path.strip_prefix("/").unwrap_or(&hierarchy.path);
    let path = hierarchy.mountpoint.join(relative);
    if !path.is_dir() {
        return Ok(None);
    }
    let tree = mount::clone_tree(&path, false)?;
    let attributes = MountAttributes { set: attributes, ..Default::default() };
    mount::set_attributes(tree.as_fd(), &attributes, false)?;
    Ok(Some(tree))
}
