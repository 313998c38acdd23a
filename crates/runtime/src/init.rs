//! The child between `clone3(2)` and its program: carries out a plan, step by step.
//!
//! Single-threaded, a copy of the parent. Everything it says goes through the channel; it never logs and never returns.

mod devices;
mod identity;
mod mounts;
mod program;
mod terminal;

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, IntoRawFd as _, OwnedFd};
use std::path::PathBuf;

use rorqual_sys::capability::Capabilities;
use rorqual_sys::{capability, namespace, process, rlimit};
use rustix::fs::{Mode, OFlags};

use crate::cgroup::Group;
use crate::channel::{self, Order, Report};
use crate::hooks::{self, HookSet};
use crate::inroot::InRoot;
use crate::passwd::Identity;
use crate::plan::{HookPoint, InitPlan, SourceId, Step, kernel_kind};
use crate::request::Stdio;
use crate::seccomp::Filter;
use crate::sources::{self, Opening};
use crate::text::reason;
use crate::{Error, StartFailure};

/// Everything the child needs, made before the clone.
pub(crate) struct Prepared {
    pub plan: InitPlan,
    pub sources: Vec<Option<OwnedFd>>,
    pub args: Vec<CString>,
    pub env: Vec<CString>,
    pub stdio: Stdio,
    /// Who opens the sources that are not open.
    pub opening: Opening,
    pub gate: Gate,
    pub hooks: HookSet,
    /// Pidfd of the container's init, for an exec.
    pub target: Option<OwnedFd>,
    /// Root of the container's init, where that is not the root of its mount namespace.
    pub target_root: Option<OwnedFd>,
    /// Namespaces of the target that differ from the caller's.
    pub target_kinds: namespace::Namespaces,
    pub filter: Option<Filter>,
    pub cgroup: Option<Group>,
}

/// What opens the barrier.
#[derive(Debug)]
pub(crate) enum Gate {
    /// The parent, over the channel.
    Parent,
    /// Whoever connects to this socket; the connection takes the channel's place.
    Listener(OwnedFd),
}

/// Why a step could not be done.
#[derive(Debug)]
pub(crate) struct StepError {
    pub failure: StartFailure,
    pub message: String,
}

impl StepError {
    fn new(message: impl Into<String>) -> Self {
        Self { failure: StartFailure::Other, message: message.into() }
    }
}

/// Adds what was tried to an error of the kernel.
trait Tried<T> {
    fn tried(self, action: impl FnOnce() -> String) -> Result<T, StepError>;
}

impl<T, E: Into<io::Error>> Tried<T> for Result<T, E> {
    fn tried(self, action: impl FnOnce() -> String) -> Result<T, StepError> {
        self.map_err(|error| StepError::new(format!("{}: {}", action(), reason(&error.into()))))
    }
}

/// Carries out the plan; does not return.
pub(crate) fn run(prepared: &Prepared, socket: OwnedFd) -> ! {
    process::reset_signals();
    rustix::process::umask(Mode::empty());
    let mut init = Init {
        prepared,
        socket,
        root: None,
        null: None,
        empty: None,
        terminal: None,
        labels: Vec::new(),
        identity: Identity::default(),
        home: None,
        program: None,
        host_pid: 0,
        allowed: Capabilities::default(),
    };
    let result = prepared.plan.steps.iter().try_for_each(|step| init.perform(step));
    let code = match result {
        Ok(()) => 255,
        Err(StepError { failure, message }) => {
            let report = Report::Failed { failure, message };
            // The parent may be gone; then nobody is left to tell.
            let _ = channel::send_report(init.socket.as_fd(), &report);
            failure.exit_code()
        }
    };
    process::exit_now(code)
}

/// The child's state.
struct Init<'a> {
    prepared: &'a Prepared,
    socket: OwnedFd,
    root: Option<InRoot>,
    /// The host's `/dev/null`, for masks.
    null: Option<OwnedFd>,
    /// An empty read-only directory, for masks.
    empty: Option<OwnedFd>,
    /// The slave side of the pseudo terminal.
    terminal: Option<OwnedFd>,
    /// Open label files and what to write to them.
    labels: Vec<(File, String)>,
    identity: Identity,
    home: Option<String>,
    program: Option<PathBuf>,
    host_pid: i32,
    /// The final capability sets, cut to what this process can give.
    allowed: Capabilities,
}

impl Init<'_> {
    fn perform(&mut self, step: &Step) -> Result<(), StepError> {
        match step {
            Step::Join(..)
            | Step::JoinTarget
            | Step::AwaitIdMaps
            | Step::BecomeRoot
            | Step::Unshare(_)
            | Step::TimeOffsets(_)
            | Step::EnterCgroup
            | Step::Loopback
            | Step::NetworkDevices(_)
            | Step::Sysctl { .. }
            | Step::Hostname(_)
            | Step::Domainname(_) => self.namespaces(step),
            Step::IsolateMounts
            | Step::Root { .. }
            | Step::Bind { .. }
            | Step::Mount(_)
            | Step::CgroupHierarchies { .. }
            | Step::Remount { .. }
            | Step::Reconfigure { .. }
            | Step::Propagate { .. }
            | Step::Mask(_)
            | Step::ReadOnly(_)
            | Step::RootReadOnly
            | Step::Pivot
            | Step::MoveRoot
            | Step::RootPropagation { .. } => self.mounts(step),
            Step::Device(device) => self.device(device),
            Step::Link { path, target } => self.link(path, target),
            Step::Terminal { console, size } => self.make_terminal(*console, *size),
            Step::Hooks(point) => self.hooks(*point),
            Step::Barrier => self.barrier(),
            _ => self.process(step),
        }
    }

    fn namespaces(&mut self, step: &Step) -> Result<(), StepError> {
        match step {
            Step::Join(kind, source) => namespace::join(self.source(*source)?, kernel_kind(*kind))
                .tried(|| format!("cannot join {kind:?} namespace")),
            Step::JoinTarget => self.join_target(),
            Step::AwaitIdMaps => self.await_order(Order::IdMapsWritten),
            Step::EnterCgroup => {
                let group = self.prepared.cgroup.as_ref();
                group.map_or(Ok(()), Group::enter).tried(|| "cannot enter the cgroup".into())
            }
            Step::BecomeRoot => {
                identity::become_root();
                Ok(())
            }
            Step::Unshare(kinds) => {
                namespace::unshare(*kinds).tried(|| "cannot create namespaces".into())
            }
            Step::TimeOffsets(offsets) => enter_time_namespace(offsets),
            Step::Loopback => {
                namespace::bring_up_loopback().tried(|| "cannot bring up loopback".into())
            }
            Step::NetworkDevices(_) => {
                self.tell(&Report::DevicesDue)?;
                self.await_order(Order::DevicesMoved)
            }
            Step::Sysctl { name, value } => self
                .set_sysctl(name, value)
                .tried(|| format!("cannot set sysctl {name} to {value:?}")),
            Step::Hostname(name) => rustix::system::sethostname(name.as_bytes())
                .tried(|| format!("cannot set hostname {name:?}")),
            Step::Domainname(name) => rustix::system::setdomainname(name.as_bytes())
                .tried(|| format!("cannot set domainname {name:?}")),
            _ => Ok(()),
        }
    }

    fn process(&mut self, step: &Step) -> Result<(), StepError> {
        match step {
            Step::ForbidDumping => self.forbid_dumping(),
            Step::CloseDescriptors { keep } => {
                process::close_on_exec_from(3 + keep).tried(|| "cannot close descriptors".into())
            }
            Step::NewSession => match rustix::process::setsid() {
                Ok(_) | Err(rustix::io::Errno::PERM) => Ok(()),
                Err(error) => Err(error).tried(|| "cannot start a session".into()),
            },
            Step::OpenLabels { apparmor, selinux } => {
                self.open_labels(apparmor.as_ref(), selinux.as_ref())
            }
            Step::Labels => self.write_labels(),
            Step::OomScore(score) => std::fs::write("/proc/self/oom_score_adj", score.to_string())
                .or_else(|error| self.keep_oom_score(*score, error))
                .tried(|| format!("cannot set oom_score_adj to {score}")),
            Step::Keyring => Self::keyring(),
            Step::Rlimit { resource, limit } => set_rlimit(*resource, *limit),
            Step::Umask(mask) => {
                rustix::process::umask(Mode::from_raw_mode(mask & 0o7777));
                Ok(())
            }
            Step::Stdio => self.connect_stdio(),
            Step::FindUser { .. }
            | Step::SetUser
            | Step::LimitCapabilities { .. }
            | Step::SetCapabilities(_)
            | Step::NoNewPrivileges => self.identity(step),
            Step::WorkingDirectory { path, create } => self.working_directory(path, *create),
            Step::FindProgram => self.find_program(),
            Step::DieWithParent => process::set_parent_death_signal(libc::SIGKILL)
                .tried(|| "cannot tie the process to its parent".into()),
            Step::Announce => self.tell(&Report::Launching),
            Step::Seccomp => self.install_filter(),
            Step::Execute => self.execute(),
            other => schedule(other),
        }
    }

    fn source(&self, id: SourceId) -> Result<BorrowedFd<'_>, StepError> {
        let source = self.prepared.sources.get(id.0).and_then(Option::as_ref).map(AsFd::as_fd);
        source.ok_or_else(|| StepError::new("plan refers to a source that is not open"))
    }

    /// Opens a source that is not open yet; `None` when it is.
    fn late_source(&self, id: SourceId) -> Result<Option<OwnedFd>, StepError> {
        if !matches!(self.prepared.sources.get(id.0), Some(None)) {
            return Ok(None);
        }
        if self.prepared.opening == Opening::ByChild {
            let opened = sources::open_late(&self.prepared.plan, id.0);
            return opened
                .map(Some)
                .map_err(|error| StepError::new(rorqual_core::full_message(&error)));
        }
        self.ask_for_source(id).map(Some)
    }

    /// Asks the parent for a source that it has left closed.
    fn ask_for_source(&self, id: SourceId) -> Result<OwnedFd, StepError> {
        self.tell(&Report::SourceDue(u32::try_from(id.0).unwrap_or(u32::MAX)))?;
        match channel::receive_report(self.socket.as_fd()) {
            Ok(Report::Mounted(tree)) => Ok(tree),
            // The parent is gone or gave up: so do we.
            _ => process::exit_now(255),
        }
    }

    fn root(&self) -> Result<&InRoot, StepError> {
        self.root.as_ref().ok_or_else(|| StepError::new("plan uses the root before it is there"))
    }

    fn tell(&self, report: &Report) -> Result<(), StepError> {
        channel::send_report(self.socket.as_fd(), report).tried(|| "cannot report".into())
    }

    fn await_order(&self, order: Order) -> Result<(), StepError> {
        match channel::await_order(self.socket.as_fd(), order) {
            Ok(true) => Ok(()),
            // The parent is gone or gave up: so do we.
            _ => process::exit_now(255),
        }
    }

    /// Remembers what only the host's `/proc` and `/dev` can give, and hides from the container.
    fn forbid_dumping(&mut self) -> Result<(), StepError> {
        if self.prepared.hooks.has_inner() {
            let link = std::fs::read_link("/proc/self").unwrap_or_default();
            self.host_pid = link.to_str().and_then(|pid| pid.parse().ok()).unwrap_or(0);
        }
        if self.prepared.target.is_none() {
            let null = rorqual_sys::mount::handle("/dev/null".as_ref())
                .tried(|| "cannot open /dev/null".into())?;
            self.null = Some(null);
        }
        // ORDER: from the moment of joining, processes of the container could look into this one.
        process::forbid_dumping().tried(|| "cannot forbid dumping".into())
    }

    fn join_target(&self) -> Result<(), StepError> {
        let Some(target) = &self.prepared.target else { return Ok(()) };
        if self.prepared.target_kinds.contains(namespace::Namespaces::USER) {
            // ORDER: while this process has the host's rights.
            crate::users::raise(&self.prepared.plan.steps, None);
        }
        namespace::join(target.as_fd(), self.prepared.target_kinds)
            .tried(|| "cannot join the container's namespaces".into())?;
        let Some(root) = &self.prepared.target_root else { return Ok(()) };
        let what = || "cannot enter the container's root".to_owned();
        rustix::process::fchdir(root).tried(what)?;
        rustix::process::chroot(".").tried(what)
    }

    fn keep_oom_score(&self, score: i32, error: io::Error) -> io::Result<()> {
        // COMPAT: lowering the score needs CAP_SYS_RESOURCE; Docker starts such a container all the same where the
        // daemon runs with less.
        if error.kind() == io::ErrorKind::PermissionDenied {
            let text = format!("oom_score_adj stays as it is: {score} needs CAP_SYS_RESOURCE");
            let _ = channel::send_report(self.socket.as_fd(), &Report::Warning(text));
            return Ok(());
        }
        Err(error)
    }

    fn keyring() -> Result<(), StepError> {
        match process::join_session_keyring() {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
                Ok(())
            }
            other => other.tried(|| "cannot create a session keyring".into()),
        }
    }

    fn open_labels(
        &mut self,
        apparmor: Option<&String>,
        selinux: Option<&String>,
    ) -> Result<(), StepError> {
        let candidates = [
            (apparmor, vec!["/proc/self/attr/apparmor/exec", "/proc/self/attr/exec"], "exec "),
            (selinux, vec!["/proc/self/attr/exec"], ""),
        ];
        for (label, paths, prefix) in candidates {
            let Some(label) = label else { continue };
            let open = |path: &&str| File::options().write(true).open(path).ok();
            let Some(file) = paths.iter().find_map(open) else {
                return Err(StepError::new(format!(
                    "cannot apply label {label:?}: the kernel has no such security module"
                )));
            };
            self.labels.push((file, format!("{prefix}{label}")));
        }
        Ok(())
    }

    fn write_labels(&mut self) -> Result<(), StepError> {
        use std::io::Write as _;
        for (mut file, label) in self.labels.drain(..) {
            match file.write_all(label.as_bytes()) {
                // AppArmor's answer for a name it does not know.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                    let name = label.trim_start_matches("exec ");
                    return Err(StepError::new(format!(
                        "cannot apply AppArmor profile {name:?}: no profile of that name is loaded"
                    )));
                }
                written => written.tried(|| format!("cannot apply label {label:?}"))?,
            }
        }
        Ok(())
    }

    fn hooks(&mut self, point: HookPoint) -> Result<(), StepError> {
        let set = &self.prepared.hooks;
        match point {
            HookPoint::Runtime => {
                self.tell(&Report::HooksDue)?;
                self.await_order(Order::HooksDone)
            }
            HookPoint::CreateContainer => hooks::run(
                "createContainer",
                &set.create_container,
                &set.state("creating", self.host_pid),
            )
            .map_err(StepError::new),
            HookPoint::StartContainer => hooks::run(
                "startContainer",
                &set.start_container,
                &set.state("created", self.host_pid),
            )
            .map_err(StepError::new),
        }
    }

    fn barrier(&mut self) -> Result<(), StepError> {
        self.tell(&Report::Ready)?;
        if let Gate::Listener(listener) = &self.prepared.gate {
            let accepted = rustix::io::retry_on_intr(|| {
                rustix::net::accept_with(listener, rustix::net::SocketFlags::CLOEXEC)
            });
            self.socket = accepted.tried(|| "cannot wait for the start".into())?;
        }
        self.await_order(Order::Start)
    }

    fn install_filter(&mut self) -> Result<(), StepError> {
        let Some(filter) = &self.prepared.filter else { return Ok(()) };
        let listener = filter.install().tried(|| "cannot install the seccomp filter".into())?;
        let Some(listener) = listener else { return Ok(()) };
        self.tell(&Report::Listener(listener.as_raw_fd()))?;
        // ORDER: whatever comes next may be a call that the agent has to answer for.
        self.await_order(Order::ListenerTaken)?;
        // It closes by itself when the program starts.
        let _ = listener.into_raw_fd();
        Ok(())
    }
}

fn enter_time_namespace(offsets: &str) -> Result<(), StepError> {
    use namespace::Namespaces;
    namespace::unshare(Namespaces::TIME).tried(|| "cannot create a time namespace".into())?;
    if !offsets.is_empty() {
        std::fs::write("/proc/self/timens_offsets", offsets)
            .tried(|| "cannot set time offsets".into())?;
    }
    let path = "/proc/self/ns/time_for_children";
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let own = rustix::fs::open(path, flags, Mode::empty())
        .tried(|| "cannot open the new time namespace".into())?;
    namespace::join(own.as_fd(), Namespaces::TIME)
        .tried(|| "cannot enter the new time namespace".into())
}

fn set_rlimit(resource: u32, limit: rlimit::Rlimit) -> Result<(), StepError> {
    let Err(error) = rlimit::set(resource, limit) else { return Ok(()) };
    let name = rlimit::NAMES.get(resource as usize).copied().unwrap_or("?");
    let hint = match rlimit::get(resource) {
        Ok(now) if limit.hard > now.hard => {
            format!(" (the hard limit here is {}; raising it needs CAP_SYS_RESOURCE)", now.hard)
        }
        _ => String::new(),
    };
    Err(StepError::new(format!(
        "error setting rlimit {name} to {}:{}: {}{hint}",
        limit.soft,
        limit.hard,
        reason(&error)
    )))
}

fn schedule(step: &Step) -> Result<(), StepError> {
    match step {
        Step::Scheduler(attributes) => {
            process::set_scheduler(*attributes).tried(|| "cannot set the scheduler".into())
        }
        Step::IoPriority(priority) => {
            process::set_io_priority(*priority).tried(|| "cannot set the I/O priority".into())
        }
        Step::CpuAffinity(cpus) | Step::FinalCpuAffinity(cpus) => {
            process::set_cpu_affinity(cpus).tried(|| "cannot set the CPU affinity".into())
        }
        Step::MemoryPolicy { mode, nodes } => {
            process::set_memory_policy(*mode, nodes).tried(|| "cannot set the memory policy".into())
        }
        Step::Personality(persona) => {
            process::set_personality(*persona).tried(|| "cannot set the personality".into())
        }
        other => Err(StepError::new(format!("no way to do {other:?}"))),
    }
}

impl From<StepError> for Error {
    fn from(error: StepError) -> Self {
        Self::Init { message: error.message, failure: error.failure }
    }
}

/// Reads what the current process could give at most.
fn own_capabilities() -> Result<Capabilities, StepError> {
    capability::current().tried(|| "cannot read capabilities".into())
}
