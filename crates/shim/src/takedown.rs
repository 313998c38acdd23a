//! Ending what a dead shim left behind, and dropping records.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rorqual_core::ContainerId;
use rorqual_sys::poll::{Interest, Poller};
use rorqual_sys::seqpacket;

use crate::record::{ExitRecord, SOCKET, ShimDirectory};
use crate::running::{assumed_exit, blocking, io_refused};
use crate::shims::nobody_listens;
use crate::task::{Exit, TaskId};
use crate::{Error, cgroups};

/// LIMIT: how long killed processes may take to die before we go on without them.
const DYING: Duration = Duration::from_secs(10);

/// Finds the exit of a task whose shim is gone: its record, or an assumed one after killing what is left. Blocks.
pub(crate) fn after_lost_shim(
    run_dir: &Path,
    container: ContainerId,
    task: TaskId,
    init: Option<BorrowedFd<'_>>,
) -> Exit {
    let directory = ShimDirectory::open(run_dir, container).ok().flatten();
    if let Some(record) = directory.as_ref().and_then(|d| d.exit().ok().flatten())
        && record.task == task
    {
        return record.exit;
    }
    let record = directory.as_ref().and_then(|d| d.task().ok().flatten());
    let cgroup = record.as_ref().map_or("", |record| record.cgroup.as_str());
    let oom_killed = cgroups::oom_killed(cgroup);
    cgroups::kill(cgroup);
    if let Some(init) = init {
        let _ = rorqual_sys::pidfd::send_signal(init, libc::SIGKILL);
        wait_for_death(init);
    }
    cgroups::remove(cgroup);
    let exit = Exit { oom_killed, ..assumed_exit() };
    if let Some(directory) = directory
        && let Err(error) = directory.write_exit(&ExitRecord { task, exit })
    {
        tracing::warn!(%container, %error, "cannot write down the end of a container");
    }
    exit
}

/// Takes down a launch that never answered: the shim first, then whatever it had made. Blocks.
pub(crate) fn after_lost_launch(
    run_dir: &Path,
    container: ContainerId,
    shim: Option<&OwnedFd>,
    cgroup: Option<&Path>,
) {
    if let Some(shim) = shim {
        let _ = rorqual_sys::pidfd::send_signal(shim.as_fd(), libc::SIGKILL);
        wait_for_death(shim.as_fd());
    }
    if let Some(cgroup) = cgroup.and_then(Path::to_str) {
        cgroups::remove_at(cgroup);
    }
    let remove = || match ShimDirectory::open(run_dir, container)? {
        Some(directory) => directory.remove(),
        None => Ok(()),
    };
    if let Err(error) = remove() {
        tracing::warn!(%container, %error, "cannot remove the records of a failed launch");
    }
}

/// Tells whether a process has ended, reaped or not.
pub(crate) fn has_ended(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold anything.
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    matches!(state, None | Some('Z' | 'X'))
}

/// Kills the shim of a container, whatever it is doing; the container's init goes with it. Blocks.
pub(crate) fn put_down(run_dir: &Path, container: ContainerId) -> io::Result<()> {
    let Some(directory) = ShimDirectory::open(run_dir, container)? else { return Ok(()) };
    // Whoever made the socket listens at it: a shim that hangs accepts nobody, but the kernel knows it all the same.
    let socket = match seqpacket::connect(directory.fd(), SOCKET) {
        Err(error) if nobody_listens(&error) => return Ok(()),
        other => other?,
    };
    let shim = rustix::net::sockopt::socket_peercred(&socket)?.pid;
    let shim = rorqual_sys::process::pidfd_open(shim.as_raw_nonzero().get())?;
    tracing::warn!(%container, "its shim does not answer and is killed");
    rorqual_sys::pidfd::send_signal(shim.as_fd(), libc::SIGKILL)?;
    wait_for_death(shim.as_fd());
    Ok(())
}

fn wait_for_death(pidfd: BorrowedFd<'_>) {
    let wait = || -> io::Result<()> {
        let poller = Poller::new()?;
        poller.add(pidfd, 0, Interest::READ)?;
        poller.wait(&mut Vec::new(), Some(DYING))
    };
    if let Err(error) = wait() {
        tracing::warn!(%error, "cannot wait for a killed container");
    }
}

/// Removes a container's shim directory.
pub(crate) async fn forget(run_dir: &Path, container: ContainerId) -> Result<(), Error> {
    let run_dir = run_dir.to_owned();
    blocking(move || {
        let remove = || match ShimDirectory::open(&run_dir, container)? {
            Some(directory) => directory.remove(),
            None => Ok(()),
        };
        remove().map_err(|error| io_refused("remove the container's records", &error))
    })
    .await
}
