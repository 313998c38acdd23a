//! Containers on disk: one directory each below the root, with a state record, a copy of the specification, and the
//! socket that `start` connects to.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci_spec::runtime::Spec;
use rorqual_sys::cgroup::Cgroup;
use rorqual_sys::{process, seqpacket};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::{Failure, document};

const START: &str = "start";

/// What is known of a container between two calls.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub version: String,
    pub id: String,
    pub pid: i32,
    /// Tells two processes of the same number apart.
    pub start_time: u64,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    pub created: String,
    pub owner: String,
    pub cgroup: String,
    /// Its shares of caches and memory bandwidth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<crate::rdt::Membership>,
    pub annotations: std::collections::BTreeMap<String, String>,
}

/// OCI status of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// The root directory.
pub(super) struct Store(PathBuf);

impl Store {
    pub(super) fn new(root: PathBuf) -> Self {
        Self(root)
    }

    fn directory(&self, id: &str) -> Result<PathBuf, Failure> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
        if id.is_empty() || !id.chars().all(allowed) || id == "." || id == ".." {
            return Err(Failure::new("invalid id format"));
        }
        Ok(self.0.join(id))
    }

    /// Claims an id; the directory vanishes again unless [`Claim::keep`] is called.
    pub(super) fn claim(&self, id: &str) -> Result<Claim, Failure> {
        use std::os::unix::fs::DirBuilderExt as _;
        let path = self.directory(id)?;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(&self.0)
            .map_err(|error| Failure::io(&format!("cannot create {:?}", self.0), &error))?;
        match fs::DirBuilder::new().mode(0o711).create(&path) {
            Ok(()) => Ok(Claim { path, keep: false }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(Failure::new("container with given ID already exists"))
            }
            Err(error) => Err(Failure::io(&format!("cannot create {path:?}"), &error)),
        }
    }

    pub(super) fn load(&self, id: &str) -> Result<Container, Failure> {
        let path = self.directory(id)?;
        let text = match fs::read_to_string(path.join("state.json")) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Failure::new("container does not exist"));
            }
            Err(error) => return Err(Failure::io("cannot read state.json", &error)),
        };
        let record = serde_json::from_str(&text)
            .map_err(|error| Failure::new(format!("cannot read state.json: {error}")))?;
        Ok(Container { path, record })
    }

    pub(super) fn ids(&self) -> Vec<String> {
        let mut ids: Vec<String> = fs::read_dir(&self.0)
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        ids.sort();
        ids
    }

    /// Removes what a failed creation left behind.
    pub(super) fn forget(&self, id: &str) -> Result<(), Failure> {
        let path = self.directory(id)?;
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Failure::io(&format!("cannot remove {path:?}"), &error))
            }
            _ => Ok(()),
        }
    }
}

/// An id that is being filled.
pub(super) struct Claim {
    path: PathBuf,
    keep: bool,
}

impl Claim {
    /// Makes the socket at which init will wait for `start`.
    pub(super) fn listen(&self) -> io::Result<OwnedFd> {
        let listener = seqpacket::listen(std::os::fd::AsFd::as_fd(&open(&self.path)?), START, 1)?;
        rustix::io::ioctl_fionbio(&listener, false)?;
        Ok(listener)
    }

    pub(super) fn save(&self, record: &Record, config: &[u8]) -> io::Result<()> {
        fs::write(self.path.join("config.json"), config)?;
        let temporary = self.path.join("state.json.new");
        fs::write(&temporary, serde_json::to_vec(record)?)?;
        fs::rename(temporary, self.path.join("state.json"))
    }

    /// Tells that the program runs.
    pub(super) fn started(&self) {
        // Absent is what it should be.
        let _ = fs::remove_file(self.path.join(START));
    }

    pub(super) fn keep(mut self) {
        self.keep = true;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.keep {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// A container with a record.
pub(super) struct Container {
    path: PathBuf,
    pub record: Record,
}

impl Container {
    pub(super) fn spec(&self) -> Result<Spec, Failure> {
        read_spec(&self.path.join("config.json")).map(|read| read.spec)
    }

    /// Opens init; `None` when it has ended.
    pub(super) fn init(&self) -> Option<OwnedFd> {
        let pidfd = process::pidfd_open(self.record.pid).ok()?;
        // ORDER: compared after opening, so the descriptor is of the process that was looked at.
        let (state, start_time) = process_stat(self.record.pid)?;
        (start_time == self.record.start_time && !matches!(state, 'Z' | 'X')).then_some(pidfd)
    }

    /// Waits until the container has ended or the time is over.
    pub(super) fn await_end(&self, limit: Duration) {
        let Some(init) = self.init() else { return };
        let mut fds = [PollFd::new(&init, PollFlags::IN)];
        let limit =
            Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: i64::from(limit.subsec_nanos()) };
        // An interrupted wait is a short one.
        let _ = rustix::event::poll(&mut fds, Some(&limit));
    }

    pub(super) fn status(&self) -> Status {
        if self.init().is_none() {
            return Status::Stopped;
        }
        if self.path.join(START).exists() {
            return Status::Created;
        }
        let frozen = self.cgroup().and_then(|group| Ok(group.is_frozen()?));
        if frozen.unwrap_or(false) { Status::Paused } else { Status::Running }
    }

    /// Lists the processes of the container.
    pub(super) fn processes(&self) -> Result<Vec<i32>, Failure> {
        if self.record.cgroup.is_empty() {
            // Only init can be told from others; the rest ends with it where it has a pid namespace of its own.
            return Ok(self.init().map(|_| self.record.pid).into_iter().collect());
        }
        Ok(self.cgroup()?.processes(true)?)
    }

    pub(super) fn cgroup(&self) -> Result<Cgroup, Failure> {
        if self.record.cgroup.is_empty() {
            return Err(Failure::new("the container has no control group"));
        }
        Ok(Cgroup::open(&self.record.cgroup)?)
    }

    /// Connects to the waiting init.
    pub(super) fn connect(&self) -> io::Result<OwnedFd> {
        seqpacket::connect(std::os::fd::AsFd::as_fd(&open(&self.path)?), START)
    }

    pub(super) fn started(&self) {
        // Absent is what it should be.
        let _ = fs::remove_file(self.path.join(START));
    }
}

/// Reads state and start time of a process.
pub(super) fn process_stat(pid: i32) -> Option<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may contain anything.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// A specification, its bytes, and what of it has to be left out.
pub(super) struct ReadSpec {
    pub spec: Spec,
    pub bytes: Vec<u8>,
    pub warnings: Vec<String>,
}

/// Reads a specification.
pub(super) fn read_spec(path: &Path) -> Result<ReadSpec, Failure> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Failure::new("JSON specification file config.json not found"));
        }
        Err(error) => return Err(Failure::io(&format!("cannot read {path:?}"), &error)),
    };
    let (spec, warnings) = document::spec(&bytes)
        .map_err(|error| Failure::new(format!("cannot read {path:?}: {error}")))?;
    Ok(ReadSpec { spec, bytes, warnings })
}

/// Writes a process id where the caller asked for it, all or nothing.
pub(super) fn write_pid_file(path: &Path, pid: i32) -> Result<(), Failure> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let temporary = path.with_file_name(format!(".{name}"));
    let write = || -> io::Result<()> {
        use std::io::Write as _;
        File::create(&temporary)?.write_all(pid.to_string().as_bytes())?;
        fs::rename(&temporary, path)
    };
    write().map_err(|error| Failure::io(&format!("cannot write {path:?}"), &error))
}
