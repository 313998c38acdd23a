//! Makes plans out of specifications. Pure: the same input gives the same plan.

use std::path::Path;

use oci_spec::runtime::{Hooks, Linux, LinuxNamespaceType, Process, Spec};
use rorqual_core::mount::RootfsPlan;
use rorqual_sys::namespace::Namespaces;

use super::convert::{id_map, kernel_kind, memory_policy, namespace_kind, personality};
use super::mounts::{MountContext, push_devices, push_mount, push_protection};
use super::options::propagation;
use super::process::{ProcessContext, push_early, push_process};
use super::{Facts, HookPoint, IdmapPlan, InitPlan, NetDevicePlan, SourcePlan, Step};
use crate::Error;
use crate::request::{Namespace, ProcessUser};

/// What a plan is made from.
pub(crate) struct PlanInput<'a> {
    pub bundle: &'a Path,
    pub spec: &'a Spec,
    pub rootfs: &'a RootfsPlan,
    pub user: &'a ProcessUser,
    pub facts: &'a Facts,
}

/// Plans the first process of a container.
pub(crate) fn init_plan(input: &PlanInput<'_>) -> Result<InitPlan, Error> {
    let spec = input.spec;
    let no_linux = Linux::default();
    let linux = spec.linux().as_ref().unwrap_or(&no_linux);
    let Some(process) = spec.process().as_ref() else {
        return Err(Error::InvalidSpec("process property must not be empty".into()));
    };
    let mut plan = InitPlan::empty();
    plan.steps
        .extend([Step::ForbidDumping, Step::CloseDescriptors { keep: input.facts.preserve_fds }]);
    push_early(&mut plan.steps, process);

    // ORDER: while still in the host's user namespace; the cgroup namespace that shows it comes later.
    if !input.facts.unified {
        plan.steps.push(Step::EnterCgroup);
    }
    let wanted = namespaces(&mut plan, input, linux)?;
    if wanted.own(Namespaces::USER)
        && let (Some(uids), Some(gids)) = (linux.uid_mappings(), linux.gid_mappings())
    {
        let (uids, gids) = (id_map(uids), id_map(gids));
        plan.users = Some(IdmapPlan { uids, gids, recursive: false });
    }
    push_kernel_settings(&mut plan, spec, linux, &wanted)?;
    push_root(&mut plan, input, linux, &wanted)?;

    if let Some(policy) = linux.memory_policy() {
        let (mode, nodes) = memory_policy(policy)?;
        plan.steps.push(Step::MemoryPolicy { mode, nodes });
    }
    if let Some(domain) = linux.personality() {
        plan.steps.push(Step::Personality(personality(domain)?));
    }
    let hooks = spec.hooks().as_ref();
    let context = ProcessContext {
        facts: input.facts,
        user: input.user,
        filtered: input.facts.filter_given || linux.seccomp().is_some(),
        init: true,
        start_hooks: some(hooks.and_then(|hooks| hooks.start_container().as_ref())),
    };
    push_process(&mut plan.steps, process, &context)?;
    if input.facts.unprivileged {
        // ORDER: before dumping is forbidden, which gives the files of the maps to root.
        plan.steps.sort_by_key(|step| *step != Step::AwaitIdMaps);
    }
    Ok(plan)
}

/// Plans an extra process in a running container.
pub(crate) fn exec_plan(
    process: &Process,
    spec: &Spec,
    user: &ProcessUser,
    facts: &Facts,
) -> Result<InitPlan, Error> {
    let mut plan = InitPlan::empty();
    plan.steps.extend([Step::ForbidDumping, Step::CloseDescriptors { keep: facts.preserve_fds }]);
    push_early(&mut plan.steps, process);
    if !facts.unified {
        plan.steps.push(Step::EnterCgroup);
    }
    plan.steps.extend([Step::JoinTarget, Step::BecomeRoot, Step::NewSession]);
    if facts.terminal {
        plan.steps.push(terminal(process, false));
    }
    let linux = spec.linux().as_ref();
    if let Some(domain) = linux.and_then(|linux| linux.personality().as_ref()) {
        plan.steps.push(Step::Personality(personality(domain)?));
    }
    let context = ProcessContext {
        facts,
        user,
        filtered: facts.filter_given || linux.is_some_and(|linux| linux.seccomp().is_some()),
        init: false,
        start_hooks: false,
    };
    push_process(&mut plan.steps, process, &context)?;
    Ok(plan)
}

/// Which namespaces are not the host's.
#[derive(Default)]
struct Wanted {
    new: Namespaces,
    joined: Namespaces,
}

impl Wanted {
    fn own(&self, kind: Namespaces) -> bool {
        self.new.with(self.joined).contains(kind)
    }
}

fn namespaces(plan: &mut InitPlan, input: &PlanInput<'_>, linux: &Linux) -> Result<Wanted, Error> {
    let mut wanted = Wanted::default();
    let mut joins = Vec::new();
    for (index, kind) in input.facts.given.iter().enumerate() {
        let source = plan.add_source(SourcePlan::Given(index));
        joins.push((*kind, source));
        wanted.joined = wanted.joined.with(kernel_kind(*kind));
    }
    let mut seen = Namespaces::empty();
    for namespace in linux.namespaces().iter().flatten() {
        let kind = namespace_kind(namespace.typ());
        let bit = kernel_kind(kind);
        if seen.contains(bit) {
            return Err(Error::InvalidSpec(format!(
                "namespace {} is listed twice",
                namespace_name(namespace.typ())
            )));
        }
        seen = seen.with(bit);
        if wanted.joined.contains(bit) {
            continue;
        }
        match namespace.path() {
            Some(path) if !path.as_os_str().is_empty() => {
                let source = plan.add_source(SourcePlan::Namespace(path.clone()));
                joins.push((kind, source));
                wanted.joined = wanted.joined.with(bit);
            }
            _ => wanted.new = wanted.new.with(bit),
        }
    }
    push_joins(plan, &wanted, joins);
    Ok(wanted)
}

fn push_joins(plan: &mut InitPlan, wanted: &Wanted, joins: Vec<(Namespace, super::SourceId)>) {
    // The kernel roots a cgroup namespace where its maker is, and starts the clock of a time namespace with its
    // first process: both are made by the child itself, later.
    plan.create = wanted.new.without(Namespaces::CGROUP).without(Namespaces::TIME);
    let (first, later): (Vec<_>, Vec<_>) =
        joins.into_iter().partition(|(kind, _)| matches!(kind, Namespace::User | Namespace::Pid));
    plan.join_first = first;
    // ORDER: the user namespace must be entered before namespaces that it owns.
    plan.join_first.sort_by_key(|(kind, _)| *kind != Namespace::User);
    if wanted.new.contains(Namespaces::USER) {
        plan.steps.push(Step::AwaitIdMaps);
    }
    if wanted.own(Namespaces::USER) {
        plan.steps.push(Step::BecomeRoot);
    }
    let (mount, others): (Vec<_>, Vec<_>) =
        later.into_iter().partition(|(kind, _)| matches!(kind, Namespace::Mount));
    // ORDER: the mount namespace comes last, it takes the host's files away.
    let later = others.into_iter().chain(mount);
    plan.steps.extend(later.map(|(kind, source)| Step::Join(kind, source)));
    plan.steps.push(Step::NewSession);
}

fn push_kernel_settings(
    plan: &mut InitPlan,
    spec: &Spec,
    linux: &Linux,
    wanted: &Wanted,
) -> Result<(), Error> {
    if wanted.new.contains(Namespaces::TIME) {
        let mut offsets: Vec<String> = linux
            .time_offsets()
            .iter()
            .flatten()
            .map(|(clock, offset)| {
                let (secs, nanos) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
                format!("{clock} {secs} {nanos}\n")
            })
            .collect();
        offsets.sort();
        plan.steps.push(Step::TimeOffsets(offsets.concat()));
    } else if some(linux.time_offsets().as_ref().map(|offsets| offsets.keys())) {
        return Err(Error::InvalidSpec("timeOffsets need a new time namespace".into()));
    }
    if wanted.new.contains(Namespaces::NETWORK) {
        plan.steps.push(Step::Loopback);
    }
    push_network_devices(plan, linux, wanted)?;
    let name = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
    let names = [name(spec.hostname()), name(spec.domainname())];
    if names.iter().any(Option::is_some) && !wanted.own(Namespaces::UTS) {
        return Err(Error::InvalidSpec(
            "unable to set hostname or domainname without a private UTS namespace".into(),
        ));
    }
    let [hostname, domainname] = names;
    plan.steps.extend(hostname.map(Step::Hostname));
    plan.steps.extend(domainname.map(Step::Domainname));
    Ok(())
}

fn push_network_devices(plan: &mut InitPlan, linux: &Linux, wanted: &Wanted) -> Result<(), Error> {
    let mut devices: Vec<NetDevicePlan> = linux
        .net_devices()
        .iter()
        .flatten()
        .map(|(host, device)| {
            let name = device.name().clone().filter(|name| !name.is_empty());
            NetDevicePlan { host: host.clone(), inside: name.unwrap_or_else(|| host.clone()) }
        })
        .collect();
    devices.sort_by(|one, other| one.host.cmp(&other.host));
    for NetDevicePlan { host, inside } in &devices {
        // LIMIT: IFNAMSIZ less the final null; slashes and blanks are the kernel's own rule, too.
        let fits = |name: &str| {
            (1..=15).contains(&name.len())
                && !matches!(name, "." | "..")
                && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace())
        };
        if !fits(host) || !fits(inside) {
            return Err(Error::InvalidSpec(format!(
                "netDevices: {host:?} to {inside:?} is not a pair of device names"
            )));
        }
    }
    if devices.is_empty() {
        return Ok(());
    }
    if !wanted.own(Namespaces::NETWORK) {
        return Err(Error::InvalidSpec("netDevices need a private network namespace".into()));
    }
    plan.steps.push(Step::NetworkDevices(devices));
    Ok(())
}

fn push_sysctls(plan: &mut InitPlan, linux: &Linux, wanted: &Wanted) -> Result<(), Error> {
    let mut sysctls: Vec<_> = linux.sysctl().iter().flatten().collect();
    sysctls.sort();
    for (name, value) in sysctls {
        // COMPAT: both spellings are in use; slashes are the unambiguous one (`net/ipv4/conf/eth0.1`).
        let dotted = if name.contains('/') { name.replace('/', ".") } else { name.clone() };
        let path = if name.contains('/') { name.clone() } else { name.replace('.', "/") };
        let needs = sysctl_namespace(&dotted).ok_or_else(|| {
            Error::InvalidSpec(format!("sysctl {name:?} is not in a separate kernel namespace"))
        })?;
        if !wanted.own(needs) || path.split('/').any(|part| part.is_empty() || part == "..") {
            return Err(Error::InvalidSpec(format!(
                "sysctl {name:?} not allowed in host namespace"
            )));
        }
        plan.steps.push(Step::Sysctl { name: path, value: value.clone() });
    }
    Ok(())
}

/// Returns which namespace a kernel parameter belongs to; `None` for those of the whole host.
fn sysctl_namespace(name: &str) -> Option<Namespaces> {
    const IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    if IPC.contains(&name) || name.starts_with("fs.mqueue.") {
        Some(Namespaces::IPC)
    } else if name.starts_with("net.") {
        Some(Namespaces::NETWORK)
    } else if matches!(name, "kernel.domainname" | "kernel.hostname") {
        Some(Namespaces::UTS)
    } else {
        None
    }
}

fn push_root(
    plan: &mut InitPlan,
    input: &PlanInput<'_>,
    linux: &Linux,
    wanted: &Wanted,
) -> Result<(), Error> {
    let spec = input.spec;
    let new_cgroup_namespace = wanted.new.contains(Namespaces::CGROUP);
    let context =
        MountContext { facts: input.facts, bundle: input.bundle, linux, new_cgroup_namespace };
    if new_cgroup_namespace {
        plan.steps.push(Step::Unshare(Namespaces::CGROUP));
    }
    let root = plan.add_source(SourcePlan::Rootfs(input.rootfs.clone()));
    if wanted.new.contains(Namespaces::MOUNT) {
        plan.steps.push(Step::IsolateMounts);
        plan.steps.push(Step::Root { source: root, at: "/".into() });
    } else {
        // Others live in this mount namespace: their root and the propagation of their mounts stay as they are.
        let RootfsPlan::Directory { path } = input.rootfs else {
            return Err(Error::Unsupported(
                "a root file system of layers needs a new mount namespace".into(),
            ));
        };
        plan.steps.push(Step::Root { source: root, at: path.clone() });
    }

    let no_mounts = Vec::new();
    let mounts = spec.mounts().as_ref().unwrap_or(&no_mounts);
    for mount in mounts {
        push_mount(plan, &context, mount)?;
    }
    // ORDER: through the container's own /proc, and before any of it is read-only.
    push_sysctls(plan, linux, wanted)?;
    push_devices(plan, mounts, linux, wanted.own(Namespaces::USER))?;
    if input.facts.terminal
        && let Some(process) = spec.process().as_ref()
    {
        plan.steps.push(terminal(process, true));
    }
    push_hooks_and_pivot(plan, input, linux, wanted)
}

fn push_hooks_and_pivot(
    plan: &mut InitPlan,
    input: &PlanInput<'_>,
    linux: &Linux,
    wanted: &Wanted,
) -> Result<(), Error> {
    let hooks = input.spec.hooks().as_ref();
    check_hooks(hooks)?;
    let prestart = hooks.and_then(|hooks| hooks.prestart().as_ref());
    if some(prestart) || some(hooks.and_then(|hooks| hooks.create_runtime().as_ref())) {
        plan.steps.push(Step::Hooks(HookPoint::Runtime));
    }
    if some(hooks.and_then(|hooks| hooks.create_container().as_ref())) {
        plan.steps.push(Step::Hooks(HookPoint::CreateContainer));
    }
    let readonly = input.spec.root().as_ref().and_then(oci_spec::runtime::Root::readonly);
    push_protection(plan, linux, readonly == Some(true));
    let own = wanted.new.contains(Namespaces::MOUNT);
    let pivot = own && !input.facts.no_pivot;
    plan.steps.push(if pivot { Step::Pivot } else { Step::MoveRoot });
    if let Some(text) = linux.rootfs_propagation().as_deref().filter(|text| !text.is_empty()) {
        let Some((how, recursive)) = propagation(text) else {
            return Err(Error::InvalidSpec(format!("rootfsPropagation={text} is not supported")));
        };
        plan.steps.push(Step::RootPropagation { how, recursive });
    }
    Ok(())
}

fn check_hooks(hooks: Option<&Hooks>) -> Result<(), Error> {
    let Some(hooks) = hooks else { return Ok(()) };
    let lists = [
        hooks.prestart(),
        hooks.create_runtime(),
        hooks.create_container(),
        hooks.start_container(),
        hooks.poststart(),
        hooks.poststop(),
    ];
    for hook in lists.into_iter().flatten().flatten() {
        let bad = |what: &str| Error::InvalidSpec(format!("hook {:?} {what}", hook.path()));
        if !hook.path().is_absolute() {
            return Err(bad("must be an absolute path"));
        }
        if hook.timeout().is_some_and(|seconds| seconds <= 0) {
            return Err(bad("must have a timeout greater than zero, or none"));
        }
    }
    Ok(())
}

fn terminal(process: &Process, console: bool) -> Step {
    let size = process.console_size().map_or((0, 0), |size| {
        let clamp = |n: u64| u16::try_from(n).unwrap_or(u16::MAX);
        (clamp(size.width()), clamp(size.height()))
    });
    Step::Terminal { console, size }
}

fn namespace_name(kind: LinuxNamespaceType) -> String {
    format!("{:?}", namespace_kind(kind)).to_lowercase()
}

/// Tells whether a list is there and has an element.
fn some<'a, T: 'a>(list: Option<impl IntoIterator<Item = T>>) -> bool {
    list.is_some_and(|list| list.into_iter().next().is_some())
}

impl InitPlan {
    fn empty() -> Self {
        Self {
            create: Namespaces::empty(),
            join_first: Vec::new(),
            users: None,
            sources: Vec::new(),
            steps: Vec::new(),
            late: Vec::new(),
            warnings: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
