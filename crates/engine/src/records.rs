//! What is kept of containers and volumes on disk.
//!
//! A container has two records: the large one changes only with `create`, `rename` and `update`; the small one with every
//! start and exit.

use std::collections::BTreeMap;

use rorqual_content::Descriptor;
use rorqual_core::{
    ContainerId, ContainerName, DiffId, ExecId, ImageId, Platform, Timestamp, VolumeName,
};
use rorqual_network::{Endpoint, HostFiles, PublishedPort};
use rorqual_shim::TaskId;
use rorqual_shim::log::LogTarget;
use rorqual_store::Record;
use serde::{Deserialize, Serialize};

use crate::phase::{Desired, Phase};
use crate::request::ExecSpec;
use crate::spec::ContainerSpec;
use crate::view::{Effective, MountPoint};

/// What a container is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub(crate) id: ContainerId,
    pub(crate) name: ContainerName,
    pub(crate) created: Timestamp,
    pub(crate) spec: ContainerSpec,
    pub(crate) effective: Effective,
    pub(crate) image: ImageId,
    pub(crate) manifest: Descriptor,
    /// Layers of its root, bottom first; they stay as long as it does, whatever becomes of the image.
    pub(crate) layers: Vec<DiffId>,
    pub(crate) platform: Platform,
    pub(crate) mounts: Vec<MountPoint>,
    pub(crate) log: LogTarget,
}

impl Record for ContainerRecord {
    const KIND: &'static str = "container";
    const VERSION: u32 = 1;

    fn id(&self) -> String {
        self.id.to_string()
    }
}

/// Where a container stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) phase: Phase,
    pub(crate) desired: Desired,
    pub(crate) exit_code: i32,
    pub(crate) error: String,
    pub(crate) oom_killed: bool,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) finished_at: Option<Timestamp>,
    pub(crate) restart_count: u32,
    /// The run that comes next.
    pub(crate) next_task: TaskId,
    /// Runs that ended, so that waiters can tell the next end from the last.
    pub(crate) exits: u64,
    pub(crate) files: HostFiles,
    pub(crate) endpoints: Vec<Endpoint>,
    #[serde(with = "rorqual_network::recorded_ports")]
    pub(crate) ports: Vec<PublishedPort>,
    /// Init's process id while it runs.
    #[serde(skip)]
    pub(crate) pid: i32,
    /// It was removed.
    #[serde(skip)]
    pub(crate) gone: bool,
}

impl State {
    pub(crate) fn new() -> Self {
        Self {
            phase: Phase::Created,
            desired: Desired::Stopped,
            exit_code: 0,
            error: String::new(),
            oom_killed: false,
            started_at: None,
            finished_at: None,
            restart_count: 0,
            next_task: TaskId(1),
            exits: 0,
            files: HostFiles::default(),
            endpoints: Vec::new(),
            ports: Vec::new(),
            pid: 0,
            gone: false,
        }
    }
}

/// [`State`] with its container's id.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StateRecord {
    pub(crate) id: ContainerId,
    pub(crate) state: State,
}

impl Record for StateRecord {
    const KIND: &'static str = "container-state";
    const VERSION: u32 = 1;

    fn id(&self) -> String {
        self.id.to_string()
    }
}

/// An extra process that was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExecRecord {
    pub(crate) id: ExecId,
    pub(crate) container: ContainerId,
    pub(crate) spec: ExecSpec,
    /// Its exit code, and when that was known.
    pub(crate) ended: Option<(i32, Timestamp)>,
}

impl Record for ExecRecord {
    const KIND: &'static str = "exec";
    const VERSION: u32 = 1;

    fn id(&self) -> String {
        self.id.to_string()
    }
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VolumeRecord {
    pub(crate) name: VolumeName,
    pub(crate) created: Timestamp,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) options: BTreeMap<String, String>,
    /// It has no name of the user's.
    pub(crate) anonymous: bool,
    /// Who keeps its data.
    #[serde(default = "local_driver")]
    pub(crate) driver: String,
    /// Its data are whole, but still where they were gathered.
    #[serde(default)]
    pub(crate) staged: Option<String>,
    /// It shows another volume as that was, and does not change.
    #[serde(default)]
    pub(crate) snapshot_of: Option<VolumeName>,
}

fn local_driver() -> String {
    rorqual_volume::LOCAL.to_owned()
}

impl VolumeRecord {
    /// Tells whether its data are a directory of ours, and nothing is mounted for them.
    pub(crate) fn is_directory(&self) -> bool {
        self.driver == "local"
            && !["type", "device"].iter().any(|option| self.options.contains_key(*option))
    }
}

impl Record for VolumeRecord {
    const KIND: &'static str = "volume";
    const VERSION: u32 = 1;

    fn id(&self) -> String {
        self.name.to_string()
    }
}
