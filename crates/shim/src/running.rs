//! [`Task`] and [`Exec`] over a connection to a shim.
//!
//! What needs no shim is done here: signals go through the pidfd the shim sent, and limits, freezing and counters
//! through the control group. So a shim stays small and a stuck one hangs nobody.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use oci_spec::runtime::LinuxResources;
use rorqual_core::{ContainerId, ErrorKind, ExecId, Signal, Timestamp};
use tokio::sync::{OnceCell, watch};

use crate::connection::{Connection, End, unreachable, wait_for_end};
use crate::task::{
    Attachment, Exec, ExecLaunch, Exit, KillReach, ProcessTable, Stats, Task, TaskId, WindowSize,
};
use crate::wire::{Answer, ExecDocument, Request, Running, Wanted};
use crate::{Error, cgroups, ps, takedown};

/// A container whose shim we are connected to.
pub(crate) struct RunningTask {
    container: ContainerId,
    run_dir: PathBuf,
    connection: Connection,
    pidfd: Arc<OwnedFd>,
    running: Running,
    exit: OnceCell<Exit>,
}

pub(crate) fn wanted(attachment: &Attachment) -> Wanted {
    Wanted { stdin: attachment.stdin, stdout: attachment.stdout, stderr: attachment.stderr }
}

/// Runs what blocks on a thread for such things.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|error| refused(error.to_string()))?
}

pub(crate) fn refused(message: String) -> Error {
    Error::Refused { message, kind: ErrorKind::Internal }
}

impl RunningTask {
    /// Makes it from what the shim answered to a launch or a greeting.
    pub(crate) fn new(
        container: ContainerId,
        run_dir: PathBuf,
        connection: Connection,
        running: Running,
        pidfd: OwnedFd,
    ) -> Self {
        if let Some(exit) = running.exit {
            connection.note_end(exit);
        }
        let pidfd = Arc::new(pidfd);
        Self { container, run_dir, connection, pidfd, running, exit: OnceCell::new() }
    }

    async fn ask(&self, request: Request, descriptors: Vec<OwnedFd>) -> Result<Answer, Error> {
        self.ask_full(request, descriptors).await.map(|(answer, _)| answer)
    }

    async fn ask_full(
        &self,
        request: Request,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(Answer, Option<OwnedFd>), Error> {
        if self.connection.end_now() == End::Lost {
            return Err(Error::Ended);
        }
        let answered = self.connection.ask(request, descriptors).await?;
        Ok((answered.answer, answered.descriptor))
    }

    fn running(&self) -> Result<(), Error> {
        if self.connection.end_now() == End::NotYet { Ok(()) } else { Err(Error::Ended) }
    }

    async fn in_cgroup<T: Send + 'static>(
        &self,
        work: impl FnOnce(&str) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.running()?;
        let cgroup = self.running.cgroup.clone();
        blocking(move || work(&cgroup)).await
    }

    async fn find_end(&self) -> Exit {
        if let End::Told(exit) = self.connection.end().await {
            return exit;
        }
        // The shim is gone without a word.
        let (run_dir, container, pidfd) =
            (self.run_dir.clone(), self.container, Arc::clone(&self.pidfd));
        let task = self.running.task;
        let taken = tokio::task::spawn_blocking(move || {
            takedown::after_lost_shim(&run_dir, container, task, Some(pidfd.as_fd()))
        });
        taken.await.unwrap_or_else(|_| assumed_exit())
    }
}

/// What is said of a container whose end nobody saw.
pub(crate) fn assumed_exit() -> Exit {
    Exit { code: 137, oom_killed: false, at: SystemTime::now().into(), witnessed: false }
}

/// Sends a signal through a pidfd.
pub(crate) fn send_signal(pidfd: &OwnedFd, signal: Signal) -> Result<(), Error> {
    match rorqual_sys::pidfd::send_signal(pidfd.as_fd(), signal.number()) {
        Ok(()) => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Err(Error::Ended),
        Err(error) => Err(refused(format!("cannot send {signal}: {error}"))),
    }
}

#[async_trait]
impl Task for RunningTask {
    fn id(&self) -> TaskId {
        self.running.task
    }

    fn pid(&self) -> i32 {
        self.running.pid
    }

    fn started_at(&self) -> Timestamp {
        self.running.started_at
    }

    fn warnings(&self) -> Vec<String> {
        self.running.warnings.clone()
    }

    async fn exit(&self) -> Exit {
        *self.exit.get_or_init(|| self.find_end()).await
    }

    async fn out_of_memory(&self) {
        if let Err(error) = cgroups::next_oom(&self.running.cgroup).await {
            tracing::debug!(%error, "cannot watch for lack of memory");
            std::future::pending::<()>().await;
        }
    }

    async fn release(&self) -> Result<(), Error> {
        match self.connection.end_now() {
            End::Told(_) => match self.ask(Request::Release, Vec::new()).await {
                Ok(_) => Ok(()),
                // The shim went first; its record is ours to drop.
                Err(Error::Unreachable { .. } | Error::Ended) => {
                    takedown::forget(&self.run_dir, self.container).await
                }
                Err(error) => Err(error),
            },
            End::Lost => takedown::forget(&self.run_dir, self.container).await,
            End::NotYet => Err(Error::Refused {
                message: "the task still runs".to_owned(),
                kind: ErrorKind::Conflict,
            }),
        }
    }

    async fn signal(&self, signal: Signal, reach: KillReach) -> Result<(), Error> {
        self.running()?;
        match reach {
            KillReach::Init => send_signal(&self.pidfd, signal),
            KillReach::All => {
                let sent = self.in_cgroup(move |cgroup| cgroups::signal_all(cgroup, signal)).await;
                match sent {
                    // Out of descriptors, say. With init gone the shim kills the rest itself.
                    Err(Error::Refused { .. }) if signal == Signal::KILL => {
                        send_signal(&self.pidfd, signal)
                    }
                    sent => sent,
                }
            }
        }
    }

    async fn pause(&self) -> Result<(), Error> {
        self.in_cgroup(cgroups::freeze).await
    }

    async fn unpause(&self) -> Result<(), Error> {
        self.in_cgroup(cgroups::thaw).await
    }

    async fn resize(&self, window: WindowSize) -> Result<(), Error> {
        self.ask(Request::Resize { exec: None, window }, Vec::new()).await.map(drop)
    }

    async fn attach(&self, attachment: Attachment) -> Result<(), Error> {
        let request = Request::Attach(wanted(&attachment));
        self.ask(request, vec![attachment.socket.into()]).await.map(drop)
    }

    async fn update(&self, resources: LinuxResources) -> Result<(), Error> {
        self.in_cgroup(move |cgroup| cgroups::update(cgroup, &resources)).await
    }

    async fn stats(&self) -> Result<Stats, Error> {
        let pid = self.running.pid;
        self.in_cgroup(move |cgroup| cgroups::stats(cgroup, pid)).await
    }

    async fn processes(&self, ps_args: &str) -> Result<ProcessTable, Error> {
        let format = ps::Format::parse(ps_args)?;
        self.in_cgroup(move |cgroup| Ok(ps::table(&format, &cgroups::processes(cgroup)?))).await
    }

    async fn exec(&self, launch: ExecLaunch) -> Result<Arc<dyn Exec>, Error> {
        self.running()?;
        let id = launch.id;
        let document = ExecDocument {
            id,
            process: launch.process,
            user: launch.user,
            groups: launch.groups,
            window: launch.window,
            attachment: launch.attachment.as_ref().map(wanted),
        };
        let sockets = launch.attachment.into_iter().map(|a| a.socket.into()).collect();
        let end = self.connection.watch_exec(id);
        match self.ask_full(Request::Exec(Box::new(document)), sockets).await {
            Ok((Answer::Exec { pid, .. }, Some(pidfd))) => {
                Ok(self.exec_handle(id, pid, Some(pidfd), end))
            }
            Ok(_) => Err(unreachable("it answered something else")),
            Err(error) => {
                self.connection.unwatch_exec(id);
                Err(error)
            }
        }
    }

    async fn find_exec(&self, id: ExecId) -> Result<Arc<dyn Exec>, Error> {
        let end = self.connection.watch_exec(id);
        match self.ask_full(Request::FindExec(id), Vec::new()).await {
            Ok((Answer::Exec { pid, exit: None }, pidfd)) => {
                Ok(self.exec_handle(id, pid, pidfd, end))
            }
            Ok((Answer::Exec { pid, exit: Some(exit) }, _)) => {
                self.connection.unwatch_exec(id);
                let (_, told) = watch::channel(End::Told(exit));
                Ok(self.exec_handle(id, pid, None, told))
            }
            Ok(_) => Err(unreachable("it answered something else")),
            Err(error) => {
                self.connection.unwatch_exec(id);
                Err(error)
            }
        }
    }
}

impl RunningTask {
    fn exec_handle(
        &self,
        id: ExecId,
        pid: i32,
        pidfd: Option<OwnedFd>,
        end: watch::Receiver<End>,
    ) -> Arc<dyn Exec> {
        let requests = self.connection.requests();
        Arc::new(RunningExec { id, pid, pidfd, end, requests })
    }
}

/// An extra process of a container.
struct RunningExec {
    id: ExecId,
    pid: i32,
    pidfd: Option<OwnedFd>,
    end: watch::Receiver<End>,
    requests: crate::connection::Requests,
}

#[async_trait]
impl Exec for RunningExec {
    fn pid(&self) -> i32 {
        self.pid
    }

    async fn exit(&self) -> Exit {
        match wait_for_end(self.end.clone()).await {
            End::Told(exit) => exit,
            // The container went down with its shim, and the exec with it.
            End::NotYet | End::Lost => assumed_exit(),
        }
    }

    async fn resize(&self, window: WindowSize) -> Result<(), Error> {
        self.requests
            .ask(Request::Resize { exec: Some(self.id), window }, Vec::new())
            .await
            .map(drop)
    }

    async fn signal(&self, signal: Signal) -> Result<(), Error> {
        send_signal(self.pidfd.as_ref().ok_or(Error::Ended)?, signal)
    }
}

/// The words for an I/O failure on the way.
pub(crate) fn io_refused(action: &str, error: &io::Error) -> Error {
    refused(format!("cannot {action}: {error}"))
}
