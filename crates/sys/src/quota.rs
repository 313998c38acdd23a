//! Project quotas: a bound on what all files of one directory tree occupy, on xfs and ext4. See quotactl(2).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

const FS_IOC_FSGETXATTR: libc::c_ulong = 0x801c_581f;
const FS_IOC_FSSETXATTR: libc::c_ulong = 0x401c_5820;
const FS_XFLAG_PROJINHERIT: u32 = 0x200;
/// `QCMD(Q_X…, PRJQUOTA)`
const GET_QUOTA: libc::c_uint = 0x5803 << 8 | 2;
const SET_LIMIT: libc::c_uint = 0x5804 << 8 | 2;
const GET_STATE: libc::c_uint = 0x5805 << 8 | 2;
const FS_QUOTA_PDQ_ENFD: u16 = 1 << 5;
const FS_PROJ_QUOTA: i8 = 2;
/// `FS_DQ_BSOFT | FS_DQ_BHARD`
const BLOCK_LIMITS: u16 = 0xc;
/// Limits are in blocks of this size.
const BLOCK: u64 = 512;

/// `struct fsxattr`
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct FileAttributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    copy_extent_size: u32,
    padding: [u8; 8],
}

/// `struct fs_disk_quota`
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct DiskQuota {
    version: i8,
    flags: i8,
    fields: u16,
    id: u32,
    block_hard: u64,
    block_soft: u64,
    inode_hard: u64,
    inode_soft: u64,
    blocks: u64,
    inodes: u64,
    timers: [i32; 2],
    warnings: [u16; 2],
    timers_high: [i8; 4],
    realtime: [u64; 3],
    realtime_timer: i32,
    realtime_warnings: u16,
    padding: [u8; 10],
}

/// `struct fs_quota_stat`, of which the flags are of interest.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct State([u8; 128]);

/// What a project may use, and uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProjectUsage {
    /// Bound in bytes; 0: none.
    pub limit: u64,
    /// Bytes in use.
    pub used: u64,
    /// Files in use.
    pub files: u64,
}

/// A file system that keeps project quotas.
#[derive(Debug)]
pub struct ProjectQuotas(OwnedFd);

impl ProjectQuotas {
    /// Returns the quotas of the file system of `path`; `None` where it keeps none, or does not enforce them.
    pub fn of(path: &Path) -> io::Result<Option<Self>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let quotas = Self(rustix::fs::open(path, flags, Mode::empty())?);
        let mut state = State([0; 128]);
        // The version that is asked for.
        state.0[0] = 1;
        let enforced = match quotas.control(GET_STATE, 0, &mut state) {
            Ok(()) => u16::from_ne_bytes([state.0[2], state.0[3]]) & FS_QUOTA_PDQ_ENFD != 0,
            Err(error) if is_absent(&error) => false,
            Err(error) => return Err(error),
        };
        Ok(enforced.then_some(quotas))
    }

    /// Returns a project that nothing belongs to, beginning to look at `draw`.
    pub fn unused_project(&self, draw: u32) -> io::Result<u32> {
        // LIMIT: among two thousand million numbers a free one is drawn at once.
        for attempt in 0..1024 {
            // Away from the small numbers that people give out in `/etc/projid`.
            let project = draw.wrapping_add(attempt) | 0x4000_0000;
            if self.usage(project)? == ProjectUsage::default() {
                return Ok(project);
            }
        }
        Err(io::Error::other("no project id is free"))
    }

    /// Returns what a project may use, and uses.
    pub fn usage(&self, project: u32) -> io::Result<ProjectUsage> {
        let mut quota = DiskQuota::default();
        match self.control(GET_QUOTA, project, &mut quota) {
            Ok(()) => Ok(ProjectUsage {
                limit: quota.block_hard.saturating_mul(BLOCK),
                used: quota.blocks.saturating_mul(BLOCK),
                files: quota.inodes,
            }),
            // Nobody has heard of it.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(ProjectUsage::default()),
            Err(error) => Err(error),
        }
    }

    /// Bounds what all files of a project occupy; 0 takes the bound away.
    pub fn limit(&self, project: u32, bytes: u64) -> io::Result<()> {
        let blocks = bytes.div_ceil(BLOCK);
        let mut quota = DiskQuota {
            version: 1,
            flags: FS_PROJ_QUOTA,
            fields: BLOCK_LIMITS,
            id: project,
            block_hard: blocks,
            block_soft: blocks,
            ..DiskQuota::default()
        };
        self.control(SET_LIMIT, project, &mut quota)
    }

    fn control<T>(&self, command: libc::c_uint, id: u32, data: &mut T) -> io::Result<()> {
        // SAFETY: the kernel reads and writes at most the structure that belongs to the command, which `data` is large
        // enough for, and the descriptor is open.
        let result = unsafe {
            libc::syscall(
                libc::SYS_quotactl_fd,
                self.0.as_raw_fd(),
                command,
                id,
                std::ptr::from_mut(data),
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// Kernels and file systems have many words for "no quotas here".
fn is_absent(error: &io::Error) -> bool {
    let absent = [
        libc::ENOSYS,
        libc::ESRCH,
        libc::ENODEV,
        libc::EINVAL,
        libc::EOPNOTSUPP,
        libc::ENOTBLK,
        libc::ENOTTY,
        libc::EPERM,
    ];
    error.raw_os_error().is_some_and(|code| absent.contains(&code))
}

fn attributes(fd: impl AsFd) -> io::Result<FileAttributes> {
    let mut attributes = MaybeUninit::<FileAttributes>::zeroed();
    // SAFETY: the kernel fills the structure, which is valid with any bytes in it.
    unsafe {
        if libc::ioctl(fd.as_fd().as_raw_fd(), FS_IOC_FSGETXATTR as _, attributes.as_mut_ptr()) != 0
        {
            return Err(io::Error::last_os_error());
        }
        Ok(attributes.assume_init())
    }
}

/// Returns the project a file or directory belongs to; 0 where there are none.
pub fn project_of(fd: impl AsFd) -> io::Result<u32> {
    match attributes(fd) {
        Ok(attributes) => Ok(attributes.project),
        Err(error) if is_absent(&error) => Ok(0),
        Err(error) => Err(error),
    }
}

/// Lets an empty directory, and all that will be made in it, belong to a project.
pub fn join_project(directory: impl AsFd, project: u32) -> io::Result<()> {
    let mut attributes = attributes(&directory)?;
    attributes.project = project;
    attributes.flags |= FS_XFLAG_PROJINHERIT;
    let fd = directory.as_fd().as_raw_fd();
    // SAFETY: the kernel reads the structure, which lives through the call.
    let result =
        unsafe { libc::ioctl(fd, FS_IOC_FSSETXATTR as _, std::ptr::from_ref(&attributes)) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests;
