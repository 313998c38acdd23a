//! The contract between the engine and running containers.
//!
//! Life of a task: the engine fills a [`Launch`] and calls [`Tasks::launch`]; when that returns, the program runs.
//! [`Task::exit`] resolves once it has ended, whoever asks and however late. When the engine has written the exit down
//! it calls [`Task::release`], and the shim and its record vanish. A daemon that starts calls [`Tasks::adopt`] for every
//! container it believes to run, and then [`Tasks::sweep`] for what nobody owns.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use async_trait::async_trait;
use oci_spec::runtime::{LinuxResources, LinuxSeccomp, Process, Spec};
use rorqual_core::mount::RootfsPlan;
use rorqual_core::{ContainerId, ExecId, Signal, Timestamp};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::log::LogTarget;

/// Tells the runs of one container apart, so that a late report about an earlier run is harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskId(pub u64);

/// Columns and rows of a terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// One reader or writer of a process's streams: the far end of a socket pair whose near end the daemon keeps.
///
/// Towards the daemon flow raw bytes for a terminal, else Docker's 8-byte framed stream (`[stream, 0, 0, 0, length
/// as big-endian u32]`); towards the process flow raw bytes, and shutting down the writing side ends its standard input.
/// A reader that does not keep up stalls the process like any pipe; closing the socket frees it.
#[derive(Debug)]
pub struct Attachment {
    /// The socket handed to the shim.
    pub socket: UnixStream,
    /// Bytes read from the socket go to standard input.
    pub stdin: bool,
    /// Standard output is wanted.
    pub stdout: bool,
    /// Standard error is wanted.
    pub stderr: bool,
}

/// A namespace given by descriptor.
#[derive(Debug)]
pub struct NamespaceFd {
    /// OCI name: `network`, `pid`, `ipc`, `uts`, `user`, `cgroup`, `mount`, `time`.
    pub kind: &'static str,
    /// The namespace.
    pub fd: OwnedFd,
}

/// A container to start.
#[derive(Debug)]
pub struct Launch {
    /// Whose task.
    pub container: ContainerId,
    /// Which run of it.
    pub task: TaskId,
    /// OCI specification; `process.terminal` decides between pipes and a pseudo terminal.
    pub spec: Spec,
    /// System call filter, in place of the specification's own section. One value for all containers that share it is
    /// compiled only once.
    pub seccomp: Option<Arc<LinuxSeccomp>>,
    /// Root file system.
    pub rootfs: RootfsPlan,
    /// `user[:group]` to look up inside the container; empty means root.
    pub user: String,
    /// Further groups to look up inside the container.
    pub groups: Vec<String>,
    /// Namespaces given by descriptor.
    pub namespaces: Vec<NamespaceFd>,
    /// Whether standard input stays open without a reader's input (`-i`).
    pub open_stdin: bool,
    /// Whether standard input closes after the first attached client left.
    pub stdin_once: bool,
    /// First size of the terminal.
    pub window: WindowSize,
    /// Where the output is kept.
    pub log: LogTarget,
    /// Clients that attached before the start.
    pub attachments: Vec<Attachment>,
}

/// An extra process to start.
#[derive(Debug)]
pub struct ExecLaunch {
    /// Its identity.
    pub id: ExecId,
    /// OCI process; `terminal` decides between pipes and a pseudo terminal.
    pub process: Process,
    /// `user[:group]` to look up inside the container.
    pub user: String,
    /// Further groups.
    pub groups: Vec<String>,
    /// First size of the terminal.
    pub window: WindowSize,
    /// Its client; `None` when detached.
    pub attachment: Option<Attachment>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code; 128 + signal for a killed process.
    pub code: i32,
    /// Whether the kernel's out-of-memory killer struck in the container.
    pub oom_killed: bool,
    /// When.
    pub at: Timestamp,
    /// False when the shim died and the code (137) had to be assumed.
    pub witnessed: bool,
}

/// What became of a task that an earlier daemon knew.
pub enum Adoption {
    /// It runs.
    Running(Arc<dyn Task>),
    /// It ended; call [`Tasks::forget`] once that is written down.
    Ended(TaskId, Exit),
    /// There is neither a shim nor an exit record, as after a reboot.
    Unknown,
}

/// Who gets a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KillReach {
    /// The container's first process.
    Init,
    /// Every process of the container.
    All,
}

/// Usage counters of a container; units as in the Engine API's `ContainerStatsResponse`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// CPU time in ns: all, user mode, kernel mode.
    pub cpu: [u64; 3],
    /// CPU time in ns per CPU; empty on cgroup v2.
    pub cpu_per_core: Vec<u64>,
    /// Periods, throttled periods, throttled ns.
    pub throttling: [u64; 3],
    /// Memory in bytes: usage, highest usage (0 on v2), limit, times the limit was hit.
    pub memory: [u64; 4],
    /// The lines of `memory.stat`.
    pub memory_stat: Vec<(String, u64)>,
    /// Number of processes and the limit (`None`: no limit).
    pub pids: (u64, Option<u64>),
    /// `(major, minor, operation, bytes)` of block I/O.
    pub blkio_bytes: Vec<(u64, u64, String, u64)>,
    /// `(major, minor, operation, count)` of block I/O.
    pub blkio_ops: Vec<(u64, u64, String, u64)>,
    /// Interface name and `[rx bytes, packets, errors, dropped, tx bytes, packets, errors, dropped]`.
    pub networks: Vec<(String, [u64; 8])>,
    /// Whether the host runs cgroup v2.
    pub unified: bool,
}

/// What `top` shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessTable {
    /// Column titles.
    pub titles: Vec<String>,
    /// A row per process.
    pub rows: Vec<Vec<String>>,
}

/// Starts tasks and finds them again.
#[async_trait]
pub trait Tasks: Send + Sync + 'static {
    /// Starts a container; its program runs when this returns. On failure nothing of it is left.
    async fn launch(&self, launch: Launch) -> Result<Arc<dyn Task>, Error>;

    /// Finds out what became of a container's task that an earlier daemon started.
    async fn adopt(&self, container: ContainerId) -> Result<Adoption, Error>;

    /// Drops the exit record of an adopted task that had ended.
    async fn forget(&self, container: ContainerId) -> Result<(), Error>;

    /// Ends the shim of a container that does not answer, and the container with it; what became of the task is found
    /// by its records. With `init`, the shim of a container whose first process is still there is left alone: it has
    /// nothing to tell. Nothing to do is no failure.
    async fn put_down(&self, container: ContainerId, init: Option<i32>) -> Result<(), Error>;

    /// Ends every shim and container whose id is not in `known`; returns their ids.
    async fn sweep(&self, known: &[ContainerId]) -> Result<Vec<ContainerId>, Error>;
}

/// A running container.
#[async_trait]
pub trait Task: Send + Sync + 'static {
    /// Which run this is.
    fn id(&self) -> TaskId;
    /// Init's process id on the host.
    fn pid(&self) -> i32;
    /// When the program started.
    fn started_at(&self) -> Timestamp;
    /// What was asked for and could not be done, in words for the user.
    fn warnings(&self) -> Vec<String>;
    /// Waits for the end. Cancelling it loses nothing: ask again. Never fails: a dead shim is an unwitnessed exit, and
    /// whatever it left of the container has been killed by then.
    async fn exit(&self) -> Exit;
    /// Waits for the next out-of-memory kill in the container (for events); pends for ever when none comes.
    async fn out_of_memory(&self);
    /// Lets shim and record go, once the exit is written down.
    async fn release(&self) -> Result<(), Error>;
    /// Sends a signal.
    async fn signal(&self, signal: Signal, reach: KillReach) -> Result<(), Error>;
    /// Freezes all processes.
    async fn pause(&self) -> Result<(), Error>;
    /// Thaws all processes.
    async fn unpause(&self) -> Result<(), Error>;
    /// Tells the terminal its size.
    async fn resize(&self, window: WindowSize) -> Result<(), Error>;
    /// Adds a client.
    async fn attach(&self, attachment: Attachment) -> Result<(), Error>;
    /// Changes limits.
    async fn update(&self, resources: LinuxResources) -> Result<(), Error>;
    /// Reads usage counters.
    async fn stats(&self) -> Result<Stats, Error>;
    /// Lists processes as `ps` does for these arguments.
    async fn processes(&self, ps_args: &str) -> Result<ProcessTable, Error>;
    /// Starts an extra process; it runs when this returns.
    async fn exec(&self, launch: ExecLaunch) -> Result<Arc<dyn Exec>, Error>;
    /// Finds an extra process again that an earlier daemon started.
    async fn find_exec(&self, id: ExecId) -> Result<Arc<dyn Exec>, Error>;
}

/// An extra process.
#[async_trait]
pub trait Exec: Send + Sync + 'static {
    /// Its process id on the host.
    fn pid(&self) -> i32;
    /// Waits for its end; 137 when the container ends under it.
    async fn exit(&self) -> Exit;
    /// Tells its terminal the size.
    async fn resize(&self, window: WindowSize) -> Result<(), Error>;
    /// Sends it a signal.
    async fn signal(&self, signal: Signal) -> Result<(), Error>;
}
