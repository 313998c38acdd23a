//! The launcher: a fork server that turns each connection it is handed into a shim.
//!
//! It executed once, from a sealed view of the binary, and never executes again; the shims it forks share its pages.
//! It reads nothing but descriptors: requests go to the shims directly. It ends when the daemon does; shims do not.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rorqual_sys::fork::{Forked, ensure_single_thread, fork};
use rorqual_sys::poll::{Interest, Poller, Signals};
use rorqual_sys::seqpacket;
use rustix::process::{WaitOptions, wait};

use crate::server;

/// The argument that makes the binary a launcher.
pub const ROLE: &str = "launcher";

const SIGNALS: u64 = 0;
const DAEMON: u64 = 1;

/// Runs the launcher's role: standard input is the socket to the daemon, the only argument the run directory.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let Some(run_dir) = args.into_iter().next().map(PathBuf::from) else {
        return ExitCode::from(2);
    };
    match serve(&run_dir) {
        Ok(code) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

/// What the loop ended with.
enum Next {
    Shim(OwnedFd),
    End,
}

fn serve(run_dir: &Path) -> io::Result<ExitCode> {
    ensure_single_thread()?;
    let daemon = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?;
    // The inherited standard streams belong to the daemon; a shim must not keep them open.
    let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    drop(null);
    std::env::set_current_dir("/")?;
    rustix::thread::set_name(c"rq-launcher")?;
    // Orphans of a killed shim come here and are reaped here.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    // Shims inherit what was found; a host without control groups shows when a container starts.
    let _ = rorqual_sys::cgroup::Layout::current();
    let signals = Signals::block(&[libc::SIGCHLD])?;
    let poller = Poller::new()?;
    poller.add(signals.as_fd(), SIGNALS, Interest::READ)?;
    poller.add(daemon.as_fd(), DAEMON, Interest::READ)?;
    match run(&poller, &signals, &daemon)? {
        Next::End => Ok(ExitCode::SUCCESS),
        Next::Shim(connection) => {
            drop((poller, daemon, signals));
            Ok(server::main(connection, run_dir))
        }
    }
}

/// Serves until the daemon goes away; returns a second time in every shim.
fn run(poller: &Poller, signals: &Signals, daemon: &OwnedFd) -> io::Result<Next> {
    let mut ready = Vec::new();
    loop {
        poller.wait(&mut ready, None)?;
        for event in &ready {
            if event.token == SIGNALS {
                while signals.take()?.is_some() {}
                reap();
                continue;
            }
            // LIMIT: a request is one byte and one descriptor.
            match seqpacket::receive(daemon.as_fd(), 16) {
                Ok(None) => return Ok(Next::End),
                Ok(Some(mut packet)) => {
                    let Some(connection) = packet.descriptors.pop() else { continue };
                    // A failed fork closes the connection, which is the answer.
                    if let Ok(Forked::Child) = fork() {
                        return Ok(Next::Shim(connection));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn reap() {
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
}
