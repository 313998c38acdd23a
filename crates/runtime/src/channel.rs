//! The conversation between parent and child: one packet per message over a socket pair.
//!
//! Its end is a message, too: the child's descriptor closes by itself when `execve(2)` succeeds.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use crate::StartFailure;

/// LIMIT: longer messages are cut; texts of errors are far shorter.
const MAX_MESSAGE: usize = 8192;

/// What the child tells.
#[derive(Debug)]
pub(crate) enum Report {
    /// A step failed; the child is gone after this.
    Failed { failure: StartFailure, message: String },
    /// Something was left out.
    Warning(String),
    /// The pseudo terminal's master.
    Terminal(OwnedFd),
    /// Hooks of the runtime are due.
    HooksDue,
    /// Network devices are due.
    DevicesDue,
    /// The child waits at the barrier.
    Ready,
    /// Nothing can fail any more but `execve(2)` and the filter.
    Launching,
    /// The pidfd of a sibling that an intermediate process made.
    Sibling(OwnedFd),
    /// A detached mount: from a helper process, or the parent's answer to [`Report::SourceDue`].
    Mounted(OwnedFd),
    /// The filter is installed; its listener has this number in the child.
    Listener(i32),
    /// The child wants this source now.
    SourceDue(u32),
    /// The other end is closed.
    Closed,
}

/// What the parent tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// The id maps are written.
    IdMapsWritten,
    /// The network devices are there.
    DevicesMoved,
    /// The hooks have run.
    HooksDone,
    /// The listener of the filter is with its agent.
    ListenerTaken,
    /// Pass the barrier.
    Start,
}

impl Order {
    const fn byte(self) -> u8 {
        match self {
            Self::IdMapsWritten => b'm',
            Self::DevicesMoved => b'd',
            Self::HooksDone => b'h',
            Self::ListenerTaken => b'l',
            Self::Start => b's',
        }
    }
}

/// Makes a connected pair: parent's end, child's end.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// Sends an order to the child.
pub(crate) fn send_order(socket: BorrowedFd<'_>, order: Order) -> io::Result<()> {
    rustix::net::send(socket, &[order.byte()], SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Waits for an order; false when the parent is gone.
pub(crate) fn await_order(socket: BorrowedFd<'_>, order: Order) -> io::Result<bool> {
    let mut byte = [0u8; 1];
    let (length, _) =
        rustix::io::retry_on_intr(|| rustix::net::recv(socket, &mut byte, RecvFlags::empty()))?;
    Ok(length == 1 && byte[0] == order.byte())
}

/// Sends a report to the parent.
pub(crate) fn send_report(socket: BorrowedFd<'_>, report: &Report) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(64);
    let mut fd = None;
    match report {
        Report::Failed { failure, message } => {
            bytes.extend([b'F', *failure as u8]);
            bytes.extend(message.bytes());
        }
        Report::Warning(text) => {
            bytes.push(b'W');
            bytes.extend(text.bytes());
        }
        Report::Terminal(master) => {
            bytes.push(b'T');
            fd = Some(master.as_fd());
        }
        Report::Sibling(pidfd) => {
            bytes.push(b'P');
            fd = Some(pidfd.as_fd());
        }
        Report::Mounted(tree) => {
            bytes.push(b'M');
            fd = Some(tree.as_fd());
        }
        Report::SourceDue(index) => {
            bytes.push(b'S');
            bytes.extend(index.to_le_bytes());
        }
        Report::Listener(number) => {
            // ORDER: by write(2), the one call that no filter may hand to an agent, who does not have the listener yet.
            let [a, b, c, d] = number.to_le_bytes();
            rustix::io::write(socket, &[b'L', a, b, c, d])?;
            return Ok(());
        }
        Report::HooksDue => bytes.push(b'H'),
        Report::DevicesDue => bytes.push(b'D'),
        Report::Ready => bytes.push(b'R'),
        Report::Launching => bytes.push(b'X'),
        Report::Closed => return Ok(()),
    }
    bytes.truncate(MAX_MESSAGE);
    let Some(fd) = fd else {
        rustix::net::send(socket, &bytes, SendFlags::NOSIGNAL)?;
        return Ok(());
    };
    let fds = [fd];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    let data = [io::IoSlice::new(&bytes)];
    rustix::net::sendmsg(socket, &data, &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Waits for the child's next report.
pub(crate) fn receive_report(socket: BorrowedFd<'_>) -> io::Result<Report> {
    let mut bytes = [0u8; MAX_MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        let mut data = [io::IoSliceMut::new(&mut bytes)];
        rustix::net::recvmsg(socket, &mut data, &mut control, RecvFlags::CMSG_CLOEXEC)
    });
    let length = match received {
        Ok(message) => message.bytes,
        // The child ended with something of ours unread.
        Err(rustix::io::Errno::CONNRESET) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut fd = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            fd = fds.into_iter().next().or(fd);
        }
    }
    parse_report(&bytes[..length], fd).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn parse_report(bytes: &[u8], fd: Option<OwnedFd>) -> Option<Report> {
    let Some((kind, rest)) = bytes.split_first() else { return Some(Report::Closed) };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some(match kind {
        b'F' => {
            let (failure, message) = rest.split_first()?;
            let failure = match failure {
                0 => StartFailure::NotFound,
                1 => StartFailure::NotExecutable,
                2 => StartFailure::NoSuchUser,
                _ => StartFailure::Other,
            };
            Report::Failed { failure, message: text(message) }
        }
        b'W' => Report::Warning(text(rest)),
        b'T' => Report::Terminal(fd?),
        b'P' => Report::Sibling(fd?),
        b'M' => Report::Mounted(fd?),
        b'S' => Report::SourceDue(u32::from_le_bytes(rest.try_into().ok()?)),
        b'L' => Report::Listener(i32::from_le_bytes(rest.try_into().ok()?)),
        b'H' => Report::HooksDue,
        b'D' => Report::DevicesDue,
        b'R' => Report::Ready,
        b'X' => Report::Launching,
        _ => return None,
    })
}
