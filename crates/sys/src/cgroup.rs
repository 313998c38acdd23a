//! Control groups, versions 1 and 2: creating, limiting, freezing, killing, measuring, removing.
//! What limits a container should have is decided elsewhere.

mod bus;
mod events;
mod file;
mod layout;
mod resources;
mod stats;
mod systemd;
mod tree;
mod v1;
mod v2;

use std::os::fd::BorrowedFd;
use std::sync::Mutex;
use std::time::Duration;

use rorqual_core::{Classify, ErrorKind};

pub use events::OomEvents;
pub use layout::{Layout, Version};
pub use resources::{
    Access, BlockIo, Cpu, DeviceKind, DeviceLimit, DeviceRule, DeviceWeight, Hugepages, Memory,
    NetworkPriority, Rdma, Resources,
};
pub use stats::{BlockEntry, BlockStats, CpuStats, MemoryStats, PidsStats, Stats};

/// LIMIT: how long a freezing, an emptying or a removal may take before it is called stuck.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who makes the control group.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// This process, by making directories.
    #[default]
    Cgroupfs,
    /// The running systemd, as a scope. The path then has the form `slice:prefix:name`.
    Systemd,
}

impl Driver {
    /// Returns who makes the group that a specification calls `path`, which starts with a slash or has systemd's form.
    pub fn of_path(path: &str) -> Self {
        if !path.starts_with('/') && path.split(':').count() == 3 {
            Self::Systemd
        } else {
            Self::Cgroupfs
        }
    }
}

/// A control group operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No cgroup file system is mounted where it must be.
    #[error("no control group file system is mounted on /sys/fs/cgroup")]
    NotMounted,
    /// A path that leaves its root or is empty.
    #[error("invalid control group path {0:?}")]
    Path(String),
    /// A description not made by [`Cgroup::description`].
    #[error("invalid control group description {0:?}")]
    Description(String),
    /// The kernel has no such control.
    #[error("{0}")]
    Unsupported(String),
    /// A file of the group cannot be read or written.
    #[error("cannot {action} {file} of control group {path:?}")]
    File {
        /// `read`, `write "value" to`, …
        action: String,
        /// The file's name.
        file: String,
        /// The group's path.
        path: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Something took longer than it ever should.
    #[error("control group {path:?} is still {state} after {} s", PATIENCE.as_secs())]
    Stuck {
        /// The group's path.
        path: String,
        /// What it should not be.
        state: &'static str,
    },
    /// systemd refused or is not there.
    #[error("cannot {action} through systemd: {reason}")]
    Systemd {
        /// What was tried.
        action: String,
        /// Why it did not work.
        reason: String,
    },
}

impl Classify for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Path(_) | Self::Description(_) => ErrorKind::InvalidArgument,
            Self::Unsupported(_) | Self::NotMounted => ErrorKind::Unsupported,
            Self::Systemd { .. } => ErrorKind::Unavailable,
            Self::File { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                ErrorKind::NotFound
            }
            Self::File { source, .. } if source.raw_os_error() == Some(libc::EINVAL) => {
                ErrorKind::InvalidArgument
            }
            Self::File { .. } | Self::Stuck { .. } => ErrorKind::Internal,
        }
    }
}

/// A limit that was asked for and cannot be kept, in words for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning(pub String);

/// One control group, on all hierarchies of the host.
#[derive(Debug)]
pub struct Cgroup {
    kind: Kind,
    /// Keeps a fresh scope of systemd alive until somebody else is in it.
    placeholder: Mutex<Option<systemd::Placeholder>>,
}

#[derive(Debug)]
enum Kind {
    V1(v1::Group),
    V2(v2::Group),
}

impl Cgroup {
    /// Makes the group `path`, with the groups above it where they are missing.
    ///
    /// With [`Driver::Cgroupfs`] the path starts at the root of the mounted hierarchies. It is no
    /// fault when the group exists already.
    pub fn create(path: &str, driver: Driver) -> Result<Self, Error> {
        Self::create_for(path, driver, &Resources::default())
    }

    /// Kills and removes the group that [`Cgroup::create`] would make, if it is there.
    pub fn remove_at(path: &str, driver: Driver) -> Result<(), Error> {
        let layout = Layout::current()?;
        let path = match driver {
            Driver::Cgroupfs => tree::clean(path)?,
            Driver::Systemd => systemd::Scope::parse(path)?.path(),
        };
        let kind = match layout.version() {
            // Making it again is no fault, and the only way to all of its hierarchies.
            Version::V1 => Kind::V1(v1::Group::create(layout, &path)?),
            Version::V2 => match v2::Group::open(layout, &[(Vec::new(), path)]) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                other => Kind::V2(other?),
            },
        };
        let group = Self { kind, placeholder: Mutex::default() };
        group.kill_all()?;
        group.delete()
    }

    /// Makes the group `path` as [`Cgroup::create`] does; systemd is told the limits, which [`Cgroup::write`] then sets.
    pub fn create_for(path: &str, driver: Driver, resources: &Resources) -> Result<Self, Error> {
        let layout = Layout::current()?;
        if driver == Driver::Systemd {
            return Self::create_scope(layout, &systemd::Scope::parse(path)?, resources);
        }
        let path = tree::clean(path)?;
        let kind = match layout.version() {
            Version::V1 => Kind::V1(v1::Group::create(layout, &path)?),
            Version::V2 => Kind::V2(v2::Group::create(layout, &path)?),
        };
        Ok(Self { kind, placeholder: Mutex::default() })
    }

    fn create_scope(
        layout: &'static Layout,
        scope: &systemd::Scope,
        resources: &Resources,
    ) -> Result<Self, Error> {
        let placeholder = systemd::start(scope, resources, layout.version())?;
        let path = scope.path();
        let kind = match layout.version() {
            // systemd makes the group only in the hierarchies it uses itself.
            Version::V1 => Kind::V1(v1::Group::create(layout, &path)?),
            Version::V2 => Kind::V2(v2::Group::open(layout, &[(Vec::new(), path)])?),
        };
        Ok(Self { kind, placeholder: Mutex::new(Some(placeholder)) })
    }

    /// Opens the group a [`Cgroup::description`] or the text of a `/proc/PID/cgroup` names.
    pub fn open(description: &str) -> Result<Self, Error> {
        let layout = Layout::current()?;
        let places = tree::parse_description(description)?;
        let kind = match layout.version() {
            Version::V1 => Kind::V1(v1::Group::open(layout, &places)?),
            Version::V2 => Kind::V2(v2::Group::open(layout, &places)?),
        };
        Ok(Self { kind, placeholder: Mutex::default() })
    }

    /// Returns the group's paths, one line per hierarchy as in `/proc/PID/cgroup`.
    pub fn description(&self) -> String {
        match &self.kind {
            Kind::V1(group) => group.description(),
            Kind::V2(group) => group.description(),
        }
    }

    /// Tells the version of the group.
    pub fn version(&self) -> Version {
        match &self.kind {
            Kind::V1(_) => Version::V1,
            Kind::V2(_) => Version::V2,
        }
    }

    /// Returns the directory to give to `clone3(2)` with `CLONE_INTO_CGROUP`; `None` on version 1.
    pub fn directory(&self) -> Option<BorrowedFd<'_>> {
        match &self.kind {
            Kind::V1(_) => None,
            Kind::V2(group) => Some(group.directory()),
        }
    }

    /// Moves process `pid` with all its threads into the group.
    pub fn add(&self, pid: i32) -> Result<(), Error> {
        match &self.kind {
            Kind::V1(group) => group.add(pid)?,
            Kind::V2(group) => group.add(pid)?,
        }
        self.joined();
        Ok(())
    }

    /// Says that a process has come in by [`Cgroup::directory`] or [`Cgroup::enter`], as
    /// [`Cgroup::add`] knows by itself.
    ///
    /// With [`Driver::Systemd`] the group of a just created container is kept alive until then, or until
    /// this value is dropped.
    pub fn joined(&self) {
        let placeholder = self.placeholder.lock().map(|mut held| held.take());
        drop(placeholder);
    }

    /// Moves the calling thread, which must be its process's only one, into the group.
    ///
    /// Much faster than [`Cgroup::add`] on version 1, and allocates nothing unless it fails: a fresh
    /// child may call it between clone and exec.
    pub fn enter(&self) -> std::io::Result<()> {
        match &self.kind {
            Kind::V1(group) => group.enter(),
            Kind::V2(group) => group.enter(),
        }
    }

    /// Sets the limits that are given and leaves the others; also on a running container.
    ///
    /// # Errors
    ///
    /// A value the kernel refuses. What it has no control for is a [`Warning`] where the container
    /// works without, and an error where it would not be what was asked for.
    pub fn apply(&self, resources: &Resources) -> Result<Vec<Warning>, Error> {
        if let Some(unit) = systemd::unit_of(&self.description()) {
            let memory = match &self.kind {
                Kind::V1(_) => None,
                Kind::V2(group) => group.memory_limit(),
            };
            systemd::tell(unit, resources, self.version(), memory)?;
        }
        self.write(resources)
    }

    /// Sets the limits as [`Cgroup::apply`] does, but for telling systemd.
    ///
    /// # Errors
    ///
    /// As those of [`Cgroup::apply`].
    pub fn write(&self, resources: &Resources) -> Result<Vec<Warning>, Error> {
        match &self.kind {
            Kind::V1(group) => group.apply(resources),
            Kind::V2(group) => group.apply(resources),
        }
    }

    /// Stops all processes of the group and of those below it; returns once they stand still.
    pub fn freeze(&self) -> Result<(), Error> {
        match &self.kind {
            Kind::V1(group) => group.freeze(),
            Kind::V2(group) => group.freeze(),
        }
    }

    /// Lets the processes go on.
    pub fn thaw(&self) -> Result<(), Error> {
        match &self.kind {
            Kind::V1(group) => group.thaw(),
            Kind::V2(group) => group.thaw(),
        }
    }

    /// Tells whether the group is frozen.
    pub fn is_frozen(&self) -> Result<bool, Error> {
        match &self.kind {
            Kind::V1(group) => group.is_frozen(),
            Kind::V2(group) => group.is_frozen(),
        }
    }

    /// Lists the ids of the processes in the group, with `recursive` also of those below it.
    pub fn processes(&self, recursive: bool) -> Result<Vec<i32>, Error> {
        match &self.kind {
            Kind::V1(group) => group.processes(recursive),
            Kind::V2(group) => group.processes(recursive),
        }
    }

    /// Sends `SIGKILL` to every process in the group and below, also to those born meanwhile.
    ///
    /// A frozen group is thawed. Returns once the signals are sent, not once the processes are gone.
    pub fn kill_all(&self) -> Result<(), Error> {
        match &self.kind {
            Kind::V1(group) => group.kill_all(),
            Kind::V2(group) => group.kill_all(),
        }
    }

    /// Removes the group and those below it; no fault if it is gone already.
    ///
    /// Waits a while for dying processes to leave it.
    pub fn delete(&self) -> Result<(), Error> {
        self.joined();
        let stopped = systemd::unit_of(&self.description()).map_or(Ok(()), systemd::stop);
        // What systemd cannot be told it notices by itself, so the group goes in any case.
        match &self.kind {
            Kind::V1(group) => group.delete()?,
            Kind::V2(group) => group.delete()?,
        }
        stopped
    }

    /// Reads what the group has used.
    pub fn stats(&self) -> Result<Stats, Error> {
        match &self.kind {
            Kind::V1(group) => group.stats(),
            Kind::V2(group) => group.stats(),
        }
    }

    /// Starts watching for the kernel running out of the group's memory.
    pub fn watch_oom(&self) -> Result<OomEvents, Error> {
        match &self.kind {
            Kind::V1(group) => group.watch_oom(),
            Kind::V2(group) => group.watch_oom(),
        }
    }

    /// Returns how many processes of the group were killed for lack of memory.
    pub fn oom_kills(&self) -> Result<u64, Error> {
        match &self.kind {
            Kind::V1(group) => group.oom_kills(),
            Kind::V2(group) => group.oom_kills(),
        }
    }
}

#[cfg(test)]
mod tests;
