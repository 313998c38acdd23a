//! What the engine shows of containers: snapshots of their records, without locks and without I/O.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use rorqual_content::Descriptor;
use rorqual_core::mount::RootfsPlan;
use rorqual_core::selinux::Labels;
use rorqual_core::{
    ContainerId, ContainerName, DiffId, ExecId, ImageId, Platform, Signal, Timestamp, VolumeName,
};
use rorqual_network::{Endpoint, HostFiles, PublishedPort};
use rorqual_shim::log::LogTarget;
use rorqual_snapshot::Usage;
use serde::{Deserialize, Serialize};

use crate::phase::{Desired, Phase};
use crate::spec::{ContainerSpec, HealthSpec, HealthTest, IdMap, Propagation, StopTimeout};

/// A container as `inspect` shows it.
#[derive(Clone, Debug)]
pub struct ContainerView {
    /// Identity.
    pub id: ContainerId,
    /// Name without the slash.
    pub name: ContainerName,
    /// When it was made.
    pub created: Timestamp,
    /// What was asked for, the image's defaults merged in.
    pub spec: Arc<ContainerSpec>,
    /// What is run and how it is stopped and checked, all defaults applied.
    pub effective: Arc<Effective>,
    /// Where it stands.
    pub state: StateView,
    /// Its image.
    pub image: ImageId,
    /// The image's manifest.
    pub manifest: Descriptor,
    /// The machine it is for.
    pub platform: Platform,
    /// Files bound from the host; empty paths before the first start.
    pub files: HostFiles,
    /// Where output is kept.
    pub log: LogTarget,
    /// How often the restart policy started it.
    pub restart_count: u32,
    /// Execs that run.
    pub execs: Vec<ExecId>,
    /// Mounts.
    pub mounts: Vec<MountPoint>,
    /// Where it is reachable while it runs.
    pub endpoints: Vec<Endpoint>,
    /// Ports as published while it runs.
    pub ports: Vec<PublishedPort>,
    /// Sizes, where they were asked for.
    pub size: Option<Usage>,
    /// How the root file system is put together; `inspect` alone tells it.
    pub rootfs: Option<RootfsPlan>,
}

/// What is run, all defaults of image and daemon applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effective {
    /// Program with its arguments (`Path` and `Args`).
    pub command: Vec<String>,
    /// Environment as `inspect` shows it (image's, then request's).
    pub env: Vec<String>,
    /// `user[:group]`
    pub user: String,
    /// First directory; empty: `/`.
    pub working_dir: String,
    /// Entrypoint part of the command.
    pub entrypoint: Option<Vec<String>>,
    /// Argument part of the command.
    pub cmd: Option<Vec<String>>,
    /// Signal that stops it.
    pub stop_signal: Option<Signal>,
    /// How long `stop` waits; `None`: the daemon's default.
    pub stop_timeout: Option<StopTimeout>,
    /// Health check with all defaults; `None`: no check.
    pub health: Option<HealthPlan>,
    /// Host name inside.
    pub hostname: String,
    /// Volumes of image and request together.
    pub volumes: Vec<String>,
    /// Shell of the image.
    pub shell: Option<Vec<String>>,
    /// Triggers of the image.
    pub on_build: Option<Vec<String>>,
    /// What request and image together say of the health check, without defaults.
    #[serde(default)]
    pub health_asked: Option<HealthSpec>,
    /// SELinux labels; empty where the host has none.
    #[serde(default)]
    pub labels: Labels,
}

/// A health check with all defaults applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthPlan {
    /// What to run.
    pub test: HealthTest,
    /// Time between checks.
    pub interval: std::time::Duration,
    /// Time a check may take.
    pub timeout: std::time::Duration,
    /// Grace after the start.
    pub start_period: std::time::Duration,
    /// Time between checks within the grace.
    pub start_interval: std::time::Duration,
    /// Failures in a row until unhealthy.
    pub retries: u32,
}

/// Where a container stands. Docker's flags are computed from this at the edge.
#[derive(Clone, Debug)]
pub struct StateView {
    /// Observed.
    pub phase: Phase,
    /// Asked for.
    pub desired: Desired,
    /// Init's process id, 0 when there is none.
    pub pid: i32,
    /// Exit code of the last run or of a failed start.
    pub exit_code: i32,
    /// Why the last start failed; empty otherwise.
    pub error: String,
    /// The last run ended by the out-of-memory killer.
    pub oom_killed: bool,
    /// When the last run began.
    pub started_at: Option<Timestamp>,
    /// When the last run ended.
    pub finished_at: Option<Timestamp>,
    /// Health; `None` without a check.
    pub health: Option<HealthView>,
}

/// Result of the last health checks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// Not known yet.
    #[default]
    Starting,
    /// The last check succeeded.
    Healthy,
    /// Too many checks failed.
    Unhealthy,
}

impl HealthStatus {
    /// Returns Docker's word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// Health of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthView {
    /// Verdict.
    pub status: HealthStatus,
    /// Failures in a row.
    pub failing_streak: u32,
    /// The last five checks, oldest first.
    pub log: Vec<HealthProbe>,
}

/// One health check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthProbe {
    /// When it began.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// Its exit code, -1 when it timed out or could not run.
    pub exit_code: i32,
    /// Its output, cut.
    pub output: String,
}

/// What a mount point shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPoint {
    /// What is mounted.
    pub kind: MountPointKind,
    /// Volume name.
    pub name: Option<VolumeName>,
    /// Path on the host; empty for tmpfs.
    pub source: PathBuf,
    /// Path inside.
    pub target: String,
    /// Volume driver.
    pub driver: String,
    /// Mode words.
    pub mode: String,
    /// Writable.
    pub writable: bool,
    /// Propagation of binds.
    pub propagation: Option<Propagation>,
    /// The volume was made for this container and has no name of the user's.
    pub anonymous: bool,
    /// Directory inside the volume that is mounted instead of its root.
    #[serde(default)]
    pub subpath: Option<String>,
    /// Layers of the image that is mounted, bottom first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<DiffId>,
    /// The image that is mounted, as the user wrote it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// Which ids of a bind are whose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idmap: Option<IdMap>,
}

/// Kind of a mount point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountPointKind {
    /// A path of the host.
    Bind,
    /// A volume.
    Volume,
    /// The files of an image.
    Image,
    /// Memory.
    Tmpfs,
}

/// A network as containers see it: the record and who is connected.
#[derive(Clone, Debug)]
pub struct NetworkView {
    /// The record.
    pub record: rorqual_network::NetworkRecord,
    /// Running containers on it: id, name, endpoint.
    pub containers: Vec<(ContainerId, String, Endpoint)>,
}

/// A volume as `inspect` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeView {
    /// Its name.
    pub name: VolumeName,
    /// Who keeps its data.
    pub driver: String,
    /// `local`, or `global` for all hosts of a cluster.
    pub scope: String,
    /// Its directory.
    pub mountpoint: PathBuf,
    /// When it was made, as far as that is known.
    pub created: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Driver options.
    pub options: BTreeMap<String, String>,
    /// What else its driver has to say.
    pub status: BTreeMap<String, serde_json::Value>,
    /// Bytes and number of containers, where asked for.
    pub usage: Option<(u64, u64)>,
}
