//! What an engine is made of: its parts, its defaults, its places.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rorqual_content::{Blobs, Images};
use rorqual_core::idmap::IdMaps;
use rorqual_core::selinux::Contexts;
use rorqual_core::{BoxError, Ulimit};
use rorqual_network::Networks;
use rorqual_shim::Tasks;
use rorqual_snapshot::Snapshotter;
use rorqual_store::{Database, Journal, Unfinished};
use rorqual_transfer::Transfer;
use rorqual_volume::Drivers;

use crate::clock::Clock;
use crate::logs::LogSource;
use crate::spec::{ContainerSpec, IpcMode, LogSpec, Ownership};

/// Cgroup below which containers' own are made, unless the configuration names another.
const CGROUP_PARENT: &str = "/rorqual";

/// The same with [`CgroupDriver::Systemd`].
const SLICE: &str = "system.slice";

/// Who makes the cgroups of containers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CgroupDriver {
    /// We do, as directories.
    #[default]
    Cgroupfs,
    /// systemd does, as scopes in slices.
    Systemd,
}

impl CgroupDriver {
    /// Returns its name in settings and in `info`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cgroupfs => "cgroupfs",
            Self::Systemd => "systemd",
        }
    }

    /// Returns where containers go that ask for no other place.
    pub const fn default_parent(self) -> &'static str {
        match self {
            Self::Cgroupfs => CGROUP_PARENT,
            Self::Systemd => SLICE,
        }
    }

    /// Tells whether `parent` is one: systemd has slices only.
    pub fn allows(self, parent: &str) -> bool {
        let name = parent.strip_suffix(".slice");
        self == Self::Cgroupfs || name.is_some_and(|name| !name.is_empty() && !name.contains('/'))
    }
}

/// The parts an engine directs.
#[derive(Clone)]
pub struct Parts {
    /// Launcher and shims.
    pub tasks: Arc<dyn Tasks>,
    /// Reads logs back.
    pub logs: Arc<dyn LogSource>,
    /// Layers and root file systems.
    pub snapshots: Arc<dyn Snapshotter>,
    /// Blobs.
    pub blobs: Arc<dyn Blobs>,
    /// Image records.
    pub images: Arc<dyn Images>,
    /// Loading, saving, importing.
    pub transfer: Arc<dyn Transfer>,
    /// Networks.
    pub networks: Arc<dyn Networks>,
    /// The data of volumes.
    pub volumes: Arc<Drivers>,
    /// Records of containers and volumes.
    pub database: Database,
}

/// The journal and what an earlier life left in it, as [`Journal::open`] returns them.
#[derive(Debug)]
pub struct JournalState {
    /// The journal.
    pub journal: Arc<Journal>,
    /// What an earlier life left.
    pub unfinished: Vec<Unfinished>,
}

/// AppArmor on a host that has it.
#[derive(Clone, Copy, Debug)]
pub struct AppArmor {
    /// The profile of containers that ask for none.
    pub default_profile: &'static str,
    /// Loads that profile where it is not loaded; blocks.
    pub ensure_default: fn() -> Result<(), BoxError>,
}

/// SELinux on a host that has it, and a daemon that is to use it.
#[derive(Clone, Debug)]
pub struct SeLinux {
    /// What the policy has for containers.
    pub contexts: Contexts,
    /// Labels a file or a tree; left at that, on demand, where the top has the label. Blocks.
    pub relabel: fn(&Path, &str, bool) -> Result<(), BoxError>,
}

/// Which weights of cgroups the kernel knows when it shares disks out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskWeights {
    /// One for all disks.
    pub all: bool,
    /// One for each disk.
    pub each: bool,
}

/// The daemon's settings that concern the engine.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the daemon keeps its data.
    pub data_root: PathBuf,
    /// Our own static init, bound into containers with `--init`.
    pub init_binary: Option<PathBuf>,
    /// Whether containers get it without asking.
    pub default_init: bool,
    /// Who makes the cgroups.
    pub cgroup_driver: CgroupDriver,
    /// Cgroup below which containers' own are made, `/rorqual`, or the slice.
    pub cgroup_parent: String,
    /// Processors of the host as `0-3,5`; `None` when it does not tell.
    pub cpus: Option<String>,
    /// Memory nodes of the host, likewise.
    pub memory_nodes: Option<String>,
    /// Whether the kernel shares disks out by weights of cgroups.
    pub disk_weights: DiskWeights,
    /// Whether the host runs cgroup v2 alone.
    pub cgroup_unified: bool,
    /// Default log driver and its options.
    pub log: LogSpec,
    /// Default name servers.
    pub dns: Vec<IpAddr>,
    /// Default search domains.
    pub dns_search: Vec<String>,
    /// Default resolver options.
    pub dns_options: Vec<String>,
    /// Limits for processes that containers do not set themselves.
    pub ulimits: Vec<Ulimit>,
    /// Bytes of `/dev/shm`.
    pub shm_size: u64,
    /// What [`IpcMode::Default`] stands for.
    pub ipc_mode: IpcMode,
    /// Default of the cgroup namespace; `None`: private on v2, the host's on v1.
    pub cgroup_namespace: Option<Ownership>,
    /// How long `stop` waits.
    pub stop_timeout: Duration,
    /// `no_new_privs` for all containers.
    pub no_new_privileges: bool,
    /// Who containers' users are on the host, unless a container wants them to be the same.
    pub remap: Option<IdMaps>,
    /// Seccomp profile as JSON, `unconfined`, or `None` for the built-in one.
    pub seccomp_profile: Option<String>,
    /// AppArmor; `None` where the host has none, and then profiles have no effect.
    pub apparmor: Option<AppArmor>,
    /// SELinux; `None` where the host has none or the daemon leaves it alone, and then labels have no effect.
    pub selinux: Option<SeLinux>,
    /// Names of runtimes that are ours (`rorqual`, `runc`, …); others are refused.
    pub runtimes: Vec<String>,
    /// Capabilities that the kernel and our own process have (`CAP_…`).
    pub capabilities: Vec<String>,
    /// Further settings as the daemon's event `reload` names them.
    pub labels: BTreeMap<String, String>,
    /// The time.
    pub clock: Clock,
}

impl Options {
    /// Returns who the users of a container are on the host; `None` where they are the same.
    pub(crate) fn remap_of(&self, spec: &ContainerSpec) -> Option<&IdMaps> {
        self.remap.as_ref().filter(|_| spec.namespaces.user != Some(Ownership::Host))
    }

    /// Returns Docker's defaults.
    pub fn docker_defaults() -> Self {
        Self {
            data_root: PathBuf::new(),
            init_binary: None,
            default_init: false,
            cgroup_driver: CgroupDriver::Cgroupfs,
            cgroup_parent: CGROUP_PARENT.to_owned(),
            cpus: None,
            memory_nodes: None,
            disk_weights: DiskWeights { all: true, each: true },
            cgroup_unified: false,
            log: LogSpec { driver: "json-file".to_owned(), options: BTreeMap::new() },
            dns: Vec::new(),
            dns_search: Vec::new(),
            dns_options: Vec::new(),
            ulimits: Vec::new(),
            shm_size: 64 << 20,
            ipc_mode: IpcMode::Private,
            cgroup_namespace: None,
            stop_timeout: Duration::from_secs(10),
            no_new_privileges: false,
            remap: None,
            seccomp_profile: None,
            apparmor: None,
            selinux: None,
            runtimes: ["rorqual", "runc", "io.containerd.runc.v2"].map(str::to_owned).to_vec(),
            capabilities: Vec::new(),
            labels: BTreeMap::new(),
            clock: Clock::system(),
        }
    }
}
