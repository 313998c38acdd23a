//! Terminals of the command line: handing the master to a console socket, or relaying it to the caller's own terminal.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rorqual_sys::poll::Signals;
use rorqual_sys::process::{self, Ended};
use rustix::event::{PollFd, PollFlags};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};
use rustix::termios::{OptionalActions, Termios};

use super::Failure;

/// Refuses combinations of terminal and console socket that cannot work.
pub(super) fn check(
    terminal: bool,
    detached: bool,
    socket: Option<&PathBuf>,
) -> Result<(), Failure> {
    match (terminal, detached, socket) {
        (true, true, None) => Err(Failure::new(
            "cannot allocate tty if runc will detach without setting console socket",
        )),
        (false, _, Some(_)) | (true, false, Some(_)) => {
            Err(Failure::new("cannot use console socket if runc will not detach or allocate tty"))
        }
        _ => Ok(()),
    }
}

/// Sends the master of a terminal to whoever listens.
pub(super) fn send(socket: &Path, master: &OwnedFd) -> Result<(), Failure> {
    let deliver = || -> io::Result<()> {
        let stream = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        rustix::net::connect(&stream, &SocketAddrUnix::new(socket)?)?;
        let fds = [master.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&fds));
        let data = [io::IoSlice::new(b"/dev/ptmx")];
        rustix::net::sendmsg(&stream, &data, &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    };
    deliver().map_err(|error| Failure::io(&format!("cannot use console socket {socket:?}"), &error))
}

/// Signals that mean this process, not the container.
const OWN: [i32; 3] = [libc::SIGCHLD, libc::SIGPIPE, libc::SIGURG];

/// A command that stays until its process has ended.
pub(super) struct Foreground {
    signals: Signals,
}

impl Foreground {
    /// Holds back signals from now on, so that none is lost between the start and the waiting.
    pub(super) fn prepare() -> Result<Self, Failure> {
        let wanted: Vec<i32> = (1..=31)
            .filter(|n| !matches!(*n, libc::SIGKILL | libc::SIGSTOP))
            .filter(|n| !matches!(*n, libc::SIGSEGV | libc::SIGBUS | libc::SIGILL | libc::SIGFPE))
            .filter(|n| !OWN.contains(n))
            .collect();
        let signals = Signals::block(&wanted)
            .map_err(|error| Failure::io("cannot receive signals", &error))?;
        Ok(Self { signals })
    }

    /// Forwards signals and terminal until the process has ended; returns its exit code.
    pub(super) fn attend(self, pidfd: &OwnedFd, terminal: Option<&OwnedFd>) -> Result<u8, Failure> {
        let failed = |error: io::Error| Failure::io("cannot wait for the container", &error);
        let raw = terminal.map(|master| RawTerminal::enter(master.as_fd()));
        let ended = self.relay(pidfd, terminal).map_err(failed)?;
        drop(raw);
        Ok(ended.code() as u8)
    }

    fn relay(&self, pidfd: &OwnedFd, master: Option<&OwnedFd>) -> io::Result<Ended> {
        let mut input_open = true;
        loop {
            let mut fds =
                vec![PollFd::new(pidfd, PollFlags::IN), PollFd::new(&self.signals, PollFlags::IN)];
            let stdin = rustix::stdio::stdin();
            if let Some(master) = master {
                fds.push(PollFd::new(master, PollFlags::IN));
                if input_open {
                    fds.push(PollFd::from_borrowed_fd(stdin, PollFlags::IN));
                }
            }
            rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, None))?;
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            if let Some(master) = master {
                if ready.get(3) == Some(&true) {
                    input_open = copy(stdin, master.as_fd());
                }
                if ready[2] {
                    copy(master.as_fd(), rustix::stdio::stdout());
                }
            }
            if ready[1] {
                self.forward(pidfd, master)?;
            }
            if ready[0] {
                if let Some(master) = master {
                    drain(master.as_fd());
                }
                return process::wait_pidfd(pidfd.as_fd());
            }
        }
    }

    fn forward(&self, pidfd: &OwnedFd, master: Option<&OwnedFd>) -> io::Result<()> {
        while let Some(signal) = self.signals.take()? {
            match master {
                Some(master) if signal == libc::SIGWINCH => copy_size(master.as_fd()),
                // It may have ended meanwhile.
                _ => drop(process::pidfd_send_signal(pidfd.as_fd(), signal)),
            }
        }
        Ok(())
    }
}

/// Copies what is there; false at the end.
fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
    let mut buffer = [0u8; 4096];
    let Ok(length) = rustix::io::retry_on_intr(|| rustix::io::read(from, &mut buffer)) else {
        return false;
    };
    let mut rest = &buffer[..length];
    while !rest.is_empty() {
        match rustix::io::retry_on_intr(|| rustix::io::write(to, rest)) {
            Ok(written) => rest = &rest[written..],
            Err(_) => return false,
        }
    }
    length > 0
}

/// Shows what the process wrote before it ended.
fn drain(master: BorrowedFd<'_>) {
    let nothing = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    loop {
        let mut fds = [PollFd::from_borrowed_fd(master, PollFlags::IN)];
        match rustix::event::poll(&mut fds, Some(&nothing)) {
            Ok(1) if fds[0].revents().contains(PollFlags::IN) => {
                if !copy(master, rustix::stdio::stdout()) {
                    return;
                }
            }
            _ => return,
        }
    }
}

fn copy_size(master: BorrowedFd<'_>) {
    // Without a terminal of our own the size stays what it is.
    if let Ok(size) = rustix::termios::tcgetwinsize(rustix::stdio::stdin()) {
        let _ = rustix::termios::tcsetwinsize(master, size);
    }
}

/// The caller's terminal in raw mode, until dropped.
struct RawTerminal(Option<Termios>);

impl RawTerminal {
    fn enter(master: BorrowedFd<'_>) -> Self {
        let stdin = rustix::stdio::stdin();
        copy_size(master);
        let Ok(before) = rustix::termios::tcgetattr(stdin) else { return Self(None) };
        let mut raw = before.clone();
        raw.make_raw();
        let _ = rustix::termios::tcsetattr(stdin, OptionalActions::Now, &raw);
        Self(Some(before))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let stdin = rustix::stdio::stdin();
            let _ = rustix::termios::tcsetattr(stdin, OptionalActions::Now, before);
        }
    }
}
