//! Cloning the child: into namespaces that exist already, and through a process in between where that takes one.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rorqual_sys::namespace::{self, Namespaces};
use rorqual_sys::process::{self, CloneOptions, Cloned};
use rustix::fs::{Mode, OFlags};

use super::{Child, failed, os};
use crate::channel::{self, Report};
use crate::init::{self, Prepared};
use crate::plan::{SourceId, kernel_kind};
use crate::request::Namespace;
use crate::{Error, StartFailure, cgroup, users};

/// Clones the child, through an intermediate process where a user namespace is joined.
pub(super) fn launch(prepared: &Prepared) -> Result<Child, Error> {
    if let Some(root) = prepared.plan.users.as_ref().and_then(users::root_of) {
        users::give_pipes(&prepared.stdio, root);
    }
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
        quiet: false,
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
    // ORDER: init may speak before the intermediate process does, so each has a channel of its own.
    let (hear, tell) = channel::pair().map_err(os("make a socket pair"))?;
    let cloned = process::clone_process(&CloneOptions::default());
    let between = match cloned.map_err(os("create an intermediate process"))? {
        Cloned::Child => {
            drop((ours, hear));
            intermediate(prepared, theirs, tell)
        }
        Cloned::Parent { pidfd, .. } => pidfd,
    };
    drop((theirs, tell));
    let report =
        channel::receive_report(hear.as_fd()).map_err(os("hear from the intermediate process"));
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

fn intermediate(prepared: &Prepared, socket: OwnedFd, tell: OwnedFd) -> ! {
    let options = CloneOptions { sibling: true, ..options(prepared) };
    // ORDER: while this process has the host's rights; the child inherits.
    users::raise(&prepared.plan.steps, None);
    let cloned = join_first(prepared).and_then(|()| process::clone_process(&options));
    let report = match cloned {
        Ok(Cloned::Child) => {
            drop(tell);
            init::run(prepared, socket)
        }
        Ok(Cloned::Parent { pidfd, .. }) => Report::Sibling(pidfd),
        Err(error) => Report::Failed {
            failure: StartFailure::Other,
            message: format!("cannot join namespaces: {}", crate::text::reason(&error)),
        },
    };
    // The parent sees the end of the conversation if this fails.
    let _ = channel::send_report(tell.as_fd(), &report);
    process::exit_now(0)
}

fn pid_of(pidfd: &OwnedFd) -> io::Result<i32> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    info.lines()
        .find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok())
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

pub(super) fn open_own_pid_namespace() -> Result<OwnedFd, Error> {
    rustix::fs::open("/proc/self/ns/pid", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| os("open the own pid namespace")(error.into()))
}

/// Compares the target's namespaces with the caller's: joining one's own is refused for some kinds.
pub(super) fn differing_namespaces(pid: i32) -> Result<Namespaces, Error> {
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
