//! Files of a shim's directory `<run dir>/shims/<container id>/`: what outlives the shim.
//!
//! `sock` is the shim's socket, `task` says what runs, `exit` says how it ended. Each file appears complete or not.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rorqual_core::{ContainerId, Timestamp};
use rustix::fs::{AtFlags, Mode, OFlags};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::task::{Exit, TaskId};

pub(crate) const SOCKET: &str = "sock";
const TASK: &str = "task";
const EXIT: &str = "exit";
/// LIMIT: records are a few hundred bytes; cgroup paths may be long.
const SIZE: u64 = 256 * 1024;

/// What runs: enough to end it without its shim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TaskRecord {
    pub(crate) task: TaskId,
    pub(crate) shim_pid: i32,
    pub(crate) pid: i32,
    pub(crate) started_at: Timestamp,
    pub(crate) cgroup: String,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExitRecord {
    pub(crate) task: TaskId,
    pub(crate) exit: Exit,
}

/// An open shim directory.
#[derive(Debug)]
pub(crate) struct ShimDirectory {
    path: PathBuf,
    fd: OwnedFd,
}

/// Returns the directory that holds all shims' directories.
pub(crate) fn shims_dir(run_dir: &Path) -> PathBuf {
    run_dir.join("shims")
}

impl ShimDirectory {
    /// Makes the directory.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` when there is one.
    pub(crate) fn create(run_dir: &Path, container: ContainerId) -> io::Result<Self> {
        let path = shims_dir(run_dir).join(container.to_string());
        rustix::fs::mkdir(&path, Mode::RWXU)?;
        Self::open_path(path)
    }

    /// Opens the directory; `None` when there is none.
    pub(crate) fn open(run_dir: &Path, container: ContainerId) -> io::Result<Option<Self>> {
        match Self::open_path(shims_dir(run_dir).join(container.to_string())) {
            Ok(directory) => Ok(Some(directory)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn open_path(path: PathBuf) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        let fd = rustix::fs::open(&path, flags, Mode::empty())?;
        Ok(Self { path, fd })
    }

    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { path: self.path.clone(), fd: self.fd.try_clone()? })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(crate) fn write_task(&self, record: &TaskRecord) -> io::Result<()> {
        self.write(TASK, record)
    }

    pub(crate) fn write_exit(&self, record: &ExitRecord) -> io::Result<()> {
        self.write(EXIT, record)
    }

    pub(crate) fn task(&self) -> io::Result<Option<TaskRecord>> {
        self.read(TASK)
    }

    pub(crate) fn exit(&self) -> io::Result<Option<ExitRecord>> {
        self.read(EXIT)
    }

    fn write<T: Serialize>(&self, name: &str, record: &T) -> io::Result<()> {
        let unfinished = format!("{name}.new");
        let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(
            &self.fd,
            &unfinished,
            flags | OFlags::NOFOLLOW,
            Mode::RUSR | Mode::WUSR,
        )?);
        file.write_all(&serde_json::to_vec(record)?)?;
        Ok(rustix::fs::renameat(&self.fd, &unfinished, &self.fd, name)?)
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> io::Result<Option<T>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            other => File::from(other?),
        };
        let mut text = Vec::new();
        file.take(SIZE).read_to_end(&mut text)?;
        Ok(Some(serde_json::from_slice(&text)?))
    }

    /// Removes the directory and all that is in it.
    pub(crate) fn remove(&self) -> io::Result<()> {
        for name in [SOCKET, TASK, EXIT, "task.new", "exit.new"] {
            match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        match rustix::fs::rmdir(&self.path) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
