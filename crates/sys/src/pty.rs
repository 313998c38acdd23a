//! Pseudo terminals, see `pty(7)`.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

/// Both ends of a pseudo terminal.
#[derive(Debug)]
pub struct Pty {
    /// The controlling end.
    pub master: OwnedFd,
    /// The end that programs use as their terminal.
    pub peer: OwnedFd,
}

/// Makes a pseudo terminal in the `devpts` instance mounted at `devpts`.
///
/// The peer is opened through the master (`TIOCGPTPEER`), so nothing a container puts in the way can replace it.
pub fn open(devpts: BorrowedFd<'_>) -> io::Result<Pty> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let master = rustix::fs::openat(devpts, "ptmx", flags, Mode::empty())?;
    rustix::pty::unlockpt(&master)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let peer = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    Ok(Pty { master, peer })
}

/// Tells either end how many columns and rows there are; programs in the foreground get `SIGWINCH`.
pub fn set_size(terminal: BorrowedFd<'_>, (columns, rows): (u16, u16)) -> io::Result<()> {
    let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}

/// Returns columns and rows.
pub fn size(terminal: BorrowedFd<'_>) -> io::Result<(u16, u16)> {
    let size = rustix::termios::tcgetwinsize(terminal)?;
    Ok((size.ws_col, size.ws_row))
}

/// Makes the peer the controlling terminal of the calling session leader.
pub fn make_controlling(peer: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::process::ioctl_tiocsctty(peer)?)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn what_is_written_to_the_master_is_read_from_the_peer() {
        let devpts = File::open("/dev/pts").unwrap();
        let pty = open(devpts.as_fd()).unwrap();
        set_size(pty.master.as_fd(), (81, 25)).unwrap();
        assert_eq!(size(pty.peer.as_fd()).unwrap(), (81, 25));

        let (mut master, mut peer) = (File::from(pty.master), File::from(pty.peer));
        master.write_all(b"line\n").unwrap();
        let mut line = [0; 5];
        peer.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"line\n");
    }
}
