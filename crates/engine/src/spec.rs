//! What a container shall be: the request of `create` in parsed form, without magic zeros or empty texts.
//!
//! Image defaults are merged in by `create`; nothing here knows the wire.

mod mounts;
mod resources;

use std::collections::BTreeMap;
use std::time::Duration;

use rorqual_core::{ContainerName, Platform, Signal};
use rorqual_network::{EndpointRequest, PortProtocol, PublishedPort};
use rorqual_shim::WindowSize;
use serde::{Deserialize, Serialize};

pub use mounts::{
    BindOptions, IdMap, MountKind, MountSpec, Propagation, RecursiveReadOnly, TmpfsOptions,
    VolumeOptions, VolumesFrom,
};
pub use resources::{BlkioDevice, DeviceSpec, Resources, WeightDevice};

/// The request as it came, which only the conversion to the wire reads back (for `inspect`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestEcho(pub serde_json::Value);

/// A container to create.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// Its name; made up when `None`.
    pub name: Option<ContainerName>,
    /// Image as the user wrote it.
    pub image: String,
    /// Refuse an image for another machine.
    pub platform: Option<Platform>,
    /// What runs in it.
    pub process: ProcessSpec,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// OCI annotations.
    pub annotations: BTreeMap<String, String>,
    /// Health check; `None` inherits the image's.
    pub healthcheck: Option<HealthSpec>,
    /// File systems.
    pub storage: StorageSpec,
    /// Networking.
    pub network: NetworkSpec,
    /// Limits.
    pub resources: Resources,
    /// Privileges.
    pub security: SecuritySpec,
    /// Namespaces shared with others.
    pub namespaces: NamespaceSpec,
    /// When to start it again.
    pub restart: RestartPolicy,
    /// Remove it once it has ended.
    pub auto_remove: bool,
    /// Where output is kept; `None`: the daemon's default.
    pub log: Option<LogSpec>,
    /// Runtime by name; `None` is ours.
    pub runtime: Option<String>,
    /// The request as it came.
    pub echo: RequestEcho,
}

/// What runs in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches of the request")]
pub struct ProcessSpec {
    /// Program; `None` inherits the image's, an empty list clears it.
    pub entrypoint: Option<Vec<String>>,
    /// Arguments; `None` inherits the image's.
    pub cmd: Option<Vec<String>>,
    /// `NAME=value`, or `NAME` to take an image's variable away.
    pub env: Vec<String>,
    /// `user[:group]`; empty inherits.
    pub user: String,
    /// First directory; empty inherits.
    pub working_dir: String,
    /// Give it a terminal.
    pub tty: bool,
    /// Keep standard input open.
    pub open_stdin: bool,
    /// Close standard input after the first client left.
    pub stdin_once: bool,
    /// The creating client attaches to standard input.
    pub attach_stdin: bool,
    /// The creating client attaches to standard output.
    pub attach_stdout: bool,
    /// The creating client attaches to standard error.
    pub attach_stderr: bool,
    /// Signal that stops it; `None` inherits, then SIGTERM.
    pub stop_signal: Option<Signal>,
    /// How long `stop` waits; `None` inherits, then ten seconds.
    pub stop_timeout: Option<StopTimeout>,
    /// Shell of `CMD-SHELL` health checks; `None` inherits.
    pub shell: Option<Vec<String>>,
    /// First size of the terminal.
    pub window: WindowSize,
    /// Reap zombies and forward signals with our own init; `None`: the daemon's default.
    pub init: Option<bool>,
    /// Further groups.
    pub groups: Vec<String>,
    /// Badness for the out-of-memory killer, -1000 to 1000; `None`: 0.
    pub oom_score_adj: Option<i32>,
}

/// How long `stop` waits before it kills.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopTimeout {
    /// So long.
    After(Duration),
    /// For ever (negative on the wire).
    Never,
}

/// Docker's health check in parsed form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HealthSpec {
    /// `NONE`: no check, not even the image's.
    Disabled,
    /// Some fields given, `None` inherits the image's or the default.
    Check {
        /// What to run.
        test: Option<HealthTest>,
        /// Time between checks, 30 s.
        interval: Option<Duration>,
        /// Time a check may take, 30 s.
        timeout: Option<Duration>,
        /// Grace after the start, 0.
        start_period: Option<Duration>,
        /// Time between checks within the grace, 5 s.
        start_interval: Option<Duration>,
        /// Failures in a row until unhealthy, 3.
        retries: Option<u32>,
    },
}

/// What a health check runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HealthTest {
    /// `CMD`: these arguments.
    Command(Vec<String>),
    /// `CMD-SHELL`: this line, by the image's shell.
    Shell(String),
}

/// File systems of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StorageSpec {
    /// Binds, volumes and tmpfs, in the order of the request (`Binds`, `Mounts`, `Tmpfs`).
    pub mounts: Vec<MountSpec>,
    /// Paths that get an anonymous volume (`Volumes` of the request; the image's are added).
    pub anonymous: Vec<String>,
    /// Containers whose mounts are taken over.
    pub volumes_from: Vec<VolumesFrom>,
    /// Driver of volumes made on the way; `None` is `local`.
    pub volume_driver: Option<String>,
    /// Mount the root read-only.
    pub read_only: bool,
    /// Bound on the writable part, bytes (`--storage-opt size=`).
    pub size: Option<u64>,
    /// Bytes of `/dev/shm`; `None`: 64 MiB.
    pub shm_size: Option<u64>,
}

/// Which network namespace, and what is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkMode {
    /// The default network (`bridge`).
    #[default]
    Default,
    /// Its own namespace with only loopback.
    None,
    /// The host's.
    Host,
    /// That of another container, by name or id.
    Container(String),
    /// A network by name or id.
    Network(String),
}

/// Networking of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkSpec {
    /// Which namespace.
    pub mode: NetworkMode,
    /// Settings per network; the one of `mode` is added when it is missing.
    pub endpoints: Vec<EndpointRequest>,
    /// The container was taken off the network of `mode`, and stays off.
    pub left_mode: bool,
    /// Ports to publish.
    #[serde(with = "rorqual_network::recorded_ports")]
    pub published: Vec<PublishedPort>,
    /// Publish every exposed port on some host port.
    pub publish_all: bool,
    /// Ports that the program serves; the image's are added.
    #[serde(with = "rorqual_network::recorded_exposed_ports")]
    pub exposed: Vec<(u16, PortProtocol)>,
    /// Host name; `None`: the short id.
    pub hostname: Option<String>,
    /// Domain name.
    pub domainname: String,
    /// Name servers; empty: the daemon's.
    pub dns: Vec<std::net::IpAddr>,
    /// Search domains.
    pub dns_search: Vec<String>,
    /// Resolver options.
    pub dns_options: Vec<String>,
    /// `name:address` lines for the hosts file.
    pub extra_hosts: Vec<String>,
    /// `(container, alias)` of legacy links.
    pub links: Vec<(String, String)>,
}

/// Privileges of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SecuritySpec {
    /// All capabilities and devices.
    pub privileged: bool,
    /// As written: `NET_ADMIN`, `cap_net_admin`, `ALL`.
    pub cap_add: Vec<String>,
    /// As written.
    pub cap_drop: Vec<String>,
    /// `--security-opt` values as written.
    pub options: Vec<String>,
    /// Hidden paths; `None`: the default list.
    pub masked_paths: Option<Vec<String>>,
    /// Read-only paths; `None`: the default list.
    pub readonly_paths: Option<Vec<String>>,
    /// Kernel settings.
    pub sysctls: BTreeMap<String, String>,
}

impl SecuritySpec {
    /// Returns the name of the AppArmor profile, the last that was asked for; without any, that of the privileged or
    /// `default`.
    pub fn apparmor<'a>(&'a self, default: &'a str) -> &'a str {
        let asked =
            self.options.iter().rev().find_map(|option| {
                option.split_once(['=', ':']).filter(|(key, _)| *key == "apparmor")
            });
        match asked {
            Some((_, name)) if !name.is_empty() => name,
            _ if self.privileged => "unconfined",
            _ => default,
        }
    }
}

/// Process namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PidMode {
    /// Its own.
    #[default]
    Private,
    /// The host's.
    Host,
    /// Another container's, by name or id.
    Container(String),
}

/// System V and POSIX interprocess communication.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum IpcMode {
    /// The daemon's default.
    #[default]
    Default,
    /// Its own, without `/dev/shm`.
    None,
    /// Its own, not for sharing.
    Private,
    /// Its own, others may join.
    Shareable,
    /// The host's.
    Host,
    /// Another container's, by name or id.
    Container(String),
}

/// Its own namespace or the host's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ownership {
    /// Its own.
    #[default]
    Private,
    /// The host's.
    Host,
}

/// Namespaces shared with others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NamespaceSpec {
    /// Processes.
    pub pid: PidMode,
    /// Interprocess communication.
    pub ipc: IpcMode,
    /// Host name.
    pub uts: Ownership,
    /// Control groups; `None`: private on cgroup v2, the host's on v1.
    pub cgroup: Option<Ownership>,
    /// `userns=host`: no remapping for this container.
    pub user: Option<Ownership>,
}

/// When a container is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// After a failure, so many times at most (0: without bound).
    OnFailure(u32),
    /// Always.
    Always,
    /// Always, unless it had been stopped by hand.
    UnlessStopped,
}

/// Where output is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogSpec {
    /// `json-file`, `local`, `none`, `journald`, `syslog`; empty: the daemon's default.
    pub driver: String,
    /// Options as written.
    pub options: BTreeMap<String, String>,
}
