//! What users ask of the engine beside [`crate::spec::ContainerSpec`], and the short answers.

use std::collections::BTreeMap;

use rorqual_content::ImageConfig;
use rorqual_core::{ContainerId, ContainerName, Filters, ImageId, Platform, Reference, Timestamp};
use rorqual_shim::{Stats, WindowSize};
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;

use crate::logs::LogRecords;
use crate::spec::{Resources, RestartPolicy, StopTimeout};

/// Whether a call changed anything: 204 or 304 on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// It did.
    Yes,
    /// It was so already.
    Already,
}

/// A container that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// Its id.
    pub id: ContainerId,
    /// Words for the user.
    pub warnings: Vec<String>,
}

/// How to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StopRequest {
    /// Signal instead of the container's own.
    pub signal: Option<rorqual_core::Signal>,
    /// Time instead of the container's own.
    pub timeout: Option<StopTimeout>,
}

/// What `wait` waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WaitCondition {
    /// It does not run; at once when it does not.
    #[default]
    NotRunning,
    /// Its next end.
    NextExit,
    /// Its removal.
    Removed,
}

/// What `wait` learnt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitOutcome {
    /// Exit code.
    pub exit_code: i32,
    /// Why waiting failed (for instance because the removal did).
    pub error: Option<String>,
}

/// How to remove.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemoveRequest {
    /// Kill it first; a missing container is still an error.
    pub force: bool,
    /// Remove its anonymous volumes too.
    pub volumes: bool,
}

/// What to change of a container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UpdateRequest {
    /// Limits; `None` leaves each as it is.
    pub resources: Resources,
    /// Restart policy.
    pub restart: Option<RestartPolicy>,
}

/// Which containers to list.
#[derive(Clone, Debug, Default)]
pub struct ListRequest {
    /// Also those that do not run.
    pub all: bool,
    /// The last so many created, running or not.
    pub limit: Option<usize>,
    /// With sizes.
    pub size: bool,
    /// Docker's filters.
    pub filters: Filters,
}

/// How to attach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches of the request")]
pub struct AttachRequest {
    /// Replay the log first.
    pub logs: bool,
    /// Stay attached.
    pub stream: bool,
    /// Write to standard input.
    pub stdin: bool,
    /// Read standard output.
    pub stdout: bool,
    /// Read standard error.
    pub stderr: bool,
}

/// A client attached to a process. Dropping it detaches.
pub struct Attached {
    /// Whether the process has a terminal: bytes are raw then, else framed with Docker's 8-byte headers.
    pub tty: bool,
    /// What was logged before; to be sent first.
    pub logs: Option<LogRecords>,
    /// Both directions; shutting down writing ends standard input. `None` when only logs were asked for.
    pub stream: Option<UnixStream>,
}

/// An extra process to make.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches of the request")]
pub struct ExecSpec {
    /// Program with its arguments.
    pub command: Vec<String>,
    /// `NAME=value`, added to the container's.
    pub env: Vec<String>,
    /// `user[:group]`; empty: the container's.
    pub user: String,
    /// First directory; empty: the container's.
    pub working_dir: String,
    /// With all capabilities.
    pub privileged: bool,
    /// Give it a terminal.
    pub tty: bool,
    /// Connect standard input.
    pub stdin: bool,
    /// Connect standard output.
    pub stdout: bool,
    /// Connect standard error.
    pub stderr: bool,
    /// Detach keys as asked for, echoed by `inspect`.
    pub detach_keys: String,
    /// First size of the terminal.
    pub window: WindowSize,
}

/// How to start an exec.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExecStart {
    /// Do not connect a client.
    pub detach: bool,
    /// First size of the terminal, instead of the one at its making.
    pub window: Option<WindowSize>,
    /// Whether the client asked for a terminal; must agree with the exec's making, which decides.
    pub tty: bool,
}

/// An exec as `inspect` shows it.
#[derive(Clone, Debug)]
pub struct ExecView {
    /// Its id.
    pub id: rorqual_core::ExecId,
    /// Its container.
    pub container: ContainerId,
    /// What it runs.
    pub spec: ExecSpec,
    /// It runs.
    pub running: bool,
    /// How it ended.
    pub exit_code: Option<i32>,
    /// Its process id, 0 when it does not run.
    pub pid: i32,
}

/// Usage counters with what is needed to compute shares.
#[derive(Clone, Debug)]
pub struct StatsSample {
    /// Which container.
    pub id: ContainerId,
    /// Its name.
    pub name: ContainerName,
    /// When.
    pub read: Timestamp,
    /// Counters; all zero when it does not run.
    pub stats: Stats,
    /// CPU time of the whole host, ns.
    pub system_cpu: u64,
    /// CPUs that are online.
    pub online_cpus: u32,
    /// Whether the container runs.
    pub running: bool,
}

/// Making an image of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommitRequest {
    /// Its name.
    pub name: Option<Reference>,
    /// Remark.
    pub comment: String,
    /// Who.
    pub author: String,
    /// Freeze the container meanwhile.
    pub pause: bool,
    /// Dockerfile instructions that change the config.
    pub changes: Vec<String>,
    /// Config of the request's body, laid over the container's.
    pub config: Option<ImageConfig>,
}

/// What a prune removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Ids or names, in the order of removal.
    pub deleted: Vec<String>,
    /// Bytes freed.
    pub reclaimed: u64,
}

/// What `rmi` did, step by step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageRemoval {
    /// A name was taken away.
    Untagged(String),
    /// An image or layer is gone.
    Deleted(String),
}

/// What an image prune removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImagesPruned {
    /// Step by step.
    pub removed: Vec<ImageRemoval>,
    /// Bytes freed.
    pub reclaimed: u64,
}

/// How to remove an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImageRemoveRequest {
    /// Also while stopped containers use it, or several names lead to it.
    pub force: bool,
    /// Keep untagged parents.
    pub no_prune: bool,
}

/// One line of `history`, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryLine {
    /// Image id at this step, where known.
    pub id: Option<ImageId>,
    /// When.
    pub created: Option<Timestamp>,
    /// Command.
    pub created_by: String,
    /// Names of the image at this step.
    pub tags: Vec<String>,
    /// Bytes it added.
    pub size: u64,
    /// Remark.
    pub comment: String,
}

/// An image in a list.
#[derive(Clone, Debug)]
pub struct ImageSummary {
    /// The record.
    pub record: rorqual_content::ImageRecord,
    /// Bytes shared with other images, where asked for.
    pub shared_size: Option<u64>,
    /// Number of containers, where asked for.
    pub containers: Option<u64>,
    /// What its name leads to, where asked for.
    pub manifests: Option<Vec<ManifestUse>>,
}

/// A manifest that an image's name leads to, and who uses it.
#[derive(Clone, Debug)]
pub struct ManifestUse {
    /// The manifest.
    pub manifest: rorqual_transfer::ManifestSummary,
    /// Containers made of it.
    pub containers: Vec<ContainerId>,
}

/// Which images to list.
#[derive(Clone, Debug, Default)]
pub struct ImageListRequest {
    /// Compute shared sizes.
    pub shared_size: bool,
    /// List what the names lead to.
    pub manifests: bool,
    /// Docker's filters.
    pub filters: Filters,
}

/// Making an image of a root file system.
pub struct ImageImport {
    /// The tar, plain or compressed.
    pub archive: Box<dyn std::io::Read + Send>,
    /// Its name.
    pub name: Option<Reference>,
    /// Remark.
    pub message: String,
    /// Dockerfile instructions that make its config.
    pub changes: Vec<String>,
    /// The machine it is for.
    pub platform: Option<Platform>,
}

/// An image to fetch from its registry.
#[derive(Clone, Debug)]
pub struct ImagePull {
    /// Which.
    pub name: Reference,
    /// Everything that its repository has instead.
    pub all_tags: bool,
    /// For which machine; `None` for this one.
    pub platform: Option<Platform>,
    /// Who asks.
    pub auth: rorqual_transfer::RegistryAuth,
}

/// An image to send to a registry.
#[derive(Clone, Debug)]
pub struct ImagePush {
    /// Which, and where to.
    pub name: Reference,
    /// All tags of its repository instead.
    pub all_tags: bool,
    /// Only this platform's image.
    pub platform: Option<Platform>,
    /// Who asks.
    pub auth: rorqual_transfer::RegistryAuth,
}

/// Repositories to look for.
#[derive(Clone, Debug)]
pub struct ImageSearch {
    /// Words, perhaps with a registry in front.
    pub term: String,
    /// At most so many; zero for the default.
    pub limit: i64,
    /// Docker's filters.
    pub filters: Filters,
    /// Who asks.
    pub auth: rorqual_transfer::RegistryAuth,
}

/// A volume to make.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeSpec {
    /// Its name; made up when `None`.
    pub name: Option<rorqual_core::VolumeName>,
    /// Its driver; `None` is `local`.
    pub driver: Option<String>,
    /// Driver options.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// What `system df` shows.
#[derive(Clone, Debug, Default)]
pub struct DiskUsage {
    /// Bytes of all layers.
    pub layers: u64,
    /// Images with shared sizes and numbers of containers.
    pub images: Vec<ImageSummary>,
    /// Containers with sizes.
    pub containers: Vec<crate::view::ContainerView>,
    /// Volumes with usage.
    pub volumes: Vec<crate::view::VolumeView>,
}

/// Numbers of containers, for `info`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// All.
    pub containers: u64,
    /// Running (paused ones are counted apart).
    pub running: u64,
    /// Paused.
    pub paused: u64,
    /// All others.
    pub stopped: u64,
    /// Images.
    pub images: u64,
}
