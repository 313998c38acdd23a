//! The daemon's own places on the host: roots, lock, pid file, group, its id.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// A place that cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HostError {
    /// A call failed.
    #[error("cannot {action}")]
    Io {
        /// What was tried, on what.
        action: String,
        /// Why.
        source: io::Error,
    },
    /// Another daemon uses the root.
    #[error("cannot use {}: another daemon uses it", .0.display())]
    InUse(PathBuf),
    /// The pid file names a process that lives.
    #[error("process with PID {pid} is still running: remove {} if it is no daemon", path.display())]
    Running {
        /// Which.
        pid: i32,
        /// The file.
        path: PathBuf,
    },
}

fn failed(action: impl Into<String>) -> impl FnOnce(io::Error) -> HostError {
    let action = action.into();
    move |source| HostError::Io { action, source }
}

/// Makes a root with Docker's mode; an existing one keeps its owner and gets the mode.
pub(crate) fn make_root(path: &Path, mode: u32) -> Result<(), HostError> {
    let name = path.display();
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed(format!("make {}", parent.display())))?;
    }
    match fs::DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(failed(format!("make {name}"))(error));
        }
        _ => {}
    }
    // The umask may have taken bits away.
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(failed(format!("set the mode of {name}")))
}

/// Takes a root for this process alone; the lock goes with the process, however it ends.
pub(crate) fn lock(root: &Path) -> Result<File, HostError> {
    let path = root.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(failed(format!("open {}", path.display())))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(HostError::InUse(root.to_owned())),
        Err(error) => Err(failed(format!("lock {}", path.display()))(error.into())),
    }
}

/// A pid file, gone with the daemon.
pub(crate) struct PidFile(PathBuf);

impl PidFile {
    /// Writes it, unless it names a process that lives.
    pub(crate) fn write(path: &Path) -> Result<Self, HostError> {
        if let Some(pid) =
            fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<i32>().ok())
            && pid != std::process::id() as i32
            && lives(pid)
        {
            return Err(HostError::Running { pid, path: path.to_owned() });
        }
        let action = || format!("write {}", path.display());
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed(action()))?;
        }
        let text = std::process::id().to_string();
        let mut options = OpenOptions::new();
        let opened = options.create(true).write(true).truncate(true).mode(0o644).open(path);
        opened.and_then(|mut file| file.write_all(text.as_bytes())).map_err(failed(action()))?;
        Ok(Self(path.to_owned()))
    }
}

/// Tells whether a process runs. One that has ended and waits to be reaped does not: where nobody reaps orphans, a
/// killed daemon would stand in the way of the next for ever.
fn lives(pid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let state =
        stat.rsplit_once(')').map(|(_, rest)| rest.trim_start().as_bytes().first().copied());
    !matches!(state.flatten(), Some(b'Z' | b'X'))
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let is_ours = fs::read_to_string(&self.0)
            .is_ok_and(|text| text.trim() == std::process::id().to_string());
        if is_ours {
            fs::remove_file(&self.0).ok();
        }
    }
}

/// Returns the daemon's id, drawn at the first start.
pub(crate) fn daemon_id(root: &Path) -> Result<String, HostError> {
    let path = root.join("engine-id");
    match fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed(format!("read {}", path.display()))(error));
        }
        _ => {}
    }
    let id = fs::read_to_string("/proc/sys/kernel/random/uuid")
        .map_err(failed("draw an id"))?
        .trim()
        .to_owned();
    rorqual_store::atomic::write(&path, id.as_bytes(), 0o600)
        .map_err(|error| failed(format!("write {}", path.display()))(io::Error::other(error)))?;
    Ok(id)
}

/// Finds a group by name or number in `/etc/group`.
pub(crate) fn group(name: &str) -> Option<u32> {
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    let find = |line: &str| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    };
    groups.lines().find_map(find).or_else(|| name.parse().ok())
}

#[cfg(test)]
mod tests;
