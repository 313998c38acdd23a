//! Creating containers and extra processes: the parent's half of the conversation with the child.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use oci_spec::runtime::{LinuxNamespaceType, Process, Spec};
use rorqual_core::mount::RootfsPlan;
use rorqual_sys::cgroup::Driver;
use rorqual_sys::namespace::{self, Namespaces};
use rorqual_sys::process::{self, CloneOptions, Cloned};
use rustix::fs::{Mode, OFlags};

use crate::channel::{self, Order, Report};
use crate::hooks::{self, HookSet};
use crate::init::{self, Gate, Prepared};
use crate::plan::{
    Facts, PlanInput, SourceId, SourcePlan, exec_plan, id_map, init_plan, kernel_kind,
};
use crate::request::{Barrier, ContainerRequest, Created, ExecRequest, Executed, Namespace, Stdio};
use crate::seccomp::Filter;
use crate::sources;
use crate::{Error, StartFailure, cgroup};

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
    pub cgroup_driver: Driver,
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
            cgroup_driver: Driver::Cgroupfs,
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
    let group = cgroup::create(&id, &spec, extras.cgroup_driver, &mut warnings)?;
    let guard = CgroupGuard(Some(group));
    let group = guard.group()?;

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
    };
    let input = PlanInput {
        id: &id,
        bundle: &bundle,
        spec: &spec,
        rootfs: &rootfs,
        user: &user,
        facts: &facts,
    };
    let plan = init_plan(&input)?;
    warnings.extend(plan.warnings.iter().cloned());
    let process = spec.process().as_ref().ok_or_else(no_process)?;
    let (args, env) = strings(process)?;
    let hooks = HookSet::new(&id, bundle.clone(), &spec);
    let prepared = Prepared {
        sources: sources::open_all(&plan.sources, joined, extras.late_binds)?,
        plan,
        args,
        env,
        stdio,
        gate: extras.gate,
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
    let result = child.negotiate(&prepared, maps, barrier == Barrier::Wait);
    if let Err(error) = result {
        child.destroy();
        return Err(error);
    }
    warnings.append(&mut child.warnings);
    let rootfs = take_overlay(prepared);
    let description = guard.keep();
    Ok(Created {
        pid: child.pid,
        pidfd: child.pidfd,
        terminal: child.terminal,
        cgroup: description,
        rootfs,
        warnings,
        barrier: (barrier == Barrier::Wait).then_some(child.socket),
    })
}

/// Starts an extra process, see [`crate::exec`].
pub(crate) fn exec(request: ExecRequest, extras: &Extras) -> Result<Executed, Error> {
    let ExecRequest { target_pid, target, process, spec, cgroup, stdio, user, filter } = request;
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
    let plan = exec_plan(&process, &spec, &user, &facts)?;
    let (args, env) = strings(&process)?;
    let kinds = differing_namespaces(target_pid)?;
    let target_root = if has_new_mount_namespace(&spec) {
        None
    } else {
        let root = rorqual_sys::mount::handle(format!("/proc/{target_pid}/root").as_ref());
        Some(root.map_err(os("open the root of the container"))?)
    };
    let prepared = Prepared {
        plan,
        sources: Vec::new(),
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
    if let Err(error) = child.negotiate(&prepared, None, false) {
        child.destroy();
        return Err(error);
    }
    Ok(Executed { pid: child.pid, pidfd: child.pidfd, terminal: child.terminal })
}

/// Takes the mount of an overlay root out of what init was given.
fn take_overlay(prepared: Prepared) -> Option<OwnedFd> {
    let Prepared { plan, sources, .. } = prepared;
    let is_overlay = |plan: &SourcePlan| matches!(plan, SourcePlan::Rootfs(RootfsPlan::Overlay(_)));
    let at = plan.sources.iter().position(is_overlay)?;
    sources.into_iter().nth(at).flatten()
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
        wait: bool,
    ) -> Result<(), Error> {
        if prepared.plan.create.contains(Namespaces::USER) {
            let (uids, gids) = maps.ok_or_else(|| {
                Error::InvalidSpec("a new user namespace needs uidMappings and gidMappings".into())
            })?;
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
                Report::SourceDue(index) => {
                    let plan = prepared.plan.sources.get(index as usize);
                    let plan = plan.ok_or_else(|| failed("init wants what is not there".into()))?;
                    let tree = Report::Mounted(sources::open_late(plan)?);
                    channel::send_report(self.socket.as_fd(), &tree)
                        .map_err(os("talk to the container's init"))?;
                }
                Report::Ready if wait => return Ok(()),
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
        kill_and_reap(&self.pidfd);
    }
}

fn failed(message: String) -> Error {
    Error::Init { message, failure: StartFailure::Other }
}

fn kill_and_reap(pidfd: &OwnedFd) {
    // It may have ended by itself, and somebody else may have reaped it.
    let _ = process::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
    let _ = process::wait_pidfd(pidfd.as_fd());
}

/// Passes the barrier and waits for the program to run or fail.
pub(crate) fn start(socket: &OwnedFd, pidfd: &OwnedFd) -> Result<(), Error> {
    let result = channel::send_order(socket.as_fd(), Order::Start)
        .map_err(os("talk to the container's init"))
        .and_then(|()| await_launch(socket));
    if result.is_err() {
        kill_and_reap(pidfd);
    }
    result
}

/// Waits until the channel closes by `execve(2)`.
pub(crate) fn await_launch(socket: &OwnedFd) -> Result<(), Error> {
    let mut launching = false;
    loop {
        let report = channel::receive_report(socket.as_fd())
            .map_err(os("hear from the container's init"))?;
        match report {
            Report::Failed { failure, message } => return Err(Error::Init { message, failure }),
            Report::Launching => launching = true,
            Report::Closed if launching => return Ok(()),
            Report::Closed => return Err(failed("init ended before its program".to_owned())),
            _ => {}
        }
    }
}

/// Clones the child, through an intermediate process where a user namespace is joined.
fn launch(prepared: &Prepared) -> Result<Child, Error> {
    let (ours, theirs) = channel::pair().map_err(os("make a socket pair"))?;
    let first = &prepared.plan.join_first;
    if first.iter().any(|(kind, _)| *kind == Namespace::User) {
        return launch_through(prepared, ours, theirs);
    }
    let own = if first.is_empty() { None } else { Some(open_own_pid_namespace()?) };
    join_first(prepared).map_err(os("join the pid namespace"))?;
    let cloned = process::clone_process(&options(prepared));
    if let Some(own) = &own
        && !matches!(cloned, Ok(Cloned::Child))
    {
        namespace::join(own.as_fd(), Namespaces::PID).map_err(os("return to the pid namespace"))?;
    }
    match cloned.map_err(os("create the container's process"))? {
        Cloned::Child => {
            drop(ours);
            init::run(prepared, theirs)
        }
        Cloned::Parent { pid, pidfd } => {
            Ok(Child { pid, pidfd, socket: ours, terminal: None, warnings: Vec::new() })
        }
    }
}

fn options(prepared: &Prepared) -> CloneOptions<'_> {
    CloneOptions {
        namespaces: prepared.plan.create,
        sibling: false,
        cgroup: prepared.cgroup.as_ref().and_then(cgroup::Group::directory),
    }
}

fn join_first(prepared: &Prepared) -> io::Result<()> {
    for (kind, SourceId(index)) in &prepared.plan.join_first {
        if let Some(Some(fd)) = prepared.sources.get(*index) {
            namespace::join(fd.as_fd(), kernel_kind(*kind))?;
        }
    }
    Ok(())
}

/// A process that enters a user namespace cannot come back, so another one does and clones in the caller's stead.
fn launch_through(prepared: &Prepared, ours: OwnedFd, theirs: OwnedFd) -> Result<Child, Error> {
    let cloned = process::clone_process(&CloneOptions::default());
    let between = match cloned.map_err(os("create an intermediate process"))? {
        Cloned::Child => {
            drop(ours);
            intermediate(prepared, theirs)
        }
        Cloned::Parent { pidfd, .. } => pidfd,
    };
    drop(theirs);
    let report = channel::receive_report(ours.as_fd()).map_err(os("hear from init"));
    let ended = process::wait_pidfd(between.as_fd());
    ended.map_err(os("wait for the intermediate process"))?;
    match report? {
        Report::Sibling(pidfd) => {
            let pid = pid_of(&pidfd).map_err(os("find out the process id of init"))?;
            Ok(Child { pid, pidfd, socket: ours, terminal: None, warnings: Vec::new() })
        }
        Report::Failed { failure, message } => Err(Error::Init { message, failure }),
        _ => Err(failed("the intermediate process ended early".to_owned())),
    }
}

fn intermediate(prepared: &Prepared, socket: OwnedFd) -> ! {
    let options = CloneOptions { sibling: true, ..options(prepared) };
    let cloned = join_first(prepared).and_then(|()| process::clone_process(&options));
    let report = match cloned {
        Ok(Cloned::Child) => init::run(prepared, socket),
        Ok(Cloned::Parent { pidfd, .. }) => Report::Sibling(pidfd),
        Err(error) => Report::Failed {
            failure: StartFailure::Other,
            message: format!("cannot join namespaces: {}", crate::text::reason(&error)),
        },
    };
    // The parent sees the end of the conversation if this fails.
    let _ = channel::send_report(socket.as_fd(), &report);
    process::exit_now(0)
}

fn pid_of(pidfd: &OwnedFd) -> io::Result<i32> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    info.lines()
        .find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok())
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn open_own_pid_namespace() -> Result<OwnedFd, Error> {
    rustix::fs::open("/proc/self/ns/pid", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| os("open the own pid namespace")(error.into()))
}

/// Compares the target's namespaces with the caller's: joining one's own is refused for some kinds.
fn differing_namespaces(pid: i32) -> Result<Namespaces, Error> {
    const KINDS: [(&str, Namespaces); 8] = [
        ("user", Namespaces::USER),
        ("mnt", Namespaces::MOUNT),
        ("pid", Namespaces::PID),
        ("net", Namespaces::NETWORK),
        ("ipc", Namespaces::IPC),
        ("uts", Namespaces::UTS),
        ("cgroup", Namespaces::CGROUP),
        ("time", Namespaces::TIME),
    ];
    let mut different = Namespaces::empty();
    for (name, kind) in KINDS {
        let identity = |path: String| -> Option<(u64, u64)> {
            let stat = rustix::fs::stat(path.as_str()).ok()?;
            Some((stat.st_dev, stat.st_ino))
        };
        let Some(own) = identity(format!("/proc/self/ns/{name}")) else { continue };
        let theirs = identity(format!("/proc/{pid}/ns/{name}")).ok_or_else(|| {
            failed(format!("cannot exec in a stopped container: no process {pid}"))
        })?;
        if own != theirs {
            different = different.with(kind);
        }
    }
    Ok(different)
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
