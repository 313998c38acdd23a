//! What callers hand to the runtime and get back. How it is done is in the plan modules.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use oci_spec::runtime::{Process, Spec};
use rorqual_core::mount::RootfsPlan;

use crate::Filter;
use crate::hooks::HookSet;
use crate::listener::Agent;
use crate::rdt::Membership;

/// Kinds of namespaces, see `namespaces(7)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Namespace {
    /// `CLONE_NEWCGROUP`
    Cgroup,
    /// `CLONE_NEWIPC`
    Ipc,
    /// `CLONE_NEWNS`
    Mount,
    /// `CLONE_NEWNET`
    Network,
    /// `CLONE_NEWPID`
    Pid,
    /// `CLONE_NEWTIME`
    Time,
    /// `CLONE_NEWUSER`
    User,
    /// `CLONE_NEWUTS`
    Uts,
}

/// A namespace to join by descriptor; wins over a path of the same kind in the specification.
#[derive(Debug)]
pub struct Joined {
    /// Which kind.
    pub kind: Namespace,
    /// An open `/proc/PID/ns/KIND` file or a pidfd.
    pub fd: OwnedFd,
}

/// Where the first three descriptors of the process come from.
#[derive(Debug)]
pub enum Stdio {
    /// The caller's own.
    Inherit,
    /// The given ones, in the order standard input, output, error.
    Pipes([OwnedFd; 3]),
    /// A new pseudo terminal made inside the container's `devpts`; its master is handed back.
    Terminal {
        /// Columns and rows, zero for unknown.
        size: (u16, u16),
    },
}

/// Whether the process waits for [`Created::start`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barrier {
    /// Stops right before `execve(2)` until [`Created::start`] (OCI `create`).
    Wait,
    /// Goes straight on; [`crate::create`] returns once `execve(2)` has succeeded or failed.
    Pass,
}

/// Who the process runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProcessUser {
    /// Exactly the ids of `process.user` in the specification.
    Spec,
    /// `user[:group]` as Docker writes it, looked up in the container's own `/etc/passwd` and
    /// `/etc/group` after the root has been changed; also sets `HOME` where the environment has none.
    Lookup {
        /// Name or id, optionally with a group name or id; empty means root.
        user: String,
        /// Further groups, names or ids.
        groups: Vec<String>,
    },
}

/// A container to create.
#[derive(Debug)]
pub struct ContainerRequest {
    /// The OCI container id.
    pub id: String,
    /// Absolute path of the bundle: relative paths of the specification start here.
    pub bundle: PathBuf,
    /// The OCI runtime specification.
    pub spec: Spec,
    /// The root file system; performed inside the new mount namespace.
    pub rootfs: RootfsPlan,
    /// Namespaces given by descriptor.
    pub joined: Vec<Joined>,
    /// Standard streams.
    pub stdio: Stdio,
    /// Who to run as.
    pub user: ProcessUser,
    /// Whether to wait before `execve(2)`.
    pub barrier: Barrier,
    /// The system call filter, in place of the specification's seccomp section.
    pub filter: Option<Filter>,
}

/// A container whose init process exists.
#[derive(Debug)]
pub struct Created {
    /// Init's process id in the caller's pid namespace.
    pub pid: i32,
    /// Refers to init whatever becomes of its number.
    pub pidfd: OwnedFd,
    /// Master of the pseudo terminal, for [`Stdio::Terminal`].
    pub terminal: Option<OwnedFd>,
    /// Cgroup paths of the container, one line per hierarchy as in `/proc/PID/cgroup`; enough to open it again.
    pub cgroup: String,
    /// Its shares of caches and memory bandwidth.
    pub(crate) class: Option<Membership>,
    /// The root's overlay, where it is one. Whoever drops the last reference to it waits for the writable layer's file
    /// system to be synced: as long as this is held, the end of the container's mount namespace does not.
    pub rootfs: Option<OwnedFd>,
    /// What was asked and could not be done, in words for the user.
    pub warnings: Vec<String>,
    /// Held until [`Created::start`]; `None` behind [`Barrier::Pass`].
    pub(crate) barrier: Option<OwnedFd>,
    /// Who gets the listener of the system call filter.
    pub(crate) agent: Option<Agent>,
    /// Those that run once the program does.
    pub(crate) hooks: HookSet,
}

/// An extra process for a running container.
#[derive(Debug)]
pub struct ExecRequest {
    /// The OCI container id.
    pub id: String,
    /// Absolute path of the container's bundle.
    pub bundle: PathBuf,
    /// Init of the container to join.
    pub target_pid: i32,
    /// Pidfd of the same process.
    pub target: OwnedFd,
    /// The OCI process to start.
    pub process: Process,
    /// The seccomp section and the rest of the container's specification, as for its init.
    pub spec: Spec,
    /// `/proc/PID/cgroup`-like lines of [`Created::cgroup`].
    pub cgroup: String,
    /// Standard streams.
    pub stdio: Stdio,
    /// Who to run as.
    pub user: ProcessUser,
    /// The system call filter, in place of the specification's seccomp section.
    pub filter: Option<Filter>,
}

/// An extra process that runs.
#[derive(Debug)]
pub struct Executed {
    /// Process id in the caller's pid namespace.
    pub pid: i32,
    /// Refers to the process whatever becomes of its number.
    pub pidfd: OwnedFd,
    /// Master of the pseudo terminal, for [`Stdio::Terminal`].
    pub terminal: Option<OwnedFd>,
}
