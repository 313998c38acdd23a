//! `create`, `run`, `start`, `kill`, `delete`.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::ArgMatches;
use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType, Spec};
use rorqual_core::mount::RootfsPlan;
use rorqual_core::{Signal, Timestamp};
use rorqual_sys::process;

use super::state::{
    Claim, Container, ReadSpec, Record, Status, process_stat, read_spec, write_pid_file,
};
use super::{Context, Failure, Outcome, console, seal, text};
use crate::create::{self, Extras};
use crate::hooks::{self, HookSet};
use crate::init::Gate;
use crate::listener::Agent;
use crate::request::{Barrier, ContainerRequest, Created, ProcessUser, Stdio};

/// LIMIT: how long the kernel may take to end a process that was killed.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn create(context: &Context, matches: &ArgMatches) -> Outcome {
    seal::ensure()?;
    let (claim, _, _) = make(context, matches, true, true)
        .map_err(|failure| prefixed("runc create failed", &failure))?;
    claim.keep();
    Ok(0)
}

pub(super) fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    seal::ensure()?;
    let detach = matches.get_flag("detach");
    let foreground = if detach { None } else { Some(console::Foreground::prepare()?) };
    if !detach && !matches.get_flag("no-subreaper") {
        process::become_subreaper()
            .map_err(|error| Failure::io("cannot become subreaper", &error))?;
    }
    let (claim, created, spec) = make(context, matches, false, detach)
        .map_err(|failure| prefixed("runc run failed", &failure))?;
    let id = text(matches, "id").to_owned();
    claim.started();
    claim.keep();
    let container = context.store.load(&id)?;
    poststart(context, &container, &spec);
    let Some(foreground) = foreground else { return Ok(0) };
    let code = foreground.attend(&created.pidfd, created.terminal.as_ref())?;
    if !matches.get_flag("keep") {
        destroy(context, &container)?;
    }
    Ok(code)
}

fn prefixed(prefix: &str, failure: &Failure) -> Failure {
    Failure { message: format!("{prefix}: {}", failure.message), code: failure.code }
}

/// Creates a container: waiting for `start`, or running at once.
fn make(
    context: &Context,
    matches: &ArgMatches,
    wait: bool,
    detached: bool,
) -> Result<(Claim, Created, Spec), Failure> {
    let id = text(matches, "id").to_owned();
    let bundle = bundle(matches)?;
    let ReadSpec { spec, bytes, warnings } = read_spec(&bundle.join("config.json"))?;
    context.log.warnings(&warnings);
    let rootfs = rootfs(&spec, &bundle)?;
    let console_socket = matches.get_one::<PathBuf>("console-socket");
    let terminal = spec.process().as_ref().and_then(oci_spec::runtime::Process::terminal);
    let terminal = terminal == Some(true);
    console::check(terminal, detached, console_socket)?;
    let claim = context.store.claim(&id)?;
    let gate = if wait {
        let listener = claim.listen();
        Gate::Listener(listener.map_err(|error| Failure::io("cannot make start socket", &error))?)
    } else {
        Gate::Parent
    };
    let extras = Extras {
        gate,
        keep_keyring: matches.get_flag("no-new-keyring"),
        no_pivot: matches.get_flag("no-pivot"),
        preserve_fds: preserve_fds(matches),
        outlives_parent: true,
        late_binds: true,
        cgroup: context.cgroup,
        observer: context.observer(),
    };
    let record = new_record(&id, &bundle, &rootfs, &spec);
    let stdio = if terminal { Stdio::Terminal { size: (0, 0) } } else { Stdio::Inherit };
    let request = ContainerRequest {
        id,
        bundle,
        spec: spec.clone(),
        rootfs: RootfsPlan::Directory { path: rootfs },
        joined: Vec::new(),
        stdio,
        user: ProcessUser::Spec,
        barrier: if wait { Barrier::Wait } else { Barrier::Pass },
        filter: None,
    };
    let before = mounts_at(&record.rootfs);
    let mut created = create::create(request, extras).map_err(|error| {
        if mounts_at(&record.rootfs) > before {
            release_root(&spec, &record.rootfs);
        }
        start_failure(error)
    })?;
    let finished = finish(context, matches, &claim, (record, &bytes), &mut created, console_socket);
    if let Err(failure) = finished {
        abandon(&created);
        return Err(failure);
    }
    Ok((claim, created, spec))
}

fn start_failure(error: crate::Error) -> Failure {
    let inner = matches!(error, crate::Error::Init { .. });
    let failure = Failure::from(error);
    if inner { prefixed("unable to start container process", &failure) } else { failure }
}

#[expect(clippy::too_many_arguments, reason = "the last part of make, split for length")]
fn finish(
    context: &Context,
    matches: &ArgMatches,
    claim: &Claim,
    (mut record, config): (Record, &[u8]),
    created: &mut Created,
    console_socket: Option<&PathBuf>,
) -> Result<(), Failure> {
    context.log.warnings(&created.warnings);
    if let Some(socket) = console_socket
        && let Some(master) = created.terminal.take()
    {
        console::send(socket, &master)?;
    }
    record.pid = created.pid;
    record.start_time = process_stat(created.pid).map_or(0, |(_, start)| start);
    record.cgroup.clone_from(&created.cgroup);
    record.class.clone_from(&created.class);
    claim.save(&record, config).map_err(|error| Failure::io("cannot save the state", &error))?;
    if let Some(path) = matches.get_one::<PathBuf>("pid-file") {
        write_pid_file(path, created.pid)?;
    }
    Ok(())
}

fn abandon(created: &Created) {
    // The failure that led here is the one to report.
    let _ = process::pidfd_send_signal(created.pidfd.as_fd(), libc::SIGKILL);
    let _ = process::wait_pidfd(created.pidfd.as_fd());
    if let Ok(group) = crate::cgroup::open(&created.cgroup) {
        group.remove();
    }
    if let Some(class) = &created.class {
        class.undo();
    }
}

fn new_record(id: &str, bundle: &Path, rootfs: &Path, spec: &Spec) -> Record {
    Record {
        version: spec.version().clone(),
        id: id.to_owned(),
        pid: 0,
        start_time: 0,
        bundle: bundle.to_owned(),
        rootfs: rootfs.to_owned(),
        created: Timestamp::from(SystemTime::now()).to_string(),
        owner: if rustix::process::getuid().is_root() { "root".into() } else { String::new() },
        cgroup: String::new(),
        class: None,
        annotations: spec.annotations().clone().unwrap_or_default().into_iter().collect(),
    }
}

fn bundle(matches: &ArgMatches) -> Result<PathBuf, Failure> {
    let path = matches.get_one::<PathBuf>("bundle").cloned().unwrap_or_else(|| ".".into());
    std::fs::canonicalize(&path)
        .map_err(|error| Failure::io(&format!("cannot open bundle {path:?}"), &error))
}

fn rootfs(spec: &Spec, bundle: &Path) -> Result<PathBuf, Failure> {
    let Some(root) = spec.root().as_ref() else {
        return Err(Failure::new("root must be specified"));
    };
    let path = bundle.join(root.path());
    std::fs::canonicalize(&path)
        .map_err(|error| Failure::io(&format!("invalid rootfs {path:?}"), &error))
}

pub(super) fn preserve_fds(matches: &ArgMatches) -> u32 {
    // COMPAT: descriptors of socket activation come first and are always handed on.
    let listen = std::env::var("LISTEN_FDS").ok().and_then(|text| text.parse::<u32>().ok());
    let listen = listen.filter(|count| *count < 1024).unwrap_or(0);
    listen + matches.get_one::<u32>("preserve-fds").copied().unwrap_or(0)
}

pub(super) fn start(context: &Context, matches: &ArgMatches) -> Outcome {
    let container = context.store.load(text(matches, "id"))?;
    match container.status() {
        Status::Created => {}
        Status::Stopped => return Err(Failure::new("cannot start a container that has stopped")),
        Status::Running | Status::Paused => {
            return Err(Failure::new("cannot start an already running container"));
        }
    }
    let spec = container.spec()?;
    let socket = container.connect().map_err(|error| Failure::io("cannot reach init", &error))?;
    let Some(init) = container.init() else {
        return Err(Failure::new("cannot start a container that has stopped"));
    };
    let record = &container.record;
    let set = HookSet::new(&record.id, record.bundle.clone(), &spec);
    let agent = Agent::new(&spec, set.document("created", record.pid));
    create::start(&socket, (record.pid, init.as_fd()), agent.as_ref()).map_err(start_failure)?;
    container.started();
    poststart(context, &container, &spec);
    Ok(0)
}

fn poststart(context: &Context, container: &Container, spec: &Spec) {
    let record = &container.record;
    let set = HookSet::new(&record.id, record.bundle.clone(), spec);
    // The specification wants failures of these hooks logged and nothing more.
    let state = set.state("running", record.pid);
    context.log.warnings(&hooks::run_all("poststart", &set.poststart, &state));
}

pub(super) fn kill(context: &Context, matches: &ArgMatches) -> Outcome {
    let signal = text(matches, "signal");
    let signal: Signal =
        signal.parse().map_err(|_| Failure::new(format!("unknown signal {signal:?}")))?;
    let container = context.store.load(text(matches, "id"))?;
    let number = signal.number();
    if matches.get_flag("all") {
        for pid in container.processes()? {
            if let Ok(pidfd) = process::pidfd_open(pid) {
                // It may have ended meanwhile.
                let _ = process::pidfd_send_signal(pidfd.as_fd(), number);
            }
        }
        return Ok(0);
    }
    let Some(init) = container.init() else { return Err(Failure::new("container not running")) };
    process::pidfd_send_signal(init.as_fd(), number)
        .map_err(|error| Failure::io("cannot signal init", &error))?;
    if number == libc::SIGKILL {
        // A frozen process dies only once it is thawed.
        if let Ok(group) = container.cgroup()
            && group.is_frozen().unwrap_or(false)
        {
            group.thaw()?;
        }
    }
    Ok(0)
}

pub(super) fn delete(context: &Context, matches: &ArgMatches) -> Outcome {
    let id = text(matches, "id");
    let force = matches.get_flag("force");
    let container = match context.store.load(id) {
        Ok(container) => container,
        Err(failure) if failure.message == "container does not exist" => {
            context.store.forget(id)?;
            return if force { Ok(0) } else { Err(failure) };
        }
        Err(failure) => return Err(failure),
    };
    let mut status = container.status();
    if !force && status == Status::Running {
        // A signal that was sent just before takes a moment to end it.
        container.await_end(Duration::from_millis(100));
        status = container.status();
    }
    if !force && !matches!(status, Status::Stopped | Status::Created) {
        return Err(Failure::new(format!(
            "cannot delete container {id} that is not stopped: {}",
            status.name()
        )));
    }
    destroy(context, &container)?;
    Ok(0)
}

/// Counts the mounts on top of each other at a path.
fn mounts_at(path: &Path) -> usize {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().filter(|line| line.split(' ').nth(4).map(Path::new) == Some(path)).count()
}

/// Unmounts the root file system of a container that had the caller's mount namespace for its own.
fn release_root(spec: &Spec, rootfs: &Path) {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    let mount = |namespace: &LinuxNamespace| namespace.typ() == LinuxNamespaceType::Mount;
    if !namespaces.is_some_and(|list| list.iter().any(mount)) {
        // It may not have come to be mounted.
        let _ = rorqual_sys::mount::detach(rootfs);
    }
}

/// Ends what still runs and removes all traces.
fn destroy(context: &Context, container: &Container) -> Result<(), Failure> {
    let record = &container.record;
    if let Some(init) = container.init() {
        let _ = process::pidfd_send_signal(init.as_fd(), libc::SIGKILL);
    }
    match container.cgroup() {
        _ if record.cgroup.is_empty() => container.await_end(PATIENCE),
        Ok(group) => {
            group.kill_all()?;
            group.delete()?;
        }
        // Gone already, by reboot or by hand.
        Err(failure) => context.log.warning(&failure.message),
    }
    if let Some(class) = &record.class {
        class.remove()?;
    }
    if let Ok(spec) = container.spec() {
        release_root(&spec, &record.rootfs);
        let set = HookSet::new(&record.id, record.bundle.clone(), &spec);
        let state = set.state("stopped", 0);
        context.log.warnings(&hooks::run_all("poststop", &set.poststop, &state));
    }
    context.store.forget(&record.id)
}
