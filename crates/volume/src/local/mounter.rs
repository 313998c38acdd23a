//! The system calls of the driver `local`.

use std::io;
use std::path::Path;

use rorqual_sys::mount::{detach, mount_classic};
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags};

use crate::options::{BIND, MountPlan, PROPAGATION, REC, REMOUNT};

/// Mounts and unmounts.
pub(crate) trait Mounter: Send + Sync {
    fn mount(&self, plan: &MountPlan, target: &Path) -> io::Result<()>;
    fn unmount(&self, target: &Path) -> io::Result<()>;
    fn is_mounted(&self, target: &Path) -> io::Result<bool>;
}

/// The host's mount namespace.
pub(crate) struct HostMounter;

impl Mounter for HostMounter {
    fn mount(&self, plan: &MountPlan, target: &Path) -> io::Result<()> {
        let data = plan.data.join(",");
        let flags = plan.flags & !PROPAGATION;
        mount_classic(&plan.device, target, &plan.kind, flags, data.as_bytes())?;
        let further = || {
            // The kernel takes the flags of a bind, and propagation, only in a call of their own.
            if flags & BIND != 0 && flags & !(BIND | REC) != 0 {
                mount_classic("", target, "", flags & !REC | REMOUNT, b"")?;
            }
            if plan.flags & PROPAGATION != 0 {
                mount_classic("", target, "", plan.flags & (PROPAGATION | REC), b"")?;
            }
            Ok(())
        };
        further().inspect_err(|_| {
            detach(target).ok();
        })
    }

    fn unmount(&self, target: &Path) -> io::Result<()> {
        detach(target)
    }

    fn is_mounted(&self, target: &Path) -> io::Result<bool> {
        match rustix::fs::statx(CWD, target, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty()) {
            Ok(stat) => Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
            Err(rustix::io::Errno::NOENT) => Ok(false),
            // A server that is gone answers for its mount no longer, but mounted it is.
            Err(rustix::io::Errno::STALE | rustix::io::Errno::IO) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }
}
