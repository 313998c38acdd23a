//! Device nodes and the links beside them.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::path::Path;

use rorqual_sys::mount;
use rustix::fs::{AtFlags, FileType, Gid, Mode, StatxAttributes, StatxFlags, Uid};
use rustix::io::Errno;

use super::{Init, StepError, Tried};
use crate::plan::DevicePlan;

/// Tells whether something was mounted there, which then is what the container shall have.
fn is_mount(parent: impl AsFd, name: &OsStr) -> rustix::io::Result<bool> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let found = rustix::fs::statx(parent, name, flags, StatxFlags::TYPE)?;
    Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

impl Init<'_> {
    pub(super) fn device(&self, device: &DevicePlan) -> Result<(), StepError> {
        if device.bind {
            return self.bind_device(device);
        }
        let what = || format!("cannot create device {}", device.path.display());
        let (parent, name) = self.root()?.parent(&device.path).tried(what)?;
        let number = rustix::fs::makedev(device.number.0, device.number.1);
        let kind = FileType::from_raw_mode(device.kind);
        let mode = Mode::from_raw_mode(device.mode);
        let make = || rustix::fs::mknodat(&parent, &name, kind, mode, number);
        match make() {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let stat =
                    rustix::fs::statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW).tried(what)?;
                let same = FileType::from_raw_mode(stat.st_mode) == kind && stat.st_rdev == number;
                if same || is_mount(&parent, &name).tried(what)? {
                    return Ok(());
                }
                if !device.replace {
                    return Err(StepError::new(format!("{}: another file is there", what())));
                }
                // Whatever the image has there is not the device.
                rustix::fs::unlinkat(&parent, &name, AtFlags::empty()).tried(what)?;
                make().tried(what)?;
            }
            // Nodes cannot be made in a user namespace.
            Err(Errno::PERM) => return self.bind_device(device),
            Err(error) => return Err(error).tried(what),
        }
        if device.owner != (0, 0) {
            let (uid, gid) = (Uid::from_raw(device.owner.0), Gid::from_raw(device.owner.1));
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::chownat(&parent, &name, Some(uid), Some(gid), flags).tried(what)?;
        }
        Ok(())
    }

    /// Shows the host's node of the same path.
    fn bind_device(&self, device: &DevicePlan) -> Result<(), StepError> {
        let what = || format!("cannot bind device {}", device.path.display());
        let node = mount::clone_tree(&device.path, false).tried(what)?;
        let stat = rustix::fs::fstat(&node).tried(what)?;
        let wanted = rustix::fs::makedev(device.number.0, device.number.1);
        if stat.st_rdev != wanted {
            return Err(StepError::new(format!("{}: the host has another device there", what())));
        }
        let target = self.root()?.file(&device.path).tried(what)?;
        super::mounts::refuse_proc(target.as_fd(), &device.path)?;
        mount::attach(node.as_fd(), target.as_fd()).tried(what)
    }

    /// Makes a link unless something useful is there; `/dev/ptmx` is replaced in any case.
    pub(super) fn link(&self, path: &Path, target: &str) -> Result<(), StepError> {
        if path == Path::new("/dev/core") && !Path::new("/proc/kcore").exists() {
            return Ok(());
        }
        let what = || format!("cannot create link {}", path.display());
        let (parent, name) = self.root()?.parent(path).tried(what)?;
        match rustix::fs::symlinkat(target, &parent, &name) {
            Err(Errno::EXIST) if path == Path::new("/dev/ptmx") => {
                rustix::fs::unlinkat(&parent, &name, AtFlags::empty()).tried(what)?;
                rustix::fs::symlinkat(target, &parent, &name).tried(what)
            }
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error).tried(what),
        }
    }
}
