//! Standard streams: the caller's, given descriptors, or a pseudo terminal of the container's own `devpts`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rorqual_sys::mount;
use rustix::fs::{FileType, Gid, Mode, OFlags, Uid};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::{Init, StepError, Tried};
use crate::channel::Report;
use crate::request::Stdio;

impl Init<'_> {
    /// Opens a pseudo terminal, hands the master to the parent and keeps the slave.
    pub(super) fn make_terminal(
        &mut self,
        console: bool,
        size: (u16, u16),
    ) -> Result<(), StepError> {
        let master = self.open_ptmx()?;
        rustix::pty::unlockpt(&master).tried(|| "cannot unlock the terminal".into())?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        // The slave comes from the master, not from a path that the image could have prepared.
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)
            .tried(|| "cannot open the terminal".into())?;
        let asked = match &self.prepared.stdio {
            Stdio::Terminal { size } if *size != (0, 0) => *size,
            _ => size,
        };
        if asked != (0, 0) {
            let size = Winsize { ws_col: asked.0, ws_row: asked.1, ws_xpixel: 0, ws_ypixel: 0 };
            rustix::termios::tcsetwinsize(&master, size)
                .tried(|| "cannot set the terminal's size".into())?;
        }
        if console {
            let target = self
                .root()?
                .file(Path::new("/dev/console"))
                .tried(|| "cannot create /dev/console".into())?;
            super::mounts::refuse_proc(target.as_fd(), Path::new("/dev/console"))?;
            let bind = mount::clone_tree_fd(slave.as_fd(), false)
                .tried(|| "cannot bind the terminal".into())?;
            mount::attach(bind.as_fd(), target.as_fd())
                .tried(|| "cannot mount the terminal on /dev/console".into())?;
        }
        self.tell(&Report::Terminal(master))?;
        self.terminal = Some(slave);
        Ok(())
    }

    fn open_ptmx(&self) -> Result<OwnedFd, StepError> {
        const DEVPTS_MAGIC: i64 = 0x1cd1;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let path = Path::new("/dev/pts/ptmx");
        let master = match &self.root {
            Some(root) => root.open_without_links(path, flags),
            None => {
                rustix::fs::open(path, flags | OFlags::NOFOLLOW, Mode::empty()).map_err(Into::into)
            }
        };
        let master = master.tried(|| "cannot open /dev/pts/ptmx of the container".into())?;
        let magic = mount::file_system_magic(master.as_fd())
            .tried(|| "cannot examine /dev/pts/ptmx".into())?;
        if magic == DEVPTS_MAGIC {
            Ok(master)
        } else {
            Err(StepError::new("/dev/pts of the container is not a devpts file system"))
        }
    }

    /// Puts the streams on descriptors 0, 1 and 2.
    pub(super) fn connect_stdio(&mut self) -> Result<(), StepError> {
        if let Some(slave) = self.terminal.take() {
            let fd = slave.as_fd();
            rustix::fs::fchown(fd, Some(Uid::from_raw(self.identity.uid)), None)
                .tried(|| "cannot give the terminal to the user".into())?;
            rustix::process::ioctl_tiocsctty(fd)
                .tried(|| "cannot make the terminal the controlling one".into())?;
            return connect([fd, fd, fd]);
        }
        if let Stdio::Pipes([input, output, error]) = &self.prepared.stdio {
            // Moved out of the way first: one of them may sit on another one's final number.
            let up = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, 3);
            let moved = [up(input), up(output), up(error)];
            let [Ok(input), Ok(output), Ok(error)] = moved else {
                return Err(StepError::new("cannot connect standard streams"));
            };
            connect([input.as_fd(), output.as_fd(), error.as_fd()])?;
        }
        self.own_stdio();
        Ok(())
    }

    /// Gives pipes and files to the user, so that reopening `/dev/stdout` works; devices stay as they are.
    fn own_stdio(&self) {
        let uid = self.identity.uid;
        for fd in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
            let Ok(stat) = rustix::fs::fstat(fd) else { continue };
            let device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
            let null = device && stat.st_rdev == rustix::fs::makedev(1, 3);
            if stat.st_uid != uid && !null {
                // Read-only file systems and foreign owners refuse; the stream works without.
                let _ = rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), None::<Gid>);
            }
        }
    }
}

fn connect([input, output, error]: [BorrowedFd<'_>; 3]) -> Result<(), StepError> {
    let what = || "cannot connect standard streams".to_owned();
    rustix::stdio::dup2_stdin(input).tried(what)?;
    rustix::stdio::dup2_stdout(output).tried(what)?;
    rustix::stdio::dup2_stderr(error).tried(what)
}
