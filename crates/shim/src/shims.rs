//! [`Tasks`] over launcher and shims.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use oci_spec::runtime::LinuxSeccomp;
use rorqual_core::{ContainerId, ErrorKind};
use rorqual_sys::seqpacket;

use crate::connection::{Connection, End, unreachable};
use crate::filters::Filters;
use crate::launch::{Launcher, check_descriptors};
use crate::record::{SOCKET, ShimDirectory, shims_dir};
use crate::running::{RunningTask, blocking, io_refused, refused, wanted};
use crate::task::{Adoption, Launch, Task, Tasks};
use crate::wire::{Answer, Call, LaunchDocument, Outgoing, Request, start_failure};
use crate::{Error, reaper, takedown};

/// LIMIT: how often, and how soon, a sweep that failed is tried again; the daemon's start waits for it.
const SWEEPS: u32 = 5;
const BETWEEN_SWEEPS: std::time::Duration = std::time::Duration::from_millis(50);

/// How to start [`Shims`].
#[derive(Clone, Debug)]
pub struct ShimsOptions {
    /// Where shims keep their sockets and records; on tmpfs, private to root.
    pub run_dir: PathBuf,
    /// The program that has the launcher's role; `None`: the one that runs now.
    pub binary: Option<PathBuf>,
}

/// Tasks in shims of their own.
#[derive(Debug)]
pub struct Shims {
    run_dir: PathBuf,
    launcher: Launcher,
    filters: Filters,
    /// Containers whose launch is under way: nobody else may touch their directories.
    launching: Mutex<HashSet<ContainerId>>,
}

impl Shims {
    /// Makes the run directory and starts the launcher.
    pub async fn start(options: ShimsOptions) -> Result<Arc<Self>, Error> {
        let run_dir = options.run_dir;
        make_private(&shims_dir(&run_dir))
            .map_err(|error| io_refused("make the shims' directory", &error))?;
        let binary = match options.binary {
            Some(binary) => binary,
            None => std::env::current_exe()
                .map_err(|error| io_refused("find our own binary", &error))?,
        };
        let launcher = Launcher::start(&binary, &run_dir).await?;
        reaper::reap_if_first();
        let filters = Filters::default();
        Ok(Arc::new(Self { run_dir, launcher, filters, launching: Mutex::default() }))
    }

    /// Returns the launcher.
    pub fn launcher(&self) -> &Launcher {
        &self.launcher
    }

    fn claim(&self, container: ContainerId) -> Result<Claim<'_>, Error> {
        let mut launching = self.launching.lock().unwrap_or_else(PoisonError::into_inner);
        if !launching.insert(container) {
            let message = "the container is being started already".to_owned();
            return Err(Error::Refused { message, kind: ErrorKind::Conflict });
        }
        Ok(Claim { shims: self, container })
    }

    /// Connects to the shim of a container; `None` when there is none.
    async fn connect(&self, container: ContainerId) -> Result<Option<RunningTask>, Error> {
        let run_dir = self.run_dir.clone();
        let socket = blocking(move || {
            let connect = || match ShimDirectory::open(&run_dir, container)? {
                Some(directory) => match seqpacket::connect(directory.fd(), SOCKET) {
                    Err(error) if nobody_listens(&error) => Ok(None),
                    other => other.map(Some),
                },
                None => Ok(None),
            };
            connect().map_err(unreachable)
        })
        .await?;
        let Some(socket) = socket else { return Ok(None) };
        let connection = Connection::new(socket).map_err(unreachable)?;
        match connection.ask(Request::Hello, Vec::new()).await {
            Ok(answered) => match (answered.answer, answered.descriptor) {
                (Answer::Running(running), Some(pidfd)) => {
                    let run_dir = self.run_dir.clone();
                    Ok(Some(RunningTask::new(container, run_dir, connection, running, pidfd)))
                }
                _ => Err(unreachable("it answered something else")),
            },
            // It was just about to end.
            Err(error) if connection.end_now() == End::Lost || hung_up(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Compiles the filter of a launch, or puts it into the specification.
    fn filter(&self, launch: &mut Launch) -> Result<Option<String>, Error> {
        let Some(profile) = &launch.seccomp else { return Ok(None) };
        let filter = self.filters.compiled(profile).map_err(|error| start_failure(&error))?;
        if filter.is_none()
            && let Some(linux) = launch.spec.linux_mut()
        {
            linux.set_seccomp(Some(LinuxSeccomp::clone(profile)));
        }
        Ok(filter)
    }

    async fn launch_claimed(&self, mut launch: Launch) -> Result<RunningTask, Error> {
        let container = launch.container;
        let filter = self.filter(&mut launch)?;
        let (document, descriptors) = take_apart(launch, filter);
        let cgroup = document.spec.linux().as_ref().and_then(|linux| linux.cgroups_path().clone());
        let call = Call { number: 0, request: Request::Launch(Box::new(document)) };
        let packet = Outgoing::in_file(&call).map_err(unreachable)?;
        drop(call);
        let mut again = true;
        loop {
            let (ours, theirs) = seqpacket::pair().map_err(unreachable)?;
            check_descriptors(&theirs)?;
            self.launcher.fork_shim(theirs).await?;
            let mut unfinished = Unfinished {
                run_dir: self.run_dir.clone(),
                container,
                cgroup: cgroup.clone(),
                connection: Some(Connection::new(ours).map_err(unreachable)?),
            };
            let Some(connection) = &unfinished.connection else { continue };
            let answered = connection.requests_ref().exchange(0, &packet, &descriptors).await;
            if answered.as_ref().is_err_and(hung_up) {
                // What was sent to us before is read first; then it is known whether there was a shim.
                connection.end().await;
            }
            match answered {
                Ok(answered) => {
                    let (answer, pidfd) = (answered.answer, answered.descriptor);
                    let (Answer::Running(running), Some(pidfd)) = (answer, pidfd) else {
                        return Err(unreachable("it answered something else"));
                    };
                    let Some(connection) = unfinished.connection.take() else { continue };
                    connection.forget_shim();
                    let run_dir = self.run_dir.clone();
                    return Ok(RunningTask::new(container, run_dir, connection, running, pidfd));
                }
                // The launcher died before it forked: nothing has happened yet.
                Err(Error::Unreachable { .. })
                    if again && connection.end_now() == End::Lost && !connection.had_shim() =>
                {
                    again = false;
                    unfinished.connection = None;
                }
                Err(error) => {
                    if !matches!(error, Error::Unreachable { .. }) {
                        // The shim has cleaned up itself.
                        unfinished.connection = None;
                    }
                    return Err(error);
                }
            }
        }
    }
}

/// A launch that is not through; takes down what there is of it when it is dropped.
struct Unfinished {
    run_dir: PathBuf,
    container: ContainerId,
    cgroup: Option<PathBuf>,
    /// `None` once nothing is to be taken down any more.
    connection: Option<Connection>,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        let (run_dir, container, cgroup) =
            (self.run_dir.clone(), self.container, self.cgroup.take());
        tracing::warn!(%container, "a launch did not come to its end, taking it down");
        let work = move |connection: Connection| {
            let shim = connection.take_shim();
            takedown::after_lost_launch(&run_dir, container, shim.as_ref(), cgroup.as_deref());
        };
        // A thread, because this may be dropped while the runtime shuts down; without one it is done on the spot.
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name("takedown".to_owned()).spawn({
            let work = work.clone();
            move || receiver.recv().map(work)
        });
        match thread {
            Ok(_) => drop(sender.send(connection)),
            Err(_) => work(connection),
        }
    }
}

/// Ends the exclusive right to a container's directory.
struct Claim<'s> {
    shims: &'s Shims,
    container: ContainerId,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut launching = self.shims.launching.lock().unwrap_or_else(PoisonError::into_inner);
        launching.remove(&self.container);
    }
}

/// Tells whether a request found the other end closed, which is noticed when sending before it is noticed when reading.
fn hung_up(error: &Error) -> bool {
    let Error::Unreachable { source, .. } = error else { return false };
    let error = source.downcast_ref::<io::Error>();
    error.is_some_and(|error| {
        matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
    })
}

pub(crate) fn nobody_listens(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
}

fn make_private(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700))
}

fn take_apart(launch: Launch, filter: Option<String>) -> (LaunchDocument, Vec<OwnedFd>) {
    let document = LaunchDocument {
        container: launch.container,
        task: launch.task,
        spec: launch.spec,
        filter,
        rootfs: launch.rootfs,
        user: launch.user,
        groups: launch.groups,
        namespaces: launch.namespaces.iter().map(|n| n.kind.to_owned()).collect(),
        open_stdin: launch.open_stdin,
        stdin_once: launch.stdin_once,
        window: launch.window,
        log: launch.log,
        attachments: launch.attachments.iter().map(wanted).collect(),
    };
    let namespaces = launch.namespaces.into_iter().map(|namespace| namespace.fd);
    let sockets = launch.attachments.into_iter().map(|attachment| attachment.socket.into());
    (document, namespaces.chain(sockets).collect())
}

#[async_trait]
impl Tasks for Shims {
    async fn launch(&self, launch: Launch) -> Result<Arc<dyn Task>, Error> {
        let _claim = self.claim(launch.container)?;
        Ok(Arc::new(self.launch_claimed(launch).await?))
    }

    async fn adopt(&self, container: ContainerId) -> Result<Adoption, Error> {
        if let Some(task) = self.connect(container).await? {
            return Ok(Adoption::Running(Arc::new(task)));
        }
        let run_dir = self.run_dir.clone();
        blocking(move || {
            let read = || {
                let Some(directory) = ShimDirectory::open(&run_dir, container)? else {
                    return Ok(None);
                };
                Ok(Some((directory.exit()?, directory.task()?)))
            };
            let records =
                read().map_err(|error: io::Error| io_refused("read the exit record", &error))?;
            Ok(match records {
                Some((Some(record), _)) => Adoption::Ended(record.task, record.exit),
                Some((None, Some(record))) => {
                    let exit = takedown::after_lost_shim(&run_dir, container, record.task, None);
                    Adoption::Ended(record.task, exit)
                }
                Some((None, None)) | None => Adoption::Unknown,
            })
        })
        .await
    }

    async fn put_down(&self, container: ContainerId, init: Option<i32>) -> Result<(), Error> {
        let run_dir = self.run_dir.clone();
        let work = move || match init {
            Some(init) if !takedown::has_ended(init) => Ok(()),
            _ => takedown::put_down(&run_dir, container).map_err(unreachable),
        };
        blocking(work).await
    }

    async fn forget(&self, container: ContainerId) -> Result<(), Error> {
        takedown::forget(&self.run_dir, container).await
    }

    async fn sweep(&self, known: &[ContainerId]) -> Result<Vec<ContainerId>, Error> {
        let known: HashSet<_> = known.iter().copied().collect();
        let directory = shims_dir(&self.run_dir);
        let found = blocking(move || {
            let list = || -> io::Result<Vec<ContainerId>> {
                let mut found = Vec::new();
                for entry in std::fs::read_dir(directory)? {
                    let name = entry?.file_name();
                    found.extend(name.to_str().and_then(|name| name.parse::<ContainerId>().ok()));
                }
                Ok(found)
            };
            list().map_err(|error| io_refused("list shims", &error))
        })
        .await?;
        let mut swept = Vec::new();
        for container in found.into_iter().filter(|container| !known.contains(container)) {
            let Ok(_claim) = self.claim(container) else { continue };
            match self.sweep_stubborn(container).await {
                Ok(()) => swept.push(container),
                // The others must not stay because of one.
                Err(error) => {
                    tracing::warn!(%container, error = rorqual_core::full_message(&error), "cannot sweep");
                }
            }
        }
        Ok(swept)
    }
}

impl Shims {
    /// Sweeps; more than once, because a shim that is just being born may put files where others are removed.
    async fn sweep_stubborn(&self, container: ContainerId) -> Result<(), Error> {
        let mut result = self.sweep_one(container).await;
        for _ in 0..SWEEPS {
            if result.is_ok() {
                break;
            }
            tokio::time::sleep(BETWEEN_SWEEPS).await;
            result = self.sweep_one(container).await;
        }
        result
    }

    async fn sweep_one(&self, container: ContainerId) -> Result<(), Error> {
        if let Adoption::Running(task) = self.adopt(container).await? {
            task.signal(rorqual_core::Signal::KILL, crate::task::KillReach::All)
                .await
                .or_else(|error| if matches!(error, Error::Ended) { Ok(()) } else { Err(error) })?;
            let ended = tokio::time::timeout(std::time::Duration::from_secs(10), task.exit());
            ended.await.map_err(|_| refused("a swept container does not die".to_owned()))?;
            return task.release().await;
        }
        self.forget(container).await
    }
}
