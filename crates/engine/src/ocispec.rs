//! From a container's definition to the OCI runtime specification: pure, without looking at the host.
//!
//! Sections are written as the JSON of the specification, because that is how people know and compare them.

mod devices;
mod mounts;
mod resources;

use std::path::PathBuf;

use oci_spec::runtime::{LinuxResources, Process, Spec};
use rorqual_core::capability::Capabilities;
use rorqual_core::idmap::{IdMap, IdMaps, IdRange};
use rorqual_core::{ContainerId, DiffId, Ulimit, VolumeName};
use rorqual_network::HostFiles;
use rorqual_shim::WindowSize;
use serde_json::{Value, json};

pub(crate) use mounts::{OWN_IDS, numeric};

use crate::effective::{overlay_env, process_env};
use crate::error::{Error, Result};
use crate::options::CgroupDriver;
use crate::request::ExecSpec;
use crate::spec::{ContainerSpec, IpcMode, Ownership, Resources};
use crate::view::{Effective, MountPoint};

/// Whose network namespace a container has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Net {
    /// Its own, or another container's given by descriptor.
    Joined,
    /// The host's.
    Host,
}

/// Everything the specification is made of.
pub(crate) struct Input<'a> {
    pub(crate) id: &'a ContainerId,
    pub(crate) spec: &'a ContainerSpec,
    pub(crate) effective: &'a Effective,
    pub(crate) mounts: &'a [MountPoint],
    pub(crate) files: &'a HostFiles,
    pub(crate) net: Net,
    pub(crate) host: &'a HostFacts,
    /// Init's process id of the containers whose namespaces are shared.
    pub(crate) pid_of: Option<i32>,
    pub(crate) ipc_of: Option<i32>,
    pub(crate) ipc: &'a IpcMode,
    pub(crate) capabilities: Capabilities,
    /// Who the container's users are on the host, in a user namespace given at the launch.
    pub(crate) users: Option<&'a IdMaps>,
    /// Whether a volume is nothing but a directory of ours.
    pub(crate) is_directory: &'a (dyn Fn(&VolumeName) -> bool + Sync),
    /// Where layers are, the top one first.
    pub(crate) layers: &'a (dyn Fn(&[DiffId]) -> Vec<PathBuf> + Sync),
}

/// Settings of the daemon and facts of the host that the specification depends on.
#[derive(Clone, Debug)]
pub(crate) struct HostFacts {
    pub(crate) cgroup_driver: CgroupDriver,
    pub(crate) cgroup_parent: String,
    pub(crate) cgroup_unified: bool,
    pub(crate) cgroup_namespace: Option<Ownership>,
    pub(crate) shm_size: u64,
    pub(crate) ulimits: Vec<Ulimit>,
    pub(crate) init_binary: Option<PathBuf>,
    pub(crate) default_init: bool,
    pub(crate) no_new_privileges: bool,
    /// AppArmor profile of containers that ask for none; `None` where the host has no AppArmor.
    pub(crate) default_profile: Option<&'static str>,
}

impl HostFacts {
    fn apparmor<'a>(&self, spec: &'a ContainerSpec) -> Option<&'a str> {
        self.default_profile.map(|default| spec.security.apparmor(default))
    }
}

/// Where our init is bound inside a container.
pub(crate) const INIT_PATH: &str = "/sbin/docker-init";

const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

impl Input<'_> {
    const fn init(&self) -> bool {
        match self.spec.process.init {
            Some(wanted) => wanted,
            None => self.host.default_init,
        }
    }

    const fn cgroup_ownership(&self) -> Ownership {
        match (self.spec.namespaces.cgroup, self.host.cgroup_namespace) {
            (Some(own), _) => own,
            // COMPAT: on v1 the privileged see the host's groups whatever the default is; on v2 they have a tree of
            // their own, in which they may make groups.
            (None, _) if !self.host.cgroup_unified && self.spec.security.privileged => {
                Ownership::Host
            }
            (None, Some(default)) => default,
            (None, None) if self.host.cgroup_unified => Ownership::Private,
            (None, None) => Ownership::Host,
        }
    }
}

/// Reads one section; the JSON is our own, so a failure is a fault of ours.
fn section<T: serde::de::DeserializeOwned>(value: Value) -> Result<T> {
    serde_json::from_value(value).map_err(|error| {
        Error::Internal(format!("cannot build the runtime specification: {error}"))
    })
}

/// Builds the specification.
pub(crate) fn build(input: &Input<'_>) -> Result<Spec> {
    let spec = input.spec;
    let privileged = spec.security.privileged;
    let mut linux = json!({
        "sysctl": sysctls(input),
        "cgroupsPath": cgroup_path(input),
        "namespaces": namespaces(input),
        "resources": resources::section(&spec.resources, input.host.cgroup_unified)?,
        "rootfsPropagation": mounts::root_propagation(input.mounts),
        "mountLabel": label(&input.effective.labels.mount),
    });
    if let Some(maps) = input.users {
        linux["uidMappings"] = mappings(&maps.users);
        linux["gidMappings"] = mappings(&maps.groups);
    }
    linux["resources"]["devices"] = devices::rules(spec, privileged);
    if !privileged {
        let masked = spec.security.masked_paths.clone();
        linux["maskedPaths"] = json!(masked.unwrap_or_else(|| MASKED.map(str::to_owned).to_vec()));
        let read_only = spec.security.readonly_paths.clone();
        linux["readonlyPaths"] =
            json!(read_only.unwrap_or_else(|| READ_ONLY.map(str::to_owned).to_vec()));
    }
    let document = json!({
        "ociVersion": "1.2.1",
        "process": process(input)?,
        "root": { "path": "rootfs", "readonly": spec.storage.read_only },
        "mounts": mounts::section(input)?,
        "annotations": spec.annotations,
        "linux": linux,
    });
    let mut built: Spec = section(document)?;
    // The host's UTS namespace keeps the host's names.
    if spec.namespaces.uts == Ownership::Private {
        built.set_hostname(Some(input.effective.hostname.clone()));
        if !spec.network.domainname.is_empty() {
            built.set_domainname(Some(spec.network.domainname.clone()));
        }
    }
    if let Some(linux) = built.linux_mut() {
        linux.set_devices(Some(devices::nodes(spec)?));
        // The filter travels beside the specification, see `Launch::seccomp`.
        linux.set_seccomp(None);
    }
    Ok(built)
}

/// Tells whether `rule` reads as `c 1:3 rwm`.
pub(crate) fn is_device_rule(rule: &str) -> bool {
    devices::parse_rule(rule).is_some()
}

/// Builds the limits alone, for `update`.
pub(crate) fn build_resources(resources: &Resources, unified: bool) -> Result<LinuxResources> {
    section(resources::section(resources, unified)?)
}

fn mappings(map: &IdMap) -> Value {
    let range = |range: &IdRange| json!({ "containerID": range.inside, "hostID": range.outside, "size": range.count });
    map.ranges().iter().map(range).collect()
}

fn process(input: &Input<'_>) -> Result<Value> {
    let (spec, effective) = (input.spec, input.effective);
    let mut args = effective.command.clone();
    if input.init() {
        let words = [INIT_PATH.to_owned(), "--".to_owned()];
        args.splice(0..0, words);
    }
    Ok(json!({
        "terminal": spec.process.tty,
        "consoleSize": console(spec.process.window),
        "user": { "uid": 0, "gid": 0 },
        "args": args,
        "env": process_env(effective, spec.process.tty),
        "cwd": working_dir(&effective.working_dir),
        "capabilities": capabilities(input.capabilities),
        "rlimits": resources::rlimits(&spec.resources.ulimits, &input.host.ulimits)?,
        "noNewPrivileges": no_new_privileges(&spec.security.options, input.host.no_new_privileges),
        "oomScoreAdj": spec.process.oom_score_adj.unwrap_or(0),
        "apparmorProfile": input.host.apparmor(spec),
        "selinuxLabel": label(&effective.labels.process),
    }))
}

fn label(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn console(window: WindowSize) -> Value {
    if window == WindowSize::default() {
        Value::Null
    } else {
        json!({ "height": window.height, "width": window.width })
    }
}

fn working_dir(path: &str) -> &str {
    if path.is_empty() { "/" } else { path }
}

fn capabilities(set: Capabilities) -> Value {
    let names = json!(set.names());
    json!({ "bounding": names, "permitted": names, "effective": names })
}

fn no_new_privileges(options: &[String], default: bool) -> bool {
    let mut on = default;
    for option in options {
        let (key, value) = option.split_once(['=', ':']).unwrap_or((option, "true"));
        if key == "no-new-privileges" {
            on = matches!(value, "true" | "1" | "t" | "T" | "TRUE" | "True");
        }
    }
    on
}

/// Builds an extra process.
pub(crate) fn build_exec(
    container: (&ContainerSpec, &Effective),
    exec: &ExecSpec,
    capabilities_of: Capabilities,
    host: &HostFacts,
) -> Result<Process> {
    let (spec, effective) = container;
    let mut env = process_env(effective, exec.tty);
    overlay_env(&mut env, &exec.env);
    let cwd = if exec.working_dir.is_empty() { &effective.working_dir } else { &exec.working_dir };
    section(json!({
        "terminal": exec.tty,
        "consoleSize": console(exec.window),
        "user": { "uid": 0, "gid": 0 },
        "args": exec.command,
        "env": env,
        "cwd": working_dir(cwd),
        "capabilities": capabilities(capabilities_of),
        "rlimits": resources::rlimits(&spec.resources.ulimits, &[])?,
        "noNewPrivileges":
            no_new_privileges(&spec.security.options, host.no_new_privileges) && !exec.privileged,
        "oomScoreAdj": spec.process.oom_score_adj.unwrap_or(0),
        // COMPAT: `exec --privileged` keeps the container's profile.
        "apparmorProfile": host.apparmor(spec),
        "selinuxLabel": label(&effective.labels.process),
    }))
}

/// Docker's own settings for a new network namespace, the domain name, then the user's.
fn sysctls(input: &Input<'_>) -> Value {
    let mut all = serde_json::Map::new();
    if input.net != Net::Host {
        all.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), json!("0"));
        // All groups that there are: the kernel takes no others.
        let groups = input.users.and_then(|users| users.groups.ranges().first());
        let last = groups.map_or(i32::MAX as u32, |range| range.inside + (range.count - 1));
        all.insert("net.ipv4.ping_group_range".to_owned(), json!(format!("0 {last}")));
    }
    if !input.spec.network.domainname.is_empty() && input.spec.namespaces.uts == Ownership::Private
    {
        all.insert("kernel.domainname".to_owned(), json!(input.spec.network.domainname));
    }
    for (key, value) in &input.spec.security.sysctls {
        all.insert(key.clone(), json!(value));
    }
    Value::Object(all)
}

fn cgroup_path(input: &Input<'_>) -> String {
    let own = input.spec.resources.cgroup_parent.as_deref().filter(|parent| !parent.is_empty());
    let parent = own.unwrap_or(&input.host.cgroup_parent);
    match input.host.cgroup_driver {
        CgroupDriver::Cgroupfs => format!("/{}/{}", parent.trim_matches('/'), input.id),
        CgroupDriver::Systemd => format!("{parent}:rorqual:{}", input.id),
    }
}

fn namespaces(input: &Input<'_>) -> Value {
    let spaces = &input.spec.namespaces;
    let mut all = vec![json!({ "type": "mount" })];
    // The network namespace is given by descriptor at the launch, where it is not the host's.
    if input.net == Net::Joined {
        all.push(json!({ "type": "network" }));
    }
    // Likewise the user namespace.
    if input.users.is_some() {
        all.push(json!({ "type": "user" }));
    }
    if spaces.uts == Ownership::Private {
        all.push(json!({ "type": "uts" }));
    }
    match (&spaces.pid, input.pid_of) {
        (_, Some(pid)) => all.push(json!({ "type": "pid", "path": format!("/proc/{pid}/ns/pid") })),
        (crate::spec::PidMode::Host, None) => {}
        (_, None) => all.push(json!({ "type": "pid" })),
    }
    match (input.ipc, input.ipc_of) {
        (_, Some(pid)) => all.push(json!({ "type": "ipc", "path": format!("/proc/{pid}/ns/ipc") })),
        (IpcMode::Host, None) => {}
        (_, None) => all.push(json!({ "type": "ipc" })),
    }
    if input.cgroup_ownership() == Ownership::Private {
        all.push(json!({ "type": "cgroup" }));
    }
    Value::Array(all)
}

#[cfg(test)]
mod tests;
