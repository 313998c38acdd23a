//! Creating containers and extra processes: the parent's half of the conversation with the child.

mod launch;

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use oci_spec::runtime::{LinuxNamespaceType, Process, Spec};
use rorqual_core::mount::RootfsPlan;
use rorqual_sys::namespace::{self, Namespaces};
use rorqual_sys::process;

use crate::channel::{self, Order, Report};
use crate::hooks::{self, HookSet};
use crate::init::{Gate, Prepared};
use crate::listener::Agent;
use crate::plan::{Facts, InitPlan, PlanInput, SourcePlan, Step, exec_plan, id_map, init_plan};
use crate::request::{Barrier, ContainerRequest, Created, ExecRequest, Executed, Stdio};
use crate::seccomp::Filter;
use crate::sources::{self, Opening};
use crate::{Error, StartFailure, cgroup, netdev, rdt, users};
use launch::{differing_namespaces, launch, open_own_pid_namespace};

/// What only the command line asks for.
#[derive(Debug)]
pub(crate) struct Extras {
    pub gate: Gate,
    pub keep_keyring: bool,
    pub no_pivot: bool,
    pub preserve_fds: u32,
    /// Whether the process outlives whoever starts it.
    pub outlives_parent: bool,
    /// Opens the sources of bind mounts one by one when their turn comes: newer kernels list mounts in the order in
    /// which they were made, which then is that of the specification. Costs a round trip for each.
    pub late_binds: bool,
    pub cgroup: cgroup::Maker,
    /// Hears what is about to be done.
    pub observer: Option<Observer>,
}

/// Somebody who wants to know.
pub(crate) struct Observer(pub Box<dyn Fn(&str)>);

impl std::fmt::Debug for Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Observer")
    }
}

impl Extras {
    fn tell(&self, message: impl FnOnce() -> String) {
        if let Some(Observer(hear)) = &self.observer {
            message().lines().for_each(hear);
        }
    }
}

impl Default for Extras {
    fn default() -> Self {
        Self {
            gate: Gate::Parent,
            keep_keyring: false,
            no_pivot: false,
            preserve_fds: 0,
            outlives_parent: false,
            late_binds: false,
            cgroup: cgroup::Maker::default(),
            observer: None,
        }
    }
}

fn os(action: &str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Os { action: action.to_owned(), source }
}

/// Creates a container, see [`crate::create`].
pub(crate) fn create(request: ContainerRequest, extras: Extras) -> Result<Created, Error> {
    let ContainerRequest { id, bundle, spec, rootfs, joined, stdio, user, barrier, filter } =
        request;
    let mut warnings = Vec::new();
    let group = cgroup::create(&id, &spec, extras.cgroup, &mut warnings)?;
    let guard = CgroupGuard(Some(group));
    let group = guard.group()?;
    let class = rdt::prepare(&id, &spec)?;

    let facts = Facts {
        unified: group.unified(),
        hierarchies: if wants_hierarchies(&spec) { group.hierarchies() } else { Vec::new() },
        selinux: std::path::Path::new("/sys/fs/selinux/enforce").exists(),
        terminal: matches!(stdio, Stdio::Terminal { .. }),
        given: joined.iter().map(|joined| joined.kind).collect(),
        keep_keyring: extras.keep_keyring,
        no_pivot: extras.no_pivot,
        barrier: barrier == Barrier::Wait,
        preserve_fds: extras.preserve_fds,
        dies_with_parent: !extras.outlives_parent,
        filter_given: filter.is_some(),
        unprivileged: !rustix::process::geteuid().is_root(),
    };
    let input =
        PlanInput { bundle: &bundle, spec: &spec, rootfs: &rootfs, user: &user, facts: &facts };
    let plan = init_plan(&input)?;
    extras.tell(|| format!("control group:\n{}plan of init:\n{plan}", group.description()));
    warnings.extend(plan.warnings.iter().cloned());
    let process = spec.process().as_ref().ok_or_else(no_process)?;
    let (args, env) = strings(process)?;
    let hooks = HookSet::new(&id, bundle.clone(), &spec);
    let Extras { gate, observer, late_binds, .. } = extras;
    let opening = opening(&plan, late_binds);
    let prepared = Prepared {
        sources: sources::open_all(&plan, joined, opening)?,
        plan,
        args,
        env,
        stdio,
        opening,
        gate,
        hooks,
        target: None,
        target_root: None,
        target_kinds: Namespaces::empty(),
        filter: filter_of(filter, &spec)?,
        cgroup: Some(group.clone()),
    };
    let maps = spec.linux().as_ref().and_then(|linux| {
        let (uids, gids) = (linux.uid_mappings().as_ref()?, linux.gid_mappings().as_ref()?);
        Some((id_map(uids), id_map(gids)))
    });
    let mut child = launch(&prepared)?;
    if let Some(Observer(hear)) = &observer {
        hear(&format!("init is process {}", child.pid));
    }
    let state = prepared.hooks.document("created", child.pid);
    let agent = Agent::new(&spec, state);
    // ORDER: before init goes on; all that it starts is in its class.
    let assigned = class.as_ref().map_or(Ok(()), |class| class.assign(child.pid));
    let result = assigned
        .and_then(|()| child.negotiate(&prepared, maps, agent.as_ref(), barrier == Barrier::Wait));
    if let Err(error) = result {
        child.destroy();
        return Err(error);
    }
    warnings.append(&mut child.warnings);
    let (rootfs, hooks) = take_apart(prepared);
    let description = guard.keep();
    Ok(Created {
        pid: child.pid,
        pidfd: child.pidfd,
        terminal: child.terminal,
        cgroup: description,
        class: class.map(rdt::Guard::keep),
        rootfs,
        warnings,
        barrier: (barrier == Barrier::Wait).then_some(child.socket),
        agent,
        hooks,
    })
}

fn opening(plan: &InitPlan, late_binds: bool) -> Opening {
    let own_rights = rustix::process::geteuid().is_root();
    if plan.create.contains(Namespaces::USER) && !own_rights {
        Opening::ByChild
    } else if late_binds {
        Opening::BindsInTurn
    } else {
        Opening::AtOnce
    }
}

/// Starts an extra process, see [`crate::exec`].
pub(crate) fn exec(request: ExecRequest, extras: &Extras) -> Result<Executed, Error> {
    let ExecRequest { id, bundle, target_pid, target, process, spec, cgroup, stdio, user, filter } =
        request;
    let group = cgroup::open(&cgroup)?;
    let facts = Facts {
        unified: group.unified(),
        terminal: matches!(stdio, Stdio::Terminal { .. }),
        // An extra process shares the keyring of the container's init only by accident of its parent.
        keep_keyring: true,
        preserve_fds: extras.preserve_fds,
        dies_with_parent: !extras.outlives_parent,
        filter_given: filter.is_some(),
        ..Facts::default()
    };
    let mut plan = exec_plan(&process, &spec, &user, &facts)?;
    extras.tell(|| format!("plan of the process:\n{plan}"));
    let (args, env) = strings(&process)?;
    let kinds = differing_namespaces(target_pid)?;
    if kinds.contains(Namespaces::USER) {
        plan.users = users::maps_of(target_pid);
    }
    let target_root = if has_new_mount_namespace(&spec) {
        None
    } else {
        let root = rorqual_sys::mount::handle(format!("/proc/{target_pid}/root").as_ref());
        Some(root.map_err(os("open the root of the container"))?)
    };
    let prepared = Prepared {
        plan,
        sources: Vec::new(),
        opening: Opening::AtOnce,
        args,
        env,
        stdio,
        gate: Gate::Parent,
        hooks: HookSet::default(),
        target: Some(target),
        target_root,
        target_kinds: kinds.without(Namespaces::PID),
        filter: filter_of(filter, &spec)?,
        cgroup: Some(group),
    };
    let mut child = if kinds.contains(Namespaces::PID) {
        let target = prepared.target.as_ref().ok_or_else(no_process)?;
        let own = open_own_pid_namespace()?;
        namespace::join(target.as_fd(), Namespaces::PID)
            .map_err(os("join the container's pid namespace"))?;
        let child = launch(&prepared);
        // ORDER: later children of this process belong into its own namespace again, whatever happened.
        namespace::join(own.as_fd(), Namespaces::PID).map_err(os("return to the pid namespace"))?;
        child?
    } else {
        launch(&prepared)?
    };
    let state = HookSet::new(&id, bundle, &spec).document("running", target_pid);
    let agent = Agent::new(&spec, state);
    let result = rdt::join(&id, &spec, child.pid)
        .and_then(|()| child.negotiate(&prepared, None, agent.as_ref(), false));
    if let Err(error) = result {
        child.destroy();
        return Err(error);
    }
    Ok(Executed { pid: child.pid, pidfd: child.pidfd, terminal: child.terminal })
}

/// Takes the mount of an overlay root out of what init was given, and the hooks.
fn take_apart(prepared: Prepared) -> (Option<OwnedFd>, HookSet) {
    let Prepared { plan, sources, hooks, .. } = prepared;
    let is_overlay = |plan: &SourcePlan| matches!(plan, SourcePlan::Rootfs(RootfsPlan::Overlay(_)));
    let at = plan.sources.iter().position(is_overlay);
    (at.and_then(|at| sources.into_iter().nth(at).flatten()), hooks)
}

/// Returns the filter given, or compiles that of the specification.
fn filter_of(given: Option<Filter>, spec: &Spec) -> Result<Option<Filter>, Error> {
    let section = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    given.map_or_else(|| section.map(Filter::compile).transpose(), |filter| Ok(Some(filter)))
}

fn no_process() -> Error {
    Error::InvalidSpec("process property must not be empty".into())
}

/// Tells whether the container mounts cgroups, so that knowing the host's is worth the time.
fn wants_hierarchies(spec: &oci_spec::runtime::Spec) -> bool {
    spec.mounts().iter().flatten().any(|mount| mount.typ().as_deref() == Some("cgroup"))
}

/// Tells whether entering the container's mount namespace is enough to be at its root.
fn has_new_mount_namespace(spec: &oci_spec::runtime::Spec) -> bool {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    namespaces.into_iter().flatten().any(|namespace| {
        namespace.typ() == LinuxNamespaceType::Mount
            && namespace.path().as_ref().is_none_or(|path| path.as_os_str().is_empty())
    })
}

/// Deletes the cgroup unless the container came to be.
struct CgroupGuard(Option<cgroup::Group>);

impl CgroupGuard {
    fn group(&self) -> Result<&cgroup::Group, Error> {
        self.0.as_ref().ok_or_else(no_process)
    }

    fn keep(mut self) -> String {
        self.0.take().map(|group| group.description()).unwrap_or_default()
    }
}

impl Drop for CgroupGuard {
    fn drop(&mut self) {
        if let Some(group) = self.0.take() {
            group.remove();
        }
    }
}

/// A cloned child and what it has told so far.
struct Child {
    pid: i32,
    pidfd: OwnedFd,
    socket: OwnedFd,
    terminal: Option<OwnedFd>,
    warnings: Vec<String>,
}

impl Child {
    /// Talks to the child until it waits at the barrier or runs its program.
    fn negotiate(
        &mut self,
        prepared: &Prepared,
        maps: Option<(String, String)>,
        agent: Option<&Agent>,
        wait: bool,
    ) -> Result<(), Error> {
        if prepared.plan.create.contains(Namespaces::USER) {
            let (uids, gids) = maps.ok_or_else(|| {
                Error::InvalidSpec("a new user namespace needs uidMappings and gidMappings".into())
            })?;
            users::raise(&prepared.plan.steps, Some(self.pid));
            sources::write_maps(self.pid, &uids, &gids)
                .map_err(os("write the id maps of the container"))?;
            self.order(Order::IdMapsWritten)?;
        }
        let mut launching = false;
        loop {
            let report = channel::receive_report(self.socket.as_fd())
                .map_err(os("hear from the container's init"))?;
            match report {
                Report::Failed { failure, message } => {
                    return Err(Error::Init { message, failure });
                }
                Report::Warning(text) => self.warnings.push(text),
                Report::Terminal(master) => self.terminal = Some(master),
                Report::HooksDue => {
                    let set = &prepared.hooks;
                    // COMPAT: what the older hooks are told is what the validation suite expects.
                    let state = set.state("created", self.pid);
                    hooks::run("prestart", &set.prestart, &state).map_err(failed)?;
                    let state = set.state("creating", self.pid);
                    hooks::run("createRuntime", &set.create_runtime, &state).map_err(failed)?;
                    self.order(Order::HooksDone)?;
                }
                Report::DevicesDue => {
                    for step in &prepared.plan.steps {
                        let Step::NetworkDevices(devices) = step else { continue };
                        netdev::move_all(self.pid, devices)
                            .map_err(os("move devices to the container's network"))?;
                    }
                    self.order(Order::DevicesMoved)?;
                }
                Report::SourceDue(index) => {
                    let tree = sources::open_late(&prepared.plan, index as usize)?;
                    let tree = Report::Mounted(tree);
                    channel::send_report(self.socket.as_fd(), &tree)
                        .map_err(os("talk to the container's init"))?;
                }
                Report::Ready if wait => return Ok(()),
                Report::Listener(number) => {
                    let process = (self.pid, self.pidfd.as_fd());
                    deliver(&self.socket, process, agent, number)?;
                }
                Report::Ready | Report::Sibling(_) | Report::Mounted(_) => {}
                Report::Launching => launching = true,
                Report::Closed if launching => return Ok(()),
                Report::Closed => return Err(failed("init ended before its program".to_owned())),
            }
        }
    }

    fn order(&self, order: Order) -> Result<(), Error> {
        channel::send_order(self.socket.as_fd(), order).map_err(os("talk to the container's init"))
    }

    fn destroy(&self) {
        kill_and_reap(self.pidfd.as_fd());
    }
}

fn failed(message: String) -> Error {
    Error::Init { message, failure: StartFailure::Other }
}

fn kill_and_reap(pidfd: BorrowedFd<'_>) {
    // It may have ended by itself, and somebody else may have reaped it, or will.
    let _ = process::pidfd_send_signal(pidfd, libc::SIGKILL);
    let _ = process::wait_pidfd(pidfd);
}

/// A process by number and descriptor.
type ProcessRef<'a> = (i32, BorrowedFd<'a>);

/// Gives the listener of the filter to the agent, and lets the process go on.
fn deliver(
    socket: &OwnedFd,
    (pid, pidfd): ProcessRef<'_>,
    agent: Option<&Agent>,
    number: i32,
) -> Result<(), Error> {
    let agent = agent.ok_or_else(|| failed("there is no agent for the seccomp filter".into()))?;
    agent.hand_over(pidfd, pid, number).map_err(|source| Error::Os {
        action: format!("hand the seccomp listener to {:?}", agent.socket()),
        source,
    })?;
    channel::send_order(socket.as_fd(), Order::ListenerTaken)
        .map_err(os("talk to the container's init"))
}

/// Passes the barrier and waits for the program to run or fail; in the latter case the process is gone.
pub(crate) fn start(
    socket: &OwnedFd,
    process: ProcessRef<'_>,
    agent: Option<&Agent>,
) -> Result<(), Error> {
    let result = channel::send_order(socket.as_fd(), Order::Start)
        .map_err(os("talk to the container's init"))
        .and_then(|()| await_launch(socket, process, agent));
    if result.is_err() {
        kill_and_reap(process.1);
    }
    result
}

/// Waits until the channel closes by `execve(2)`.
fn await_launch(
    socket: &OwnedFd,
    process: ProcessRef<'_>,
    agent: Option<&Agent>,
) -> Result<(), Error> {
    let mut launching = false;
    loop {
        let report = channel::receive_report(socket.as_fd())
            .map_err(os("hear from the container's init"))?;
        match report {
            Report::Failed { failure, message } => return Err(Error::Init { message, failure }),
            Report::Launching => launching = true,
            Report::Closed if launching => return Ok(()),
            Report::Closed => return Err(failed("init ended before its program".to_owned())),
            Report::Listener(number) => deliver(socket, process, agent, number)?,
            _ => {}
        }
    }
}

fn strings(process: &Process) -> Result<(Vec<CString>, Vec<CString>), Error> {
    let convert = |list: &Option<Vec<String>>, what: &str| {
        list.iter()
            .flatten()
            .map(|text| CString::new(text.as_str()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| Error::InvalidSpec(format!("{what} contains a null byte")))
    };
    Ok((convert(process.args(), "process.args")?, convert(process.env(), "process.env")?))
}
