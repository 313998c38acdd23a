//! The init plan: what the new process does before it becomes the container's program, as printable data.
//!
//! Nothing here touches the system. `plan::build` makes plans out of specifications, `init` carries them out.

mod build;
mod convert;
mod display;
mod mounts;
mod options;
mod process;

use std::path::PathBuf;

use rorqual_core::mount::RootfsPlan;
use rorqual_sys::capability::Capabilities;
use rorqual_sys::mount::{MountAttributes, Propagation};
use rorqual_sys::namespace::Namespaces;
use rorqual_sys::process::SchedulerAttributes;
use rorqual_sys::rlimit::Rlimit;

pub(crate) use build::{PlanInput, exec_plan, init_plan};
pub(crate) use convert::{id_map, kernel_kind};
pub(crate) use mounts::mount_flags;

use crate::request::{Namespace, ProcessUser};

/// Facts of the host that decide how a plan looks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, not a state")]
pub(crate) struct Facts {
    /// Whether containers get a cgroup v2 tree.
    pub unified: bool,
    /// On cgroup v1: directory names below `/sys/fs/cgroup` with their controllers.
    pub hierarchies: Vec<Hierarchy>,
    /// Whether SELinux labels mean something.
    pub selinux: bool,
    /// The terminal is asked for.
    pub terminal: bool,
    /// Namespaces that the caller gives by descriptor, in the order of [`SourcePlan::Given`].
    pub given: Vec<Namespace>,
    /// Keeps the caller's session keyring.
    pub keep_keyring: bool,
    /// Moves the root instead of pivoting, for hosts whose root is a ramdisk.
    pub no_pivot: bool,
    /// Stops before the program starts.
    pub barrier: bool,
    /// Descriptors from 3 on that the program keeps.
    pub preserve_fds: u32,
    /// Whether the process is killed when its parent ends.
    pub dies_with_parent: bool,
    /// A system call filter is given beside the specification.
    pub filter_given: bool,
    /// Whether the parent has no more rights than any user.
    pub unprivileged: bool,
}

/// A cgroup v1 hierarchy of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// Where it is mounted on the host.
    pub mountpoint: PathBuf,
    /// Mount options that name its controllers, e.g. `cpu,cpuacct` or `name=systemd`.
    pub controllers: String,
    /// The container's directory there, relative to the mount point.
    pub path: PathBuf,
}

/// Everything that happens between `clone3(2)` and the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InitPlan {
    /// Namespaces that `clone3(2)` makes.
    pub create: Namespaces,
    /// Existing namespaces that must be entered before `clone3(2)`: by the parent, or by an intermediate process
    /// where a user namespace is among them, which the parent could not leave again.
    pub join_first: Vec<(Namespace, SourceId)>,
    /// Who the container's users are on the host, where they are not the same; layers are shown as theirs.
    pub users: Option<IdmapPlan>,
    /// What the parent opens beforehand; steps refer to them by index.
    pub sources: Vec<SourcePlan>,
    /// What the child does, in this order.
    pub steps: Vec<Step>,
    /// Steps collected for the time after all mounts; empty in a finished plan.
    pub late: Vec<Step>,
    /// What was asked for and will not be done.
    pub warnings: Vec<String>,
}

/// Index into [`InitPlan::sources`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SourceId(pub usize);

/// Something of the host that the parent opens before the clone, with the host's own rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SourcePlan {
    /// The root file system, detached.
    Rootfs(RootfsPlan),
    /// A detached copy of a directory or file.
    Bind {
        /// Absolute host path.
        path: PathBuf,
        /// What is bound lies here below `path`, and no link leads out of it.
        subpath: Option<PathBuf>,
        /// With all mounts below.
        recursive: bool,
        /// Attributes of the mount.
        attributes: MountAttributes,
        /// Attributes of the mount and all below.
        recursive_attributes: MountAttributes,
        /// Id mapping.
        idmap: Option<IdmapPlan>,
    },
    /// A part of a file system made of layers.
    Part {
        /// The whole.
        whole: RootfsPlan,
        /// What is mounted of it; no link leads out of the whole.
        subpath: PathBuf,
    },
    /// A namespace by path.
    Namespace(PathBuf),
    /// A namespace the caller gave: index into the request.
    Given(usize),
}

/// Which ids an id-mapped mount shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IdmapPlan {
    /// Text of `uid_map`.
    pub uids: String,
    /// Text of `gid_map`.
    pub gids: String,
    /// Also for all mounts below.
    pub recursive: bool,
}

/// A file system made by the child in its own namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FsPlan {
    /// Type, e.g. `tmpfs`.
    pub kind: String,
    /// What `/proc/mounts` shows first.
    pub source: String,
    /// Path in the container.
    pub destination: PathBuf,
    /// `MOUNT_ATTR_*`.
    pub attributes: u64,
    /// Options of the file system: a key, perhaps with a value.
    pub data: Vec<(String, Option<String>)>,
    /// `MS_*` flags of the file system for which only `mount(2)` has a place.
    pub classic: u64,
    /// Starts with a copy of what the image has there.
    pub copy_up: bool,
}

/// A device node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DevicePlan {
    /// Path in the container.
    pub path: PathBuf,
    /// `S_IFCHR`, `S_IFBLK` or `S_IFIFO`.
    pub kind: u32,
    /// Major and minor number.
    pub number: (u32, u32),
    /// Permission bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Binds the host's node of the same path instead of making one.
    pub bind: bool,
    /// Takes the place of whatever the image has there.
    pub replace: bool,
}

/// A network device that changes its namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NetDevicePlan {
    /// Name where the caller is.
    pub host: String,
    /// Name in the container; with `%d` a template.
    pub inside: String,
}

/// When hooks run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HookPoint {
    /// `prestart` and `createRuntime`: by the parent.
    Runtime,
    /// `createContainer`: in the container's namespaces, before the root changes.
    CreateContainer,
    /// `startContainer`: in the container, right before the program.
    StartContainer,
}

/// One thing that the child does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Enters an existing namespace.
    Join(Namespace, SourceId),
    /// Enters all namespaces of the container behind the target pidfd.
    JoinTarget,
    /// Waits until the parent has written the id maps.
    AwaitIdMaps,
    /// Takes ids 0 of the user namespace.
    BecomeRoot,
    /// Starts a new session.
    NewSession,
    /// Hides from other processes until the program starts.
    ForbidDumping,
    /// Opens the label files of the process, while `/proc` is the host's.
    OpenLabels { apparmor: Option<String>, selinux: Option<String> },
    /// `oom_score_adj`.
    OomScore(i32),
    /// Moves into new namespaces that `clone3(2)` cannot make well.
    Unshare(Namespaces),
    /// Offsets for a new time namespace, and enters it.
    TimeOffsets(String),
    /// Moves to the container's cgroup, unless the clone has done so.
    EnterCgroup,
    /// Brings `lo` up.
    Loopback,
    /// Has the parent move network devices here.
    NetworkDevices(Vec<NetDevicePlan>),
    /// A kernel parameter of the new namespaces.
    Sysctl { name: String, value: String },
    /// Host name.
    Hostname(String),
    /// NIS domain name.
    Domainname(String),
    /// Cuts off what mounts inside would do outside.
    IsolateMounts,
    /// Attaches the root file system: over the present root, or where others may see it.
    Root { source: SourceId, at: PathBuf },
    /// Attaches a prepared mount.
    Bind { source: SourceId, destination: PathBuf, proc_allowed: bool },
    /// Makes a file system and attaches it.
    Mount(FsPlan),
    /// Attaches the controllers of cgroup v1 below a small tmpfs.
    CgroupHierarchies { destination: PathBuf, attributes: u64, private: bool, list: Vec<Hierarchy> },
    /// Changes attributes of a mount in the container.
    Remount { destination: PathBuf, attributes: MountAttributes, recursive: bool },
    /// Changes options of a file system that is mounted in the container.
    Reconfigure { destination: PathBuf, data: Vec<(String, Option<String>)> },
    /// Changes propagation of a mount in the container.
    Propagate { destination: PathBuf, how: Propagation, recursive: bool },
    /// A device node.
    Device(DevicePlan),
    /// A symbolic link, where nothing is yet.
    Link { path: PathBuf, target: &'static str },
    /// Makes the pseudo terminal; with `console` also on `/dev/console`.
    Terminal { console: bool, size: (u16, u16) },
    /// Runs hooks.
    Hooks(HookPoint),
    /// Hides a path.
    Mask(PathBuf),
    /// Makes a path read-only.
    ReadOnly(PathBuf),
    /// Makes the root read-only.
    RootReadOnly,
    /// Makes the root the root; drops the old one.
    Pivot,
    /// Same by moving, for a root that cannot pivot.
    MoveRoot,
    /// Propagation of the root afterwards.
    RootPropagation { how: Propagation, recursive: bool },
    /// A new session keyring.
    Keyring,
    /// Scheduling policy.
    Scheduler(SchedulerAttributes),
    /// I/O priority.
    IoPriority(i32),
    /// CPUs to run on.
    CpuAffinity(Vec<usize>),
    /// NUMA policy.
    MemoryPolicy { mode: i32, nodes: Vec<usize> },
    /// Execution domain.
    Personality(u64),
    /// A resource limit by number.
    Rlimit { resource: u32, limit: Rlimit },
    /// Connects standard input, output, error.
    Stdio,
    /// File creation mask.
    Umask(u32),
    /// Finds out who the program runs as.
    FindUser { user: ProcessUser, uid: u32, gid: u32, groups: Vec<u32> },
    /// Enters the working directory, making it if need be.
    WorkingDirectory { path: PathBuf, create: bool },
    /// Writes the security labels for the program.
    Labels,
    /// Gives up what the program may never have.
    LimitCapabilities { bounding: u64 },
    /// Becomes the user.
    SetUser,
    /// Privileges never grow again.
    NoNewPrivileges,
    /// Finds the program.
    FindProgram,
    /// Only this many descriptors beyond the standard ones survive.
    CloseDescriptors { keep: u32 },
    /// Reports readiness and waits for the start.
    Barrier,
    /// CPUs to run on from now on.
    FinalCpuAffinity(Vec<usize>),
    /// Is killed when the parent ends.
    DieWithParent,
    /// Tells the parent that only the kernel can say no from now on.
    Announce,
    /// Installs the system call filter.
    Seccomp,
    /// Takes the final capabilities.
    SetCapabilities(Capabilities),
    /// Becomes the program.
    Execute,
}
