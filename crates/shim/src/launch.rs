//! The daemon's side of the launcher: starts it, starts it again when it died, and asks it for shims.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rorqual_core::ErrorKind;
use rorqual_sys::rlimit::{self, Rlimit};
use rorqual_sys::seqpacket;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use crate::connection::watched;
use crate::sealed::SealedBinary;
use crate::{Error, launcher};

/// LIMIT: how long the launcher may leave its socket full.
const PATIENCE: Duration = Duration::from_secs(10);

/// LIMIT: descriptors that containers leave for everything else: requests, networks, removals.
const SPARE: u64 = 32;

/// A launcher that is there whenever it is needed.
#[derive(Debug)]
pub struct Launcher {
    binary: SealedBinary,
    run_dir: PathBuf,
    /// The limit of open files that containers start from, while ours is as high as it can be.
    descriptors: Rlimit,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    socket: AsyncFd<OwnedFd>,
    // Dropped children are reaped by tokio.
    child: Child,
}

fn unreachable(source: impl Into<rorqual_core::BoxError>) -> Error {
    Error::Unreachable { who: "launcher", source: source.into() }
}

impl Launcher {
    /// Seals `binary` and starts the launcher from it.
    pub(crate) async fn start(binary: &Path, run_dir: &Path) -> Result<Self, Error> {
        let binary = SealedBinary::new(binary, &run_dir.join("empty")).map_err(unreachable)?;
        let descriptors = raise_descriptors().map_err(unreachable)?;
        let running = Mutex::default();
        let launcher = Self { binary, run_dir: run_dir.to_owned(), descriptors, running };
        *launcher.running.lock().await = Some(launcher.spawn().map_err(unreachable)?);
        Ok(launcher)
    }

    fn spawn(&self) -> io::Result<Running> {
        let (ours, theirs) = seqpacket::pair()?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        let child = Command::new(self.binary.path())
            .arg0(OsStr::new("rorqual"))
            .arg(launcher::ROLE)
            .arg(&self.run_dir)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()?;
        if let Some(pid) = child.id() {
            rlimit::set_of(pid as i32, libc::RLIMIT_NOFILE, self.descriptors)?;
        }
        Ok(Running { socket: watched(ours)?, child })
    }

    /// Returns the launcher's process id, when it runs.
    pub async fn pid(&self) -> Option<u32> {
        self.running.lock().await.as_ref().and_then(|running| running.child.id())
    }

    /// Asks for a new shim that serves `connection`.
    ///
    /// A launcher that died is replaced; that it cannot fork shows as the end of the connection.
    pub(crate) async fn fork_shim(&self, connection: OwnedFd) -> Result<(), Error> {
        let mut slot = self.running.lock().await;
        let attempt = async {
            if let Some(running) = slot.as_mut() {
                match running.ask(&connection).await {
                    Ok(()) => return Ok(()),
                    Err(error) => tracing::warn!(%error, "the launcher died, starting another"),
                }
            }
            let fresh = slot.insert(self.spawn()?);
            fresh.ask(&connection).await
        };
        match tokio::time::timeout(PATIENCE, attempt).await {
            Ok(asked) => asked.map_err(unreachable),
            Err(_) => Err(unreachable("it does not take requests")),
        }
    }
}

/// Lets this process open as many files as it may, because every container takes some; returns the limit as it was.
fn raise_descriptors() -> io::Result<Rlimit> {
    let before = rlimit::get(libc::RLIMIT_NOFILE)?;
    rlimit::set(libc::RLIMIT_NOFILE, Rlimit { soft: before.hard, hard: before.hard })?;
    Ok(before)
}

/// Refuses a container when so few descriptors would be left that others could not be stopped and removed any more.
pub(crate) fn check_descriptors(newest: &OwnedFd) -> Result<(), Error> {
    let limit = rlimit::get(libc::RLIMIT_NOFILE).map_err(unreachable)?.soft;
    // Numbers are given from the lowest on, so the newest says how many there are.
    if newest.as_raw_fd() as u64 + SPARE.min(limit / 4) < limit {
        return Ok(());
    }
    let message = format!(
        "cannot start another container: the daemon's limit of {limit} open files is nearly reached; raise it \
         (LimitNOFILE of its service, or ulimit -n)"
    );
    Err(Error::Refused { message, kind: ErrorKind::Unavailable })
}

impl Running {
    async fn ask(&mut self, connection: &OwnedFd) -> io::Result<()> {
        if self.child.try_wait()?.is_some() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let send = |fd: &OwnedFd| seqpacket::send(fd.as_fd(), b"f", &[connection.as_fd()]);
        self.socket.async_io(Interest::WRITABLE, send).await
    }
}
